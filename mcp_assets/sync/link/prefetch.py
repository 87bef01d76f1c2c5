"""Prefetch: the neighbours of marked entities are found before their turn, outside any transaction.

When very much is linked, finding neighbours takes most of the time. So it is done without a pause, while changes are
linked and while other lists are written. Qdrant is asked for them, or they are found in blocks (`blocked_lists`): the
cheaper of the two by their estimated cost.

A prefetched answer is valid only while no vector has changed since it was asked. Otherwise the list built from it would
miss that change, and nothing would mark the entity again.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import nsmallest
from threading import Event
from types import TracebackType
from typing import NamedTuple, Self

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.link.blocked_lists import BlockedLists, list_costs
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours, merged
from mcp_assets.sync.link.settling import Answers

logger = logging.getLogger(__name__)

Blocks = Future[BlockedLists | None]
"""The vectors in blocks, once they are read; None: they could not be stored, so that Qdrant is asked."""

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

    def __init__(self, marks: Sequence[int], answers: Sequence[Future[Answers]], blocks: Blocks | None = None) -> None:
        self.marks = marks
        """Their `relink_marks.seq`."""
        self._answers = answers
        self._blocks = blocks

    def answers(self) -> Answers:
        """Waits for them.

        Raises:
            StoreUnavailable, StoreRefused: Qdrant gave none.
        """
        return merged(future.result() for future in self._answers)

    def found_in_blocks(self) -> bool:
        """Whether the answers were found in blocks, and not asked of Qdrant; to be called after `answers`."""
        return self._blocks is not None and self._blocks.result() is not None

    def cancel(self) -> None:
        for future in self._answers:
            future.cancel()


class Prefetch:
    """Batches of marks for lists, in the order of the marks.

    Used by one thread, the one that links changes and so knows when to invalidate.
    """

    def __init__(
        self, platform: Platform, semantic: SemanticNeighbours, before_asking: Callable[[], None] = lambda: None
    ) -> None:
        """`before_asking` is called before Qdrant is asked for many lists."""
        self._before_asking = before_asking
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
        self._way_is_chosen = False
        self._blocks: Blocks | None = None
        """None: Qdrant is asked."""
        self._stopping = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._forget_blocks()

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
            self._forget_blocks()

    def invalidate(self, changed: Collection[EntityRef] | None = None) -> None:
        """Vectors have changed: discard all answers, and begin again at the first mark.

        `changed`: the entities whose vectors may have changed; None: any.
        """
        for batch in self._window:
            batch.cancel()
        for _, future in self._early:
            future.cancel()
        self._window.clear()
        self._read_from_the_first()
        if changed is None:
            self._forget_blocks()
        elif self._blocks is not None:
            self._blocks = self._executor.submit(self._refreshed, self._blocks, self._semantic.points_of(changed))

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
            # A batch that is not full costs little either way.
            is_open = not self._way_is_chosen and len(rows) == self._tuning.lists_at_once
            lists = self._count(connection) if is_open else 0
        if is_open:
            self._choose_way(lists)
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
        return PrefetchedBatch([mark.seq for mark in marks], answers, self._blocks)

    def _submit(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[Mapping[EntityRef, str], Future[Answers]]]:
        for part in self._semantic.requests(points, in_blocks=self._blocks is not None):
            yield part, self._executor.submit(self._answer, part, self._blocks)

    def _answer(self, points: Mapping[EntityRef, str], blocks: Blocks | None) -> Answers:
        # Vectors are read in the other thread, and were asked for before: they never wait for this.
        read = None if blocks is None else blocks.result()
        return retrying(self._platform.settings)(self._semantic.answer, points, read)

    def _count(self, connection: Connection) -> int:
        """The marks for lists that wait."""
        query = self._platform.postgres.query("count_marked_for_lists")
        row = connection.execute(query, {"after": self._after}).fetchone()
        return int(row[0]) if row else 0

    def _choose_way(self, lists: int) -> None:
        """Find the neighbours for so many lists in blocks if this is better than to ask Qdrant."""
        self._way_is_chosen = True
        points = retrying(self._platform.settings)(lambda: self._semantic.points_held)
        exact_up_to = self._platform.settings.exact_up_to
        dimension = self._semantic.profile.dimension
        costs = list_costs(lists, list(points.values()), dimension, self._tuning, exact_up_to)
        in_blocks = costs.blocks_are_better(self._tuning.exact_for_s)
        logger.info(
            "neighbours are %s: an estimate of %.0f CPU seconds in blocks, %.0f by asking Qdrant",
            "found in blocks" if in_blocks else "asked of Qdrant",
            costs.blocks_s,
            costs.asking_s,
            extra={"counts": {"lists": lists, "points": sum(points.values())}},
        )
        if in_blocks:
            self._blocks = self._executor.submit(self._read)
        else:
            self._before_asking()

    def _read(self) -> BlockedLists | None:
        platform, semantic = self._platform, self._semantic
        try:
            return retrying(platform.settings)(
                BlockedLists, platform.qdrant, semantic.collections, semantic.profile.dimension, self._stopping
            )
        except OSError as error:
            logger.warning(
                "vectors are not read for blocks, and Qdrant is asked for each list, which takes longer: the temporary "
                "folder cannot hold them (%s); make room in it, or set TMPDIR to another folder",
                error,
            )
            return None

    def _refreshed(self, blocks: Blocks, points: Mapping[str, Collection[str]]) -> BlockedLists | None:
        """The vectors with those of `points` as they are now."""
        read = blocks.result()
        if read is None or retrying(self._platform.settings)(read.refresh, points):
            return read
        read.close()
        return self._read()

    def _forget_blocks(self) -> None:
        """Give the vectors back. The way is chosen again for the marks that come next."""
        blocks, self._blocks, self._way_is_chosen = self._blocks, None, False
        if blocks is not None and not blocks.cancel():
            blocks.add_done_callback(_close)


def _close(blocks: Blocks) -> None:
    if not blocks.cancelled() and blocks.exception() is None and (read := blocks.result()) is not None:
        read.close()
