"""What a stream may do (I1, I12): be set back, refilled, mirrored, shared, limited, forbidden or gone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext, api
from pydantic import SecretStr

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.inbox import intake as intake_module
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.views.doctor import _streams
from mcp_assets.sync.views.pending import pending
from mcp_assets_tests.nats_servers import Server, on_jetstream
from mcp_assets_tests.observing import (
    dead_letters,
    drain_all,
    entity_points,
    inbox,
    ledger,
    raw_publish,
    rows,
    send,
    send_looks,
    send_raw,
    take_in,
)
from mcp_assets_tests.waiting import until

STREAM = "MCP_ASSETS"
ALL_TYPES = {"task", "page", "memory"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A NATS server of the test's own, which can be set back."""
    made = Server(tmp_path / "nats")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def at(make_platform: Callable[..., Platform], server: Server) -> Platform:
    """A platform that reads the stream of `server`, empty."""
    platform = make_platform(nats_url=SecretStr(server.url))
    create_source_tables(platform)
    platform.nats.ensure_stream(STREAM)
    return platform


@pytest.fixture
def site(make_platform: Callable[..., Platform], settings: Settings) -> Callable[..., Platform]:
    """Makes a platform that reads a stream of the site, made as the arguments say."""

    def make(*streams: api.StreamConfig, reads: str = "SITE") -> Platform:
        platform = make_platform(streams=(reads,), create_stream=False)
        create_source_tables(platform)

        async def add(js: JetStreamContext) -> None:
            for config in streams:
                await js.add_stream(config)

        on_jetstream(platform.settings.require_nats_url(), add)
        return platform

    return make


def on(platform: Platform, act: Callable[[JetStreamContext], Any]) -> None:
    on_jetstream(platform.settings.require_nats_url(), act)


def epoch_and_position(platform: Platform) -> list[tuple[Any, ...]]:
    return rows(platform, "SELECT epoch, last_seq FROM {schema}.intake_cursors")


def arrived(platform: Platform, stream: str, count: int) -> Callable[[], bool]:
    def look() -> bool:
        state = platform.nats.state(stream)
        return state is not None and state.last_seq >= count

    return look


# Set back and refilled.


@pytest.mark.parametrize("refilled", [0, 2, 5, 8])
def test_a_stream_that_was_set_back_is_read_again_and_what_was_accepted_is_neither_lost_nor_overwritten(
    at: Platform, server: Server, refilled: int
) -> None:
    kept = [f"kept{n}" for n in range(1, 6)]
    lost = [f"lost{n}" for n in range(6, 11)]
    new = [f"new{n}" for n in range(6, 6 + refilled)]
    send_looks(at, *kept)
    server.keep()
    send_looks(at, *lost)
    take_in(at)
    server.set_back()
    send_looks(at, *new)

    done = take_in(at)

    assert done.gap is not None
    assert sorted(inbox(at)) == sorted([*kept, *lost, *new])
    assert epoch_and_position(at) == [(2, 5 + refilled)]
    assert set(wanted_full_syncs(at)) == ALL_TYPES
    assert take_in(at) == intake_module.IntakeReport()


def test_messages_of_the_same_sequence_in_two_epochs_are_two_dead_letters_and_a_message_read_twice_is_one(
    at: Platform, server: Server
) -> None:
    send(at, ("mcp.task.created", {"kept": 1}))
    server.keep()
    send(at, ("mcp.task.created", {"lost": 1}))
    take_in(at)
    server.set_back()
    send(at, ("mcp.task.created", {"new": 1}))

    take_in(at)

    kept = rows(at, "SELECT epoch, seq, convert_from(raw, 'utf8') FROM {schema}.dead_letters ORDER BY epoch, seq")
    assert kept == [(1, 1, '{"kept": 1}'), (1, 2, '{"lost": 1}'), (2, 2, '{"new": 1}')]


