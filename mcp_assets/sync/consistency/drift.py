"""Drift: its kinds, how bad each is and what to do, and the comparison of an entity's points with what they should be.

Pure: what is compared has been read before (`sync.consistency.census`), and what is found is mended elsewhere
(`sync.consistency.repair`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.vectors import VECTOR_CHECK_TOLERANCE, vector_checks
from mcp_assets.entities.points import RESERVED_KEYS, Key, chunk_id, is_own_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.stores.qdrant import HeldPoint

NORM_TOLERANCE = 1e-3
"""Every vector is written with length 1; Qdrant keeps float32."""


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    """Nothing of ours is broken: a person has to decide."""


class Kind(StrEnum):
    """What can be wrong; the values of `drift.kind`."""

    LEDGER_BEHIND = "ledger_behind_source"
    VANISHED_ROW = "vanished_row"
    UNUSABLE_ROW = "unusable_source_row"
    LYING_LEDGER = "lying_ledger"
    DAMAGED_ROW = "damaged_row"
    MISSING_VECTOR = "missing_vector"
    STALE_VECTOR = "stale_vector"
    STALE_PAYLOAD = "stale_payload"
    WRONG_MODEL = "wrong_model"
    INVALID_VECTOR = "invalid_vector"
    SWAPPED_VECTOR = "swapped_vector"
    ORPHAN_VECTOR = "orphan_vector"
    SURPLUS_CHUNK = "surplus_chunk"
    DUPLICATE_POINT = "duplicate_point"
    FOREIGN_POINT = "foreign_point"
    ORPHANED_EDGE = "orphaned_edge"
    FOREIGN_EDGE = "foreign_orphaned_edge"
    MISSING_EDGE = "missing_edge"
    WRONG_EDGE = "wrong_edge"
    SURPLUS_EDGE = "surplus_edge"
    STALE_LINK = "stale_link"
    REMOVED_TYPE = "removed_type"
    UNUSABLE_TABLE = "unusable_relationships"
    DANGLING_REFERENCE = "dangling_reference"

    @property
    def severity(self) -> Severity:
        return Severity.WARNING if self in _WARNINGS else Severity.ERROR

    @property
    def advice(self) -> str:
        """What it is and what to do about it, for a person."""
        return _ADVICE[self]


_WARNINGS = frozenset({Kind.FOREIGN_POINT, Kind.FOREIGN_EDGE, Kind.DANGLING_REFERENCE})

_REPAIR = "`mcp-assets validate --repair`, or the job `repair`,"

_ADVICE: Mapping[Kind, str] = {
    Kind.LEDGER_BEHIND: f"The source row is new or was changed, and no event told of it. {_REPAIR} takes it in; if "
    "this comes back, the server that writes the rows does not publish its events.",
    Kind.VANISHED_ROW: f"The source row is gone, and no event told of it. {_REPAIR} removes the entity; if very many "
    "are gone, it asks first.",
    Kind.UNUSABLE_ROW: "A source row has no id, an id that other rows bear too, or one that is too long: it cannot be "
    "an entity. Mend the view or the mapping; `mcp-assets doctor` names the rows.",
    Kind.LYING_LEDGER: "The ledger says something else than what the source row implies or Qdrant holds. "
    f"{_REPAIR} rewrites the row from what the stores hold.",
    Kind.DAMAGED_ROW: "The entity has no source row, and the ledger's hashes were not made of what the ledger "
    "holds of it, because something else wrote there. Nothing says what is right, so that a repair "
    "leaves the row, its points and its edges as they are. Publish the entity's event again.",
    Kind.MISSING_VECTOR: f"A living entity has no point, or lacks a chunk. {_REPAIR} embeds just these.",
    Kind.STALE_VECTOR: f"The point was made of another text than the entity has now. {_REPAIR} embeds just these.",
    Kind.STALE_PAYLOAD: f"The vector is right, its payload is not. {_REPAIR} rewrites the payload without embedding.",
    Kind.WRONG_MODEL: f"The point was made by another embedding model. {_REPAIR} embeds just these.",
    Kind.INVALID_VECTOR: "The vector has the wrong dimension, holds no finite numbers, or is not of length 1. "
    f"{_REPAIR} embeds just these.",
    Kind.SWAPPED_VECTOR: f"The vector is not the one that was written with this payload. {_REPAIR} embeds just these.",
    Kind.ORPHAN_VECTOR: f"A point of an entity that is not living. {_REPAIR} removes it; if very many are, it "
    "asks first.",
    Kind.SURPLUS_CHUNK: f"A chunk that its text does not have. {_REPAIR} removes it.",
    Kind.DUPLICATE_POINT: f"A second point names the entity. {_REPAIR} removes it.",
    Kind.FOREIGN_POINT: "A point that this platform did not write. It is left alone; `mcp-assets validate --repair "
    "--foreign` removes it.",
    Kind.ORPHANED_EDGE: f"An edge has an end that is no living entity. {_REPAIR} removes it.",
    Kind.FOREIGN_EDGE: "A row of `relationships` that another program wrote names an entity that this platform "
    "does not know as living. It is left alone; `mcp-assets validate --repair --foreign-edges` removes it.",
    Kind.MISSING_EDGE: f"The rules make an edge that is not in the table. {_REPAIR} re-links the entity.",
    Kind.WRONG_EDGE: f"An edge has another strength or evidence than the rules give. {_REPAIR} re-links the entity.",
    Kind.SURPLUS_EDGE: f"The rules make no such edge. {_REPAIR} re-links the entity.",
    Kind.STALE_LINK: f"What the linker last saw of the entity is not what it is. {_REPAIR} re-links it.",
    Kind.REMOVED_TYPE: "The settings no longer name the type, and its edges and messages are still there. Name it "
    f"again in MCP_ASSETS_TYPES, or {_REPAIR} removes the edges that lead to its entities and makes its messages dead "
    "letters; its ledger rows and points stay.",
    Kind.UNUSABLE_TABLE: "The table of edges does not take ours, so that nothing is linked and edges are not compared: "
    "`mcp-assets doctor` says what is in the way.",
    Kind.DANGLING_REFERENCE: "A text or its metadata names an entity that does not exist. It becomes an edge when its "
    "target appears; else its author has to mend the reference.",
}

DELETING = frozenset({Kind.VANISHED_ROW, Kind.ORPHAN_VECTOR})
"""Mending them removes entities or points: very many at once are asked about first."""

OF_POINTS = frozenset({Kind.ORPHAN_VECTOR, Kind.SURPLUS_CHUNK, Kind.DUPLICATE_POINT})
"""Points that should not be there: each is a finding by itself; of all else, each entity is."""

TO_EMBED = frozenset(
    {Kind.MISSING_VECTOR, Kind.STALE_VECTOR, Kind.WRONG_MODEL, Kind.INVALID_VECTOR, Kind.SWAPPED_VECTOR}
)
"""Mending them needs a new vector."""

OF_ENTITIES = TO_EMBED | {
    Kind.LEDGER_BEHIND,
    Kind.VANISHED_ROW,
    Kind.LYING_LEDGER,
    Kind.DAMAGED_ROW,
    Kind.STALE_PAYLOAD,
    Kind.ORPHAN_VECTOR,
    Kind.SURPLUS_CHUNK,
    Kind.DUPLICATE_POINT,
}
"""About an entity's ledger row and points."""

