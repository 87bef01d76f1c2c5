"""Ranks: at which place of a search's results the first answer stands, and the figures of many such places."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef

RESULTS = 20
"""Results of a search in which the answer is looked for: two pages of ten."""


@dataclass(frozen=True, slots=True)
class SearchFigures:
    """Of some questions. The shares are from 0 to 1, and 0 if there is no question."""

    questions: int
    hit_1: float
    """Share of the questions with an answer as the first result."""
    hit_5: float
    """Share of the questions with an answer among the first five results."""
    mrr: float
    """Mean reciprocal rank: the mean of one over the rank of the first answer, 0 where none is found."""


def rank_of(results: Iterable[EntityRef], answers: Collection[EntityRef]) -> int | None:
    """The place of the first answer among the results, from 1; None: no result is one."""
    return next((place for place, ref in enumerate(results, start=1) if ref in answers), None)


def search_figures(ranks: Sequence[int | None]) -> SearchFigures:
    """The figures of the ranks of all questions."""
    return SearchFigures(
        questions=len(ranks),
        hit_1=_share(ranks, sum(rank == 1 for rank in ranks)),
        hit_5=_share(ranks, sum(rank is not None and rank <= 5 for rank in ranks)),
        mrr=_share(ranks, sum(1 / rank for rank in ranks if rank)),
    )


def _share(ranks: Sequence[int | None], found: float) -> float:
    return round(found / len(ranks), 4) if ranks else 0.0
