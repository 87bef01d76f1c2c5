"""Examine: a close second look at entities, by fresh reads of all stores, that tells drift from work under way."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import RESERVED_KEYS, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare, state_hash
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.sources import SourceRow
from mcp_assets.sync.consistency.drift import (
    OF_POINTS,
    Drift,
    Expected,
    FoundPoint,
    Kind,
    Recorded,
    compare,
    found_points,
    wanted_ids,
)
from mcp_assets.sync.inbox.intake import intake

logger = logging.getLogger(__name__)

GRACE_S = 1.0
"""A server commits its row and then publishes: the event of a row that changed this long ago is in the stream."""

_INTAKES = 20

LIE = "the ledger's title, content or metadata are not those that its hashes were made of"

EMPTY_TEXT_HASH = prepare(None, "", None).text_hash

ENTITIES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What ledger and inbox say of one entity, and `embedded` of what one collection holds of it."""

    in_ledger: bool
    origin: str | None
    source_hash: str | None
    prepared_by: str | None
    text_hash: str | None
    state_hash: str | None
    deleted: bool
    dirty: bool
    chunk_bound: int
    recorded: Recorded | None
    embedded_at: Any
    in_inbox: bool

    @property
    def living(self) -> bool:
        return self.in_ledger and not self.deleted


@dataclass(frozen=True, slots=True)
class Examined:
    """The verdict on one entity."""

    drift: Sequence[Drift]
    expected: Expected | None
    """What its points have to be; None if it is not living."""
    points: Sequence[FoundPoint]
    waiting: bool = False
    """Somebody is at work on it, or its work waits: what looks wrong is not drift."""


def examine(
    platform: Platform,
    entity_type: str,
    collection: str | None,
    profile: ModelProfile,
    suspects: Mapping[str, Collection[str]],
) -> dict[str, Examined]:
    """The verdict on each of `suspects`: ids, with the points that are known to name them beside those that should.

    At most ENTITIES_AT_ONCE. `collection`: the physical one, None if there is none yet; `profile`: its model.

    Raises:
        StoreUnavailable, StoreRefused: a store could not be read; nothing is said of anything.
    """
    ids = sorted(suspects)
    states, sources = _read(platform, entity_type, collection, ids)
    behind = {
        entity_id for entity_id in ids if _differs(platform, entity_type, states[entity_id], sources.get(entity_id))
    }
    first = sources
    if any(not states[entity_id].dirty and not states[entity_id].in_inbox for entity_id in behind):
        time.sleep(GRACE_S)
        _let_events_arrive(platform)
        states, sources = _read(platform, entity_type, collection, ids)
    texts = _ledger_texts(platform, entity_type, states)
    damaged = {
        entity_id
        for entity_id, text in texts.items()
        if lies(platform, entity_type, states[entity_id].prepared_by, _hashes(states[entity_id]), *text)
    }
    truths = {
        entity_id: _truth(platform, states[entity_id], sources.get(entity_id), texts.get(entity_id))
        for entity_id in ids
    }
    points = _retrieve(platform, entity_type, collection, profile, suspects, states, truths)
    with platform.postgres.transaction() as connection:
        after = read_states(platform, connection, entity_type, collection, ids)
    examined = {}
    for entity_id in ids:
        ref = EntityRef(entity_type, entity_id)
        state, source, expected = states[entity_id], sources.get(entity_id), truths[entity_id]
        found = points.get(ref, [])
        differs = _differs(platform, entity_type, state, source)
        moving = (
            state.dirty
            or state != after[entity_id]
            or (differs and (state.in_inbox or not _same_row(first.get(entity_id), source)))
        )
        if isinstance(expected, _Unfit) or moving:
            living = expected if isinstance(expected, Expected) else None
            examined[entity_id] = Examined((), living, found, waiting=True)
            continue
        if entity_id in damaged and state.origin == "event" and source is None:
            # Nothing says which of the two is right, so that nothing else can be said of it.
            examined[entity_id] = Examined((Drift(Kind.DAMAGED_ROW, ref, LIE),), None, found)
            continue
        drift = _of_ledger(platform, ref, state, source, expected, differs=differs)
        if entity_id in damaged and not drift:
            drift = [Drift(Kind.LYING_LEDGER, ref, LIE)]
        drift += compare(ref, expected, state.recorded, found, profile.name)
        examined[entity_id] = Examined(_once(drift), expected, found)
    return examined


