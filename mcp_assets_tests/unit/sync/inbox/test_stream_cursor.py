"""What intake tells from sequences: gaps before what a stream still holds, holes inside, and the order of messages."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.stores.streams import Message, Read, StreamState, StreamTraits
from mcp_assets.sync.inbox.intake import IntakeReport, event_order
from mcp_assets.sync.inbox.stream_cursor import (
    Cursor,
    find_gap,
    find_hole,
    find_replacement,
    find_rewind,
    is_left_behind,
)

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


def test_a_stream_made_again_is_a_gap_even_if_its_sequences_fit() -> None:
    gap = find_rewind(Cursor(1, MADE, 5), state(1, 9, MADE + timedelta(seconds=1)))

    assert gap is not None
    assert "made again" in gap


def test_a_stream_that_ends_before_what_was_read_is_a_gap() -> None:
    assert "restored or reset" in (find_rewind(Cursor(1, MADE, 9), state(1, 5)) or "")


READ = Message(5, "mcp.task.created", b"{}", MADE)
CURSOR = Cursor(1, MADE, 0).moved_to([READ])


@pytest.mark.parametrize(
    ("last", "next_at", "is_another"),
    [
        pytest.param(READ, None, False, id="the same, nothing new"),
        pytest.param(READ, MADE - timedelta(hours=1), False, id="the same, and a clock that stepped back behind it"),
        pytest.param(replace(READ, data=b"{ }"), None, True, id="other bytes"),
        pytest.param(replace(READ, subject="mcp.task.updated"), None, True, id="another subject"),
        pytest.param(replace(READ, stored_at=MADE + timedelta(microseconds=1)), None, True, id="another time"),
        pytest.param(None, None, False, id="gone, nothing new"),
        pytest.param(None, MADE, False, id="gone, the next is not older"),
        pytest.param(None, MADE - timedelta(microseconds=1), True, id="gone, and the next is older"),
    ],
)
def test_a_stream_was_refilled_if_the_last_message_is_another_or_gone_and_the_next_is_older(
    last: Message | None, next_at: datetime | None, is_another: bool
) -> None:
    news = [] if next_at is None else [Message(6, "mcp.task.created", b"", next_at)]

    assert (find_replacement(CURSOR, Read(news, more=False, last=last)) is not None) == is_another


def test_a_cursor_that_has_read_no_message_has_nothing_to_compare() -> None:
    read = Read([replace(READ, seq=6)], more=False, last=READ)

    assert find_replacement(Cursor(1, MADE, 5), read) is None


def test_no_message_of_an_epoch_was_stored_after_the_newest_though_the_clock_steps_back() -> None:
    back = replace(READ, seq=6, stored_at=MADE - timedelta(hours=1))

    moved = CURSOR.moved_to([back])

    assert (moved.last_seq, moved.last_stored_at, moved.newest_stored_at) == (6, back.stored_at, MADE)


def test_a_filtered_mirror_leaves_messages_out_by_nature() -> None:
    mirror = replace(state(8, 9), traits=StreamTraits(mirror_of="S", filtered_mirror=True))

    assert find_gap(Cursor(1, MADE, 5), mirror) is None


@pytest.mark.parametrize(
    ("read", "first", "last", "stored_s_ago", "is_behind"),
    [
        (90, 1, 100, 1.0, False),
        (90, 1, 100, 61.0, True),
        (40, 1, 100, 1.0, True),
        (100, 1, 100, 61.0, False),
    ],
)
def test_a_cursor_moves_past_foreign_messages_once_a_minute_or_when_the_stream_is_about_to_discard_them(
    read: int, first: int, last: int, stored_s_ago: float, is_behind: bool
) -> None:
    shared = replace(state(first, last), foreign_subjects=True, last_stored_at=MADE + timedelta(seconds=stored_s_ago))
    cursor = replace(CURSOR, last_seq=read)

    assert is_left_behind(cursor, shared) == is_behind
    assert not is_left_behind(cursor, replace(shared, foreign_subjects=False))


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
    total = IntakeReport(1, 2, None, True) + IntakeReport(3, 4, "a gap", False)

    assert total == IntakeReport(4, 6, "a gap", True)
