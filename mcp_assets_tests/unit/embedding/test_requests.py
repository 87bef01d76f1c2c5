"""Splitting inputs into requests, assigning results to inputs, shortening."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcp_assets.embedding.embedding_requests import MalformedAnswerError, estimate_tokens, match_results
from mcp_assets.embedding.input_batch import shorten
from mcp_assets.embedding.openai_compatible import OpenAICompatibleEmbedder
from mcp_assets.embedding.profiles import profile_for


@given(st.permutations(list(range(12))))
def test_results_are_matched_by_index_in_whatever_order_they_come(order: list[int]) -> None:
    assert match_results([(index, f"vector {index}") for index in order], 12) == [f"vector {i}" for i in range(12)]


@given(st.lists(st.integers(-1, 6) | st.none() | st.text(max_size=1), max_size=7), st.integers(1, 6))
def test_results_without_each_index_exactly_once_are_refused(indexes: list[Any], inputs: int) -> None:
    assume(sorted(map(repr, indexes)) != sorted(map(repr, range(inputs))))
    with pytest.raises(MalformedAnswerError):
        match_results([(index, "vector") for index in indexes], inputs)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_the_estimate_of_tokens_lies_between_half_the_characters_and_the_bytes(text: str) -> None:
    assert len(text) / 2 <= estimate_tokens(text) <= len(text.encode())


@given(st.text(min_size=1), st.floats(0, 1))
def test_a_shortened_text_is_a_start_of_the_text_and_never_empty(text: str, share: float) -> None:
    short = shorten(text, share)
    assert text.startswith(short)
    assert 1 <= len(short) <= max(1, int(len(text) * share))


def test_a_text_is_shortened_at_white_space_where_there_is_some() -> None:
    assert shorten("alpha beta gamma delta", 0.6) == "alpha beta"
    assert shorten("漢字" * 10, 0.5) == "漢字" * 5


def test_an_embedder_without_key_and_without_url_names_the_settings() -> None:
    with pytest.raises(ValueError, match="set OPENAI_API_KEY, or OPENAI_BASE_URL"):
        OpenAICompatibleEmbedder(profile_for("text-embedding-3-small"), api_key=None)


def test_a_key_that_no_header_can_carry_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY holds characters") as caught:
        OpenAICompatibleEmbedder(profile_for("text-embedding-3-small"), api_key="sk-secret\nX: y")
    assert "sk-secret" not in str(caught.value)
