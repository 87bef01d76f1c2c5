"""Pipeline: several batches at a time, a bounded number, results in the order of the batches."""

import threading
import time
from collections.abc import Iterator

import pytest

from mcp_assets.sync.pipeline import overlapped


def test_results_come_in_the_order_of_the_batches_whatever_ends_first() -> None:
    second_done = threading.Event()

    def work(batch: int) -> int:
        if batch == 0:
            assert second_done.wait(10)
        if batch == 1:
            second_done.set()
        return batch * 10

    assert list(overlapped(range(5), work, in_flight=3)) == [(n, n * 10) for n in range(5)]


def test_exactly_as_many_batches_as_allowed_are_worked_on_at_once() -> None:
    together = threading.Barrier(3, timeout=10)
    lock = threading.Lock()
    now = most = 0

    def work(batch: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1

    assert len(list(overlapped(range(9), work, in_flight=3))) == 9
    assert most == 3


def test_batches_are_drawn_only_as_room_comes_free() -> None:
    drawn: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    held = threading.Event()
    results = overlapped(batches(), lambda batch: held.wait(10) and batch, in_flight=4)
    threading.Timer(0.2, held.set).start()
    next(results)

    assert len(drawn) == 8


def test_a_window_that_is_to_be_filled_is_full_before_the_first_result_is_given() -> None:
    drawn: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(100):
            time.sleep(0.01)  # The first is done long before the next is drawn.
            drawn.append(number)
            yield number

    results = overlapped(batches(), lambda batch: batch, in_flight=2, fill=True)
    assert next(results) == (0, 0)
    assert len(drawn) == 4
    assert [batch for batch, _ in results] == list(range(1, 100))


def test_an_error_is_raised_in_its_batchs_turn_after_those_in_flight_have_ended() -> None:
    ended: list[int] = []
    failing, following = threading.Event(), threading.Event()

    def work(batch: int) -> int:
        if batch == 2:
            assert following.wait(10)
            failing.set()
            raise ValueError("the third")
        if batch == 3:
            following.set()
            assert failing.wait(10)
        ended.append(batch)
        return batch

    results = overlapped(range(100), work, in_flight=4)
    seen: list[int] = []
    with pytest.raises(ValueError, match="the third"):
        seen.extend(batch for batch, _ in results)

    assert seen == [0, 1]
    assert 3 in ended
    assert max(ended) < 12


def test_a_caller_that_leaves_early_leaves_no_work_behind() -> None:
    running = threading.active_count()
    results = overlapped(range(1000), lambda batch: batch, in_flight=4)
    next(results)
    results.close()

    assert threading.active_count() == running


def test_a_result_is_handed_on_before_the_window_is_full() -> None:
    drawn: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            time.sleep(0.05)
            yield number

    next(overlapped(batches(), lambda batch: batch, in_flight=4))

    assert len(drawn) < 4


def test_no_batches_make_no_results() -> None:
    assert list(overlapped([], lambda batch: batch, in_flight=2)) == []


def test_an_error_while_batches_are_drawn_reaches_the_caller() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        list(overlapped(batches(), lambda batch: batch, in_flight=2))


@pytest.mark.parametrize("ended_by", ["an error", "its caller", "its batches"])
def test_batches_in_flight_are_stopped_only_when_it_ends_before_its_time(ended_by: str) -> None:
    given_up = threading.Event()

    def work(batch: int) -> int:
        if ended_by == "its batches":
            return batch
        if batch == 0:
            if ended_by == "an error":
                raise ValueError("no")
            return batch
        assert given_up.wait(10)
        return batch

    results = overlapped(range(3), work, in_flight=3, give_up=lambda _: given_up.set())
    if ended_by == "an error":
        with pytest.raises(ValueError, match="no"):
            list(results)
    elif ended_by == "its caller":
        assert next(results) == (0, 0)
        results.close()
    else:
        assert len(list(results)) == 3
    assert given_up.is_set() == (ended_by != "its batches")


def test_a_batch_that_fails_ends_the_wait_of_one_before_it() -> None:
    given_up = threading.Event()

    def work(batch: int) -> int:
        if batch == 1:
            raise ValueError("no quota")
        assert given_up.wait(10)
        raise TimeoutError("the store is away")

    with pytest.raises(TimeoutError) as raised:
        list(overlapped(range(2), work, in_flight=2, give_up=lambda _: given_up.set()))
    assert raised.value.__notes__ == ["another batch had failed before: ValueError: no quota"]
