"""Both sides of a change of model: figures, when the new one is worse, and which questions a person is shown."""

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.quality import Compared, Question, SearchFigures, is_worse, most_changed, side_figures

A, B, C = (EntityRef("task", name) for name in "abc")


def asked(text: str, old: list[EntityRef], new: list[EntityRef], kind: str = "title") -> Compared:
    return Compared(Question(kind, text, frozenset({A})), old, new)


def test_figures_are_of_all_questions_and_of_each_kind() -> None:
    old, new = side_figures([asked("x", [A], [B, A]), asked("y", [B], [A], "link")])
    assert (old.all.hit_1, new.all.hit_1) == (0.5, 0.5)
    assert {kind: one.hit_1 for kind, one in old.kinds.items()} == {"title": 1.0, "link": 0.0}
    assert {kind: one.mrr for kind, one in new.kinds.items()} == {"title": 0.5, "link": 1.0}


@pytest.mark.parametrize(
    ("hit_5", "mrr", "worse"),
    [(0.90, 0.80, False), (0.88, 0.78, False), (0.879, 0.80, True), (0.95, 0.779, True), (0.95, 0.85, False)],
)
def test_the_new_side_is_worse_if_either_figure_is_lower_by_more_than_the_margin(
    hit_5: float, mrr: float, worse: bool
) -> None:
    assert is_worse(SearchFigures(100, 0.7, 0.90, 0.80), SearchFigures(100, 0.7, hit_5, mrr), 0.02) is worse


def test_the_questions_that_are_shown_are_those_whose_answers_moved_most_losses_first() -> None:
    same, lost, won, slipped = (
        asked("same", [A], [A]),
        asked("lost", [A], [B]),
        asked("won", [B], [A]),
        asked("slipped", [A], [B, A]),
    )
    assert most_changed([same, won, slipped, lost], 3) == [lost, won, slipped]
