"""Prefetched answers: none is used after a change that it does not have, and one linker works at a time."""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.sync.link import linker, prefetch
from mcp_assets.sync.link.counts import LinkReport
from mcp_assets.sync.link.linker import link
from mcp_assets.sync.link.locks import exclusive
from mcp_assets.sync.link.marks import Reason, mark, pending_links
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.settling import Answers
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.linking import TYPES, AngleEmbedder, graph, index, rebuild, relink, shorten_lists, write_source
from mcp_assets_tests.observing import rows

REFS = [EntityRef("task", letter) for letter in "abcdef"]
FIRST, LAST = REFS[0], REFS[-1]
NEW = EntityRef("task", "new")

ONE_LIST_AT_ONCE = LinkTuning(rebuild_from=4, lists_at_once=1)


@pytest.fixture
def world(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Six near entities that were never linked: all lists are rebuilt, one a transaction, all prefetched at once."""
    ask = Prefetch._ask

    def ask_and_wait(self: Prefetch, *args: object) -> prefetch.PrefetchedBatch:
        asked = ask(self, *args)  # type: ignore[arg-type]
        asked.answers()
        return asked

    monkeypatch.setattr(Prefetch, "_ask", ask_and_wait)
    ask_early = Prefetch.ask_early

    def ask_early_and_wait(self: Prefetch, refs: Collection[EntityRef]) -> None:
        ask_early(self, refs)
        for _, future in self._early:
            future.result()

    monkeypatch.setattr(Prefetch, "ask_early", ask_early_and_wait)
    platform = angles(make_platform)
    create_source_tables(platform)
    for number, ref in enumerate(REFS):
        put(platform, ref, number)
    return platform


def angles(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(embedder=AngleEmbedder(), tuning=Tuning(link=ONE_LIST_AT_ONCE), types=TYPES)


def put(platform: Platform, ref: EntityRef, angle: int) -> None:
    write_source(platform, ref, f"@{angle}", "")
    index(platform, ref)


@contextmanager
def changes_linked(platform: Platform) -> Generator[Generator[LinkReport]]:
    """A linker that is held up when it has linked the changes and prefetched all lists."""
    linking = link(platform)
    try:
        next(linking)
        assert pending_links(platform, up_to=100) == len(REFS)
        yield linking
    finally:
        linking.close()


def finish(linking: Generator[LinkReport]) -> int:
    return sum(1 for _ in linking)


def assert_nothing_is_left_to_link(platform: Platform) -> None:
    assert not pending_links(platform, up_to=1)
    assert graph(platform) == rebuild(platform)


def test_an_answer_is_asked_for_again_when_another_vector_changed(world: Platform) -> None:
    with changes_linked(world) as linking:
        put(world, LAST, 80)
        finish(linking)
    assert_nothing_is_left_to_link(world)


def test_an_answer_is_asked_for_again_when_so_much_changed_that_all_lists_are_rebuilt(world: Platform) -> None:
    with changes_linked(world) as linking:
        for ref in REFS[1:]:
            put(world, ref, 80)
        finish(linking)
    assert_nothing_is_left_to_link(world)


def test_an_answer_is_asked_for_again_when_it_is_unknown_whether_a_change_was_committed(
    world: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True])

    @contextmanager
    def unconfirmed(platform: Platform) -> Generator[Connection]:
        with exclusive(platform) as connection:
            yield connection
        if next(failures, False):
            raise StoreUnavailable("the server closed the connection after the commit")

    with changes_linked(world) as linking:
        put(world, LAST, 80)
        monkeypatch.setattr(linker, "exclusive", unconfirmed)
        finish(linking)
    assert_nothing_is_left_to_link(world)


def test_lists_that_lost_a_member_are_asked_for_early_and_again_when_another_change_comes(
    world: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_lists(monkeypatch, 2, 2)
    relink(world)
    put(world, REFS[1], 80)
    asked: list[EntityRef] = []
    ask_early = Prefetch.ask_early

    def noted(self: Prefetch, refs: Collection[EntityRef]) -> None:
        asked.extend(refs)
        ask_early(self, refs)

    monkeypatch.setattr(Prefetch, "ask_early", noted)
    linking = link(world)
    next(linking)
    assert FIRST in asked
    put(world, REFS[2], 81)
    finish(linking)
    assert_nothing_is_left_to_link(world)


def test_of_a_hub_in_the_lists_of_very_many_only_those_whose_turn_comes_first_are_asked_for_early(
    world: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[EntityRef] = set()

    def answer(self: SemanticNeighbours, points: Mapping[EntityRef, str], blocks: object) -> Answers:
        asked.update(points)
        return {}

    world.tuning = Tuning(link=replace(ONE_LIST_AT_ONCE, batches_prefetched=2))
    monkeypatch.setattr(SemanticNeighbours, "answer", answer)
    with Prefetch(world, SemanticNeighbours(world)) as prefetch_:
        prefetch_.ask_early(set(REFS))
    assert asked == set(REFS[:2])


def test_a_newcomer_that_an_answer_named_too_early_is_named_once_it_is_linked(
    world: Platform,
) -> None:
    world.tuning = Tuning(link=replace(ONE_LIST_AT_ONCE, batches_prefetched=1))
    with changes_linked(world) as linking:
        next(linking)
        put(world, NEW, 1)
        lists_left = len(REFS) - 1
        for _ in range(lists_left):
            next(linking)
        assert pending_links(world, up_to=100)
        next(linking)
        with world.postgres.transaction() as connection:
            mark(world, connection, [FIRST], Reason.LISTS)
        finish(linking)
    assert graph(world) == rebuild(world)


def test_a_linker_that_lost_its_lock_uses_no_answer_from_before(
    world: Platform, make_platform: Callable[..., Platform]
) -> None:
    other = angles(make_platform)
    with changes_linked(world) as linking:
        lost = rows(
            world,
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            " WHERE locktype = 'advisory' AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert lost == [(True,)]
        put(world, LAST, 80)
        with_changes = link(other)
        next(with_changes)
        with_changes.close()
        finish(linking)
    assert_nothing_is_left_to_link(world)


def test_a_second_linker_leaves_the_work_to_the_first_which_sees_what_was_marked_since(
    world: Platform, make_platform: Callable[..., Platform]
) -> None:
    with changes_linked(world) as linking:
        put(world, NEW, 1)
        marks = pending_links(world, up_to=100)
        assert finish(link(angles(make_platform))) == 0
        assert pending_links(world, up_to=100) == marks
        assert finish(linking) > 0
    assert_nothing_is_left_to_link(world)


def test_without_qdrant_linking_fails_and_the_marks_stay_for_the_next(
    world: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object, **kwargs: object) -> object:
        raise StoreUnavailable("Qdrant cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(Qdrant, "nearest", gone)
        with pytest.raises(StoreUnavailable):
            finish(link(world))
    assert pending_links(world, up_to=100) >= len(REFS)
    relink(world)
    assert graph(world) == rebuild(world)
