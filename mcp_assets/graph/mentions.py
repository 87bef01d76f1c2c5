"""Mentions: where a text refers to other entities, and which phrase stands before each. One pass, linear in the text.

What is searched for in the whole text begins with a fixed character and has no quantifier inside another; all else
(the type before a colon, the phrase before a mention, what parts two mentions) looks at a bounded stretch of text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, title_key
from mcp_assets.graph.links import LinkForms

_ID = re.compile(r":([A-Za-z0-9][A-Za-z0-9_-]*+)")
_TITLE = re.compile(r"\[\[([^\[\]]++)\]\]")

LOOK_BACK = 128
"""Characters before a mention in which a phrase may stand, and between two mentions of one list."""

_OPENING = r"""(?:[-*+•]\s+)?(?:\[[^\[\]\n]*\]\()?[(\["'`*_]*"""
_CLOSING = r"""[)\]"'`*_]*(?:\s*\([^()\n]*\))?"""
_LIST_SEPARATOR = re.compile(
    rf"{_CLOSING}(?:\s*[,;&]\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+|\s*\n\s*(?=[-*+•]\s)){_OPENING}", re.IGNORECASE
)


class Mention(NamedTuple):
    """One reference in a text: characters [start, end) of it."""

    start: int
    end: int
    key: ReferenceKey
    within: str | None
    """The only entity type that it can mean; None for any."""
    phrase: str | None
    """The phrase directly before it, or before the list in which it stands."""


class _Found(NamedTuple):
    start: int
    end: int
    key: ReferenceKey
    within: str | None


class Mentions:
    """Finds the mentions in texts.

    `type_names`: name -> entity type; `Page:x` means what `page:x` means. A name that is not in it makes no reference.
    `phrases`: the phrases to look for, lower case, words parted by one space.
    """

    def __init__(self, type_names: Mapping[str, str], links: LinkForms, phrases: Iterable[str]) -> None:
        self._types = {name.lower(): entity_type for name, entity_type in type_names.items()}
        self._name_lengths = sorted({len(name) for name in self._types})
        self._links = links
        spelled = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
        self._phrase = re.compile(rf"(?<![\w-])({spelled})\s*:?\s*{_OPENING}$", re.IGNORECASE) if spelled else None

    def find(self, text: str) -> Iterator[Mention]:
        """Every mention in `text`, in order.

        A phrase belongs to the mention directly after it and to those in one list with it: "depends on task:A (done),
        task:B and `task:C`", or the lines of a bulleted list. White space, a colon, quotes, brackets and emphasis may
        stand between, and the shown text of a Markdown link.
        """
        found = sorted((*self._ids(text), *self._titles(text), *self._links.find(text)), key=lambda each: each[:2])
        end, phrase = 0, None
        for each in (_Found(*mention) for mention in found):
            if each.start < end:  # inside another: an id in an address or in brackets
                yield Mention(*each, phrase=None)
                continue
            phrase = self._phrase_before(text, each.start, end, phrase)
            yield Mention(*each, phrase=phrase)
            end = each.end

    def _ids(self, text: str) -> Iterator[_Found]:
        for match in _ID.finditer(text):
            colon = match.start()
            name = self._name_before(text, colon)
            if name is not None and len(match[1]) <= MAX_ID_LENGTH:
                key = id_key(EntityRef(self._types[name], match[1]))
                yield _Found(colon - len(name), match.end(), key, None)

    def _name_before(self, text: str, colon: int) -> str | None:
        """The type name that ends before `colon`, standing by itself."""
        for length in self._name_lengths:
            start = colon - length
            if start < 0:
                return None
            name = text[start:colon].lower()
            if name in self._types and (start == 0 or not _continues_word(text[start - 1])):
                return name
        return None

    def _titles(self, text: str) -> Iterator[_Found]:
        for match in _TITLE.finditer(text):
            key = title_key(match[1].partition("|")[0])
            if key is not None:
                yield _Found(match.start(), match.end(), ReferenceKey(ReferenceKind.TITLE, key), None)

    def _phrase_before(self, text: str, start: int, previous_end: int, previous: str | None) -> str | None:
        if self._phrase is None:
            return None
        stretch_start = max(previous_end, start - LOOK_BACK)
        match = self._phrase.search(text, stretch_start, start)
        if match is not None:
            return " ".join(match[1].lower().split())
        in_list = stretch_start == previous_end and _LIST_SEPARATOR.fullmatch(text, previous_end, start)
        return previous if in_list else None


def _continues_word(character: str) -> bool:
    return character.isalnum() or character in "_-"
