"""Pipeline: batches worked on several at a time, with a bounded window, their results in the order of the batches."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def overlapped(
    batches: Iterable[Batch],
    work: Callable[[Batch], Result],
    *,
    in_flight: int,
    fill: bool = False,
    give_up: Callable[[], None] | None = None,
) -> Iterator[tuple[Batch, Result]]:
    """`work` on each batch, at most `in_flight` at once: while one waits for the embedder, another reads or commits.

    `batches` is drawn from only as room comes free: as many again as are worked on wait, or are done and wait for the
    turn of their results. The first error of `work` is raised in its batch's turn, after the batches in flight have
    ended.

    With `fill` no result is given before there is no more room: for batches that are drawn at once, and results that
    take as long to work through as the work itself.

    `give_up` is called when an error, or the caller, ends it before its time: the batches in flight are to end, too.
    """
    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="batch")
    window: deque[tuple[Batch, Future[Result]]] = deque()
    try:
        for batch in batches:
            window.append((batch, executor.submit(work, batch)))
            while window and (len(window) >= 2 * in_flight or (not fill and window[0][1].done())):
                first, future = window.popleft()
                yield first, future.result()
        while window:
            first, future = window.popleft()
            yield first, future.result()
    except BaseException:
        if give_up is not None:
            give_up()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
