"""Reference keys: titles, slugs, and the keys under which an entity is found."""

from typing import Any

import pytest
from hypothesis import given

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.keys import MAX_KEY_LENGTH, ReferenceKind, keys_of, parent_slug_key, slug_key, title_key
from mcp_assets_tests.unit.graph.samples import ANY_JSON, ANY_TEXT

PAGE = EntityRef("page", "1")


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("  How the\n Ledger\tworks ", "how the ledger works"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("x" * 600, "x" * 512),
        (" \n", None),
        ("", None),
        (None, None),
    ],
)
def test_a_title_is_compared_without_case_and_with_white_space_collapsed(title: str | None, key: str | None) -> None:
    assert title_key(title) == key


@pytest.mark.parametrize(
    ("slug", "key", "parent"),
    [
        ("a/b/c", "a/b/c", "a/b"),
        ("/A//B/", "a/b", "a"),
        ("a", "a", None),
        ("/a", "a", None),
        ("/", None, None),
        ("", None, None),
        (None, None, None),
        (7, None, None),
        (["a/b"], None, None),
    ],
)
def test_a_slug_path_is_normalised_and_stands_under_its_parent(slug: Any, key: str | None, parent: str | None) -> None:
    assert slug_key(slug) == key
    assert parent_slug_key(slug) == parent


@given(ANY_JSON, ANY_TEXT)
def test_no_slug_and_no_title_makes_it_raise(slug: Any, title: str) -> None:
    for key in (slug_key(slug), parent_slug_key(slug), title_key(title)):
        assert key is None or 0 < len(key) <= MAX_KEY_LENGTH


@given(ANY_TEXT)
def test_a_key_is_its_own_key(text: str) -> None:
    assert title_key(title_key(text)) == title_key(text)
    assert slug_key(slug_key(text)) == slug_key(text)


def test_an_entity_is_found_by_id_title_and_slug() -> None:
    assert keys_of(PAGE, "The Ledger", {"slug": "docs/Ledger"}) == {
        (ReferenceKind.ID, "page:1"),
        (ReferenceKind.TITLE, "the ledger"),
        (ReferenceKind.SLUG, "docs/ledger"),
    }


def test_an_entity_without_title_and_slug_is_found_by_id_alone() -> None:
    assert keys_of(PAGE, None, {"slug": None}) == {(ReferenceKind.ID, "page:1")}


def test_a_change_of_title_concerns_the_users_of_the_old_and_of_the_new_key() -> None:
    before, after = keys_of(PAGE, "Old", {"slug": "s"}), keys_of(PAGE, "New", {"slug": "s"})
    assert before ^ after == {(ReferenceKind.TITLE, "old"), (ReferenceKind.TITLE, "new")}
