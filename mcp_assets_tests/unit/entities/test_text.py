"""Text building: what is embedded of an entity, and the hashes that decide what is done again."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.entities.registry import SourceTable
from mcp_assets.entities.text import (
    POINT_CHARACTERS,
    Prepared,
    build_text,
    collapse,
    prepare,
    prepared_by,
    state_hash,
)

SPEC = ChunkSpec(2000, 200)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize(
    ("title", "content", "built"),
    [
        ("Title", "Content", "Title\n\nContent"),
        (None, "Content", "Content"),
        ("", "Content", "Content"),
        ("Title", "", "Title"),
        ("  Title\n", "\t Content ", "Title\n\nContent"),
        (None, " \n ", ""),
        ("Title", "one\n\n  two", "Title\n\none\n\n  two"),
    ],
)
def test_title_and_content_are_one_text_whose_inner_white_space_is_kept(
    title: str | None, content: str, built: str
) -> None:
    assert build_text(title, content) == built


@given(TEXTS)
def test_collapsing_leaves_single_spaces_between_the_same_words(text: str) -> None:
    assert collapse(text).split() == text.split()
    assert collapse(collapse(text)) == collapse(text)
    assert "  " not in collapse(text)


def test_a_short_text_is_prepared_whole_and_has_no_chunks() -> None:
    prepared = prepare("Mend", "the  gate\n\nsoon", SPEC)

    assert (prepared.text, prepared.chunks) == ("Mend the gate soon", ())


def test_nothing_but_white_space_prepares_to_nothing() -> None:
    assert prepare(" ", "\n\t", SPEC).text == ""
    assert prepare(None, "", SPEC).chunks == ()


@pytest.mark.parametrize("length", [POINT_CHARACTERS - 1, POINT_CHARACTERS, POINT_CHARACTERS + 1, 30_000])
def test_chunks_begin_where_the_entitys_own_point_ends_to_be_enough(length: int) -> None:
    text = "word " * (length // 5) + "x" * (length % 5)
    prepared = prepare(None, text, SPEC)

    assert len(prepared.text) <= POINT_CHARACTERS
    assert prepared.text == collapse(text)[:POINT_CHARACTERS].rstrip()
    assert bool(prepared.chunks) == (len(collapse(text)) > POINT_CHARACTERS)


def test_without_chunking_a_long_text_has_no_chunks() -> None:
    assert prepare(None, "word " * 5000, None).chunks == ()


@given(TEXTS, TEXTS)
def test_texts_of_the_same_words_have_one_hash_and_others_have_not(one: str, other: str) -> None:
    same = collapse(one) == collapse(other)

    assert (prepare(None, one, SPEC).text_hash == prepare(None, other, SPEC).text_hash) == same
    assert prepare(None, f"  {one}\n", SPEC).text_hash == prepare(None, one, SPEC).text_hash


def test_a_change_beyond_the_first_8000_characters_changes_the_hash() -> None:
    words = "word " * 4000

    assert prepare(None, words + "end", SPEC).text_hash != prepare(None, words + "END", SPEC).text_hash
    assert prepare(None, words + "end", None).text_hash != prepare(None, words + "END", None).text_hash


def test_another_way_of_chunking_changes_the_hash_of_long_texts_only() -> None:
    finer = ChunkSpec(1000, 100)

    assert prepare("short", "text", SPEC).text_hash == prepare("short", "text", finer).text_hash
    assert prepare(None, "word " * 4000, SPEC).text_hash != prepare(None, "word " * 4000, finer).text_hash
    assert len({prepared_by(SPEC), prepared_by(finer), prepared_by(None)}) == 3


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=6), st.randoms())
def test_the_state_hash_does_not_depend_on_the_order_of_keys(metadata: dict[str, Any], chance: random.Random) -> None:
    items = list(metadata.items())
    chance.shuffle(items)

    assert state_hash(hashed("t"), "title", dict(items)) == state_hash(hashed("t"), "title", metadata)


@pytest.mark.parametrize(
    ("text", "title", "metadata"),
    [
        ("other", "title", {"x": 1}),
        ("text", "other", {"x": 1}),
        ("text", None, {"x": 1}),
        ("text", "title", {"x": "1"}),
        ("text", "title", {"x": 1, "y": None}),
        ("text", "title", {}),
    ],
)
def test_the_state_hash_distinguishes_text_title_and_metadata(
    text: str, title: str | None, metadata: dict[str, Any]
) -> None:
    assert state_hash(hashed(text), title, metadata) != state_hash(hashed("text"), "title", {"x": 1})


def hashed(text_hash: str) -> Prepared:
    return Prepared("", (), text_hash)


def test_white_space_decides_the_state_for_rules_read_it_and_not_what_is_embedded() -> None:
    in_a_row = prepare("Title", "depends on: - task:A - task:B", SPEC)
    on_lines = prepare("Title", "depends on:\n- task:A\n- task:B", SPEC)

    assert on_lines.text_hash == in_a_row.text_hash
    assert state_hash(on_lines, "Title", {}) != state_hash(in_a_row, "Title", {})
    assert prepare("Title", "\n a text \n", SPEC) == prepare("Title", "a text", SPEC)


def test_a_mapping_decides_how_texts_are_prepared_and_which_rows_are_alive_does_not() -> None:
    mapping = SourceTable(table="t", metadata={"owner": "assignee"})
    others = [
        mapping.model_copy(update={"title": None}),
        mapping.model_copy(update={"content": ("body", "content")}),
        mapping.model_copy(update={"metadata": {"assignee": "assignee"}}),
        mapping.model_copy(update={"metadata_json": "extra"}),
    ]
    assert len({prepared_by(SPEC, one) for one in [mapping, *others]}) == 5
    assert prepared_by(SPEC, mapping) == prepared_by(SPEC, mapping.model_copy(update={"alive": "false", "table": "u"}))
