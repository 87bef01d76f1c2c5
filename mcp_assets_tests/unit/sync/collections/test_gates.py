"""What a gate lets pass: figures within the margin, what cannot be compared, what a person approved."""

from typing import Any

import pytest

from mcp_assets.sync.collections.gates import Gate


def gate(outcome: Any, *, decision: Any = None, hit_5: float = 0.9, reason: str = "") -> Gate:
    side = {"questions": 80, "hit_1": 0.5, "mrr": 0.6}
    figures = {"old": {"hit_5": 0.9, **side}, "new": {"hit_5": hit_5, **side}} if outcome == "measured" else {}
    return Gate("other", 16, outcome, reason, figures, [], "", None, decision, decision and "anna", None, None)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (gate("measured"), None),
        (gate("measured", hit_5=0.88), None),
        (gate("measured", hit_5=0.8), "other answers worse: of 80 questions, 80.0% have an answer"),
        (gate("measured", hit_5=0.8, decision="approved"), None),
        (gate("measured", decision="abandoned"), "the change to other was abandoned by anna"),
        (gate("not_measured", reason="few"), None),
        (gate("failed", reason="no key"), "the two models could not be compared: no key"),
        (gate("failed", reason="no key", decision="approved"), None),
        (gate(None, decision="approved"), None),
        (gate(None, decision="abandoned"), "the change to other was abandoned by anna"),
    ],
)
def test_a_gate_is_held_by_worse_figures_a_failure_or_an_abandonment(held: Gate, why: str | None) -> None:
    said = held.why_held(0.02)
    assert said is None if why is None else said is not None and said.startswith(why)


def test_a_wider_margin_lets_pass_what_a_narrow_one_holds() -> None:
    assert gate("measured", hit_5=0.8).why_held(0.1) is None