def test_a_stream_that_is_read_again_brings_no_deleted_or_older_state_of_an_entity_back(
    at: Platform, server: Server
) -> None:
    def memory(verb: str, memory_id: str, content: str | None = None) -> tuple[str, Any]:
        return f"mcp.memory.{verb}", {"memoryId": memory_id, **({"content": content} if content else {})}

    send(at, memory("stored", "X", "first text"), memory("stored", "Z", "old text of Z"))
    drain_all(at)
    server.keep()
    send(at, memory("deleted", "X"), memory("updated", "Z", "new text of Z"))
    send(at, memory("stored", "Y", "something else"))
    drain_all(at)
    before = states(at)
    server.set_back()

    drain_all(at)

    assert epoch_and_position(at)[0][0] == 2
    assert states(at) == before
    assert sorted(entity_points(at, "memory")) == ["Y", "Z"]
    send(at, memory("updated", "Z", "newest"), memory("stored", "X", "again"))
    drain_all(at)
    assert states(at)["Z"] == (False, "newest")
    assert states(at)["X"] == (False, "again")


def states(platform: Platform) -> dict[str, tuple[bool, str]]:
    return {key: (row["deleted"], row["content"]) for key, row in ledger(platform, "memory").items()}


def test_a_request_that_was_read_before_the_stream_was_set_back_is_not_worked_off_again(
    at: Platform, server: Server
) -> None:
    send(at, ("data.validate.request", {"data": {"sync_type": "data_validation", "context": {"repair": True}}}))
    server.keep()
    send_looks(at, "lost")
    take_in(at)
    # As a run does that answers it.
    with at.postgres.transaction() as connection:
        connection.execute("DELETE FROM mcp_assets.inbox WHERE kind = 'validate'")
    server.set_back()
    send(at, ("data.sync.request", {"data": {"sync_type": "full_sync"}}))

    take_in(at)

    assert rows(at, "SELECT epoch, seq, kind FROM {schema}.inbox ORDER BY seq, epoch") == [
        (1, 2, "entity"),
        (2, 2, "sync"),
    ]


def test_a_clock_that_was_set_back_with_the_stream_is_not_taken_for_the_last_epochs(at: Platform) -> None:
    take_in(at)
    with at.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.intake_cursors SET newest_stored_at = '2100-01-01', last_seq = 7")
    send_looks(at, "a")

    assert "restored or reset" in (take_in(at).gap or "")

    assert rows(at, "SELECT extract(year FROM stored_at) < 2100 FROM {schema}.inbox") == [(True,)]


def test_the_last_message_is_compared_though_it_is_one_that_the_client_library_cannot_take(platform: Platform) -> None:
    send_raw(platform, raw_publish(b"mcp.task.updated", b'{"taskId": "odd"}', b"NATS/1.0\r\nStatus: 404\r\n\r\n"))
    take_in(platform)
    send_looks(platform, "next")

    assert take_in(platform).gap is None
    assert inbox(platform) == ["odd", "next"]
    assert epoch_and_position(platform) == [(1, 2)]


def test_a_cursor_whose_last_message_was_purged_goes_on_in_its_epoch(platform: Platform) -> None:
    send_looks(platform, "a", "b")
    take_in(platform)
    on(platform, lambda js: js.delete_msg(STREAM, 2))
    send_looks(platform, "c")

    assert take_in(platform).gap is None
    assert epoch_and_position(platform) == [(1, 3)]


# Shared, limited and purged by subject.


def test_messages_pushed_out_by_a_limit_of_each_subject_are_noticed_among_foreign_subjects(
    site: Callable[..., Platform],
) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.>"], max_msgs_per_subject=1))
    send(platform, ("mcp.board.get", {}))
    send_looks(platform, "t0")
    take_in(platform)
    send_looks(platform, *(f"t{n}" for n in range(1, 11)))

    done = take_in(platform)

    assert done.accepted == 1
    assert "discarded before they were read" in (done.gap or "")
    assert set(wanted_full_syncs(platform)) == ALL_TYPES