LIES = frozenset({Kind.LYING_LEDGER, Kind.DAMAGED_ROW})
"""The ledger row is not to be believed, and what the rules make of it is not either."""

OF_LINKS = frozenset({Kind.MISSING_EDGE, Kind.WRONG_EDGE, Kind.SURPLUS_EDGE, Kind.STALE_LINK})
"""Mended by re-linking the entity that they are about."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One finding. `subject`: the point or the row of `relationships` that it is about, if it is about one."""

    kind: Kind
    ref: EntityRef | None
    detail: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """A point of ours as Qdrant holds it; `check` is of the vector that was found."""

    id: str
    ref: EntityRef
    payload: Mapping[str, Any]
    check: float
    fault: str | None
    """Why its vector is none, if so."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the points of a living entity have to be. `points`: its own and its chunks, 0 for an empty text."""

    text_hash: str
    state_hash: str
    points: int
    carried: Mapping[str, Any] | None = None
    """Title and metadata as the payload has them; None: they are not compared, for their hash is."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger says that the collection holds of an entity."""

    model: str
    text_hash: str
    state_hash: str
    points: int
    vector_checks: Sequence[float]


def found_points(page: Sequence[HeldPoint], dimension: int) -> Iterator[FoundPoint]:
    """Those of `page` that name an entity under an id of ours, their vectors looked through together."""
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
        assert ref is not None  # noqa: S101  (chosen so above)
        yield FoundPoint(point.id, ref, point.payload, check, fault)


