"""The change feed on real stores: each change once and with its reason, no slow transaction skipped, nothing lost."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import psycopg
import pytest
from nats.js import api

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.streams import Announcement
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.edge_repair import remove_orphaned_edges
from mcp_assets.sync.feed.edition import ChangeFeed, forget_old_changes
from mcp_assets.sync.feed.entries import ChangeKind, Entry, Position
from mcp_assets.sync.feed.publisher import publish_changes
from mcp_assets.sync.feed.reader import PositionLost, newest_changes, read_changes
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.killing import killed_at
from mcp_assets_tests.linking import TYPES, AngleEmbedder, delete_source, graph, index, relink, write_source
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import rows
from mcp_assets_tests.waiting import until

A, B, C = EntityRef("task", "A"), EntityRef("task", "B"), EntityRef("page", "C")

NEVER_BY_ITSELF = 1_000_000
"""A moment that no work has: it dies by its own hand, or not at all."""

Told = tuple[str, str, str, str]
"""Kind, reason, entity, target."""


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    """A platform whose vectors are angles, with empty source tables."""
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES)
    create_source_tables(platform)
    return platform


def put(platform: Platform, ref: EntityRef, title: str, **metadata: object) -> None:
    write_source(platform, ref, title, "", metadata)
    index(platform, ref)


def start(platform: Platform) -> Position:
    """The position behind everything up to now."""
    platform.companion(ChangeFeed).open()
    return newest_changes(platform, limit=1).position


def since(platform: Platform, position: Position, **options: Any) -> list[Entry]:
    return list(read_changes(platform, position, limit=10_000, **options).entries)


def told(entries: list[Entry]) -> list[Told]:
    """In the order of their names: edges that one transaction writes come in no order that means something."""
    targets = [f"{one.target_type}:{one.target_id}" if one.target_id else "" for one in entries]
    return sorted(
        (one.kind, one.reason, f"{one.entity_type}:{one.entity_id}", target)
        for one, target in zip(entries, targets, strict=True)
    )


def test_each_change_of_an_entity_and_of_an_edge_is_told_once_with_its_reason(world: Platform) -> None:
    begin = start(world)
    put(world, A, "@0 one", tags=["rare"])
    put(world, B, "@90 two", tags=["rare"])
    relink(world)
    assert told(since(world, begin)) == [
        ("edge_added", "tags", "task:A", "task:B"),
        ("edge_added", "tags", "task:B", "task:A"),
        ("indexed", "new", "task:A", ""),
        ("indexed", "new", "task:B", ""),
    ]

    second = start(world)
    put(world, B, "@5 two", tags=["rare", "more"])
    relink(world)
    assert told(since(world, second)) == [
        ("edge_added", "text", "task:A", "task:B"),
        ("edge_added", "text", "task:B", "task:A"),
        ("edge_changed", "tags", "task:A", "task:B"),
        ("edge_changed", "tags", "task:B", "task:A"),
        ("indexed", "text", "task:B", ""),
    ]

    third = start(world)
    put(world, A, "@0 one", tags=["rare"], depends_on=["B"])
    relink(world)
    assert told(since(world, third)) == [
        ("edge_added", "reference", "task:A", "task:B"),
        ("indexed", "metadata", "task:A", ""),
    ]

    fourth = start(world)
    delete_source(world, B)
    index(world, B)
    relink(world)
    gone = told(since(world, fourth))
    assert {one[:2] for one in gone} == {("removed", "deleted"), ("edge_removed", "entity_removed")}
    assert len(gone) == 6
    assert graph(world) == {}

    # Each entry once, and positions rise.
    everything = since(world, begin)
    positions = [entry.position(begin.edition) for entry in everything]
    assert positions == sorted(set(positions))
    assert told([one for one in everything if one.kind == "removed"]) == [("removed", "deleted", "task:B", "")]


def test_what_is_indexed_again_as_it_was_is_not_told(world: Platform) -> None:
    put(world, A, "@0")
    begin = start(world)
    rows(world, "UPDATE {schema}.entities SET dirty = true RETURNING 1")
    index(world, A)
    relink(world)
    assert since(world, begin) == []


def test_a_reader_gets_the_entry_of_a_slow_transaction_later_and_skips_none(world: Platform) -> None:
    begin = start(world)
    entry = (
        "INSERT INTO mcp_assets.changes (kind, reason, entity_type, entity_id) VALUES ('indexed', 'new', 'task', %s)"
    )
    url = world.settings.require_database_url()
    seen: list[str | None] = []
    position = begin
    with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
        slow.execute(entry, ("slow",))
        for number in range(3):
            quick.execute(entry, (f"quick {number}",))
            quick.commit()
            page = read_changes(world, position, limit=2)
            seen += [one.entity_id for one in page.entries]
            position = page.position
        assert seen == [], "entries of later transactions wait for the slow one"
        slow.execute(entry, ("slow too",))
        slow.commit()
    while (page := read_changes(world, position, limit=2)).entries:
        seen += [one.entity_id for one in page.entries]
        position = page.position
    assert seen == ["slow", "slow too", "quick 0", "quick 1", "quick 2"]


def test_pages_and_types_give_every_entry_once(world: Platform) -> None:
    begin = start(world)
    put(world, A, "@0")
    put(world, C, "@1")
    relink(world)
    found: list[Entry] = []
    position, more = begin, True
    while more:
        page = read_changes(world, position, limit=1)
        found += page.entries
        position, more = page.position, page.more
    assert told(found) == told(since(world, begin))
    pages = since(world, begin, types=["page"])
    assert told(pages) == [("edge_added", "text", "page:C", "task:A"), ("indexed", "new", "page:C", "")]
    assert told(list(newest_changes(world, types=["page"], limit=1).entries)) == told(pages[-1:])
    before = datetime.now(UTC) - timedelta(hours=1)
    assert [one.kind for one in read_changes(world, before, limit=2).entries] == ["restarted", "indexed"]
    assert read_changes(world, datetime.now(UTC) + timedelta(hours=1), limit=10).entries == []


def test_a_rebuild_is_one_entry_a_partition_when_it_is_over(world: Platform) -> None:
    world.tuning = Tuning(link=LinkTuning(rebuild_from=2, rebuild_share=0.0, lists_at_once=1))
    for number in range(4):
        put(world, EntityRef("task", str(number)), f"@{number}", depends_on=["0"] if number else [])
    begin = start(world)
    linking = link_until_done(world)
    next(linking)
    next(linking)
    assert [one.kind for one in since(world, begin)] == []
    for _ in linking:
        pass
    entries = since(world, begin)
    shards = range(world.settings.shards)
    assert [(one.kind, one.entity_type, one.shard) for one in entries] == [
        ("edges_rebuilt", name, shard) for name in world.settings.entity_types for shard in shards
    ]
    assert len(graph(world)) > 12

    after = start(world)
    world.tuning = Tuning(link=LinkTuning(rebuild_from=10_000))
    put(world, EntityRef("task", "1"), "@90", depends_on=["0"])
    relink(world)
    assert {one.kind for one in since(world, after)} == {"indexed", "edge_removed"}


def test_an_edge_that_a_repair_removes_is_told(world: Platform) -> None:
    put(world, A, "@0")
    put(world, B, "@0")
    relink(world)
    begin = start(world)
    delete_source(world, B)
    rows(world, "DELETE FROM {schema}.entities WHERE entity_id = 'B' RETURNING 1")
    ids = [row[0] for row in rows(world, "SELECT id::text FROM relationships")]
    remove_orphaned_edges(world, ids, DriftKind.ORPHANED_EDGE)
    assert {one[:2] for one in told(since(world, begin))} == {("edge_removed", "repair")}
    assert len(since(world, begin)) == len(ids) == 2


def test_entries_are_kept_for_days_and_a_position_before_them_is_refused(
    world: Platform, make_platform: Callable[..., Platform]
) -> None:
    begin = start(world)
    put(world, A, "@0")
    middle = start(world)
    put(world, B, "@90")
    assert forget_old_changes(world) == 0
    rows(
        world,
        "UPDATE {schema}.changes SET made_at = made_at - interval '8 days' WHERE xid < %s::text::xid8 RETURNING 1",
        str(middle.xid),
    )
    assert forget_old_changes(world) == 2
    assert told(since(world, middle)) == [("indexed", "new", "task:B", "")]
    for old in (begin, datetime.now(UTC) - timedelta(days=9)):
        with pytest.raises(PositionLost, match=r"are deleted \(7 days, MCP_ASSETS_CHANGES_KEPT\).*read all entities"):
            read_changes(world, old, limit=10)
    off = make_platform(embedder=AngleEmbedder(), types=TYPES, changes_kept=0.0)
    assert forget_old_changes(off) == 1
    assert rows(world, "SELECT count(*) FROM {schema}.changes") == [(0,)]


def test_after_the_feed_was_off_or_the_database_restored_a_position_is_refused(
    world: Platform, make_platform: Callable[..., Platform]
) -> None:
    before = start(world)
    off = make_platform(embedder=AngleEmbedder(), types=TYPES, changes_kept=0.0)
    put(off, A, "@0")
    relink(off)
    for asked in (world, off):
        with pytest.raises(PositionLost, match="the change feed is off: set MCP_ASSETS_CHANGES_KEPT"):
            read_changes(asked, before, limit=10)
    assert rows(world, "SELECT kind FROM {schema}.changes") == [("restarted",)]

    again = make_platform(embedder=AngleEmbedder(), types=TYPES)
    put(again, A, "@90")
    with pytest.raises(PositionLost, match="of another edition"):
        read_changes(again, before, limit=10)
    kinds = [one.kind for one in since(again, replace(start(again), xid=0, seq=0))]
    assert kinds == [ChangeKind.RESTARTED, ChangeKind.INDEXED]

    # A restored or promoted database has another life; transaction numbers may come again in it.
    now = start(again)
    rows(again, "UPDATE {schema}.change_feed SET database_life = 'another' RETURNING 1")
    with pytest.raises(PositionLost, match="restored or has failed over"):
        read_changes(again, now, limit=10)
    later = make_platform(embedder=AngleEmbedder(), types=TYPES)
    put(later, B, "@45")
    with pytest.raises(PositionLost, match="of another edition"):
        read_changes(later, now, limit=10)
    assert told(since(later, replace(start(later), xid=0, seq=0)))[0] == ("indexed", "new", "task:B", "")


def test_a_position_beyond_what_the_database_holds_is_refused(world: Platform) -> None:
    now = start(world)
    with pytest.raises(PositionLost, match="set back to an earlier time"):
        read_changes(world, replace(now, xid=now.xid + 1_000_000), limit=10)


# NATS.


@pytest.fixture
def publishing(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES, publish_changes=True)
    create_source_tables(platform)
    return platform


def make_stream(platform: Platform) -> None:
    async def make() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            await client.jetstream().add_stream(
                api.StreamConfig(name="CHANGES", subjects=["mcp_assets.changes.>"], duplicate_window=60)
            )
        finally:
            await client.close()

    asyncio.run(make())


def published(platform: Platform) -> list[tuple[str, dict[str, Any]]]:
    """Subject and body of what the stream holds, in its order; that each bears its position as its message id."""

    async def read() -> list[tuple[str, dict[str, Any]]]:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            jetstream = client.jetstream()
            last = (await jetstream.stream_info("CHANGES")).state.last_seq
            messages = [await jetstream.get_msg("CHANGES", number) for number in range(1, last + 1)]
        finally:
            await client.close()
        found = []
        for message in messages:
            body = json.loads(message.data or b"")
            assert (message.headers or {})["Nats-Msg-Id"].startswith(body["position"])
            found.append((message.subject or "", body))
        return found

    return asyncio.run(read())


def positions(platform: Platform) -> list[str]:
    """Those of all entries."""
    state = start(platform)
    return [str(one.position(state.edition)) for one in since(platform, replace(state, xid=0, seq=0))]


def test_without_a_stream_entries_wait_and_with_one_they_are_published_in_their_order(
    publishing: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    put(publishing, A, "@0")
    assert publish_changes(publishing) == 0
    assert "no stream takes messages on the subject mcp_assets.changes." in caplog.text
    assert "make a stream of yours that takes it" in caplog.text
    make_stream(publishing)
    put(publishing, C, "@1")
    relink(publishing)

    assert publish_changes(publishing) == 5
    assert publish_changes(publishing) == 0
    found = published(publishing)
    assert [body["position"] for _, body in found] == positions(publishing)
    assert [subject.removeprefix("mcp_assets.changes.") for subject, _ in found][:3] == [
        "restarted",
        "indexed.task",
        "indexed.page",
    ]
    assert {subject for subject, _ in found[3:]} == {
        "mcp_assets.changes.edge_added.task",
        "mcp_assets.changes.edge_added.page",
    }


def test_entries_that_are_deleted_before_they_are_published_are_announced_as_missing(publishing: Platform) -> None:
    make_stream(publishing)
    put(publishing, A, "@0")
    publish_changes(publishing)
    put(publishing, B, "@90")
    rows(publishing, "UPDATE {schema}.changes SET made_at = made_at - interval '8 days' RETURNING 1")
    forget_old_changes(publishing)
    put(publishing, C, "@180")
    publish_changes(publishing)
    assert [(body["kind"], body["reason"]) for _, body in published(publishing)] == [
        ("restarted", "begun"),
        ("indexed", "new"),
        ("restarted", "expired"),
        ("indexed", "new"),
    ]


def publish_and_die(platform: Platform) -> None:
    """Killed after a stream has stored the entries, and before this is recorded."""
    store = platform.nats.store

    def stored(announcements: Sequence[Announcement]) -> None:
        store(announcements)
        os.kill(os.getpid(), signal.SIGKILL)

    platform.nats.store = stored  # type: ignore[method-assign]
    publish_changes(platform)


def test_a_publisher_that_is_killed_before_it_records_what_it_published_repeats_it_and_loses_nothing(
    publishing: Platform,
) -> None:
    make_stream(publishing)
    put(publishing, A, "@0")
    with Listener(publishing.settings.require_nats_url()) as listener:
        assert killed_at(publishing, publish_and_die, NEVER_BY_ITSELF)
        put(publishing, B, "@90")
        publish_changes(publishing)
        until(lambda: len(listener.heard()) == 5, "the entries are heard")
        sent = [body["position"] for _, body in listener.heard()]
    kept = positions(publishing)
    assert sent == [*kept[:2], *kept], "the first two are sent again"
    assert [body["position"] for _, body in published(publishing)] == kept
