"""Recheck: reads entities that look wrong again from all stores, to distinguish drift from work under way.

Work under way means that a message in the inbox, a dirty ledger row or a change between two reads explains what looks
wrong: such an entity is *waiting*, and has no drift.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import RESERVED_KEYS, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare, state_hash
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.rows import SourceRow
from mcp_assets.sync.consistency.compare import Expected, FoundPoint, compare_points, found_points, wanted_ids
from mcp_assets.sync.consistency.drift import OF_POINTS, Drift, DriftKind
from mcp_assets.sync.consistency.ledger_hashes import EntityText, LedgerHashes, read_texts
from mcp_assets.sync.inbox.intake import intake

logger = logging.getLogger(__name__)

GRACE_S = 1.0
"""Seconds between two reads of an entity that is behind its source row. A server commits its row and then publishes, so
that after this time the event of the change is in the stream."""

_INTAKES = 20
"""Batches that are read from the stream before the second read; events behind them are not seen as under way."""

LIE = "the ledger's title, content or metadata are not those that its hashes were made of"
"""The detail of drift of a ledger row whose own columns contradict each other: another program wrote there."""

EMPTY_TEXT_HASH = prepare(None, "", None).text_hash
"""Of an entity without text, which has no points."""

ENTITIES_AT_ONCE = 500
"""Entities whose texts and vectors are in memory together: some tens of megabytes."""


@dataclass(slots=True)
class LedgerState(LedgerHashes):
    """One entity in the ledger, the inbox, and the table `embedded` (for one collection): a row of `census_states`."""

    embedded_at: datetime | None
    in_inbox: bool


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What a recheck found about one entity."""

    drift: Sequence[Drift]
    expected: Expected | None
    """What the points of the entity have to be; None if it is not living."""
    points: Sequence[FoundPoint]
    waiting: bool = False
    """Work on the entity is under way, so that nothing is drift."""

    @property
    def clean(self) -> bool:
        """The entity is as it should be."""
        return not self.drift and not self.waiting


def recheck_entities(
    platform: Platform,
    entity_type: str,
    collection: str | None,
    profile: ModelProfile,
    suspects: Mapping[str, Collection[str]],
) -> dict[str, Rechecked]:
    """What is found about `suspects`: entity ids, each with ids of points that name the entity and may not be its own.

    At most ENTITIES_AT_ONCE. `collection`: the physical one, None if there is none yet; `profile`: its model.

    Raises:
        StoreUnavailable, StoreRefused: a store could not be read; nothing is found about any entity.
    """
    ids = sorted(suspects)
    states, sources = _read(platform, entity_type, collection, ids)
    first_sources = sources
    behind = [key for key in ids if _differs(platform, entity_type, states[key], sources.get(key))]
    if any(not states[key].dirty and not states[key].in_inbox for key in behind):
        time.sleep(GRACE_S)
        _take_in_events(platform)
        states, sources = _read(platform, entity_type, collection, ids)
    texts = _ledger_texts(platform, entity_type, states)
    damaged = {
        entity_id
        for entity_id, text in texts.items()
        if lies(platform, entity_type, states[entity_id].prepared_by, _hashes(states[entity_id]), text)
    }
    truths = {
        entity_id: _truth(platform, states[entity_id], sources.get(entity_id), texts.get(entity_id))
        for entity_id in ids
    }
    points = _retrieve(platform, entity_type, collection, profile, suspects, states, truths)
    with platform.postgres.transaction() as connection:
        states_after = read_states(platform, connection, entity_type, collection, ids)
    found_of = {}
    for entity_id in ids:
        ref = EntityRef(entity_type, entity_id)
        state, source, truth = states[entity_id], sources.get(entity_id), truths[entity_id]
        found = points.get(ref, [])
        differs = _differs(platform, entity_type, state, source)
        changing = (
            state.dirty
            or state != states_after[entity_id]
            or (differs and (state.in_inbox or not _same_row(first_sources.get(entity_id), source)))
        )
        if isinstance(truth, _Unstorable) or changing:
            expected = truth if isinstance(truth, Expected) else None
            found_of[entity_id] = Rechecked((), expected, found, waiting=True)
        else:
            found_of[entity_id] = _judge(
                platform, ref, state, source, truth, found, profile, differs=differs, damaged=entity_id in damaged
            )
    return found_of


