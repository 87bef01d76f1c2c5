"""Mentions: where a text refers to other entities, and which phrase stands before each.

One pass, in time linear in the text. The patterns that are searched for in the whole text begin with a fixed character
and have no quantifier inside another. All other patterns (the type before a colon, the phrase before a mention, the
separator between two mentions) read a bounded stretch of text.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from heapq import merge
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from mcp_assets.entities.composite_ids import split_id
from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef
from mcp_assets.graph.keys import ReferenceKey, id_key
from mcp_assets.graph.prose import Span
from mcp_assets.graph.url_references import LinkForms
from mcp_assets.graph.wiki_links import names_of, target_of

_ID = re.compile(r":([A-Za-z0-9][A-Za-z0-9_-]*+)")
_OF_KEY = "[A-Za-z0-9~_-]"
"""A character of a value in the id of a key of several columns; see `entities.composite_ids`."""

_TITLE = re.compile(r"\[\[([^\[\]]++)\]\]")

LOOK_BACK = 128
"""Characters before a mention in which a phrase may stand, and between two mentions of one list: enough for a
phrase, white space, a colon, emphasis and the shown text of a Markdown link. Measured on 9,000 real texts: 16
characters find every phrase that 1,024 find, and neither takes longer, so that there is room for longer shown texts."""

_BULLET = r"[-*+•]\s"
_COLON = r"[*_]*+\s*+:?[*_]*+\s*+"
_OPENING = rf"""(?:{_BULLET}\s*+)?(?:\[[^\[\]\n]*+\]\()?[(\["'`*_]*+"""
_CLOSING = r"""[)\]"'`*_]*+(?:\s*+\([^()\n]*+\))?"""
_SEPARATOR = rf"(?:\s*+[,;&]\s*+(?:(?:and|or)\s++)?|\s++(?:and|or)\s++|[^\S\n]*+\n\s*+(?={_BULLET}))"
_BETWEEN_IN_LIST = re.compile(_CLOSING + _SEPARATOR + _OPENING, re.IGNORECASE)


class Form(StrEnum):
    """How a reference is written: the key `reference_type` of an edge's evidence."""

    ID = "id"
    TITLE = "title"
    EMBED = "embed"
    LINK = "link"
    METADATA = "metadata"
    SLUG = "slug"


class Mention(NamedTuple):
    """One reference in a text: characters [start, end) of it."""

    start: int
    end: int
    keys: tuple[ReferenceKey, ...]
    """Names of the entity that is meant; the first that finds an entity counts."""
    within: str | None
    """The only entity type that it can mean; None for any."""
    form: Form
    phrase: str | None
    """The phrase directly before it, or before the list in which it stands."""

    @property
    def key(self) -> ReferenceKey:
        return self.keys[0]


class _Reference(NamedTuple):
    """A mention before its phrase is looked for."""

    start: int
    end: int
    keys: tuple[ReferenceKey, ...]
    within: str | None
    form: Form


_NOTHING_HIDDEN: Sequence[Span] = ()


_SPAN = itemgetter(0, 1)


class Mentions:
    """Finds the mentions in texts.

    `type_names`: name -> entity type; `Page:x` means what `page:x` means. A name that is not in it makes no reference.
    `phrases`: the phrases to look for, in any case and with any white space between their words. `key_columns`: how
    many columns the key of a type has, if it has several: `issue:ABC/12` names an entity of such a type.
    """

    def __init__(
        self,
        type_names: Mapping[str, str],
        links: LinkForms,
        phrases: Iterable[str],
        key_columns: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._rest_of_key = {
            entity_type: re.compile(rf"{_OF_KEY}*+(?:/{_OF_KEY}++){{{columns - 1}}}")
            for entity_type, columns in key_columns.items()
        }
        self._key_columns = key_columns
        self._types = {name.lower(): entity_type for name, entity_type in type_names.items()}
        self._name_lengths = sorted({len(name) for name in self._types})
        self._links = links
        self._phrases = tuple(phrases)
        spelled = (r"\s++".join(map(re.escape, phrase.split())) for phrase in self._phrases)
        one_of_them = "|".join(f"({spelling})" for spelling in spelled)
        self._phrase = re.compile(rf"(?<![^\W_])(?<!-)(?:{one_of_them}){_COLON}{_OPENING}$", re.IGNORECASE)

    def find(self, text: str, hidden: Callable[[], Sequence[Span]] = lambda: _NOTHING_HIDDEN) -> Iterator[Mention]:
        """Every mention in `text`, in order, except for mentions that begin in one of the `hidden` spans.

        `hidden` returns spans in their order, and is called only if there is any mention.

        A phrase belongs to the mention directly after it and to those in one list with it: "depends on task:A (done),
        task:B and `task:C`", or the lines of a bulleted list. White space, a colon, quotes, brackets and emphasis may
        stand between, and the shown text of a Markdown link.
        """
        found = merge(self._ids(text), self._titles(text), self._addresses(text), key=_SPAN)
        end, phrase = 0, None
        spans: Iterator[Span] | None = None
        span: Span | None = None
        for each in found:
            if spans is None:
                spans = iter(hidden())
                span = next(spans, None)
            while span is not None and span.end <= each.start:
                span = next(spans, None)
            if span is not None and span.start <= each.start:
                continue
            if each.start < end:  # inside another: an id in an address or in brackets
                yield Mention(*each, phrase=None)
                continue
            phrase = self._phrase_before(text, each.start, end, phrase)
            yield Mention(*each, phrase=phrase)
            end = each.end

    def _ids(self, text: str) -> Iterator[_Reference]:
        end = 0
        for match in _ID.finditer(text):
            colon = match.start()
            name = self._name_before(text, colon, end)
            id_end = self._end_of_id(text, match, self._types[name]) if name is not None else None
            if name is not None and id_end is not None and id_end - match.start(1) <= MAX_ID_LENGTH:
                end = id_end
                key = id_key(EntityRef(self._types[name], text[match.start(1) : end]))
                yield _Reference(colon - len(name), end, (key,), None, Form.ID)

    def _end_of_id(self, text: str, match: re.Match[str], entity_type: str) -> int | None:
        """Where the id ends that `match` begins; None if no entity of the type can have it."""
        rest = self._rest_of_key.get(entity_type)
        if rest is None:
            return match.end()
        found = rest.match(text, match.end())
        if found is None:
            return None
        whole = text[match.start(1) : found.end()]
        return found.end() if split_id(whole, self._key_columns[entity_type]) is not None else None

    def _name_before(self, text: str, colon: int, previous_end: int) -> str | None:
        """The type name that ends before `colon`.

        None if there is none, or if it is a part of a longer word or of the id before it.
        """
        for length in self._name_lengths:
            start = colon - length
            if start < previous_end:
                return None
            name = text[start:colon].lower()
            if name in self._types and (start == 0 or not _continues_word(text[start - 1])):
                return name
        return None

    def _titles(self, text: str) -> Iterator[_Reference]:
        for match in _TITLE.finditer(text):
            target = target_of(match[1])
            keys = names_of(target)
            if keys and not self._is_by_id(target.partition("#")[0].strip()):
                form = Form.EMBED if text[match.start() - 1 : match.start()] == "!" else Form.TITLE
                yield _Reference(match.start(), match.end(), keys, None, form)

    def _addresses(self, text: str) -> Iterator[_Reference]:
        for link in self._links.find(text):
            yield _Reference(link.start, link.end, (link.key,), link.entity_type, Form.LINK)

    def _is_by_id(self, text: str) -> bool:
        name = text.partition(":")[0]
        match = _ID.match(text, len(name))
        entity_type = self._types.get(name.lower())
        return match is not None and entity_type is not None and self._end_of_id(text, match, entity_type) == len(text)

    def _phrase_before(self, text: str, start: int, previous_end: int, previous: str | None) -> str | None:
        stretch_start = max(previous_end, start - LOOK_BACK)
        match = self._phrase.search(text, stretch_start, start)
        if match is not None and match.lastindex is not None:
            return self._phrases[match.lastindex - 1]
        in_list = stretch_start == previous_end and _BETWEEN_IN_LIST.fullmatch(text, previous_end, start)
        return previous if in_list else None


def _continues_word(character: str) -> bool:
    return character.isalnum() or character in "_-"
