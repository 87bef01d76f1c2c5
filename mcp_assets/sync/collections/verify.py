"""Verify: is a collection that is being built complete, by the ledger's account and by the points in Qdrant?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, pairwise
from typing import NamedTuple
from uuid import UUID

from mcp_assets.entities.points import Key, chunk_id, is_own_id, point_id
from mcp_assets.entities.refs import SLOTS, EntityRef
from mcp_assets.entities.text import NO_TEXT_HASH
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_ref
from mcp_assets.sync.collections.journal import Change, building_collection, types_of_alias

REFUSED_SHARE = 0.01
"""Share of the living entities that a new model may refuse: with more, the aliases do not move, because searches would
lose too much. A text can be refused for its length or its content, so that a few are to be expected."""

_REFUSED_FEW = 10
"""Entities that a new model may refuse in any case, up to half of them: 1 % of a small site is less than one."""

_POINTS_A_WINDOW = 20_000
"""Points compared with the ledger at once. It bounds memory: some tens of megabytes of payloads."""

_WRONG_AT_ONCE = 1_000
"""Entities found wrong that are compared again, with their ledger rows locked. The comparison stops at that number:
the next full sync repairs these, and the comparison after it finds the rest."""

_PAYLOAD_KEYS = (Key.ENTITY_TYPE, Key.ENTITY_ID, Key.KIND, Key.TEXT_HASH, Key.STATE_HASH, Key.MODEL)
"""The keys that name the entity and the state that a point was made of; metadata is not read."""


class LackingCounts(NamedTuple):
    """How far a collection is built, by the ledger's account. All are numbers of entities."""

    lacking: int
    """Not in the collection in their present state; those that the model refuses are not counted."""
    living: int
    refused: int
    """Living ones that are lacking because the model refuses their text."""


def count_lacking(platform: Platform, connection: Connection, change: Change, since: datetime) -> LackingCounts:
    """Compare ledger rows with what the ledger says that the new collection of `change` holds.

    `since`: an entity that changed after it and is not indexed yet does not count as lacking; it soon will be indexed.
    """
    parameters = {
        "entity_types": types_of_alias(platform, change.alias),
        "collection": change.new,
        "no_text": NO_TEXT_HASH,
        "since": since,
    }
    counts = platform.postgres.row(connection, "count_lacking", LackingCounts, parameters)
    return counts or LackingCounts(0, 0, 0)


def why_incomplete(platform: Platform, connection: Connection, change: Change, since: datetime) -> str | None:
    """Why the new collection of `change` is not complete by the ledger's account; None if it is. `since`: as above."""
    lacking, living, refused = count_lacking(platform, connection, change, since)
    if lacking:
        return f"{change.new} lacks {lacking} of {living} entities"
    if refused > max(living * REFUSED_SHARE, min(_REFUSED_FEW, living / 2)):
        return f"{change.model} refuses {refused} of {living} entities of {change.alias}: look at the dead letters"
    return None


def mark_lacking(platform: Platform, entity_type: str, ids: Sequence[str]) -> None:
    """Mark as dirty the entities of `ids` that the collection under construction lacks, if there is such a one."""
    collection = building_collection(platform, entity_type)
    if collection is None:
        return
    with platform.postgres.transaction() as connection:
        _mark_lacking(platform, connection, [entity_type], collection, ids)


def mark_lacking_of_alias(platform: Platform, connection: Connection, alias: str, collection: str) -> None:
    """Mark as dirty all entities of the alias that `collection` lacks."""
    _mark_lacking(platform, connection, types_of_alias(platform, alias), collection, None)


def _mark_lacking(
    platform: Platform,
    connection: Connection,
    entity_types: Sequence[str],
    collection: str,
    ids: Sequence[str] | None,
) -> None:
    connection.execute(
        platform.postgres.query("mark_lacking"),
        {
            "entity_types": list(entity_types),
            "collection": collection,
            "no_text": NO_TEXT_HASH,
            "ids": None if ids is None else list(ids),
        },
    )


