"""Extraction is linear in the text: twice the text is twice the work, and no text is worse than the others.

Calls are counted by the interpreter. What one regular expression does within a call cannot be counted, but has to end:
quadratic work on these texts, 10^12 to 10^14 steps, would not.
"""

import sys
from types import FrameType
from typing import Any

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.graph.references import ReferenceRules, Use
from mcp_assets.graph.url_references import LinkForm

RULES = ReferenceRules.of(
    SOURCE_PRESETS["mcp"],
    [
        LinkForm.of("https://wiki.example.com/pages/{slug}", "page"),
        LinkForm.of("https://wiki.example.com/tree/{slug}/view", "page"),
    ],
)
SPARSE = 10_000_000
DENSE = 1_000_000


def filled(piece: str, size: int, before: str = "", after: str = "") -> str:
    return before + piece * (size // len(piece)) + after


def uses(text: str) -> tuple[Use, ...]:
    return RULES.uses(EntityRef("task", "X"), None, text, {})


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("piece", "before", "after", "keys"),
    [
        (":", "", "", set()),
        ("a", "task:", "", set()),
        ("task:-", "", "", set()),
        ("[[", "", "", set()),
        ("[", "", "", set()),
        ("]]", "", "", set()),
        ("a", "[[", "", set()),
        ("[[a", "", "", set()),
        ("[[a]", "", "", set()),
        (" ", "[[", "]]", set()),
        ("a", "[[", "]]", {"a" * 512}),
        ("depends on ", "", "", set()),
        (" ", "depends on", "task:A", {"task:A"}),
        ("\n- ", "depends on", "task:A", {"task:A"}),
        ("https://wiki.example.com/pages/", "", "", set()),
        ("https://wiki.example.com/tree/ ", "", "", set()),
        ("%41", "https://wiki.example.com/pages/", "", set()),
    ],
)
def test_ten_million_characters_that_nearly_are_references_are_read(
    piece: str, before: str, after: str, keys: set[str]
) -> None:
    assert {use.key for use in uses(filled(piece, SPARSE, before, after))} == keys


DENSE_PIECES = [
    "task:A ",
    "a:",
    "task:",
    "[[a]]",
    "depends on task:A, ",
    "task:A" + "\n" * 120,
    "task:A" + " (" * 60,
    "task:A (" + " " * 100 + "), ",
    "after [" * 17 + "task:A ",
    "https://wiki.example.com/tree/a/view ",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", DENSE_PIECES)
def test_a_million_characters_full_of_references_are_read(piece: str) -> None:
    assert len(uses(filled(piece, DENSE))) <= 2


def calls(text: str) -> int:
    """Calls of Python and built-in functions in reading `text`."""
    count = 0

    def counted(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    uses("")  # what is made once, on first use
    sys.setprofile(counted)
    try:
        uses(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("piece", DENSE_PIECES)
def test_twice_the_text_makes_twice_the_calls(piece: str) -> None:
    once, twice = (calls(filled(piece, size)) for size in (20_000, 40_000))
    assert 1.9 * once < twice < 2.1 * once


@pytest.mark.timeout(60)
def test_a_slug_of_a_million_characters_has_one_parent() -> None:
    (use,) = RULES.uses(EntityRef("page", "X"), None, "", {"slug": filled("a/", DENSE)})
    assert len(use.key) <= 512
