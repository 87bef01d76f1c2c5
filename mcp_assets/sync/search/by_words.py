"""By words: ranks entities by the words that they share with a question, in PostgreSQL.

The ranking is that of BM25 in its idea: a word counts the more, the fewer entities hold it; a word that occurs often in
a text counts more, and less so the longer the text is. Only entities that hold one of the rarest words of the question
are ranked, so that a search costs the same among a million entities as among a thousand.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_assets.entities.conditions import Condition, as_json
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.words import CutQuestion, name_word, quoted
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.search.fusion import Ranked

_CANDIDATES = 400
"""Entities that are ranked, about: each costs some 20 µs, because its words are read. Words are taken from the rarest
on until their holders are so many."""

_CANDIDATES_WITH_CONDITIONS = 10 * _CANDIDATES
"""The same, where most candidates may fail the conditions, which are cheaper to test than words are to rank."""

_MOST_CANDIDATES = 10_000
"""Where a single word has more holders, or a phrase of common words is asked for, so many of them are ranked: that
takes some 200 ms."""

_HOLDERS_COUNTED = 3_000
"""The number of holders from which on a word is simply common: counting goes no further."""

_KNOWN_S = 60.0
"""Seconds for which the number of holders of a common word is known: it hardly changes the word's weight."""

_COMMON_FROM = 50
"""Holders from which on a word is common. Counting those of a rarer one costs less than remembering it earns."""

_KNOWN_WORDS = 10_000
"""Common words whose holders are known at once: few languages have more."""

_WORDS_OF_A_QUESTION = 64
"""A question may be a whole text. Of its words, the first so many count."""


@dataclass(frozen=True, slots=True)
class WordRanking:
    """`entities`, best first. `weights`: of the words of the question, by word, as rare as they are."""

    entities: list[Ranked]
    weights: dict[str, float]


@dataclass(frozen=True, slots=True)
class WordSearch:
    """What is looked for: at most `limit` entities of `types` whose metadata meet the conditions."""

    question: CutQuestion
    types: Sequence[str]
    conditions: Sequence[Condition]
    limit: int

    def parameters(self) -> dict[str, Any]:
        return {
            "types": list(self.types),
            "conditions": json.dumps([as_json(condition) for condition in self.conditions]),
            "limit": self.limit,
        }


def rank_by_words(platform: Platform, connection: Connection, asked: WordSearch) -> WordRanking:
    """The entities that share most with the question.

    The share of an entity, as `fuse` takes it, is the weight of the question's words that it holds. So a question whose
    words are nowhere together is answered more by meaning.

    Raises:
        StoreUnavailable, StoreRefused.
    """
    words = asked.question.words[:_WORDS_OF_A_QUESTION]
    counts = platform.companion(_WordCounts)
    holders = counts.holders(connection, words)
    total = counts.total(connection)
    weights = {word: _rareness(holders[word], total) for word in words}
    held = sorted((word for word in words if holders[word]), key=lambda word: holders[word])
    if not held:
        return WordRanking([], weights)
    phrase = asked.question.phrase_words
    candidates = _rarest(held, holders, _CANDIDATES_WITH_CONDITIONS if asked.conditions else _CANDIDATES)
    parameters = {
        "candidates": " & ".join(map(quoted, phrase)) if phrase else " | ".join(map(quoted, candidates)),
        "most": _MOST_CANDIDATES,
        "words": [quoted(word) for word in held],
        "weights": [weights[word] for word in held],
    }
    row = _ranked_of(sum(weights.values()))
    return WordRanking(
        platform.postgres.rows(connection, "rank_by_words", row, parameters | asked.parameters()), weights
    )


def named_like(
    platform: Platform, connection: Connection, asked: WordSearch
) -> tuple[list[EntityRef], list[EntityRef]]:
    """The entities whose id or title is the question, and those whose id or title begins with it, shortest text first.

    A question of several runs is compared as a whole only.
    """
    question = asked.question
    if not question.name:
        return [], []
    word = quoted(name_word(question.name))
    parameters = {"exact": word, "candidates": f"{word}:*" if question.is_one_run else word}
    found = platform.postgres.rows(connection, "named_like", _Named, parameters | asked.parameters())
    exact = [EntityRef(one.entity_type, one.entity_id) for one in found if one.exact]
    return exact, [EntityRef(one.entity_type, one.entity_id) for one in found if not one.exact]


@dataclass(frozen=True, slots=True)
class _Named:
    entity_type: str
    entity_id: str
    exact: bool


def _ranked_of(asked: float) -> Callable[..., Ranked]:
    def make(entity_type: str, entity_id: str, score: float, covered: float) -> Ranked:
        return Ranked(EntityRef(entity_type, entity_id), score, covered / asked)

    return make


class _WordCounts:
    """How many entities there are, and how many hold each word: of common words, that is remembered for a while."""

    def __init__(self, platform: Platform) -> None:
        self._postgres = platform.postgres
        self._table = f'"{platform.settings.schema_name}".search_words'
        self._common: dict[str, int] = {}
        self._total: int | None = None
        self._since = 0.0

    def close(self) -> None:
        """Nothing is open."""

    def holders(self, connection: Connection, words: Sequence[str]) -> dict[str, int]:
        """The number of entities that hold each word, at most _HOLDERS_COUNTED."""
        common = self._remembered()
        asked = [quoted(word) for word in words if word not in common]
        if not asked:
            return {word: common[word] for word in words}
        parameters = {"words": asked, "most": _HOLDERS_COUNTED}
        counted: dict[str, int] = dict(connection.execute(self._postgres.query("word_holders"), parameters).fetchall())
        found = {word: counted[quoted(word)] if word not in common else common[word] for word in words}
        if len(common) < _KNOWN_WORDS:
            common.update((word, count) for word, count in found.items() if count >= _COMMON_FROM)
        return found

    def total(self, connection: Connection) -> int:
        """How many entities have words, about."""
        self._remembered()
        if self._total is not None:
            return self._total
        row = connection.execute(self._postgres.query("count_words_of_entities"), {"table": self._table}).fetchone()
        self._total = int(row[0]) if row else 0
        return self._total

    def _remembered(self) -> dict[str, int]:
        # Searches may run in several threads: each keeps the dictionary that it began with.
        if time.monotonic() - self._since > _KNOWN_S:
            self._common, self._total, self._since = {}, None, time.monotonic()
        return self._common


def _rareness(holders: int, total: int) -> float:
    """The weight of a word: BM25's inverse document frequency."""
    total = max(total, holders)
    return math.log(1 + (total - holders + 0.5) / (holders + 0.5))


def _rarest(held: Sequence[str], holders: dict[str, int], most: int) -> list[str]:
    """The first words of `held`, which is ordered from the rarest on, with at most `most` holders; one at least."""
    room = most
    taken: list[str] = []
    for word in held:
        if taken and holders[word] > room:
            break
        taken.append(word)
        room -= holders[word]
    return taken