def claimed(payload: Mapping[str, Any]) -> EntityRef | None:
    """The entity that a payload names; None if it names none."""
    entity_type, entity_id = payload.get(Key.ENTITY_TYPE), payload.get(Key.ENTITY_ID)
    if isinstance(entity_type, str) and isinstance(entity_id, str) and entity_id:
        return EntityRef(entity_type, entity_id)
    return None


def compare(
    ref: EntityRef, expected: Expected | None, recorded: Recorded | None, points: Iterable[FoundPoint], model: str
) -> list[Drift]:
    """What is wrong with the points of an entity and with what the ledger says of them: once a kind, or once a
    point where points are to be removed.

    `expected`: None for an entity that is not living.
    """
    found: dict[tuple[Kind, str], Drift] = {}

    def say(kind: Kind, detail: str, subject: str = "") -> None:
        found.setdefault((kind, subject if kind in OF_POINTS else ""), Drift(kind, ref, detail, subject))

    own = point_id(ref)
    wanted = wanted_ids(own, expected.points if expected is not None else 0)
    seen: set[str] = set()
    for point in points:
        number = wanted.get(point.id)
        if number is None or expected is None:
            if expected is None:
                say(Kind.ORPHAN_VECTOR, "the entity is not living", point.id)
            elif is_duplicate(point):
                say(Kind.DUPLICATE_POINT, f"the point {point.id} names it too", point.id)
            else:
                say(Kind.SURPLUS_CHUNK, "its text has no such point", point.id)
            continue
        seen.add(point.id)
        wrong = _wrong(point, number, expected, recorded, model)
        if wrong is not None:
            say(*wrong, point.id)
    missing = [identifier for identifier in wanted if identifier not in seen]
    if missing:
        say(Kind.MISSING_VECTOR, f"{len(missing)} of {len(wanted)} points are missing", missing[0])
    if recorded is None:
        if wanted and not any(kind in TO_EMBED for kind, _ in found):
            say(Kind.LYING_LEDGER, "the ledger knows nothing of its points")
    elif expected is None or not expected.points:
        say(Kind.LYING_LEDGER, f"the ledger says that {recorded.points} points are held of it")
    elif (recorded.model, recorded.text_hash, recorded.state_hash, recorded.points) != (
        model,
        expected.text_hash,
        expected.state_hash,
        expected.points,
    ):
        say(Kind.LYING_LEDGER, "the ledger says that something else was embedded")
    return list(found.values())


