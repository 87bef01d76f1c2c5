"""Prefetch: Qdrant is asked for the lists of marked entities before their turn, outside any transaction.

When very much is linked, waiting for Qdrant takes most of the time. So it is asked without a pause, while changes are
linked and while other lists are written.

A prefetched answer is valid only while no vector has changed since it was asked. Otherwise the list built from it would
miss that change, and nothing would mark the entity again.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import nsmallest
from types import TracebackType
from typing import NamedTuple, Self

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.link.semantic_neighbours import Answers, SemanticNeighbours, merged

_IN_FLIGHT = 2
"""Requests at once: Qdrant works on one while the answer of the other is received. Chosen, not measured: a third one
would wait at Qdrant, which searches with all of its cores, and delay the searches of changes."""


class _ListMark(NamedTuple):
    """One row of the query `marked_for_lists`."""

    seq: int
    entity_type: str
    entity_id: str
    has_point: bool

    @property
    def ref(self) -> EntityRef:
        return EntityRef(self.entity_type, self.entity_id)


class PrefetchedBatch:
    """One batch of marks, and the answers for the entities that have a point.

    Another linker may have removed some of the marks meanwhile.
    """

    def __init__(self, marks: Sequence[int], answers: Sequence[Future[Answers]]) -> None:
        self.marks = marks
        """Their `relink_marks.seq`."""
        self._answers = answers

    def answers(self) -> Answers:
        """Waits for them.

        Raises:
            StoreUnavailable, StoreRefused: Qdrant gave none.
        """
        return merged(future.result() for future in self._answers)

    def cancel(self) -> None:
        for future in self._answers:
            future.cancel()


class Prefetch:
    """Batches of marks for lists, in the order of the marks.

    Used by one thread, the one that links changes and so knows when to invalidate.
    """

    def __init__(self, platform: Platform, semantic: SemanticNeighbours) -> None:
        self._platform = platform
        self._tuning = platform.tuning.link
        self._semantic = semantic
        self._executor = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="prefetch")
        self._window: deque[PrefetchedBatch] = deque()
        self._early: list[tuple[Collection[EntityRef], Future[Answers]]] = []
        """Requests for entities whose marks are not read yet."""
        self._after = 0
        """The `seq` of the last mark that was read."""
        self._all_read = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def fill(self, batches: int | None = None) -> None:
        """Read marks and ask Qdrant about their entities, until `batches` are prefetched or no mark is left.

        At most as many batches as the window holds are prefetched; None: so many.
        """
        window = self._tuning.batches_prefetched
        wanted = window if batches is None else min(batches, window)
        while len(self._window) < wanted and not self._all_read:
            marks = self._next_marks()
            if marks:
                self._window.append(self._ask(marks))
            else:
                self._all_read = True

    def ask_early(self, refs: Collection[EntityRef]) -> None:
        """Ask Qdrant about entities that the caller marks in a transaction that is not committed yet.

        Only as many as the window holds are asked about, those whose turn comes first: a hub may be in the lists of
        all entities.
        """
        most = self._tuning.batches_prefetched * self._tuning.lists_at_once
        points = {ref: str(point_id(ref)) for ref in nsmallest(most, refs)}
        self._early += ((part.keys(), future) for part, future in self._submit(points))

    def take(self, batches: int) -> Iterator[PrefetchedBatch]:
        """At most so many batches; fewer only if no mark is left.

        While the caller processes a batch, Qdrant is asked for the next ones.
        """
        for left in range(batches, 0, -1):
            # No batch beyond those to be taken is asked for: changes come next, and would invalidate it.
            self.fill(left)
            if not self._window:
                break
            yield self._window.popleft()
        if self._all_read:
            self._read_from_the_first()

    def invalidate(self) -> None:
        """A vector has changed: discard all answers, and begin again at the first mark."""
        for batch in self._window:
            batch.cancel()
        for _, future in self._early:
            future.cancel()
        self._window.clear()
        self._read_from_the_first()

    def _read_from_the_first(self) -> None:
        # Marks become visible as their transactions are committed, which may be in another order than that of `seq`.
        self._after = 0
        self._all_read = False
        self._early.clear()

    def _next_marks(self) -> list[_ListMark]:
        """The next marks, in the order of `seq`."""
        with self._platform.postgres.transaction() as connection:
            rows = connection.execute(
                self._platform.postgres.query("marked_for_lists"),
                {"after": self._after, "limit": self._tuning.lists_at_once, "collections": self._semantic.collections},
            ).fetchall()
        marks = [_ListMark._make(row) for row in rows]
        if marks:
            self._after = marks[-1].seq
        return marks

    def _ask(self, marks: Sequence[_ListMark]) -> PrefetchedBatch:
        points = {mark.ref: str(point_id(mark.ref)) for mark in marks if mark.has_point}
        asked_early = [(refs, future) for refs, future in self._early if not points.keys().isdisjoint(refs)]
        early = {ref for refs, _ in asked_early for ref in refs}
        unasked = {ref: point for ref, point in points.items() if ref not in early}
        answers = [*(future for _, future in asked_early), *(future for _, future in self._submit(unasked))]
        return PrefetchedBatch([mark.seq for mark in marks], answers)

    def _submit(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[Mapping[EntityRef, str], Future[Answers]]]:
        retry = retrying(self._platform.settings)
        for collection, part in self._semantic.requests(points):
            yield part, self._executor.submit(retry, self._semantic.answer, collection, part)
