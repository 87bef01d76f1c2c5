"""Conditions: how they are written, and what is refused."""

from datetime import UTC, datetime

import pytest

from mcp_assets.entities.conditions import Condition, ConditionError, conditions_of


@pytest.mark.parametrize(
    ("written", "condition"),
    [
        ("status=open", Condition("status", "=", any_of=("open",))),
        (" status = 'in review' ", Condition("status", "=", any_of=("in review",))),
        ("points!=3", Condition("points", "!=", any_of=("3", 3))),
        ("done=true", Condition("done", "=", any_of=("true", True))),
        ("points<=2.5", Condition("points", "<=", number=2.5)),
        ("due<2026-12-01", Condition("due", "<", moment=datetime(2026, 12, 1, tzinfo=UTC))),
        ("due>=2026-12-01T10:00:00+02:00", Condition("due", ">=", moment=datetime(2026, 12, 1, 8, tzinfo=UTC))),
        ("title=a=b", Condition("title", "=", any_of=("a=b",))),
        ("number=00000000000000000001", Condition("number", "=", any_of=("00000000000000000001",))),
    ],
)
def test_a_condition_is_key_comparison_and_value(written: str, condition: Condition) -> None:
    assert conditions_of([written]) == (condition,)


@pytest.mark.parametrize("written", ["", "status", "=open", "due<soon", "due<"])
def test_a_condition_that_cannot_be_understood_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ConditionError, match="2026-12-01"):
        conditions_of([written])
