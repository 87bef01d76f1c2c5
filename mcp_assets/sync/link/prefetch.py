"""Ahead: neighbours of entities that are marked for lists, asked of Qdrant before their turn, outside any transaction.

Linking very much waits for Qdrant more than for anything else: so it is asked without a pause, while changes are worked
off and while lists are written. An answer is good until a change is worked into the lists of others, or left to a sweep
that marks everybody: the list that it makes would lack that change, and nobody would mark it again.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import nsmallest
from types import TracebackType
from typing import Self

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.sync.link.neighbours import Answers, SemanticLists, together

LISTS_AT_ONCE = 500

_IN_FLIGHT = 2
_WINDOW = 8
"""Batches that are asked about or wait for their turn: some megabytes each."""


class Asked:
    """One batch: its marks, and what Qdrant says of those that have a point. Others may have taken some meanwhile."""

    def __init__(self, marks: Sequence[int], answers: Sequence[Future[Answers]]) -> None:
        self.marks = marks
        self._answers = answers

    def answers(self) -> Answers:
        """Waits for them.

        Raises:
            StoreUnavailable, StoreRefused: Qdrant gave none.
        """
        return together(future.result() for future in self._answers)

    def cancel(self) -> None:
        for future in self._answers:
            future.cancel()


class Ahead:
    """Batches of marks in their order. For one thread, which alone works changes into lists."""

    def __init__(self, platform: Platform, semantic: SemanticLists) -> None:
        self._platform = platform
        self._semantic = semantic
        self._executor = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="ahead")
        self._window: deque[Asked] = deque()
        self._early: list[tuple[Collection[EntityRef], Future[Answers]]] = []
        self._after = 0
        self._all_read = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def ask(self, batches: int = _WINDOW) -> None:
        """Have Qdrant asked about more, up to `batches` that nobody has taken."""
        while len(self._window) < min(batches, _WINDOW) and not self._all_read:
            marks = self._next_marks()
            if marks:
                self._window.append(self._ask(marks))
            else:
                self._all_read = True

    def ask_for(self, refs: Collection[EntityRef]) -> None:
        """Have Qdrant asked about entities that the caller is about to mark; their marks are read as any others.

        Only of those whose turn comes first, as many as the window holds: a hub may be in the lists of all.
        """
        points = {ref: str(point_id(ref)) for ref in nsmallest(_WINDOW * LISTS_AT_ONCE, refs)}
        self._early += ((part.keys(), future) for part, future in self._submit(points))

    def take(self, batches: int) -> Iterator[Asked]:
        """At most so many batches; fewer only if no mark is left. None is ahead any more when all are taken."""
        for left in range(batches, 0, -1):
            self.ask(left)
            if not self._window:
                break
            yield self._window.popleft()
        if self._all_read:
            self._from_the_first()

    def forget(self) -> None:
        """There were changes: what was asked before is to be asked again."""
        for asked in self._window:
            asked.cancel()
        for _, future in self._early:
            future.cancel()
        self._window.clear()
        self._from_the_first()

    def _from_the_first(self) -> None:
        # Marks become visible as their transactions are committed, which may be in another order.
        self._after = 0
        self._all_read = False
        self._early.clear()

    def _next_marks(self) -> Mapping[int, tuple[EntityRef, bool]]:
        """The next marks, with who is marked and whether it has a point."""
        with self._platform.postgres.transaction() as connection:
            rows = connection.execute(
                self._platform.postgres.query("marked_for_lists"),
                {"after": self._after, "limit": LISTS_AT_ONCE, "collections": self._semantic.collections},
            ).fetchall()
        if rows:
            self._after = rows[-1][0]
        return {seq: (EntityRef(entity_type, entity_id), has_point) for seq, entity_type, entity_id, has_point in rows}

    def _ask(self, marks: Mapping[int, tuple[EntityRef, bool]]) -> Asked:
        points = {ref: str(point_id(ref)) for ref, has_point in marks.values() if has_point}
        asked_early = [(refs, future) for refs, future in self._early if not points.keys().isdisjoint(refs)]
        early = {ref for refs, _ in asked_early for ref in refs}
        unasked = {ref: point for ref, point in points.items() if ref not in early}
        return Asked(
            list(marks), [*(future for _, future in asked_early), *(future for _, future in self._submit(unasked))]
        )

    def _submit(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[Mapping[EntityRef, str], Future[Answers]]]:
        retry = retrying(self._platform.settings)
        for collection, part in self._semantic.questions(points):
            yield part, self._executor.submit(retry, self._semantic.answer, collection, part)
