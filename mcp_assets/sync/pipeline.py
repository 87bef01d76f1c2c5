"""Pipeline: several batches are processed at once, in a bounded window; results come in the order of the batches."""

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
    """Call `work` with each batch, in `in_flight` threads: while one waits for the embedder, another reads or commits.

    Yields each batch with its result. At most 2 * `in_flight` batches are drawn and not yielded yet: half of them may
    wait for a thread, or be done and wait for results before theirs. The first error of `work` is raised when its batch
    would be yielded, after the batches in flight have ended.

    `fill`: no result is yielded before the window is full. That is for callers whose batches cost nothing to draw, and
    who take as long for a result as `work` does.

    `give_up` is called with the error that ends the pipeline early, so that the batches in flight end, too: an error of
    `work`, or GeneratorExit if the caller closes the generator. After an error of `work` it is called at once, in the
    thread of that batch, because earlier batches may wait for something that will not come. A caller closes the
    generator (`contextlib.closing`), so that an error of its own ends the batches, too.
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
