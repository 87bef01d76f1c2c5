"""Verdicts as they are stored: the table `edge_verdicts`, read for the linker and for people, with both ends as they
are now."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import Decision, EdgeKey, EdgeType, End, Verdict, Verdicts, rounded
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.link.link_state import by_type_and_id

_EDGE_TYPES = [edge_type.value for edge_type in EdgeType]
"""A newer version may have written verdicts about other types."""


@dataclass(frozen=True, slots=True)
class GivenVerdict:
    """A verdict, and who gave it."""

    verdict: Verdict
    by: str
    """The person or program that gave it."""
    at: datetime
    note: str | None
    """Why, in their words."""


def read_verdicts(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> Verdicts:
    """The verdicts about edges that have one of `refs` as an end."""
    if not refs:
        return Verdicts()
    return Verdicts(one.verdict for one in given_verdicts(platform, connection, refs))


def given_verdicts(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> list[GivenVerdict]:
    """As `read_verdicts`, with who gave them; in no order."""
    parameters = {**by_type_and_id(refs), "edge_types": _EDGE_TYPES}
    return platform.postgres.rows(connection, "read_verdicts", _given, parameters)


def newest_verdicts(
    platform: Platform, *, entity: EntityRef | None = None, decision: Decision | None = None, limit: int
) -> list[GivenVerdict]:
    """The newest verdicts first, of one direction each. `entity`: only those about its edges."""
    parameters = {
        "entity_type": entity.type if entity else None,
        "entity_id": entity.id if entity else None,
        "decision": decision.value if decision else None,
        "edge_types": _EDGE_TYPES,
        "limit": limit,
    }
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "list_verdicts", _given, parameters)


def _given(
    *,
    source_type: str,
    source_id: str,
    target_type: str,
    target_id: str,
    edge_type: str,
    decision: str,
    evidence: Mapping[str, Any],
    strength: float | None,
    metadata: Mapping[str, Any],
    source_text: str | None,
    source_tags: list[str] | None,
    target_text: str | None,
    target_tags: list[str] | None,
    decided_by: str,
    decided_at: datetime,
    note: str | None,
) -> GivenVerdict:
    """One row of the queries `read_verdicts` and `list_verdicts`."""
    verdict = Verdict(
        EdgeKey(EntityRef(source_type, source_id), EntityRef(target_type, target_id), EdgeType(edge_type)),
        Decision(decision),
        evidence,
        None if strength is None else rounded(strength),
        metadata,
        _end(source_text, source_tags),
        _end(target_text, target_tags),
    )
    return GivenVerdict(verdict, decided_by, decided_at, note)


def _end(text_hash: str | None, tags: list[str] | None) -> End | None:
    return None if text_hash is None or tags is None else End(text_hash, frozenset(tags))
