"""Points: ids that are functions of names, and payloads in which our keys win."""

from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.chunks import Chunk
from mcp_assets.entities.points import (
    FORMER_KEYS,
    INDEXED_KEYS,
    PREFIX,
    RESERVED_KEYS,
    Key,
    bears_former_keys,
    chunk_id,
    payload,
    point_id,
    with_prefix,
)
from mcp_assets.entities.refs import EntityRef

REF = EntityRef("task", "t1")
HASHES: dict[str, Any] = {
    "text_hash": "text",
    "state_hash": "state",
    "model": "m",
    "vector_check": 0.5,
    "indexed_at": "2026-01-01T00:00:00.000+00:00",
}


def test_the_ids_of_points_never_change() -> None:
    """Another id for the same name would leave the old point behind in every collection there is."""
    assert point_id(REF) == UUID("e1135088-f9a3-59d9-999c-ebf500050b82")
    assert chunk_id(point_id(REF), 0) == UUID("5bde8ecb-fb10-5bf8-86df-7ed0ccdf2adb")


@given(
    st.sets(st.tuples(st.sampled_from(["task", "page"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
)
def test_different_names_have_different_points(names: set[tuple[str, str]]) -> None:
    own = {point_id(EntityRef(*name)) for name in names}
    chunks = {chunk_id(identifier, number) for identifier in own for number in range(3)}

    assert len(own) == len(names)
    assert len(chunks) == 3 * len(names)
    assert own.isdisjoint(chunks)


def test_an_entitys_payload_is_its_metadata_its_title_and_our_keys() -> None:
    assert payload(REF, {"tags": ["a"], "nested": {"x": None}}, title="Mend", **HASHES) == {
        "tags": ["a"],
        "nested": {"x": None},
        "title": "Mend",
        Key.KIND: "entity",
        "entity_id": "t1",
        "entity_type": "task",
        Key.SLOT: REF.slot,
        **{f"{PREFIX}{key}": value for key, value in HASHES.items()},
    }


def test_metadata_never_stand_under_a_key_of_ours() -> None:
    carried = payload(REF, dict.fromkeys(RESERVED_KEYS, "theirs"), title=None, **HASHES)

    assert "theirs" not in carried.values()
    assert {Key.CHUNK, Key.START, Key.END}.isdisjoint(carried)


def test_the_entitys_title_wins_over_one_in_the_metadata_which_stands_where_there_is_none() -> None:
    assert payload(REF, {"title": "theirs"}, title="ours", **HASHES)["title"] == "ours"
    assert payload(REF, {"title": "theirs"}, title=None, **HASHES)["title"] == "theirs"


def test_a_chunks_payload_says_which_part_it_is() -> None:
    carried = payload(REF, {"a": 1}, title="Mend", chunk=(3, Chunk("words", 100, 200)), **HASHES)

    assert (carried[Key.KIND], carried[Key.CHUNK], carried[Key.START], carried[Key.END]) == ("chunk", 3, 100, 200)
    assert (carried["entity_id"], carried["a"], carried["title"]) == ("t1", 1, "Mend")


def test_every_key_that_is_ours_is_reserved() -> None:
    ours = payload(REF, {}, title=None, chunk=(0, Chunk("w", 0, 1)), **HASHES)

    assert set(ours) == RESERVED_KEYS
    assert set(INDEXED_KEYS) <= RESERVED_KEYS


def test_metadata_keep_the_names_that_our_keys_had_before_the_prefix() -> None:
    theirs = dict.fromkeys(FORMER_KEYS, "theirs")

    assert payload(REF, theirs, title=None, **HASHES).items() >= theirs.items()


def test_a_payload_of_before_gets_the_prefix_and_what_the_metadata_had_under_reserved_names() -> None:
    metadata = {"tags": ["a"], "kind": "story", "start": "2026-01-01", "model": None}
    for chunk in (None, (2, Chunk("w", 0, 1))):
        now = payload(REF, metadata, title="Mend", chunk=chunk, **HASHES)
        ours = {key.removeprefix(PREFIX): value for key, value in now.items() if key in RESERVED_KEYS}
        before = {"tags": ["a"], "title": "Mend"} | ours

        assert bears_former_keys(before)
        assert with_prefix(before, metadata) == now


def test_only_a_payload_that_bears_all_former_keys_is_one_of_before() -> None:
    now = payload(REF, {"kind": "entity", "slot": 3}, title=None, **HASHES)

    assert not bears_former_keys(now)
    assert not bears_former_keys({"kind": "entity", "entity_id": "a", "entity_type": "task"})
