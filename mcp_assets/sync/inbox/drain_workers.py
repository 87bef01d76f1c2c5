"""Drain workers: the threads of one drain, a worker for each entity type and one reader for all."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import Queue

from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres.locks import Lock, lock_name
from mcp_assets.sync.inbox.drain_batch import DRAINED_KINDS, drain_batch
from mcp_assets.sync.inbox.drain_lock import hold_drain_lock
from mcp_assets.sync.inbox.drained import Drained
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts
from mcp_assets.sync.index.event_rechecks import Rechecks
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.pipeline import overlapped

_BATCHES_AHEAD = 16
"""Batches that workers may finish before the caller of the drain has taken them: it bounds memory."""

_READER = "(reader)"
"""Stands among the names of workers for the reader: no entity type can have this name."""


@dataclass(frozen=True, slots=True)
class _WorkerEnd:
    """A worker, or the reader, has ended."""

    name: str
    error: BaseException | None


class DrainWorkers:
    """The workers of one drain. All end together: when none has had work for a while, or the drain's time is over."""

    def __init__(
        self,
        platform: Platform,
        own: str,
        types: Sequence[str],
        run_id: str,
        asked_at: float,
        deadline: float,
        failed: set[str],
    ) -> None:
        """`own`: the type that the drain was asked for. `types`: those to begin with.

        `asked_at` and `deadline` are of the monotonic clock. `failed`: types whose workers have failed in this drain;
        more are added.
        """
        self._platform = platform
        self._own = own
        self._types = types
        self._run_id = run_id
        self._deadline = deadline
        self._failed = failed
        self._asked_at = asked_at
        self._idle_since = time.monotonic()
        self._rechecks = platform.companion(Rechecks)
        # A batch holds the connection of its claim while it asks for a second one. With more batches than half of the
        # connections, each could wait for the others.
        self._slots = threading.BoundedSemaphore(platform.postgres.max_connections // 2)
        self._results: Queue[Drained | _WorkerEnd] = Queue(_BATCHES_AHEAD)
        self._executor = ThreadPoolExecutor(len(platform.settings.entity_types) + 1, thread_name_prefix="drain")
        # Guards the fields below, and is notified when they change.
        self._changed = threading.Condition()
        self._running: set[str] = set()
        self._busy: set[str] = set()
        self._held: set[str] = set()
        self._indexers: list[Indexer] = []
        self._not_ended = 0
        self._reads = 0
        self._leaving = self._closed = self._read_out = False

    def drained(self) -> Iterator[Drained]:
        """The batches of the workers, as they are done; to be iterated once."""
        errors: list[BaseException] = []
        try:
            for entity_type in self._types:
                self._start(entity_type, partial(self._work, entity_type))
            while self._not_ended:
                result = self._results.get()
                if isinstance(result, Drained):
                    yield result
                    continue
                with self._changed:
                    self._not_ended -= 1
                if result.error is None:
                    continue
                if result.name in self._failed:
                    yield Drained(result.name, 0, error=result.error)
                else:
                    errors.append(result.error)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            for indexer in self._indexers:
                indexer.abandon()
            while self._not_ended:
                if isinstance(self._results.get(), _WorkerEnd):
                    with self._changed:
                        self._not_ended -= 1
            self._executor.shutdown()
        if errors:
            first, *others = errors
            for other in others:
                first.add_note(f"and at the same time: {type(other).__name__}: {other}")
            raise first

    def left_behind(self) -> list[str]:
        """Types that this drain held and for which messages came as it let go; none if its time is over."""
        held = self._held - self._failed
        if not held or time.monotonic() >= self._deadline:
            return []
        waiting = retrying(self._platform.settings)(_waiting_undrained, self._platform, held)
        return sorted(waiting)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own, unless it runs already; `drained` receives its end."""
        with self._changed:
            if name in self._running:
                return
            self._running.add(name)
            if name != _READER:
                self._busy.add(name)
            self._not_ended += 1
        self._executor.submit(work).add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, future: Future[None]) -> None:
        error = future.exception()
        with self._changed:
            self._running.discard(name)
            self._busy.discard(name)
            if error is not None and name in (self._own, _READER):
                self._leaving = True
                # The run fails in any case: the other workers do what they can without a store that is away.
                for indexer in self._indexers:
                    indexer.stop()
            elif error is not None:
                self._failed.add(name)
            self._changed.notify_all()
        self._results.put(_WorkerEnd(name, error))

    def _work(self, entity_type: str) -> None:
        with hold_drain_lock(self._platform, entity_type, self._run_id) as held:
            if not held:
                return
            with self._changed:
                self._held.add(entity_type)
            self._start(_READER, self._read)
            self._until_idle(entity_type)

    def _read(self) -> None:
        """Take in and recheck, wake the workers, and take over types without a drain, until the workers leave."""
        settings = self._platform.settings
        try:
            while not self._leaving and not self._over():
                retrying(settings)(intake, self._platform, wait_s=self._platform.tuning.inbox.intake_wait_s)
                retrying(settings)(self._rechecks.take_due)
                with self._changed:
                    self._reads += 1
                    self._changed.notify_all()
                self._take_over()
        finally:
            with self._changed:
                self._read_out = True
                self._changed.notify_all()

    def _take_over(self) -> None:
        with self._changed:
            others = self._platform.settings.entity_types.keys() - self._running - self._failed
        if not others:
            return
        asked_s_ago = time.monotonic() - self._asked_at
        waiting = retrying(self._platform.settings)(_waiting_undrained, self._platform, others)
        for entity_type, waited_s in waiting.items():
            if waited_s < asked_s_ago or waited_s >= self._platform.tuning.inbox.taken_over_s:
                self._start(entity_type, partial(self._work, entity_type))

    def _until_idle(self, entity_type: str) -> None:
        indexer = Indexer(self._platform, entity_type, deadline=self._deadline)
        with self._changed:
            self._indexers.append(indexer)
        while not self._over():
            with self._changed:
                self._busy.add(entity_type)
                reads, last = self._reads, self._read_out
            worked = False
            for drained in self._until_empty(entity_type, indexer):
                worked = True
                self._results.put(drained)
            if worked:
                self._platform.companion(EmbeddingCosts).write()
                self._results.put(Drained(entity_type, 0))
            if last:
                return
            self._rest(entity_type, reads, worked=worked)

    def _rest(self, entity_type: str, reads: int, *, worked: bool) -> None:
        """Wait until the reader has read more than `reads` times. The last worker to rest decides to leave."""
        with self._changed:
            self._busy.discard(entity_type)
            if worked:
                self._idle_since = time.monotonic()
            if not self._busy and time.monotonic() - self._idle_since >= self._platform.settings.drain_linger_s:
                self._leaving = True
            self._changed.wait_for(
                lambda: self._reads != reads or self._read_out or self._closed,
                timeout=max(0.0, self._deadline - time.monotonic()),
            )

    def _until_empty(self, entity_type: str, indexer: Indexer) -> Iterator[Drained]:
        """Batches from the inbox, several in flight, until a batch finds it empty."""
        empty = threading.Event()

        def claims() -> Iterator[int]:
            number = 0
            while not empty.is_set() and not self._over():
                yield number
                number += 1

        def work(_: int) -> Drained:
            if empty.is_set():
                return Drained(entity_type, 0)
            with self._slots:
                drained = retrying(self._platform.settings)(drain_batch, self._platform, entity_type, indexer)
            if not drained.messages:
                empty.set()
            return drained

        # One slot is left to the other workers.
        in_flight = min(self._platform.embedder.concurrency + 1, self._platform.postgres.max_connections // 2 - 1)
        with closing(overlapped(claims(), work, in_flight=in_flight, give_up=indexer.give_up)) as batches:
            for _, drained in batches:
                if drained.messages:
                    yield drained

    def _over(self) -> bool:
        return self._closed or time.monotonic() >= self._deadline


def _waiting_undrained(platform: Platform, entity_types: Collection[str]) -> dict[str, float]:
    """The `entity_types` with due messages and no drain; for how long the oldest message has been due, in seconds."""
    postgres = platform.postgres
    with postgres.transaction() as connection:
        return dict(
            connection.execute(
                postgres.query("waiting_undrained"),
                {
                    "entity_types": sorted(entity_types),
                    "kinds": DRAINED_KINDS,
                    "lock_prefix": lock_name(postgres, Lock.DRAIN, ""),
                },
            ).fetchall()
        )
