"""Verdicts: what a team decided about edges, for a person: one line a pair, and whether it still holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import REFERENCE_TYPES, UNDIRECTED, Decision, Edge, EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.link.link_state import reference_edges
from mcp_assets.sync.link.verdicts import GivenVerdict, newest_verdicts

IN_FORCE = "in force"
EVIDENCE_CHANGED = "evidence changed"
"""A rejection that no longer holds: if the rules make the edge, it is back."""
END_GONE = "an end is gone"
"""The verdict applies again if the entity comes back."""


@dataclass(frozen=True, slots=True)
class ListedVerdict:
    """A verdict about an edge. `both`: it is about both directions."""

    source: EntityRef
    target: EntityRef
    edge_type: EdgeType
    both: bool
    decision: Decision
    by: str
    at: datetime
    note: str | None
    state: str
    """IN_FORCE, EVIDENCE_CHANGED or END_GONE."""
    evidence: Mapping[str, Any]
    """Text hashes, tags or words, as they were when the verdict was given."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.decision.value,
            "source": {"entity_type": self.source.type, "entity_id": self.source.id},
            "target": {"entity_type": self.target.type, "entity_id": self.target.id},
            "type": self.edge_type.value,
            "both_directions": self.both,
            "by": self.by,
            "at": self.at.isoformat(),
            "note": self.note,
            "state": self.state,
            "evidence": self.evidence,
        }


def list_verdicts(
    platform: Platform, *, entity: EntityRef | None = None, decision: Decision | None = None, limit: int
) -> list[ListedVerdict]:
    """The newest verdicts first. `entity`: only those about its edges.

    Raises:
        StoreUnavailable.
    """
    # A verdict about an edge without a direction has two rows.
    given = newest_verdicts(platform, entity=entity, decision=decision, limit=2 * limit)
    made = _reference_edges(platform, given)
    found: dict[EdgeKey, ListedVerdict] = {}
    for one in given:
        source, target, edge_type = key = one.verdict.key
        both = edge_type in UNDIRECTED
        if both and EdgeKey(target, source, edge_type) in found:
            continue
        state = _state(one, made.get(key))
        found[key] = ListedVerdict(
            source, target, edge_type, both, one.verdict.decision, one.by, one.at, one.note, state, one.verdict.evidence
        )
    return list(found.values())[:limit]


def _state(given: GivenVerdict, made: Edge | None) -> str:
    verdict = given.verdict
    if verdict.source is None or verdict.target is None:
        return END_GONE
    if verdict.decision is Decision.ACCEPTED:
        return IN_FORCE
    if verdict.key.type in REFERENCE_TYPES:
        return IN_FORCE if made is None or verdict.rejects(made.metadata) else EVIDENCE_CHANGED
    return IN_FORCE if verdict.rejects({}) else EVIDENCE_CHANGED


def _reference_edges(platform: Platform, given: Iterable[GivenVerdict]) -> dict[EdgeKey, Edge]:
    """The edges that references make now, from the sources of rejected ones."""
    sources = {
        one.verdict.key.source
        for one in given
        if one.verdict.decision is Decision.REJECTED and one.verdict.key.type in REFERENCE_TYPES
    }
    if not sources:
        return {}
    with platform.postgres.transaction() as connection:
        return {edge.key: edge for edge in reference_edges(platform, connection, sources)}
