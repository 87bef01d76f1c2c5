"""Resolve ids: finds the entities that a request names, with or without a type, in source tables and ledger."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import SyncTarget
from mcp_assets.platform import Platform

T = TypeVar("T")

IDS_AT_ONCE = 1_000
"""Ids that one query looks up: it takes milliseconds."""


@dataclass(slots=True)
class NamedEntities:
    """`refs`: the entities, each once, with ids as their tables spell them; `unknown`: ids that name none."""

    refs: list[EntityRef] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def find_entities(platform: Platform, named: Sequence[SyncTarget]) -> NamedEntities:
    """The entities that `named` names: an id with a type names one, an id without names those of all types.

    An entity is known if it has a source row, alive or not, or a ledger row.

    Raises:
        StoreUnavailable, StoreRefused: source table or ledger could not be read.
    """
    owners: dict[SyncTarget, list[EntityRef]] = {one: [] for one in named}
    for entity_type in platform.settings.entity_types:
        asked = [one for one in named if one.type in (None, entity_type)]
        for page in pages(asked, IDS_AT_ONCE):
            spelled = _spelled(platform, entity_type, [one.id for one in page])
            known = _known(platform, entity_type, list(spelled.values()))
            for one in page:
                if spelled[one.id] in known:
                    owners[one].append(EntityRef(entity_type, spelled[one.id]))
    found = NamedEntities()
    found.refs = list(dict.fromkeys(ref for refs in owners.values() for ref in refs))
    found.unknown = [one.id if one.type is None else f"{one.type}:{one.id}" for one, refs in owners.items() if not refs]
    return found


def by_type(refs: Iterable[EntityRef]) -> dict[str, list[str]]:
    """The ids of `refs`, by type."""
    ids: dict[str, list[str]] = {}
    for ref in refs:
        ids.setdefault(ref.type, []).append(ref.id)
    return ids


def pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of `size`, the last one shorter; drawn from as the caller proceeds."""
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


def _spelled(platform: Platform, entity_type: str, ids: Sequence[str]) -> dict[str, str]:
    """Each id as the source table spells it: PostgreSQL accepts a UUID in several spellings."""
    reader = platform.source(entity_type)
    if reader is None:
        return {entity_id: entity_id for entity_id in ids}
    with platform.postgres.transaction() as connection:
        return reader.canonical_ids(connection, ids)


def _known(platform: Platform, entity_type: str, ids: Sequence[str]) -> set[str]:
    """The ids with a ledger row or a source row."""
    reader = platform.source(entity_type)
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("known_in_ledger"), {"entity_type": entity_type, "ids": list(ids)}
        )
        known = {row[0] for row in rows}
        if reader is not None:
            known |= reader.read(connection, [entity_id for entity_id in ids if entity_id not in known]).keys()
    return known


def living_among(platform: Platform, refs: Collection[EntityRef]) -> set[EntityRef]:
    """Those of the entities that are living."""
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("read_titles"), names).fetchall()
    return {EntityRef(row[0], row[1]) for row in rows}
