"""Pipeline: batches worked on several at a time, with a bounded window, their results in the order of the batches."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
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
    give_up: Callable[[BaseException], None] | None = None,
) -> Generator[tuple[Batch, Result], None, None]:
    """`work` on each batch, at most `in_flight` at once: while one waits for the embedder, another reads or commits.

    `batches` is drawn from only as room comes free: as many again as are worked on wait, or are done and wait for the
    turn of their results. The first error of `work` is raised in its batch's turn, after the batches in flight have
    ended.

    With `fill` no result is given before there is no more room: for batches that are drawn at once, and results that
    take as long to work through as the work itself.

    `give_up` is called with the error that ends it before its time, GeneratorExit if the caller closes it: the batches
    in flight are to end, too. It is called as soon as a batch fails, in that batch's thread: those before it may wait
    for what does not come. A caller closes it where its own error is not to leave them at work.
    """
    failed: list[BaseException] = []

    def note(future: "Future[Result]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            failed.append(error)
            if give_up is not None:
                give_up(error)

    def submit(batch: Batch) -> "Future[Result]":
        future = executor.submit(work, batch)
        future.add_done_callback(note)
        return future

    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="batch")
    window: deque[tuple[Batch, Future[Result]]] = deque()
    try:
        for batch in batches:
            window.append((batch, submit(batch)))
            while window and (len(window) >= 2 * in_flight or (not fill and window[0][1].done())):
                first, future = window.popleft()
                yield first, future.result()
        while window:
            first, future = window.popleft()
            yield first, future.result()
    except BaseException as error:
        if failed and failed[0] is not error and isinstance(error, Exception):
            error.add_note(f"another batch had failed before: {type(failed[0]).__name__}: {failed[0]}")
        if give_up is not None:
            give_up(error)
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