def _judge(
    platform: Platform,
    ref: EntityRef,
    state: LedgerState,
    source: SourceRow | None,
    expected: Expected | None,
    found: Sequence[FoundPoint],
    profile: ModelProfile,
    *,
    differs: bool,
    damaged: bool,
) -> Rechecked:
    """What is found about an entity that is not waiting. `damaged`: its ledger row contradicts its own hashes."""
    if damaged and state.origin == "event" and source is None:
        # Columns or hashes are wrong, and there is no source row to decide which: points cannot be compared.
        return Rechecked((Drift(DriftKind.DAMAGED_ROW, ref, LIE),), None, found)
    drift = _of_ledger(platform, ref, state, source, expected, differs=differs)
    if damaged and not drift:
        drift = [Drift(DriftKind.LYING_LEDGER, ref, LIE)]
    drift += compare_points(ref, expected, state.recorded, found, profile.name)
    return Rechecked(_without_repeats(drift), expected, found)


def read_states(
    platform: Platform, connection: Connection, entity_type: str, collection: str | None, ids: Sequence[str]
) -> dict[str, LedgerState]:
    parameters = {"entity_type": entity_type, "ids": list(ids), "collection": collection or ""}
    rows = platform.postgres.rows(connection, "census_states", LedgerState, parameters)
    return {row.entity_id: row for row in rows}


