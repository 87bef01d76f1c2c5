"""Passages: the part of a text that a search result shows, and the words of the question in it. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mcp_assets.graph.prose import Span

EXCERPT = 200
"""Characters of the text that a result shows: two lines of a terminal."""

_DECIDING = 8
"""Words of a question that decide which passage is shown, the rarest ones."""

_DECIDING_WEIGHT = 3.0
"""A word of which the rarest word of the question has more than so many times the weight decides nothing."""

_LEAD = 40
"""Characters before the first word of the question that an excerpt shows, so that the word stands in its sentence."""


@dataclass(frozen=True, slots=True)
class Passage:
    """An excerpt of a text, white space collapsed. `place`: where it stands in the text. `marks`: the words of the
    question in the excerpt, in order."""

    excerpt: str
    place: Span
    marks: tuple[Span, ...]

    def moved(self, characters: int) -> "Passage":
        """The same passage in a text that has `characters` more before it."""
        return replace(self, place=Span(self.place.start + characters, self.place.end + characters))


def best_passage(text: str, weights: Mapping[str, float], within: tuple[int, int] | None = None) -> Passage:
    """The passage that holds the most weight of different words of the question, the first of equals.

    `weights`: of the words, folded. `within`: the part of the text to prefer if none of the words is in the text.
    """
    words = {word: weight for word, weight in weights.items() if weight > 0}
    found = _places_of(_weightiest(words), text)
    start = _best_start(found, words) if found else within[0] if within else 0
    return _passage_at(text, start, words)


def _weightiest(weights: Mapping[str, float]) -> list[str]:
    """The words that decide which passage is the best: the rest stands everywhere, and would cost the most."""
    ordered = sorted(weights, key=lambda word: -weights[word])[:_DECIDING]
    return [word for word in ordered if weights[word] * _DECIDING_WEIGHT >= weights[ordered[0]]]


class _Place(NamedTuple):
    """Where a word of the question stands."""

    start: int
    end: int
    word: str


def _places_of(words: Iterable[str], text: str) -> list[_Place]:
    """The words where they stand in the text; of words that overlap, the longest of those that begin first."""
    lowered = _lowered(text)
    places = [_Place(start, start + len(word), word) for word in words for start in _starts_of(word, lowered)]
    places.sort(key=lambda place: (place.start, -place.end))
    apart: list[_Place] = []
    for place in places:
        if not apart or place.start >= apart[-1].end:
            apart.append(place)
    return apart


def _lowered(text: str) -> str:
    """The text in small letters, each at its place."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _starts_of(word: str, lowered: str) -> Iterator[int]:
    """Where the word stands, not as a part of another word."""
    spaceless = ord(word[0]) >= _SPACELESS_FROM
    at = lowered.find(word)
    while at >= 0:
        end = at + len(word)
        if spaceless or not (_is_letter(lowered, at - 1) or _is_letter(lowered, end)):
            yield at
        at = lowered.find(word, end)


_SPACELESS_FROM = 0x0E00
"""From Thai on, letters are of scripts in which words have no borders, or of scripts that are rare; see
`entities.words`."""


def _is_letter(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")


def _best_start(found: Sequence[_Place], weights: Mapping[str, float]) -> int:
    """The start of the window of EXCERPT characters with the most weight of different words."""
    best, start, last, weight = 0.0, found[0].start, 0, 0.0
    held: Counter[str] = Counter()
    for first in found:
        while last < len(found) and found[last].end <= first.start + EXCERPT - _LEAD:
            if not held[found[last].word]:
                weight += weights[found[last].word]
            held[found[last].word] += 1
            last += 1
        if weight > best + _SAME:
            best, start = weight, first.start
        if held[first.word]:
            held[first.word] -= 1
            weight -= 0.0 if held[first.word] else weights[first.word]
    return max(0, start - _LEAD)


_SAME = 1e-9
"""Sums of the same weights in another order differ by less, which is no better passage."""


def _passage_at(text: str, start: int, words: Iterable[str]) -> Passage:
    """The passage that begins at the word at or behind `start`."""
    if start > 0 and not text[start - 1].isspace():
        border = _SPACE.search(text, start, start + _LEAD)
        start = border.end() if border else start
    piece = text[start : start + 2 * EXCERPT]
    excerpt = " ".join(piece.split())[:EXCERPT]
    marks = tuple(Span(place.start, place.end) for place in _places_of(words, excerpt))
    return Passage(excerpt, Span(start, start + len(piece)), marks)


_SPACE = re.compile(r"\s")