def test_foreign_messages_pushed_out_by_a_large_limit_of_each_subject_are_no_loss(
    site: Callable[..., Platform],
) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.>"], max_msgs_per_subject=3))
    send_looks(platform, "t0")
    take_in(platform)
    send(platform, *(("mcp.board.get", {"n": n}) for n in range(10)))
    send_looks(platform, "t1")

    assert take_in(platform) == intake_module.IntakeReport(accepted=1)


def test_messages_purged_by_subject_are_noticed_among_foreign_subjects(site: Callable[..., Platform]) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.>"]))
    send(platform, ("mcp.board.get", {}))
    take_in(platform)
    send_looks(platform, "t1", "t2")
    send(platform, ("mcp.board.get", {}))
    on(platform, lambda js: js.purge_stream("SITE", subject="mcp.task.updated"))
    send_looks(platform, "t3")

    done = take_in(platform)

    assert done.accepted == 1
    assert "2 messages between" in (done.gap or "")


def test_a_stream_that_discards_foreign_messages_asks_for_no_full_sync(site: Callable[..., Platform]) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.>", "noise"], max_msgs=100))
    send_looks(platform, "t0")
    take_in(platform)
    for _ in range(4):
        send(platform, *(("noise", {"n": n}) for n in range(70)))
        assert take_in(platform).gap is None
    send_looks(platform, "t1")

    assert take_in(platform).gap is None
    assert inbox(platform) == ["t0", "t1"]
    assert wanted_full_syncs(platform) == {}
    assert pending(platform).unread == {"SITE": 0}


# Mirrors and sourced streams.


def test_a_mirror_is_read_without_its_foreign_messages(site: Callable[..., Platform]) -> None:
    platform = site(
        api.StreamConfig(name="EVENTS", subjects=["mcp.>", "orders.>"]),
        api.StreamConfig(name="MIRROR", mirror=api.StreamSource(name="EVENTS")),
        reads="MIRROR",
    )
    send(platform, ("orders.created", {"a": 1}), ("mcp.task.created", {"taskId": "t1", "title": "x"}))
    send(platform, ("mcp.task.get", {"taskId": "t1"}), ("orders.paid", {"a": 1}))
    wait_for(platform, "MIRROR", 4)

    assert take_in(platform) == intake_module.IntakeReport(accepted=1)
    assert dead_letters(platform) == {}


@pytest.mark.parametrize("kind", ["mirror", "source"])
def test_a_stream_filled_with_a_part_of_another_asks_for_no_full_sync(site: Callable[..., Platform], kind: str) -> None:
    origin = api.StreamSource(name="EVENTS", filter_subject="mcp.>")
    copy = (
        api.StreamConfig(name="COPY", mirror=origin)
        if kind == "mirror"
        else api.StreamConfig(name="COPY", sources=[origin])
    )
    platform = site(api.StreamConfig(name="EVENTS", subjects=["mcp.>", "orders.>"]), copy, reads="COPY")
    take_in(platform)
    for n in range(3):
        send(platform, ("orders.created", {"a": 1}))
        send(platform, ("mcp.task.created", {"taskId": f"t{n}", "title": "x"}))
        wait_for(platform, "COPY", 2 * n + 2 if kind == "mirror" else n + 1)
        assert take_in(platform) == intake_module.IntakeReport(accepted=1)
    assert wanted_full_syncs(platform) == {}

    found = evaluate(platform, "intake_is_current")
    assert (found.passed, found.severity) == (False, Severity.WARNING)
    assert "a loss of messages may go unnoticed on stream COPY" in found.summary
    assert "a loss of messages may go unnoticed" in _streams(platform)


def wait_for(platform: Platform, stream: str, seq: int) -> None:
    until(arrived(platform, stream, seq), f"{stream} has message {seq}")


# Work queues and interest.


