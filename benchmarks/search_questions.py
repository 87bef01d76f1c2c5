"""Questions to a workspace, each with the entities that answer it, made by rule from the texts themselves.

Kinds: `identifier`: an option, a variable or a function that occurs in at most three texts; `title`: the title of an
entity; `paraphrase`: the first sentence of a text, which is removed from it; `deep`: a sentence far behind the
beginning of a long page, without each third word, because nobody quotes from memory. Nothing here knows how words are
cut or ranked.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mcp_assets.cli.load_entities import Line
from mcp_assets.entities.refs import EntityRef
from mcp_assets.quality import Question

KINDS = ("identifier", "title", "paraphrase", "deep")

_IDENTIFIER = re.compile(
    r"(?<![\w-])(--[a-z]\w*(?:-\w+)+|[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+|[a-z]+(?:_[a-z0-9]+)+|[A-Z][a-z]+(?:[A-Z][a-z0-9]+)+)"
    r"(?![\w-])"
)

_FEW = 3
"""Texts in which an identifier may occur: one that is everywhere asks for nothing in particular."""

_DEEP_FROM = 10_000
"""Characters before a deep passage: the point of a whole entity embeds 8,000."""

_LONG_FROM = 20_000
"""Characters of a page that deep passages are taken from."""

_SUMMARY = re.compile(r"^> (.+)$", re.MULTILINE)
"""The description of a command, at the beginning of its page."""

_HEADING = re.compile(r"^(.*\n=+\n|#+ .*\n)", re.MULTILINE)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def questions(entities: Sequence[Line], *, of_each: int, seed: int) -> tuple[list[Line], list[Question]]:
    """The entities to index, some of them without their first sentence, and `of_each` questions of each kind."""
    draw = random.Random(seed)
    by_ref = {EntityRef(one.entity_type, one.entity_id): one for one in entities}
    asked = [*_identifiers(by_ref, draw, of_each), *_titles(by_ref, draw, of_each), *_deep(by_ref, draw, of_each)]
    for ref, sentence in _first_sentences(by_ref, draw, of_each):
        content = " ".join(by_ref[ref].content.split()).replace(" ".join(sentence.split()), "")
        by_ref[ref] = replace(by_ref[ref], content=content)
        asked.append(Question("paraphrase", sentence, frozenset((ref,))))
    return list(by_ref.values()), asked


def _identifiers(by_ref: Mapping[EntityRef, Line], draw: random.Random, count: int) -> list[Question]:
    where = _where(by_ref, lambda line: _IDENTIFIER.findall(f"{line.title}\n{line.content}"))
    few = sorted(found for found, refs in where.items() if len(refs) <= _FEW)
    return [Question("identifier", one, frozenset(where[one])) for one in draw.sample(few, min(count, len(few)))]


def _titles(by_ref: Mapping[EntityRef, Line], draw: random.Random, count: int) -> list[Question]:
    where = _where(by_ref, lambda line: [" ".join((line.title or "").split()).casefold()])
    titles = sorted(title for title in where if title)
    return [Question("title", one, frozenset(where[one])) for one in draw.sample(titles, min(count, len(titles)))]


def _where(by_ref: Mapping[EntityRef, Line], found_in: Callable[[Line], Iterable[str]]) -> Mapping[str, set[EntityRef]]:
    where: dict[str, set[EntityRef]] = defaultdict(set)
    for ref, line in by_ref.items():
        for found in set(found_in(line)):
            where[found].add(ref)
    return where


def _first_sentences(by_ref: Mapping[EntityRef, Line], draw: random.Random, count: int) -> list[tuple[EntityRef, str]]:
    """Equally many of each type of entity."""
    by_type: dict[str, list[tuple[EntityRef, str]]] = defaultdict(list)
    for ref, line in by_ref.items():
        summary = _SUMMARY.search(line.content)
        sentences = [summary.group(1)] if summary else _sentences(_HEADING.sub("", line.content))
        if sentences and 30 < len(sentences[0]) < 300 and (summary or len(sentences) > 8):
            by_type[ref.type].append((ref, sentences[0]))
    each = count // max(len(by_type), 1)
    return [one for name in sorted(by_type) for one in draw.sample(by_type[name], min(each, len(by_type[name])))]


def _deep(by_ref: Mapping[EntityRef, Line], draw: random.Random, count: int) -> list[Question]:
    found = []
    for ref, line in by_ref.items():
        if len(line.content) > _LONG_FROM:
            sentences = [one for one in _sentences(line.content[_DEEP_FROM:]) if 80 < len(one) < 250]
            if sentences:
                words = draw.choice(sentences).split()
                kept = " ".join(word for place, word in enumerate(words) if place % 3 != 2)
                found.append(Question("deep", kept, frozenset((ref,))))
    return draw.sample(found, min(count, len(found)))


def _sentences(text: str) -> list[str]:
    return [one.strip() for one in _SENTENCE_END.split(" ".join(text.split())) if one.strip()]
