"""Quality: explicit links that other rules find, edges that a team accepts, golden questions that find an answer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import REFERENCE_TYPES, Decision, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.quality import (
    RESULTS,
    PairFigures,
    Question,
    SearchFigures,
    pair_figures,
    rank_of,
    read_golden,
    sampled,
    search_figures,
)
from mcp_assets.retrying import retrying
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings
from mcp_assets.stores.edge_samples import ends_of, judged_edges, sampled_pairs
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts
from mcp_assets.sync.link.changes import SEMANTIC, TOPICAL
from mcp_assets.sync.link.locks import reading_edges
from mcp_assets.sync.resolve_ids import living_among, pages
from mcp_assets.sync.search.search import search

RULES = (SEMANTIC, TOPICAL)
"""The types whose rules read no references, so that each explicit link is a pair that they were not told of."""

_MOST_LINKS = 2_000
"""Explicit links of the sample: a share of so many is exact to about two hundredths."""

_ENDS_AT_ONCE = 500
"""Entities whose edges are read at once: each has some forty."""

_MOST_QUESTIONS = 500
"""Golden questions that are asked: a search takes some 20 ms, and each is embedded."""

_MISSES_SHOWN = 20
"""Questions without an answer among the first five that are listed: enough to see a pattern."""

_FEW_LINKS = 20
"""Below so many links, a share says more of chance than of the rules, and is held against no threshold."""


@dataclass(frozen=True, slots=True)
class EdgeQuality:
    """The edges of the semantic and the topical rule, compared with a sample of explicit links."""

    links: int
    """Pairs of entities of the sample."""
    of_rules: Mapping[EdgeType | None, PairFigures]
    """By rule; None: of both together."""


@dataclass(frozen=True, slots=True)
class VerdictQuality:
    """The edges that the rules made and a team has judged."""

    accepted: int
    rejected: int
    found: int
    """Of the accepted ones, those that the rules make now."""

    @property
    def precision(self) -> float:
        """Share of the judged edges that were accepted."""
        return round(self.accepted / (self.accepted + self.rejected), 4)

    @property
    def recall(self) -> float:
        """Share of the accepted edges that the rules make now."""
        return round(self.found / self.accepted, 4)


@dataclass(frozen=True, slots=True)
class Miss:
    """A golden question without an answer among the first five results."""

    query: str
    expected: str
    rank: int | None
    """Of the first answer; None: none is among the first RESULTS."""
    first: str
    """The first result, or an empty text."""


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """The searches for the questions of the golden file."""

    figures: SearchFigures
    absent: int
    """Questions that were not asked, because no entity that answers them is living."""
    left_out: int
    """Questions that were not asked, because there are more than enough."""
    misses: Sequence[Miss]


@dataclass(frozen=True, slots=True)
class Quality:
    """All of it. `search`: None if the site has no golden file."""

    edges: EdgeQuality
    verdicts: VerdictQuality
    search: SearchQuality | None
    shortfalls: Sequence[str]
    """Figures that are below their thresholds, a sentence each."""

    def figures(self) -> dict[str, int | float]:
        """Every figure by its name. A share of nothing is left out."""
        found: dict[str, int | float] = {"links": self.edges.links}
        for rule, one in self.edges.of_rules.items():
            of_rule = f"/{rule.value}" if rule is not None else ""
            found[f"edges{of_rule}"] = one.edges
            if self.edges.links:
                found[f"recall{of_rule}"] = one.recall
            if one.edges:
                found[f"precision{of_rule}"] = one.precision
        judged = self.verdicts
        found |= {"accepted": judged.accepted, "rejected": judged.rejected}
        if judged.accepted + judged.rejected:
            found["judged_precision"] = judged.precision
        if judged.accepted:
            found["judged_recall"] = judged.recall
        if self.search is not None:
            found |= {"questions": self.search.figures.questions, "questions_absent": self.search.absent}
            if self.search.figures.questions:
                measured = self.search.figures
                found |= {"hit_1": measured.hit_1, "hit_5": measured.hit_5, "mrr": measured.mrr}
        return found


def measure_quality(platform: Platform) -> Quality:
    """Measure it now. Questions of the golden file are embedded, and counted among the costs.

    Raises:
        SettingsError: the golden file is wrong.
        StoreUnavailable, StoreRefused, CollectionMismatch, TextRefused: something could not be asked.
    """
    # First, because a person mends a wrong file at once.
    questions = _golden_questions(platform)
    edges = retrying(platform.settings)(_measure_edges, platform)
    verdicts = retrying(platform.settings)(_measure_verdicts, platform)
    found = _measure_search(platform, questions) if questions is not None else None
    return Quality(edges, verdicts, found, _shortfalls(platform.settings, edges, found))


def _golden_questions(platform: Platform) -> list[Question] | None:
    path = platform.settings.golden_file
    if path is None:
        return None
    try:
        return read_golden(path, platform.type_names.canonical)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _measure_edges(platform: Platform) -> EdgeQuality:
    table = platform.relationships
    with reading_edges(platform) as connection:
        pairs = sampled_pairs(table, connection, REFERENCE_TYPES, _MOST_LINKS)
        ends = sorted({ref for pair in pairs for ref in pair})
        linked: dict[EdgeType, dict[EntityRef, set[EntityRef]]] = {}
        for page in pages(ends, _ENDS_AT_ONCE):
            for edge in ends_of(table, connection, page, leaving=RULES, touching=REFERENCE_TYPES):
                linked.setdefault(edge.type, {}).setdefault(edge.ref, set()).add(edge.other)
    partners = _united(linked, REFERENCE_TYPES)
    rules: Mapping[EdgeType | None, Sequence[EdgeType]] = {None: RULES, **{rule: [rule] for rule in RULES}}
    return EdgeQuality(
        len(pairs), {rule: pair_figures(pairs, _united(linked, types), partners) for rule, types in rules.items()}
    )


def _measure_verdicts(platform: Platform) -> VerdictQuality:
    with reading_edges(platform) as connection:
        judged = judged_edges(platform.relationships, connection, platform.postgres.schema)
    accepted = [one for one in judged if one.decision == Decision.ACCEPTED]
    return VerdictQuality(
        accepted=sum(one.edges for one in accepted),
        rejected=sum(one.edges for one in judged) - sum(one.edges for one in accepted),
        found=sum(one.made_now for one in accepted),
    )


def _united(
    linked: Mapping[EdgeType, Mapping[EntityRef, Collection[EntityRef]]], types: Collection[EdgeType]
) -> dict[EntityRef, set[EntityRef]]:
    """By entity, all those that an edge of one of `types` links it to."""
    united: dict[EntityRef, set[EntityRef]] = {}
    for edge_type in types:
        for ref, others in linked.get(edge_type, {}).items():
            united.setdefault(ref, set()).update(others)
    return united


def _measure_search(platform: Platform, questions: Sequence[Question]) -> SearchQuality:
    living = living_among(platform, {ref for question in questions for ref in question.answers})
    answerable = [question for question in questions if not living.isdisjoint(question.answers)]
    asked = sampled(answerable, _MOST_QUESTIONS)
    profile, costs = serving_profile(platform), platform.companion(EmbeddingCosts)
    ranks: list[int | None] = []
    misses: list[Miss] = []
    for question in asked:
        results = retrying(platform.settings)(_results, platform, question)
        costs.add(min(question.answers).type, profile, 1, len(question.text.encode()), None)
        rank = rank_of(results, question.answers)
        ranks.append(rank)
        if rank is None or rank > 5:
            expected = ", ".join(map(str, sorted(question.answers)))
            misses.append(Miss(question.text, expected, rank, str(results[0]) if results else ""))
    costs.write()
    return SearchQuality(
        search_figures(ranks), len(questions) - len(answerable), len(answerable) - len(asked), misses[:_MISSES_SHOWN]
    )


def _results(platform: Platform, question: Question) -> list[EntityRef]:
    answer = search(platform, question.text, limit=RESULTS)
    if answer.words_alone:
        raise StoreUnavailable(f"the quality of searches cannot be measured: {answer.missing[0]}")
    return [result.ref for result in answer.results]


def _shortfalls(settings: Settings, edges: EdgeQuality, found: SearchQuality | None) -> list[str]:
    lines = []
    recall = edges.of_rules[None].recall
    if edges.links >= _FEW_LINKS and recall < settings.quality_recall:
        lines.append(
            f"semantic and topical edges find {recall:.1%} of {edges.links} explicit links, less than "
            f"{settings.quality_recall:.1%} (MCP_ASSETS_QUALITY_RECALL)"
        )
    if found is not None and found.figures.questions and found.figures.hit_5 < settings.quality_hit_5:
        lines.append(
            f"{found.figures.hit_5:.1%} of {found.figures.questions} golden questions have an answer among the first "
            f"five results, less than {settings.quality_hit_5:.1%} (MCP_ASSETS_QUALITY_HIT_5)"
        )
    return lines