def _wrong(
    point: FoundPoint, number: int, expected: Expected, recorded: Recorded | None, model: str
) -> tuple[Kind, str] | None:
    payload = point.payload
    check = payload.get(Key.VECTOR_CHECK)
    if point.fault is not None:
        return Kind.INVALID_VECTOR, point.fault
    if payload.get(Key.TEXT_HASH) != expected.text_hash:
        return Kind.STALE_VECTOR, f"made of the text {payload.get('text_hash')}, which is {expected.text_hash} now"
    if payload.get(Key.MODEL) != model:
        return Kind.WRONG_MODEL, f"made by {payload.get('model')}, not {model}"
    if not isinstance(check, int | float) or abs(check - point.check) > VECTOR_CHECK_TOLERANCE:
        return Kind.SWAPPED_VECTOR, f"written with the vector_check {check}, found {point.check}"
    if recorded is not None and recorded.text_hash == expected.text_hash and number < len(recorded.vector_checks):
        written = recorded.vector_checks[number]
        if abs(written - point.check) > VECTOR_CHECK_TOLERANCE:
            return Kind.SWAPPED_VECTOR, f"the ledger has the vector_check {written}, found {point.check}"
    shape = ("chunk", number - 1) if number else ("entity", None)
    if (payload.get(Key.KIND), payload.get(Key.CHUNK)) != shape or payload.get(Key.SLOT) != point.ref.slot:
        return Kind.STALE_PAYLOAD, "its kind, chunk or slot is not the entity's"
    if payload.get(Key.STATE_HASH) != expected.state_hash:
        return Kind.STALE_PAYLOAD, f"made of the state {payload.get('state_hash')}, which is {expected.state_hash} now"
    if expected.carried is not None and not _alike(_carried(payload), expected.carried):
        return Kind.STALE_PAYLOAD, "its title or metadata are not the entity's"
    return None


def wanted_ids(own: UUID, points: int) -> dict[str, int]:
    """The ids of `points` points of an entity: its own is number 0, its chunk n number n + 1."""
    if not points:
        return {}
    chunks = ((str(chunk_id(own, number)), number + 1) for number in range(points - 1))
    return {str(own): 0, **dict(chunks)}


def chunks_named(points: Iterable[FoundPoint]) -> int:
    """One more than the highest chunk number that `points` bear under the id that it gives; 0 if there is none."""
    highest = 0
    for point in points:
        if point.id == _chunk_named(point_id(point.ref), point.payload):
            highest = max(highest, point.payload[Key.CHUNK] + 1)
    return highest


def is_duplicate(point: FoundPoint) -> bool:
    """It names an entity under an id that is not made of the entity's name."""
    own = point_id(point.ref)
    return point.id != str(own) and point.id != _chunk_named(own, point.payload)


def _chunk_named(own: UUID, payload: Mapping[str, Any]) -> str | None:
    number = payload.get(Key.CHUNK)
    return str(chunk_id(own, number)) if isinstance(number, int) and number >= 0 else None


def _carried(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in RESERVED_KEYS}


def _alike(one: Any, other: Any) -> bool:
    """The same JSON; numbers as 64-bit floats, which is what Qdrant may keep of them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Place = tuple[int, str]
"""Slot and entity id: the order in which both sides are read."""


class Placed(Protocol):
    @property
    def place(self) -> Place: ...


Row = TypeVar("Row", bound=Placed)


@dataclass(frozen=True, slots=True)
class Pair(Generic[Row]):
    """What the two sides have at one place; one of them may have nothing."""

    row: Row | None
    points: list[FoundPoint]


def side_by_side(rows: Iterable[Row], points: Iterable[tuple[Place, FoundPoint]]) -> Iterator[Pair[Row]]:
    """Merge two streams, both ascending by place, `rows` with one item a place and `points` with any number."""
    groups = ((place, [point for _, point in group]) for place, group in groupby(points, key=lambda item: item[0]))
    pending = next(groups, None)
    for row in rows:
        while pending is not None and pending[0] < row.place:
            yield Pair(None, pending[1])
            pending = next(groups, None)
        if pending is not None and pending[0] == row.place:
            yield Pair(row, pending[1])
            pending = next(groups, None)
        else:
            yield Pair(row, [])
    while pending is not None:
        yield Pair(None, pending[1])
        pending = next(groups, None)
