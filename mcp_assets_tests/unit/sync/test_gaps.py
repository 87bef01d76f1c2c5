"""What intake tells from sequences: gaps before what a stream still holds, holes inside, and the order of messages."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.stores.nats import Message, StreamState
from mcp_assets.sync.intake import Cursor, Intake, event_order, find_gap, find_hole, find_rewind

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def state(first: int, last: int, made: datetime = MADE) -> StreamState:
    return StreamState("S", made, first, last, foreign_subjects=False)


def messages(*sequences: int) -> list[Message]:
    return [Message(seq, "mcp.task.created", b"", MADE) for seq in sequences]


@pytest.mark.parametrize(
    ("read", "first", "last"),
    [
        pytest.param(0, 1, 0, id="an empty stream, nothing read"),
        pytest.param(0, 1, 5, id="all unread"),
        pytest.param(5, 1, 5, id="all read"),
        pytest.param(5, 6, 5, id="all read and purged"),
        pytest.param(5, 3, 9, id="what was read is partly gone"),
        pytest.param(5, 6, 9, id="what was read is gone"),
    ],
)
def test_nothing_is_lost_while_the_stream_holds_all_that_was_not_read(read: int, first: int, last: int) -> None:
    assert find_gap(Cursor(1, MADE, read), state(first, last)) is None


@pytest.mark.parametrize(
    ("read", "first", "last", "lost"),
    [(0, 2, 5, "messages 1 to 1 "), (5, 8, 9, "messages 6 to 7 "), (5, 10, 9, "messages 6 to 9 ")],
)
def test_messages_discarded_before_they_were_read_are_a_gap(read: int, first: int, last: int, lost: str) -> None:
    assert (find_gap(Cursor(1, MADE, read), state(first, last)) or "").startswith(lost)


def test_a_stream_made_anew_is_a_gap_even_if_its_sequences_fit() -> None:
    gap = find_rewind(Cursor(1, MADE, 5), state(1, 9, MADE + timedelta(seconds=1)))

    assert gap is not None
    assert "made anew" in gap


def test_a_stream_that_ends_before_what_was_read_is_a_gap() -> None:
    assert "restored or reset" in (find_rewind(Cursor(1, MADE, 9), state(1, 5)) or "")


@pytest.mark.parametrize(
    ("after", "sequences", "hole"),
    [
        (0, (), None),
        (0, (1, 2, 3), None),
        (7, (8,), None),
        (0, (2, 3), "messages 1 to 1 "),
        (7, (8, 11), "messages 9 to 10 "),
        (0, (1, 3, 5), "messages 2 to 2 "),
    ],
)
def test_a_hole_is_the_first_sequence_that_is_missing(after: int, sequences: tuple[int, ...], hole: str | None) -> None:
    found = find_hole(after, messages(*sequences))

    assert (found is None) == (hole is None)
    assert (found or "").startswith(hole or "")


TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
SEQUENCES = st.integers(1, 2**62)


@given(TIMES, TIMES, SEQUENCES, SEQUENCES)
def test_across_streams_the_time_stored_decides_as_text(a: datetime, b: datetime, m: int, n: int) -> None:
    if a != b:
        assert (event_order(a, "X", 1, m) < event_order(b, "A", 2, n)) == (a < b)


@given(TIMES, SEQUENCES, SEQUENCES)
def test_of_messages_stored_at_one_time_in_one_stream_the_sequence_decides(at: datetime, m: int, n: int) -> None:
    assert (event_order(at, "S", 2, m) < event_order(at, "S", 1, n)) == (m < n)


def test_the_work_of_several_streams_adds_up() -> None:
    total = Intake(1, 2, None, True) + Intake(3, 4, "a gap", False)

    assert total == Intake(4, 6, "a gap", True)
