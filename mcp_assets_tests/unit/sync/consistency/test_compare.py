"""Compare: each fault that an entity's points or their record can have is found, as one kind of drift, and no other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mcp_assets.embedding.vectors import unit, vector_check
from mcp_assets.entities.chunks import Chunk
from mcp_assets.entities.points import Key, chunk_id, payload, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.stores.qdrant_points import HeldPoint
from mcp_assets.sync.consistency.compare import (
    Expected,
    FoundPoint,
    Pair,
    Recorded,
    SlotAndId,
    chunks_named,
    compare_points,
    found_points,
    side_by_side,
)
from mcp_assets.sync.consistency.drift import DriftKind

REF = EntityRef("task", "t1")
MODEL = "stub/4"
METADATA = {"status": "open", "estimate": 1}
VECTORS = unit(np.array([[1, 2, 3, 4], [4, 3, 2, -1], [0, 1, 0, 1]], dtype=np.float32))
CHECKS = tuple(vector_check(vector) for vector in VECTORS)

EXPECTED = Expected("text", "state", points=3, carried={"title": "T", **METADATA})
"""A text with two chunks, whose points carry all the metadata, too."""

RECORDED = Recorded(MODEL, "text", "state", 3, CHECKS)


def held(
    number: int, changed: Mapping[str, Any] | None = None, *, identifier: str | None = None, vector: Any = None
) -> HeldPoint:
    """Point `number` of the entity as it has to be (0: its own, n + 1: chunk n), but for what is `changed`."""
    own = point_id(REF)
    carried = payload(
        REF,
        METADATA,
        title="T",
        text_hash="text",
        state_hash="state",
        model=MODEL,
        vector_check=CHECKS[number],
        indexed_at="2026-01-01T00:00:00Z",
        chunk=(number - 1, Chunk("a chunk", 0, 8_000)) if number else None,
    )
    return HeldPoint(
        identifier or str(chunk_id(own, number - 1) if number else own),
        {key: value for key, value in (carried | dict(changed or {})).items() if value is not None},
        np.array(VECTORS[number] if vector is None else vector, dtype=np.float32),
    )


def found(*points: HeldPoint) -> list[FoundPoint]:
    return list(found_points(points, 4))


def kinds(
    points: list[FoundPoint], expected: Expected | None = EXPECTED, recorded: Recorded | None = RECORDED
) -> list[DriftKind]:
    return [drift.kind for drift in compare_points(REF, expected, recorded, points, MODEL)]


def sound(*, but: Mapping[int, HeldPoint] | None = None) -> list[FoundPoint]:
    """The three points of the entity, some of them replaced."""
    return found(*((but or {}).get(number) or held(number) for number in range(3)))


def test_points_as_they_have_to_be_are_no_drift() -> None:
    assert kinds(sound()) == []
    assert kinds(sound(), replace(EXPECTED, carried=None)) == []
    assert kinds([], replace(EXPECTED, points=0), None) == []
    assert kinds([], None, None) == []


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    ("kind", "vector"),
    [
        pytest.param(DriftKind.INVALID_VECTOR, [1, 0, 0], id="three dimensions"),
        pytest.param(DriftKind.INVALID_VECTOR, [], id="none"),
        pytest.param(DriftKind.INVALID_VECTOR, [np.nan, 0, 0, 1], id="not a number"),
        pytest.param(DriftKind.INVALID_VECTOR, [np.inf, 0, 0, 1], id="infinite"),
        pytest.param(DriftKind.INVALID_VECTOR, [0.5, 0, 0, 0], id="too short"),
        pytest.param(DriftKind.SWAPPED_VECTOR, [0, 1, 0, 0], id="of another point"),
    ],
)
def test_a_wrong_vector_is_one_drift_whether_the_point_is_the_entitys_or_a_chunks(
    number: int, kind: DriftKind, vector: list[float]
) -> None:
    assert kinds(sound(but={number: held(number, vector=vector)})) == [kind]


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        pytest.param(DriftKind.SWAPPED_VECTOR, {Key.VECTOR_CHECK: "0.1"}, id="a check that is no number"),
        pytest.param(DriftKind.STALE_VECTOR, {Key.TEXT_HASH: "older"}, id="another text"),
        pytest.param(DriftKind.STALE_VECTOR, {Key.TEXT_HASH: None}, id="no hash of the text"),
        pytest.param(DriftKind.WRONG_MODEL, {Key.MODEL: "other/4"}, id="another model"),
        pytest.param(DriftKind.STALE_PAYLOAD, {Key.STATE_HASH: "older"}, id="another state"),
        pytest.param(DriftKind.STALE_PAYLOAD, {Key.SLOT: 70_000}, id="another slot"),
        pytest.param(DriftKind.STALE_PAYLOAD, {Key.KIND: "board"}, id="another kind of point"),
        pytest.param(DriftKind.STALE_PAYLOAD, {Key.CHUNK: 7}, id="another chunk"),
        pytest.param(DriftKind.STALE_PAYLOAD, {"status": "invented"}, id="other metadata"),
        pytest.param(DriftKind.STALE_PAYLOAD, {"estimate": True}, id="metadata of another type"),
        pytest.param(DriftKind.STALE_PAYLOAD, {"title": None}, id="no title"),
        pytest.param(DriftKind.STALE_PAYLOAD, {"extra": 1}, id="metadata that the entity does not have"),
    ],
)
def test_a_wrong_payload_is_one_drift_whether_the_point_is_the_entitys_or_a_chunks(
    number: int, kind: DriftKind, changed: dict[str, Any]
) -> None:
    assert kinds(sound(but={number: held(number, changed)})) == [kind]


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        ([1, 0, 0], "it has 3 dimensions, not 4"),
        ([np.nan, 0, 0, 1], "it holds numbers that are not finite"),
        ([0.5, 0, 0, 0], "its length is 0.500, not 1"),
    ],
)
def test_the_fault_of_a_vector_is_named(vector: list[float], fault: str) -> None:
    assert [point.fault for point in found(held(0, vector=vector), held(1))] == [fault, None]


def test_a_number_is_the_same_as_the_float_that_qdrant_makes_of_it() -> None:
    assert kinds(sound(but={0: held(0, {"estimate": 1.0})})) == []


def test_the_vector_and_the_check_of_a_point_swapped_together_are_found_by_the_record() -> None:
    other = held(0, {Key.VECTOR_CHECK: CHECKS[1]}, vector=VECTORS[1])
    assert kinds(sound(but={0: other})) == [DriftKind.SWAPPED_VECTOR]
    assert kinds(sound(but={0: other}), recorded=replace(RECORDED, vector_checks=())) == []


def test_the_gravest_fault_of_a_point_hides_its_others_and_each_kind_is_reported_once() -> None:
    stale = {number: held(number, {Key.TEXT_HASH: "older", Key.MODEL: "other/4"}) for number in range(3)}
    assert kinds(sound(but=stale)) == [DriftKind.STALE_VECTOR]


@pytest.mark.parametrize("points", [[], [held(0), held(1)], [held(1), held(2)]])
def test_missing_points_are_one_drift_however_many_they_are(points: list[HeldPoint]) -> None:
    drifts = compare_points(REF, EXPECTED, RECORDED, found(*points), MODEL)
    assert [drift.kind for drift in drifts] == [DriftKind.MISSING_VECTOR]
    assert drifts[0].detail == f"{3 - len(points)} of 3 points are missing"


def test_each_point_of_an_entity_that_does_not_live_is_an_orphan() -> None:
    assert kinds(sound(), None, None) == [DriftKind.ORPHAN_VECTOR] * 3


def test_each_chunk_behind_the_end_of_the_text_is_surplus() -> None:
    expected, recorded = replace(EXPECTED, points=1), replace(RECORDED, points=1, vector_checks=CHECKS[:1])
    assert kinds(sound(), expected, recorded) == [DriftKind.SURPLUS_CHUNK] * 2


def test_a_point_under_an_id_that_is_not_the_entitys_is_a_duplicate() -> None:
    other = str(point_id(EntityRef("task", "other")))
    assert kinds([*sound(), *found(held(0, identifier=other))]) == [DriftKind.DUPLICATE_POINT]


@pytest.mark.parametrize(
    "recorded",
    [
        pytest.param(None, id="no record"),
        pytest.param(replace(RECORDED, model="other/4"), id="another model"),
        pytest.param(replace(RECORDED, text_hash="older"), id="another text"),
        pytest.param(replace(RECORDED, state_hash="older"), id="another state"),
        pytest.param(replace(RECORDED, points=2), id="fewer points"),
    ],
)
def test_a_record_that_contradicts_sound_points_is_a_lying_ledger(recorded: Recorded | None) -> None:
    assert kinds(sound(), recorded=recorded) == [DriftKind.LYING_LEDGER]


def test_a_record_of_points_that_need_not_be_is_a_lying_ledger() -> None:
    assert kinds([], None) == [DriftKind.LYING_LEDGER]
    assert kinds([], replace(EXPECTED, points=0)) == [DriftKind.LYING_LEDGER]


def test_a_record_is_not_missed_where_the_entity_is_embedded_again_in_any_case() -> None:
    assert kinds([], recorded=None) == [DriftKind.MISSING_VECTOR]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(held(0, identifier="7"), id="a number as id"),
        pytest.param(held(0, identifier="6b0d9f0e-9a53-4d53-8f3c-0c7c2c1f6a11"), id="a random UUID"),
        pytest.param(held(0, {Key.ENTITY_ID: None}), id="no entity"),
        pytest.param(held(0, {Key.ENTITY_ID: ""}), id="an empty id"),
        pytest.param(held(0, {Key.ENTITY_TYPE: 7}), id="a type that is no text"),
    ],
)
def test_a_point_that_this_platform_cannot_have_written_is_none_of_its_points(other: HeldPoint) -> None:
    assert found(other) == []


def test_the_chunks_that_qdrant_may_hold_are_bounded_by_the_highest_number_among_chunk_points() -> None:
    assert chunks_named(sound()) == 2
    assert chunks_named(found(held(0))) == 0
    assert chunks_named(found(held(0), held(1, {Key.CHUNK: 99}))) == 0, "its id is not that of chunk 99"


def test_rows_and_points_in_one_order_are_merged_entity_by_entity() -> None:
    class Row:
        def __init__(self, key: SlotAndId) -> None:
            self.key = key

    rows = [Row((1, "a")), Row((1, "c")), Row((3, "b"))]
    (point,) = found(held(0))
    points = [((0, "z"), point), ((1, "a"), point), ((1, "a"), point), ((1, "b"), point), ((4, "a"), point)]
    merged = [(pair.row.key if pair.row else None, len(pair.points)) for pair in _pairs(rows, points)]
    assert merged == [(None, 1), ((1, "a"), 2), (None, 1), ((1, "c"), 0), ((3, "b"), 0), (None, 1)]


def _pairs(rows: list[Any], points: list[tuple[SlotAndId, FoundPoint]]) -> list[Pair[Any]]:
    return list(side_by_side(rows, points))
