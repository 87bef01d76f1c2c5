"""Targets: the entities that a request names, bare ids among them, found in source tables and ledger."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import SyncTarget
from mcp_assets.platform import Platform

T = TypeVar("T")

IDS_AT_ONCE = 1_000


@dataclass(slots=True)
class NamedEntities:
    """`refs`: the entities meant, each once, in the spelling of their tables; `unknown`: what names none."""

    refs: list[EntityRef] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def find_entities(platform: Platform, targets: Sequence[SyncTarget]) -> NamedEntities:
    """An id that bears a type names that entity; a bare one names the entities of any type that have it.

    An entity is known if it has a source row, alive or not, or a ledger row.

    Raises:
        StoreUnavailable, StoreRefused: not all places could be looked at.
    """
    owners: dict[SyncTarget, list[EntityRef]] = {target: [] for target in targets}
    for entity_type in platform.settings.entity_types:
        asked = [target for target in targets if target.type in (None, entity_type)]
        for page in pages(asked, IDS_AT_ONCE):
            spelled = _spelled(platform, entity_type, [target.id for target in page])
            known = _known(platform, entity_type, list(spelled.values()))
            for target in page:
                if spelled[target.id] in known:
                    owners[target].append(EntityRef(entity_type, spelled[target.id]))
    found = NamedEntities()
    found.refs = list(dict.fromkeys(ref for refs in owners.values() for ref in refs))
    found.unknown = [
        target.id if target.type is None else f"{target.type}:{target.id}"
        for target, refs in owners.items()
        if not refs
    ]
    return found


def by_type(refs: Iterable[EntityRef]) -> dict[str, list[str]]:
    """The ids of `refs`, by type."""
    ids: dict[str, list[str]] = {}
    for ref in refs:
        ids.setdefault(ref.type, []).append(ref.id)
    return ids


def pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


def _spelled(platform: Platform, entity_type: str, ids: Sequence[str]) -> dict[str, str]:
    reader = platform.source(entity_type)
    if reader is None:
        return {entity_id: entity_id for entity_id in ids}
    with platform.postgres.transaction() as connection:
        return reader.canonical_ids(connection, ids)


def _known(platform: Platform, entity_type: str, ids: Sequence[str]) -> set[str]:
    reader = platform.source(entity_type)
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("known_in_ledger"), {"entity_type": entity_type, "ids": list(ids)}
        )
        known = {row[0] for row in rows}
        if reader is not None:
            known |= reader.read(connection, [entity_id for entity_id in ids if entity_id not in known]).keys()
    return known
