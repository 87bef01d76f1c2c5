"""Ids of composite keys: two keys never have one id, and each id leads back to its key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.composite_ids import join_id, split_id

VALUES = st.lists(st.text(alphabet="/~01a|\\", max_size=4), min_size=1, max_size=4)


@given(VALUES)
def test_an_id_leads_back_to_the_key_that_it_was_made_of(values: list[str]) -> None:
    assert split_id(join_id(values), len(values)) == tuple(values)


@given(VALUES, VALUES)
def test_different_keys_have_different_ids(one: list[str], other: list[str]) -> None:
    if len(one) == len(other):
        assert (join_id(one) == join_id(other)) == (one == other)


@given(st.text(alphabet="/~01ax", max_size=8), st.integers(1, 4))
def test_a_text_that_is_read_as_a_key_is_the_id_of_that_key(text: str, columns: int) -> None:
    values = split_id(text, columns)
    assert values is None or join_id(values) == text


@pytest.mark.parametrize(
    ("values", "entity_id"),
    [
        (["ABC", "12"], "ABC/12"),
        (["a/b", "c"], "a~1b/c"),
        (["a", "b/c"], "a/b~1c"),
        (["~1", "/"], "~01/~1"),
        (["", ""], "/"),
    ],
)
def test_ids_are_written_as_in_a_json_pointer(values: list[str], entity_id: str) -> None:
    assert join_id(values) == entity_id
    assert split_id(entity_id, len(values)) == tuple(values)


@pytest.mark.parametrize("text", ["a", "a/b/c", "a~/b", "a~2/b", "a/b~"])
def test_a_text_that_is_no_id_of_two_columns_is_no_key(text: str) -> None:
    assert split_id(text, 2) is None