def why_points_differ(platform: Platform, change: Change) -> str | None:
    """Why the new collection of `change` may not serve yet; None if its points are those that the ledger records.

    Reads both sides, a window of slots at a time. Writers are at work meanwhile, so that an entity that looks wrong is
    compared again with its ledger row locked. If it still differs, the ledger forgets its points, and the next full
    sync writes them again.
    """
    types = types_of_alias(platform, change.alias)
    points = platform.qdrant.count(change.new)
    windows = max(1, -(-points // _POINTS_A_WINDOW))
    bounds = [SLOTS * number // windows for number in range(windows + 1)]
    wrong: list[EntityRef] = []
    for slots in pairwise(bounds):
        wrong += _Window.read(platform, change.new, types, slots).wrong()
        if len(wrong) >= _WRONG_AT_ONCE:
            break
    wrong = _still_wrong(platform, change.new, wrong[:_WRONG_AT_ONCE])
    if not wrong:
        return None
    example = ", ".join(map(str, wrong[:3]))
    return (
        f"{len(wrong)} entities of {change.new} have other points than were written ({example}): the next full sync "
        "writes them again"
    )


@dataclass(frozen=True, slots=True)
class _RecordedPoints:
    """The points of one entity in a collection, as the ledger (table `embedded`) records them."""

    text_hash: str
    state_hash: str
    points: int


@dataclass(frozen=True, slots=True)
class _Window:
    """The entities of a range of slots, on both sides: their hashes, and their numbers of points."""

    recorded: Mapping[EntityRef, _RecordedPoints]
    """In the ledger."""
    stored: Mapping[EntityRef, Mapping[tuple[str, str], int]]
    """In Qdrant: for each entity the number of points with each pair of text hash and state hash."""

    @classmethod
    def read(cls, platform: Platform, collection: str, types: Sequence[str], slots: tuple[int, int]) -> "_Window":
        with platform.postgres.transaction() as connection:
            parameters = {"collection": collection, "entity_types": list(types), "low": slots[0], "high": slots[1]}
            recorded = dict(
                platform.postgres.rows(connection, "embedded_of_slots", by_ref(_RecordedPoints), parameters)
            )
        stored: dict[EntityRef, dict[tuple[str, str], int]] = {}
        pages = platform.qdrant.scroll_slots(collection, slots, keys=_PAYLOAD_KEYS, vectors=False)
        for point in chain.from_iterable(pages):
            identifier, payload = point.id, point.payload
            if is_own_id(identifier) and Key.ENTITY_ID in payload and payload.get(Key.ENTITY_TYPE) in types:
                ref = EntityRef(payload[Key.ENTITY_TYPE], payload[Key.ENTITY_ID])
                hashes = (str(payload.get(Key.TEXT_HASH)), str(payload.get(Key.STATE_HASH)))
                counts = stored.setdefault(ref, {})
                counts[hashes] = counts.get(hashes, 0) + 1
        return cls(recorded, stored)

    def wrong(self) -> list[EntityRef]:
        return [
            ref
            for ref in (*self.recorded, *(ref for ref in self.stored if ref not in self.recorded))
            if self.stored.get(ref, {}) != self._expected(ref)
        ]

    def _expected(self, ref: EntityRef) -> dict[tuple[str, str], int]:
        recorded = self.recorded.get(ref)
        return {(recorded.text_hash, recorded.state_hash): recorded.points} if recorded else {}


def _still_wrong(platform: Platform, collection: str, refs: Sequence[EntityRef]) -> list[EntityRef]:
    """The entities of `refs` whose points still differ with their ledger rows locked, so that no writer changes them.

    They are marked as dirty. Points that bear an id of ours and belong to no ledger row are deleted.
    """
    if not refs:
        return []
    query = platform.postgres.query
    wrong: list[EntityRef] = []
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        in_ledger = {EntityRef(*row) for row in connection.execute(query("lock_entities_of"), names)}
        parameters = {**names, "collection": collection}
        recorded = dict(platform.postgres.rows(connection, "embedded_of_entities", by_ref(_RecordedPoints), parameters))
        owners: dict[str, EntityRef] = {}
        for ref in refs:
            entity_point = point_id(ref)
            owners[str(entity_point)] = ref
            chunks = recorded[ref].points - 1 if ref in recorded else 0
            owners |= {str(chunk_id(entity_point, number)): ref for number in range(chunks)}
        stored: dict[EntityRef, list[tuple[str, str]]] = {}
        for point in platform.qdrant.points(collection, list(owners), keys=_PAYLOAD_KEYS, vectors=False):
            hashes = (str(point.payload.get(Key.TEXT_HASH)), str(point.payload.get(Key.STATE_HASH)))
            stored.setdefault(owners[point.id], []).append(hashes)
        for ref in refs:
            held = recorded.get(ref)
            expected = [(held.text_hash, held.state_hash)] * held.points if held else []
            if stored.get(ref, []) != expected:
                wrong.append(ref)
        ownerless = [identifier for identifier, ref in owners.items() if ref in stored and ref not in in_ledger]
        platform.qdrant.write(collection, delete=[UUID(identifier) for identifier in ownerless])
        if wrong:
            connection.execute(
                query("distrust_embedded"),
                {"types": [ref.type for ref in wrong], "ids": [ref.id for ref in wrong], "collection": collection},
            )
    return wrong