def read_states(
    platform: Platform, connection: Connection, entity_type: str, collection: str | None, ids: Sequence[str]
) -> dict[str, LedgerState]:
    rows = connection.execute(
        platform.postgres.query("census_states"),
        {"entity_type": entity_type, "ids": list(ids), "collection": collection or ""},
    )
    return {row[0]: LedgerState(*row[1:10], *(recorded_of(*row[10:15]), *row[15:])) for row in rows}


def recorded_of(model: Any, text: Any, state: Any, points: Any, checks: Any) -> Recorded | None:
    """A row of `embedded`, whose columns are all NULL if there is none."""
    return None if model is None else Recorded(model, text, state, points, checks)


def carried(title: str | None, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the payload bears of title and metadata."""
    kept = {key: value for key, value in metadata.items() if key not in RESERVED_KEYS}
    return kept if title is None else {**kept, "title": title}


def retrieve(
    platform: Platform, collection: str | None, profile: ModelProfile, ids: Iterable[str]
) -> dict[EntityRef, list[FoundPoint]]:
    """Those of the points `ids` that are there, by the entity that they name."""
    found: dict[EntityRef, list[FoundPoint]] = {}
    if collection is not None:
        held = platform.qdrant.points(collection, list(ids))
        for point in found_points(held, profile.dimension):
            found.setdefault(point.ref, []).append(point)
    return found


@dataclass(frozen=True, slots=True)
class _Unfit:
    """The source row holds what no store can keep: a dead letter tells of it."""


def _read(
    platform: Platform, entity_type: str, collection: str | None, ids: Sequence[str]
) -> tuple[dict[str, LedgerState], dict[str, SourceRow]]:
    reader = platform.source(entity_type)
    with platform.postgres.transaction() as connection:
        states = read_states(platform, connection, entity_type, collection, ids)
        return states, reader.read(connection, ids) if reader is not None else {}


def _differs(platform: Platform, entity_type: str, state: LedgerState, source: SourceRow | None) -> bool:
    """The ledger does not say what the source table says now."""
    if source is not None and source.alive:
        return not state.living or (state.origin, state.source_hash, state.prepared_by) != (
            "source",
            source.source_hash,
            platform.prepared_by(entity_type),
        )
    return state.living and state.origin == "source"


def _same_row(one: SourceRow | None, other: SourceRow | None) -> bool:
    return (one and (one.alive, one.source_hash)) == (other and (other.alive, other.source_hash))


def _let_events_arrive(platform: Platform) -> None:
    """Take in what was published: what then waits in the inbox is not drift."""
    try:
        for _ in range(_INTAKES):
            if not intake(platform, wait_s=0.0).more:
                return
    except (StoreUnavailable, StoreRefused) as error:
        # The events cannot come in, and the ledger is behind: that is drift.
        logger.warning("events could not be taken in before the second look: %s", error)


def lies(
    platform: Platform,
    entity_type: str,
    prepared_by: str | None,
    hashes: tuple[str | None, str | None],
    title: str | None,
    content: str,
    metadata: Mapping[str, Any],
) -> bool:
    """Whether a ledger row's own columns are not what its hashes (of text and state) were made of."""
    if prepared_by != platform.prepared_by(entity_type):
        # Made by other rules, the hashes cannot be told from wrong ones; the row is prepared anew for that.
        return False
    own = expected_of(platform, title, content, metadata)
    return hashes != (own.text_hash, own.state_hash)


def _hashes(state: LedgerState) -> tuple[str | None, str | None]:
    return state.text_hash, state.state_hash


def _ledger_texts(
    platform: Platform, entity_type: str, states: Mapping[str, LedgerState]
) -> dict[str, tuple[str | None, str, Mapping[str, Any]]]:
    """Title, content and metadata that the ledger has of those that are living."""
    ids = [key for key, state in states.items() if state.living]
    if not ids:
        return {}
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("census_texts"), {"entity_type": entity_type, "ids": ids}
        ).fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def _truth(
    platform: Platform,
    state: LedgerState,
    source: SourceRow | None,
    text: tuple[str | None, str, Mapping[str, Any]] | None,
) -> Expected | _Unfit | None:
    if source is not None:
        if not source.alive:
            return None
        if source.unstorable is not None:
            return _Unfit()
        text = (source.title, source.content, source.metadata)
    elif not state.living or state.origin == "source" or text is None:
        return None
    try:
        return expected_of(platform, *text)
    except ValueError:
        return _Unfit()