@pytest.mark.parametrize("retention", [api.RetentionPolicy.WORK_QUEUE, api.RetentionPolicy.INTEREST])
def test_reading_takes_no_message_from_a_stream_that_drops_what_is_delivered(
    site: Callable[..., Platform], retention: api.RetentionPolicy
) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.*.updated"], retention=retention))
    on(platform, lambda js: js.add_consumer("SITE", api.ConsumerConfig(durable_name="others")))
    send_looks(platform, "a", "b")

    assert take_in(platform).accepted == 2
    assert take_in(platform).accepted == 0

    async def held(js: JetStreamContext) -> None:
        assert (await js.stream_info("SITE")).state.messages == 2

    on(platform, held)


def test_what_another_consumer_of_a_work_queue_takes_first_is_noticed(site: Callable[..., Platform]) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.*.updated"], retention=api.RetentionPolicy.WORK_QUEUE))
    send_looks(platform, "a")
    take_in(platform)
    send_looks(platform, "taken", "left")

    async def take(js: JetStreamContext) -> None:
        subscription = await js.pull_subscribe("mcp.*.updated", durable="others", stream="SITE")
        for message in await subscription.fetch(2, timeout=5):
            await message.ack_sync()

    on(platform, take)
    done = take_in(platform)

    assert done.gap == "messages 2 to 2 were discarded before they were read"
    assert inbox(platform) == ["a", "left"]
    assert "work queue" in _streams(platform)


def test_what_an_interest_stream_never_stored_is_noticed(site: Callable[..., Platform]) -> None:
    platform = site(api.StreamConfig(name="SITE", subjects=["mcp.*.updated"], retention=api.RetentionPolicy.INTEREST))
    take_in(platform)
    send_looks(platform, "nobody waits for it")

    assert "discarded before they were read" in (take_in(platform).gap or "")
    assert "some consumer waits" in _streams(platform)


# Absent and forbidden.


def test_a_missing_stream_does_not_stop_those_named_after_it_and_the_check_fails_for_it(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(streams=("AAA", "BBB"))
    create_source_tables(platform)
    on(platform, lambda js: js.add_stream(name="BBB", subjects=["mcp.memory.*"]))
    send(platform, ("mcp.memory.stored", {"memoryId": "m1", "content": "x"}))

    done = take_in(platform)

    assert inbox(platform) == ["m1"]
    assert done.accepted == 1
    assert "no stream AAA" in intake(platform, wait_s=0.1).unread[0]
    found = evaluate(platform, "intake_is_current")
    assert (found.passed, found.severity) == (False, Severity.ERROR)
    assert "there is no stream AAA" in found.summary
    waiting = pending(platform)
    assert waiting.unread == {"AAA": None, "BBB": 0}
    assert not waiting.idle
    with pytest.raises(StoreRefused, match=r"no stream AAA.*stream BBB holds"):
        _streams(platform)


@pytest.mark.parametrize("forbidden", ["$JS.API.CONSUMER.>", "$JS.API.STREAM.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>"])
def test_a_user_without_permission_to_read_a_stream_gets_the_name_of_the_permission(
    make_platform: Callable[..., Platform], tmp_path: Path, forbidden: str
) -> None:
    users = [
        {"user": "admin", "password": "a"},
        {"user": "app", "password": "b", "permissions": {"publish": {"deny": [forbidden]}}},
    ]
    server = Server(tmp_path / "nats", f"authorization: {json.dumps({'users': users})}")
    server.start(user="admin:a@")
    try:
        admin = make_platform(nats_url=SecretStr(server.url.replace("//", "//admin:a@")))
        create_source_tables(admin)
        admin.nats.ensure_stream(STREAM)
        send_looks(admin, "a")
        platform = make_platform(nats_url=SecretStr(server.url.replace("//", "//app:b@")))

        with pytest.raises(
            StoreRefused, match=r"NATS forbids this user.*(?i:permissions violation).*JS\.API"
        ) as refused:
            intake(platform, wait_s=0.5)

        assert "app:b" not in str(refused.value)
        assert take_in(admin).accepted == 1
    finally:
        server.stop()
