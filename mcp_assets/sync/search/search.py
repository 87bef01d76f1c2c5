"""Search: the entities that answer a question, by words and by meaning, best first."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.entities.conditions import Condition
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import build_text
from mcp_assets.entities.words import fold_whole, question_of
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres.rows import by_ref
from mcp_assets.sync.resolve_ids import pages
from mcp_assets.sync.search.by_meaning import MeaningRanking, MeaningSearch, Near, rank_by_meaning
from mcp_assets.sync.search.by_words import WordRanking, WordSearch, named_like, rank_by_words
from mcp_assets.sync.search.fusion import Contribution, Fused, Ranked, fuse
from mcp_assets.sync.search.passages import Passage, best_passage

By = Literal["both", "words", "meaning"]

_TEXTS_AT_ONCE = 50
"""Texts in memory at once where phrases are looked for: a text has up to four million characters."""

_DEPTH = 50
"""Entities of each ranking that are merged, at least: what stands further behind in both changes no page that people
look at."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One entity that a search found."""

    ref: EntityRef
    score: float
    """From 0 to 1, by the ranks in both rankings; in a search by meaning alone, the cosine."""
    cosine: float | None
    """Of the question and the entity's nearest point; None: the entity was found by its words alone."""
    title: str | None
    passage: Passage
    chunk: tuple[int, int] | None
    """Start and end, in the text, of the chunk whose point is the nearest; None: it is that of the whole entity."""
    is_name: bool
    """The question is the entity's id or title."""
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The results, best first. `missing`: what could not be asked, in words; the results are from the rest."""

    results: list[SearchResult]
    missing: list[str] = field(default_factory=list)
    words_alone: bool = False
    """Qdrant or the embedding provider is away."""


def search(
    platform: Platform,
    query: str,
    *,
    types: Sequence[str] = (),
    where: Sequence[Condition] = (),
    limit: int = 10,
    offset: int = 0,
    min_score: float | None = None,
    by: By = "both",
) -> SearchAnswer:
    """The `limit` entities of `types` (all by default) that answer the query and meet all conditions of `where`.

    `offset`: results of earlier pages, which are left out. `min_score`: results that score less are left out.

    An entity whose id or title is the question comes first. Quoted phrases have to stand in the text. While Qdrant or
    the embedding provider is away, the answer is by words alone, and says so.

    Raises:
        TextRefused: the query cannot be embedded, and the search is by meaning alone.
        CollectionMismatch: a collection was made for a model that is not configured.
        StoreUnavailable, StoreRefused: PostgreSQL is away; or the search is by meaning alone, and Qdrant is.
        EmbedderUnavailable: the search is by meaning alone.
    """
    question = question_of(query)
    named = list(types) or list(platform.settings.entity_types)
    depth = max(_DEPTH, offset + limit)
    # Phrases leave some of what is found out.
    needed = depth if question.phrases else offset + limit
    found = _rankings(
        platform, WordSearch(question, named, where, depth), MeaningSearch(query, named, where, needed, depth), by
    )
    merged = _merged(platform, found, by)
    if question.phrases:
        merged = _with_phrases(platform, merged, question.phrases)
    if min_score is not None:
        merged = [one for one in merged if one.score >= min_score]
    page = merged[offset : offset + limit]
    texts = _texts(platform, [one.ref for one in page])
    near = {one.ref: one for one in found.near}
    # An entity may be deleted between the two reads.
    results = [_result(one, texts[one.ref], near.get(one.ref), found) for one in page if one.ref in texts]
    return SearchAnswer(results, found.missing, found.words_alone)


@dataclass(frozen=True, slots=True)
class _Rankings:
    near: list[Near] = field(default_factory=list)
    by_words: WordRanking = field(default_factory=lambda: WordRanking([], {}))
    named: list[EntityRef] = field(default_factory=list)
    """Entities whose id or title is the question."""
    begun: list[EntityRef] = field(default_factory=list)
    """Entities whose id or title begins with the question."""
    missing: list[str] = field(default_factory=list)
    words_alone: bool = False

    def with_meaning(self, ranking: MeaningRanking) -> "_Rankings":
        return replace(self, near=ranking.entities, missing=[ranking.missing] if ranking.missing else [])


def _rankings(platform: Platform, words: WordSearch, meaning: MeaningSearch, by: By) -> _Rankings:
    if by == "words":
        return _by_words(platform, words)
    if by == "meaning":
        return _Rankings().with_meaning(rank_by_meaning(platform, meaning))
    # At the same time, because one waits for the provider and Qdrant, and the other for PostgreSQL.
    with ThreadPoolExecutor(1, "search-by-meaning") as other:
        asked = other.submit(rank_by_meaning, platform, meaning)
        of_words = _by_words(platform, words)
        try:
            return of_words.with_meaning(asked.result())
        except (StoreUnavailable, StoreRefused, EmbedderUnavailable, TextRefused) as error:
            # A text that cannot be embedded is no outage.
            missing = [f"nothing was searched by meaning: {error}"]
            return replace(of_words, missing=missing, words_alone=not isinstance(error, TextRefused))


def _by_words(platform: Platform, wanted: WordSearch) -> _Rankings:
    with platform.postgres.transaction() as connection:
        by_words = rank_by_words(platform, connection, wanted)
        named, begun = named_like(platform, connection, wanted)
    return _Rankings(by_words=by_words, named=named, begun=begun)


def _merged(platform: Platform, found: _Rankings, by: By) -> list[Fused]:
    if by == "meaning":
        return [
            Fused(one.ref, one.cosine, (Contribution("meaning", rank, one.cosine, one.cosine),))
            for rank, one in enumerate(found.near, start=1)
        ]
    settings = platform.settings
    rankings = {
        "words": (settings.search_words_weight, found.by_words.entities),
        "name begins": (settings.search_words_weight, [Ranked(ref, 1.0) for ref in found.begun]),
        "meaning": (settings.search_meaning_weight, [Ranked(one.ref, one.cosine) for one in found.near]),
    }
    fused = {one.ref: one for one in fuse({name: ranking for name, ranking in rankings.items() if ranking[1]})}
    named = [fused.pop(ref, Fused(ref, 1.0, ())) for ref in found.named]
    return [replace(one, score=1.0) for one in named] + list(fused.values())


def _with_phrases(platform: Platform, merged: Sequence[Fused], phrases: Sequence[str]) -> list[Fused]:
    """The entities whose title or text holds all the phrases."""
    kept = []
    for page in pages(merged, _TEXTS_AT_ONCE):
        texts = _texts(platform, [one.ref for one in page])
        for one in page:
            folded = fold_whole(texts[one.ref].built) if one.ref in texts else ""
            if all(phrase in folded for phrase in phrases):
                kept.append(one)
    return kept


def _result(one: Fused, text: "_StoredText", near: Near | None, found: _Rankings) -> SearchResult:
    chunk = near.chunk if near is not None else None
    # The excerpt does not repeat the title, which stands beside it.
    body = text.built.removeprefix((text.title or "").strip()).lstrip()
    before = len(text.built) - len(body)
    nearest = None if chunk is None else (max(0, chunk[0] - before), chunk[1] - before)
    passage = best_passage(body, found.by_words.weights, nearest).moved(before)
    return SearchResult(
        ref=one.ref,
        score=one.score,
        cosine=near.cosine if near is not None else None,
        title=text.title,
        passage=passage,
        chunk=chunk,
        is_name=one.ref in found.named,
        contributions=one.contributions,
    )


@dataclass(frozen=True, slots=True)
class _StoredText:
    """Title and content of an entity, as the ledger has them."""

    title: str | None
    content: str

    @property
    def built(self) -> str:
        return build_text(self.title, self.content)


def _texts(platform: Platform, refs: Sequence[EntityRef]) -> dict[EntityRef, _StoredText]:
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        return dict(platform.postgres.rows(connection, "read_texts", by_ref(_StoredText), names))
