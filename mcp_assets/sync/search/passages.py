"""Passages: the part of a text that a search result shows, and the words of the question in it. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

EXCERPT = 200
"""Characters of the text that a result shows: two lines of a terminal."""

_LEAD = 40
"""Characters before the first word of the question that an excerpt shows, so that the word stands in its sentence."""


class Span(NamedTuple):
    """Characters [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """An excerpt of a text, white space collapsed. `place`: where it stands in the text. `marks`: the words of the
    question in the excerpt, in order."""

    excerpt: str
    place: Span
    marks: tuple[Span, ...]


def best_passage(text: str, weights: Mapping[str, float], within: tuple[int, int] | None = None) -> Passage:
    """The passage that holds the most weight of different words of the question, the first of equals.

    `weights`: of the words, folded. `within`: the part of the text to prefer if none of its words is in the text.
    """
    pattern = _pattern(weights)
    found = [Span(*match.span()) for match in pattern.finditer(text)] if pattern is not None else []
    start = _best_start(text, found, weights) if found else within[0] if within else 0
    return _passage_at(text, start, pattern)


def _pattern(weights: Mapping[str, float]) -> "re.Pattern[str] | None":
    # Longer words first, so that a run is found as a whole and not by its first part.
    words = sorted((word for word, weight in weights.items() if weight > 0), key=lambda word: (-len(word), word))
    if not words:
        return None
    parts = [re.escape(word) if _is_spaceless(word) else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words]
    return re.compile("|".join(parts), re.IGNORECASE)


def _is_spaceless(word: str) -> bool:
    """Written in a script in which words have no borders; see `entities.words`."""
    return ord(word[0]) >= _SPACELESS_FROM


_SPACELESS_FROM = 0x0E00
"""From Thai on."""


def _best_start(text: str, found: Sequence[Span], weights: Mapping[str, float]) -> int:
    """The start of the window of EXCERPT characters with the most weight of different words."""
    best, start, last = 0.0, found[0].start, 0
    held: dict[str, int] = {}
    weight = 0.0
    words = [text[span.start : span.end].casefold() for span in found]
    for first, span in enumerate(found):
        while last < len(found) and found[last].end <= span.start + EXCERPT - _LEAD:
            held[words[last]] = held.get(words[last], 0) + 1
            if held[words[last]] == 1:
                weight += weights.get(words[last], 0.0)
            last += 1
        # Sums of floats in another order differ in the last digit, which is no better passage.
        if weight > best + 1e-9:
            best, start = weight, span.start
        held[words[first]] = held.get(words[first], 0) - 1
        if held[words[first]] == 0:
            weight -= weights.get(words[first], 0.0)
    return max(0, start - _LEAD)


def _passage_at(text: str, start: int, pattern: "re.Pattern[str] | None") -> Passage:
    """The passage that begins at the word at or behind `start`."""
    if start > 0 and not text[start - 1].isspace():
        border = re.compile(r"\s").search(text, start, start + _LEAD)
        start = border.end() if border else start
    piece = text[start : start + 2 * EXCERPT]
    excerpt = " ".join(piece.split())[:EXCERPT]
    marks = tuple(Span(*match.span()) for match in pattern.finditer(excerpt)) if pattern is not None else ()
    return Passage(excerpt, Span(start, min(len(text), start + len(piece))), marks)
