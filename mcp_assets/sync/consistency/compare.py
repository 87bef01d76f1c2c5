"""Compare: the points of an entity in Qdrant against what they have to be, without any store.

The stores were read before (`vector_census`, `recheck`); what is found is repaired elsewhere (`entity_repair`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.vectors import VECTOR_CHECK_TOLERANCE, vector_checks
from mcp_assets.entities.points import RESERVED_KEYS, Key, chunk_id, is_own_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.stores.qdrant_points import HeldPoint
from mcp_assets.sync.consistency.drift import OF_POINTS, TO_EMBED, Drift, DriftKind

NORM_TOLERANCE = 1e-3
"""Difference from length 1 that a vector may have: it is written with length 1, and Qdrant keeps float32."""


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """A point of ours as Qdrant holds it. `check`: the vector_check computed from its vector."""

    id: str
    ref: EntityRef
    payload: Mapping[str, Any]
    check: float
    fault: str | None
    """Why the vector is invalid; None: it is valid."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the points of a living entity have to be. `points`: one for the entity and one a chunk; 0: no text."""

    text_hash: str
    state_hash: str
    points: int
    carried: Mapping[str, Any] | None = None
    """Title and metadata as the payload has to have them; None: only their hash is compared."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A row of `embedded`: what the ledger records of an entity's points in a collection."""

    model: str
    text_hash: str
    state_hash: str
    points: int
    vector_checks: Sequence[float]


def found_points(page: Sequence[HeldPoint], dimension: int) -> Iterator[FoundPoint]:
    """The points of `page` that name an entity under an id of ours. All vectors are checked in one computation."""
    named = [point for point in page if is_own_id(point.id) and claimed(point.payload) is not None]
    shaped = [len(point.vector) == dimension for point in named]
    rows = np.zeros((len(named), dimension), dtype=np.float32)
    for row, (point, fits) in enumerate(zip(named, shaped, strict=True)):
        if fits:
            rows[row] = point.vector
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(rows), axis=1)
    rows[~finite] = 0
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).tolist()
    checks: list[float] = vector_checks(rows).tolist()
    for point, fits, sound, norm, check in zip(named, shaped, finite, norms, checks, strict=True):
        fault = None
        if not fits:
            fault = f"it has {len(point.vector)} dimensions, not {dimension}"
        elif not sound:
            fault = "it holds numbers that are not finite"
        elif abs(norm - 1.0) > NORM_TOLERANCE:
            fault = f"its length is {norm:.3f}, not 1"
        ref = claimed(point.payload)
        assert ref is not None  # noqa: S101  (`named` has only such points)
        yield FoundPoint(point.id, ref, point.payload, check, fault)


def claimed(payload: Mapping[str, Any]) -> EntityRef | None:
    """The entity that a payload names; None if it names none."""
    entity_type, entity_id = payload.get(Key.ENTITY_TYPE), payload.get(Key.ENTITY_ID)
    if isinstance(entity_type, str) and isinstance(entity_id, str) and entity_id:
        return EntityRef(entity_type, entity_id)
    return None


def compare_points(
    ref: EntityRef, expected: Expected | None, recorded: Recorded | None, points: Iterable[FoundPoint], model: str
) -> list[Drift]:
    """What is wrong with the points of an entity, and with what the ledger records of them.

    One drift a kind; of the kinds in OF_POINTS one a point. `expected`: None for an entity that is not living.
    """
    found: dict[tuple[DriftKind, str], Drift] = {}

    def report(kind: DriftKind, detail: str, subject: str = "") -> None:
        found.setdefault((kind, subject if kind in OF_POINTS else ""), Drift(kind, ref, detail, subject))

    own = point_id(ref)
    wanted = wanted_ids(own, expected.points if expected is not None else 0)
    seen: set[str] = set()
    for point in points:
        number = wanted.get(point.id)
        if number is None or expected is None:
            if expected is None:
                report(DriftKind.ORPHAN_VECTOR, "the entity is not living", point.id)
            elif is_duplicate(point):
                report(DriftKind.DUPLICATE_POINT, f"the point {point.id} names it too", point.id)
            else:
                report(DriftKind.SURPLUS_CHUNK, "its text has no such point", point.id)
            continue
        seen.add(point.id)
        wrong = _wrong(point, number, expected, recorded, model)
        if wrong is not None:
            report(*wrong, point.id)
    missing = [identifier for identifier in wanted if identifier not in seen]
    if missing:
        report(DriftKind.MISSING_VECTOR, f"{len(missing)} of {len(wanted)} points are missing", missing[0])
    if recorded is None:
        if wanted and not any(kind in TO_EMBED for kind, _ in found):
            report(DriftKind.LYING_LEDGER, "the ledger records no points of it")
    elif expected is None or not expected.points:
        report(DriftKind.LYING_LEDGER, f"the ledger records {recorded.points} points of it")
    elif (recorded.model, recorded.text_hash, recorded.state_hash, recorded.points) != (
        model,
        expected.text_hash,
        expected.state_hash,
        expected.points,
    ):
        report(DriftKind.LYING_LEDGER, "the ledger records that something else was embedded")
    return list(found.values())


