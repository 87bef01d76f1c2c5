"""Chunks: a long text cut so that every word of it is in one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from mcp_assets.entities import chunks
from mcp_assets.entities.chunks import Chunk, ChunkSpec, split

SPEC = ChunkSpec(200, 40)
WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
    | st.sampled_from([".", "\n\n", "\n", "  ", "# ", "x" * 500]),
    max_size=80,
).map(" ".join)


def check(built: str, spec: ChunkSpec) -> list[Chunk]:
    chunks = list(split(built, spec))
    reached = 0
    for chunk in chunks:
        assert 0 <= chunk.start < chunk.end <= len(built)
        assert chunk.text == " ".join(built[chunk.start : chunk.end].split())
        assert len(chunk.text) <= chunk.end - chunk.start <= spec.size
        assert not built[reached : chunk.start].split()
        reached = max(reached, chunk.end)
    assert not built[reached:].split()
    return chunks


@given(WORDS)
def test_chunks_cover_every_word_in_order_and_none_is_longer_than_its_size(built: str) -> None:
    check(built, SPEC)


@pytest.mark.parametrize(
    "built",
    [
        "ä" * 3000,
        "\U0001f600" * 1000,
        "日本語の文章。" * 300,
        "a\r\nb\r\n" * 500,
        "e\u0301" * 800,
        "word " * 1000,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 200,
    ],
)
def test_places_count_characters_whatever_the_script(built: str) -> None:
    assert len(check(built, SPEC)) > 5


def test_paragraphs_are_kept_together_where_they_fit() -> None:
    paragraphs = [f"Paragraph {n}. " + "It has some words of its own. " * 4 for n in range(6)]

    chunks = check("\n\n".join(paragraphs), ChunkSpec(200, 0))

    assert [chunk.text for chunk in chunks] == [" ".join(paragraph.split()) for paragraph in paragraphs]


def test_neighbouring_chunks_share_text() -> None:
    chunks = check("Some words stand here. " * 100, SPEC)

    shared = [one.end - other.start for one, other in pairwise(chunks)]
    assert max(shared) > 0
    assert max(shared) <= SPEC.overlap


def test_nothing_makes_no_chunks() -> None:
    assert list(split("", SPEC)) == []
    assert list(split(" \n\n\t ", SPEC)) == []


@pytest.mark.parametrize(
    "sentence",
    [
        pytest.param("漢字仮名交じり文章", id="no spaces"),
        pytest.param("word, ", id="a sentence without an end"),
        pytest.param("x", id="one word"),
        pytest.param(" ", id="white space alone"),
    ],
)
def test_the_splitter_looks_through_each_character_a_bounded_number_of_times(
    sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    class Counting:
        def chunk_indices(self, text: str) -> list[tuple[int, str]]:
            looked.append(len(text))
            return TextSplitter(SPEC.size, overlap=SPEC.overlap).chunk_indices(text)

    monkeypatch.setattr(chunks, "_splitter", lambda spec: Counting())
    built = sentence * (50_000 // len(sentence))

    check(built, SPEC)

    # For each chunk it looks through what it was given: never more than a few chunks' length.
    assert max(looked) <= 8 * SPEC.size
    assert sum(looked) <= 2 * len(built)


@given(WORDS, st.sampled_from([ChunkSpec(200, 0), SPEC, ChunkSpec(300, 150)]))
def test_a_text_is_cut_where_the_splitter_cuts_it_as_a_whole(built: str, spec: ChunkSpec) -> None:
    whole = TextSplitter(spec.size, overlap=spec.overlap).chunk_indices(built)

    assert [(chunk.start, built[chunk.start : chunk.end]) for chunk in split(built, spec)] == [
        (start, piece) for start, piece in whole if piece.split()
    ]
