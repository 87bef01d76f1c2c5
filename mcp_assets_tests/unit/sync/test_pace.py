"""How fast long work goes, and how long it will still take."""

import pytest

from mcp_assets.sync.pace import WINDOW_S, Every, Pace, Progress, in_words


def test_a_line_says_how_much_is_done_how_fast_and_how_long_the_rest_takes() -> None:
    pace = Pace(100.0)
    assert str(pace.seen(200.0, 130_000, 1_000_000)) == "130,000 of 1,000,000, 1,300 a second, 11 minutes left"


def test_a_slow_rate_has_a_decimal() -> None:
    assert str(Pace(0.0).seen(10.0, 25, 40)) == "25 of 40, 2.5 a second, 6 seconds left"


def test_the_rate_is_that_of_the_last_minute_and_not_of_the_whole_work() -> None:
    pace = Pace(0.0)
    for second in range(1, 101):
        pace.seen(float(second), second * 1_000, 10**6)
    for second in range(101, 101 + int(WINDOW_S) + 1):
        seen = pace.seen(float(second), 100_000 + (second - 100) * 10, 10**6)
    assert seen.per_second == pytest.approx(10)


def test_a_pace_keeps_what_it_has_seen_in_a_window_and_no_more() -> None:
    pace = Pace(0.0)
    for second in range(10_000):
        pace.seen(float(second), second, 10_000)
    assert len(pace._seen) <= WINDOW_S + 2


def test_looks_that_are_further_apart_than_the_window_still_give_a_rate() -> None:
    pace = Pace(0.0)
    pace.seen(300.0, 300, 1_000)
    assert pace.seen(600.0, 900, 1_000).per_second == pytest.approx(2)


def test_where_nothing_is_done_nobody_can_say_how_long_it_takes() -> None:
    seen = Pace(0.0).seen(10.0, 0, 500)
    assert seen.left_s is None
    assert str(seen) == "0 of 500, 0.0 a second, it is not known how long the rest takes"


def test_work_that_is_done_takes_no_longer_whatever_its_rate() -> None:
    assert Progress(500, 500, 0.0).left_s == 0


def test_a_total_that_lags_behind_is_not_shown_as_less_than_what_is_done() -> None:
    assert str(Progress(600, 500, 20.0)) == "600 of 600, 20 a second, 0 seconds left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 seconds"), (1.0, "1 second"), (89.0, "89 seconds"), (91.0, "2 minutes"), (5_000.0, "83 minutes"),
     (9_000.0, "2.5 hours")],
)  # fmt: skip
def test_a_duration_is_said_in_one_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_something_is_due_at_most_once_in_its_time_and_not_at_the_beginning() -> None:
    every = Every(10.0, began_at=0.0)
    assert [every.is_due(now) for now in (0.0, 9.9, 10.0, 19.0, 20.5, 29.0)] == [False, False, True, False, True, False]
