"""Comparison: the same questions answered by two sides, the model that serves and the one that is to replace it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef
from mcp_assets.quality.questions import Question
from mcp_assets.quality.ranks import SearchFigures, rank_of, search_figures


@dataclass(frozen=True, slots=True)
class Compared:
    """A question, and what each side found, best first."""

    question: Question
    old: Sequence[EntityRef]
    new: Sequence[EntityRef]

    @property
    def old_rank(self) -> int | None:
        return rank_of(self.old, self.question.answers)

    @property
    def new_rank(self) -> int | None:
        return rank_of(self.new, self.question.answers)

    @property
    def gain(self) -> float:
        """By how much the reciprocal rank is higher on the new side."""
        return _reciprocal(self.new_rank) - _reciprocal(self.old_rank)


def _reciprocal(rank: int | None) -> float:
    return 1 / rank if rank else 0.0


@dataclass(frozen=True, slots=True)
class SideFigures:
    """The figures of one side, of all questions and of each kind."""

    all: SearchFigures
    kinds: Mapping[str, SearchFigures]


def side_figures(compared: Sequence[Compared]) -> tuple[SideFigures, SideFigures]:
    """The figures of the old and of the new side."""
    kinds = sorted({one.question.kind for one in compared})
    old = {kind: search_figures([one.old_rank for one in compared if one.question.kind == kind]) for kind in kinds}
    new = {kind: search_figures([one.new_rank for one in compared if one.question.kind == kind]) for kind in kinds}
    return (
        SideFigures(search_figures([one.old_rank for one in compared]), old),
        SideFigures(search_figures([one.new_rank for one in compared]), new),
    )


def is_worse(old: SearchFigures, new: SearchFigures, margin: float) -> bool:
    """The new figures are lower than the old ones by more than `margin`: fewer hits, or lower ranks."""
    # Rounded, because a difference of exactly the margin is not one of more.
    return any(round(before - after, 4) > margin for before, after in ((old.hit_5, new.hit_5), (old.mrr, new.mrr)))


def most_changed(compared: Sequence[Compared], limit: int) -> list[Compared]:
    """The questions whose answers moved most, those that the new side answers worse before those that it answers
    better by as much."""
    return sorted(compared, key=lambda one: (-abs(one.gain), one.gain, one.question.kind, one.question.text))[:limit]