def carried(title: str | None, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Title and metadata as the payload has them."""
    kept = {key: value for key, value in metadata.items() if key not in RESERVED_KEYS}
    return kept if title is None else {**kept, "title": title}


def retrieve(
    platform: Platform, collection: str | None, profile: ModelProfile, ids: Iterable[str]
) -> dict[EntityRef, list[FoundPoint]]:
    """The points of `ids` that exist, by the entity that they name."""
    found: dict[EntityRef, list[FoundPoint]] = {}
    if collection is not None:
        held = platform.qdrant.points(collection, list(ids))
        for point in found_points(held, profile.dimension):
            found.setdefault(point.ref, []).append(point)
    return found


@dataclass(frozen=True, slots=True)
class _Unstorable:
    """The source row holds metadata that no store can keep. A dead letter has the reason, so that it is no drift."""


def _read(
    platform: Platform, entity_type: str, collection: str | None, ids: Sequence[str]
) -> tuple[dict[str, LedgerState], dict[str, SourceRow]]:
    reader = platform.source(entity_type)
    with platform.postgres.transaction() as connection:
        states = read_states(platform, connection, entity_type, collection, ids)
        return states, reader.read(connection, ids) if reader is not None else {}


def _differs(platform: Platform, entity_type: str, state: LedgerState, source: SourceRow | None) -> bool:
    """The ledger row is not what the source row implies now."""
    if source is not None and source.alive:
        return not state.living or (state.origin, state.source_hash, state.prepared_by) != (
            "source",
            source.source_hash,
            platform.prepared_by(entity_type),
        )
    return state.living and state.origin == "source"


def _same_row(one: SourceRow | None, other: SourceRow | None) -> bool:
    return (one and (one.alive, one.source_hash)) == (other and (other.alive, other.source_hash))


def _take_in_events(platform: Platform) -> None:
    """Read the streams: an entity whose event is in the inbox is waiting."""
    try:
        for _ in range(_INTAKES):
            if not intake(platform, wait_s=0.0).more:
                return
    except (StoreUnavailable, StoreRefused) as error:
        # Without events nothing explains why the ledger is behind, so that it counts as drift.
        logger.warning("events could not be taken in before the recheck: %s", error)


def lies(
    platform: Platform,
    entity_type: str,
    prepared_by: str | None,
    hashes: tuple[str | None, str | None],
    text: EntityText,
) -> bool:
    """A ledger row's `hashes` (of text and state) were not made of its own title, content and metadata."""
    if prepared_by != platform.prepared_by(entity_type):
        # Another version of the rules made the hashes. They prove nothing, and the row will be prepared again anyway.
        return False
    own = expected_of(platform, text)
    return hashes != (own.text_hash, own.state_hash)


def _hashes(state: LedgerState) -> tuple[str | None, str | None]:
    return state.text_hash, state.state_hash


def _ledger_texts(platform: Platform, entity_type: str, states: Mapping[str, LedgerState]) -> dict[str, EntityText]:
    """The texts of the living entities, as the ledger has them."""
    ids = [key for key, state in states.items() if state.living]
    if not ids:
        return {}
    with platform.postgres.transaction() as connection:
        return read_texts(platform, connection, entity_type, ids)


def _truth(
    platform: Platform,
    state: LedgerState,
    source: SourceRow | None,
    text: EntityText | None,
) -> Expected | _Unstorable | None:
    """What the points have to be by the source row, or without one by the ledger's `text`; None: not living."""
    if source is not None:
        if not source.alive:
            return None
        if source.unstorable is not None:
            return _Unstorable()
        text = EntityText(source.title, source.content, source.metadata)
    elif not state.living or state.origin == "source" or text is None:
        return None
    try:
        return expected_of(platform, text)
    except ValueError:
        return _Unstorable()


def expected_of(platform: Platform, text: EntityText) -> Expected:
    """What the points of a living entity have to be, computed from its text and metadata.

    Raises:
        ValueError: the metadata cannot be written as JSON.
    """
    prepared = prepare(text.title, text.content, platform.settings.chunks)
    hashed = state_hash(prepared, text.title, text.metadata)
    points = 1 + len(prepared.chunks) if prepared.text else 0
    return Expected(prepared.text_hash, hashed, points, carried(text.title, text.metadata))


def _retrieve(
    platform: Platform,
    entity_type: str,
    collection: str | None,
    profile: ModelProfile,
    suspects: Mapping[str, Collection[str]],
    states: Mapping[str, LedgerState],
    truths: Mapping[str, Expected | _Unstorable | None],
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
            return [Drift(DriftKind.VANISHED_ROW, ref, "the ledger has it, and no living source row")]
        if not state.living:
            return [Drift(DriftKind.LEDGER_BEHIND, ref, "the source row is alive, and the ledger does not have it")]
        if state.source_hash == source.source_hash and state.origin == "source":
            return [Drift(DriftKind.LEDGER_BEHIND, ref, f"its text was prepared by {state.prepared_by or 'nothing'}")]
        return [Drift(DriftKind.LEDGER_BEHIND, ref, "the source row has changed")]
    if expected is None:
        return []
    if state.prepared_by != platform.prepared_by(ref.type):
        return [Drift(DriftKind.LEDGER_BEHIND, ref, f"its text was prepared by {state.prepared_by or 'nothing'}")]
    if (state.text_hash, state.state_hash) != (expected.text_hash, expected.state_hash):
        return [
            Drift(DriftKind.LYING_LEDGER, ref, "the ledger's hashes are not those of the entity's text and metadata")
        ]
    if state.chunk_bound < expected.points - 1:
        return [Drift(DriftKind.LYING_LEDGER, ref, "the ledger's chunk_bound is below the number of its chunks")]
    return []


def _without_repeats(drift: Iterable[Drift]) -> tuple[Drift, ...]:
    """Two comparisons may both report the same kind: the later one stays."""
    return tuple({(one.kind, one.subject if one.kind in OF_POINTS else ""): one for one in drift}.values())