def expected_of(platform: Platform, title: str | None, content: str, metadata: Mapping[str, Any]) -> Expected:
    """What the points of a living entity have to be, from its text and metadata.

    Raises:
        ValueError: the metadata cannot be written as JSON.
    """
    prepared = prepare(title, content, platform.settings.chunks)
    hashed = state_hash(prepared, title, metadata)
    points = 1 + len(prepared.chunks) if prepared.text else 0
    return Expected(prepared.text_hash, hashed, points, carried(title, metadata))


def _retrieve(
    platform: Platform,
    entity_type: str,
    collection: str | None,
    profile: ModelProfile,
    suspects: Mapping[str, Collection[str]],
    states: Mapping[str, LedgerState],
    truths: Mapping[str, Expected | _Unfit | None],
) -> dict[EntityRef, list[FoundPoint]]:
    wanted: dict[str, None] = {}
    for entity_id, known in suspects.items():
        state, truth = states[entity_id], truths[entity_id]
        most = max(
            state.chunk_bound + 1,
            state.recorded.points if state.recorded else 0,
            truth.points if isinstance(truth, Expected) else 0,
        )
        wanted |= dict.fromkeys(wanted_ids(point_id(EntityRef(entity_type, entity_id)), most))
        wanted |= dict.fromkeys(known)
    return retrieve(platform, collection, profile, wanted)


def _of_ledger(
    platform: Platform,
    ref: EntityRef,
    state: LedgerState,
    source: SourceRow | None,
    expected: Expected | None,
    *,
    differs: bool,
) -> list[Drift]:
    if differs:
        if source is None or not source.alive:
            return [Drift(Kind.VANISHED_ROW, ref, "the ledger has it, and no living source row")]
        if not state.living:
            return [Drift(Kind.LEDGER_BEHIND, ref, "the source row is alive, and the ledger does not have it")]
        if state.source_hash == source.source_hash and state.origin == "source":
            return [Drift(Kind.LEDGER_BEHIND, ref, f"its text was prepared by {state.prepared_by or 'nothing'}")]
        return [Drift(Kind.LEDGER_BEHIND, ref, "the source row has changed")]
    if expected is None:
        return []
    if state.prepared_by != platform.prepared_by(ref.type):
        return [Drift(Kind.LEDGER_BEHIND, ref, f"its text was prepared by {state.prepared_by or 'nothing'}")]
    if (state.text_hash, state.state_hash) != (expected.text_hash, expected.state_hash):
        return [Drift(Kind.LYING_LEDGER, ref, "the ledger's hashes are not those of the entity's text and metadata")]
    if state.chunk_bound < expected.points - 1:
        return [Drift(Kind.LYING_LEDGER, ref, "the ledger's chunk_bound is below the number of its chunks")]
    return []


def _once(drift: Iterable[Drift]) -> tuple[Drift, ...]:
    """Without what two comparisons have both found."""
    return tuple({(one.kind, one.subject if one.kind in OF_POINTS else ""): one for one in drift}.values())