def _wrong(
    point: FoundPoint, number: int, expected: Expected, recorded: Recorded | None, model: str
) -> tuple[DriftKind, str] | None:
    payload = point.payload
    check = payload.get(Key.VECTOR_CHECK)
    if point.fault is not None:
        return DriftKind.INVALID_VECTOR, point.fault
    if payload.get(Key.TEXT_HASH) != expected.text_hash:
        return (
            DriftKind.STALE_VECTOR,
            f"made of the text {payload.get(Key.TEXT_HASH)}, which is {expected.text_hash} now",
        )
    if payload.get(Key.MODEL) != model:
        return DriftKind.WRONG_MODEL, f"made by {payload.get(Key.MODEL)}, not {model}"
    if not isinstance(check, int | float) or abs(check - point.check) > VECTOR_CHECK_TOLERANCE:
        return DriftKind.SWAPPED_VECTOR, f"written with the vector_check {check}, found {point.check}"
    if recorded is not None and recorded.text_hash == expected.text_hash and number < len(recorded.vector_checks):
        written = recorded.vector_checks[number]
        if abs(written - point.check) > VECTOR_CHECK_TOLERANCE:
            return DriftKind.SWAPPED_VECTOR, f"the ledger has the vector_check {written}, found {point.check}"
    shape = ("chunk", number - 1) if number else ("entity", None)
    if (payload.get(Key.KIND), payload.get(Key.CHUNK)) != shape or payload.get(Key.SLOT) != point.ref.slot:
        return DriftKind.STALE_PAYLOAD, "its kind, chunk or slot is not the entity's"
    if payload.get(Key.STATE_HASH) != expected.state_hash:
        return (
            DriftKind.STALE_PAYLOAD,
            f"made of the state {payload.get(Key.STATE_HASH)}, which is {expected.state_hash} now",
        )
    if expected.carried is not None and not _alike(_carried(payload), expected.carried):
        return DriftKind.STALE_PAYLOAD, "its title or metadata are not the entity's"
    return None


def wanted_ids(own: UUID, points: int) -> dict[str, int]:
    """The ids of an entity's points, with their numbers: 0 for the entity point `own`, n + 1 for chunk n."""
    if not points:
        return {}
    chunks = ((str(chunk_id(own, number)), number + 1) for number in range(points - 1))
    return {str(own): 0, **dict(chunks)}


def chunks_named(points: Iterable[FoundPoint]) -> int:
    """The number of chunks that Qdrant may hold: one more than the highest number among chunk points, 0 without any."""
    highest = 0
    for point in points:
        if point.id == _chunk_named(point_id(point.ref), point.payload):
            highest = max(highest, point.payload[Key.CHUNK] + 1)
    return highest


def is_duplicate(point: FoundPoint) -> bool:
    """The point names an entity, and its id is neither the entity's nor that of one of its chunks."""
    own = point_id(point.ref)
    return point.id != str(own) and point.id != _chunk_named(own, point.payload)


def _chunk_named(own: UUID, payload: Mapping[str, Any]) -> str | None:
    number = payload.get(Key.CHUNK)
    return str(chunk_id(own, number)) if isinstance(number, int) and number >= 0 else None


def _carried(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in RESERVED_KEYS}


def _alike(one: Any, other: Any) -> bool:
    """The same JSON. Numbers are compared as 64-bit floats, because Qdrant may store them as such."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


SlotAndId = tuple[int, str]
"""The order in which rows and points are read."""


class Keyed(Protocol):
    @property
    def key(self) -> SlotAndId: ...


Row = TypeVar("Row", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Pair(Generic[Row]):
    """The row and the points of one entity; one of them may be absent."""

    row: Row | None
    points: list[FoundPoint]


def side_by_side(rows: Iterable[Row], points: Iterable[tuple[SlotAndId, FoundPoint]]) -> Iterator[Pair[Row]]:
    """Merge two streams in the order of (slot, id): `rows` has one item an entity, `points` any number."""
    groups = ((key, [point for _, point in group]) for key, group in groupby(points, key=lambda item: item[0]))
    pending = next(groups, None)
    for row in rows:
        while pending is not None and pending[0] < row.key:
            yield Pair(None, pending[1])
            pending = next(groups, None)
        if pending is not None and pending[0] == row.key:
            yield Pair(row, pending[1])
            pending = next(groups, None)
        else:
            yield Pair(row, [])
    while pending is not None:
        yield Pair(None, pending[1])
        pending = next(groups, None)
