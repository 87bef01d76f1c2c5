"""Intake (I1): each message of a stream is in the inbox or a dead letter once, and what was lost is noticed."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext, api
from pydantic import SecretStr

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats import NatsStreams
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.streams import Message
from mcp_assets.sync.inbox import intake as intake_module
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import InboxTuning, Tuning
from mcp_assets_tests.clients import environment_of
from mcp_assets_tests.observing import dead_letters, inbox, raw_publish, rows, send, send_looks, send_raw, take_in

STREAM = "MCP_ASSETS"

ALL_TYPES = {"task", "page", "memory"}


def on_jetstream(platform: Platform, act: Callable[[JetStreamContext], Any]) -> None:
    """Run `act` with a JetStream client of its own: what an operator does to a stream."""

    async def run() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            await act(client.jetstream())
        finally:
            await client.close()

    asyncio.run(run())


def sequences(platform: Platform) -> list[int]:
    """Every sequence that is in the inbox or among the dead letters, as often as it is there."""
    found = rows(
        platform,
        "SELECT seq FROM {schema}.inbox UNION ALL SELECT seq FROM {schema}.dead_letters WHERE stage = 'intake'",
    )
    return sorted(row[0] for row in found)


def cursor(platform: Platform) -> int:
    return int(rows(platform, "SELECT last_seq FROM {schema}.intake_cursors")[0][0])


def test_a_message_is_taken_in_once_however_often_intake_is_called(platform: Platform) -> None:
    send_looks(platform, "a", "b")

    assert take_in(platform).accepted == 2
    assert take_in(platform).accepted == 0
    assert inbox(platform) == ["a", "b"]


def test_a_message_published_while_intake_waits_is_taken_in_by_that_call(platform: Platform) -> None:
    take_in(platform)
    publisher = threading.Timer(0.3, send_looks, (platform, "late"))
    publisher.start()

    assert intake(platform, wait_s=20).accepted == 1

    publisher.join()
    assert inbox(platform) == ["late"]


def test_intakes_of_several_threads_and_processes_take_in_each_message_once(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    count = 3000
    code = f"""
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.platform import Platform
from mcp_assets.tuning import InboxTuning, Tuning

platform = Platform(Settings(_env_file=None), tuning=Tuning(inbox=InboxTuning(messages_a_read=70)))
last = 0
print("ready", flush=True)
while last < {count}:
    intake(platform, wait_s=0.5)
    with platform.postgres.transaction() as connection:
        (last,) = connection.execute("SELECT last_seq FROM mcp_assets.intake_cursors").fetchone()
platform.close()
"""
    errors: list[BaseException] = []

    def read(own: Platform) -> None:
        try:
            while cursor(own) < count:
                intake(own, wait_s=0.5)
        except BaseException as error:
            errors.append(error)
            raise

    take_in(platform)
    tuning = Tuning(inbox=InboxTuning(messages_a_read=100))
    threads = [threading.Thread(target=read, args=(make_platform(tuning=tuning),)) for _ in range(3)]
    with contextlib.ExitStack() as ended:
        processes = [
            ended.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code],
                    env=os.environ | environment_of(platform.settings),
                    stdout=subprocess.PIPE,
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            ended.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for thread in threads:
            thread.start()
        for start in range(0, count, 300):
            send(
                platform,
                *(
                    ("mcp.task.updated", {"taskId": f"t-{n}"} if n % 10 else {"no": "id"})
                    for n in range(start, start + 300)
                ),
            )
        for thread in threads:
            thread.join()
        assert [process.wait(timeout=60) for process in processes] == [0, 0]

    assert errors == []
    assert sequences(platform) == list(range(1, count + 1))
    assert len(dead_letters(platform)) == count // 10
    assert wanted_full_syncs(platform) == {}


def test_of_two_intakes_that_read_the_same_messages_one_moves_the_cursor_and_the_other_rolls_back(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    send_looks(platform, "a")
    other = make_platform()
    real = NatsStreams.read
    superseded = False

    def read(self: NatsStreams, *args: Any, **options: Any) -> Any:
        nonlocal superseded
        messages = real(self, *args, **options)
        if self is platform.nats and not superseded:
            superseded = True
            assert intake(other, wait_s=0.2).accepted == 1
        return messages

    monkeypatch.setattr(NatsStreams, "read", read)
    first = intake(platform, wait_s=0.2)

    assert superseded
    assert (first.accepted, first.more) == (0, True)
    assert inbox(platform) == ["a"]


def test_a_cursor_that_another_intake_moves_meanwhile_does_not_look_like_a_stream_that_was_reset(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(platform)
    other = make_platform()
    real = NatsStreams.state
    asked = False

    def state(self: NatsStreams, name: str) -> Any:
        nonlocal asked
        found = real(self, name)
        if self is platform.nats and not asked:
            asked = True
            send_looks(other, "a", "b")
            assert intake(other, wait_s=0.2).accepted == 2
        return found

    monkeypatch.setattr(NatsStreams, "state", state)
    done = intake(platform, wait_s=0.2)

    assert asked
    assert done.gap is None
    assert sequences(platform) == [1, 2]
    assert wanted_full_syncs(platform) == {}


def test_a_stream_restored_from_a_backup_is_read_again_and_what_is_pending_stays_once(platform: Platform) -> None:
    send_looks(platform, "a", "b")
    send(platform, ("mcp.task.created", {}))
    take_in(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.intake_cursors SET last_seq = 9")

    done = take_in(platform)

    assert "restored or reset" in (done.gap or "")
    assert inbox(platform) == ["a", "b"]
    assert sequences(platform) == [1, 2, 3]
    assert set(wanted_full_syncs(platform)) == ALL_TYPES


def test_a_failed_commit_moves_nothing_and_the_next_call_takes_the_messages_in(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_looks(platform, "a", "b")
    real = platform.postgres.transaction

    @contextlib.contextmanager
    def broken_at_commit() -> Iterator[Connection]:
        with real() as connection:
            yield connection
            if connection.execute("SELECT count(*) FROM mcp_assets.inbox").fetchone() == (2,):
                connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(platform.postgres, "transaction", broken_at_commit)
    with pytest.raises(StoreUnavailable, match="PostgreSQL does not answer"):
        intake(platform, wait_s=0.2)
    monkeypatch.undo()

    assert inbox(platform) == []
    assert cursor(platform) == 0
    assert take_in(platform).accepted == 2
    assert sequences(platform) == [1, 2]


def test_ten_thousand_messages_in_a_burst_are_taken_in_within_a_few_calls(platform: Platform) -> None:
    send(platform, *(("mcp.kanban.task.updated", {"taskId": f"t-{n}"}) for n in range(10_000)))

    assert take_in(platform, calls=6).accepted == 10_000
    assert sequences(platform) == list(range(1, 10_001))


@pytest.mark.tuning(Tuning(inbox=InboxTuning(bytes_a_read=100_000)))
def test_a_read_ends_at_its_limit_of_bytes_and_says_that_there_is_more(platform: Platform) -> None:
    send(platform, *(("mcp.task.updated", {"taskId": str(n), "content": "x" * 2_000}) for n in range(600)))

    first = intake(platform, wait_s=5)

    assert first.more
    assert 0 < first.accepted < 600
    assert first.accepted + take_in(platform).accepted == 600


def test_messages_purged_before_they_were_read_ask_for_a_full_sync_of_every_type(platform: Platform) -> None:
    send_looks(platform, "read")
    take_in(platform)
    send_looks(platform, "lost", "lost too")
    on_jetstream(platform, lambda js: js.purge_stream(STREAM))
    send_looks(platform, "kept")

    done = take_in(platform)

    assert done.gap == "messages 2 to 3 were discarded before they were read"
    assert inbox(platform) == ["read", "kept"]
    wanted = wanted_full_syncs(platform)
    assert set(wanted) == ALL_TYPES
    assert all(done.gap in reason for reason in wanted.values())
    assert take_in(platform).gap is None


def test_a_stream_purged_to_its_end_is_a_gap_and_not_an_empty_read(platform: Platform) -> None:
    send_looks(platform, "lost")
    cursor_made_at_the_beginning(platform)
    on_jetstream(platform, lambda js: js.purge_stream(STREAM))

    assert take_in(platform).gap == "messages 1 to 1 were discarded before they were read"
    assert set(wanted_full_syncs(platform)) == ALL_TYPES
    send_looks(platform, "next")
    assert take_in(platform).gap is None
    assert inbox(platform) == ["next"]


def cursor_made_at_the_beginning(platform: Platform) -> None:
    """Make the stream's cursor at 0, as an intake does that is killed before its first read."""
    state = platform.nats.state(STREAM)
    assert state is not None
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("create_cursor"),
            {"stream": STREAM, "created_at": state.created_at, "last_seq": state.first_seq - 1},
        )
    assert cursor(platform) == 0


def test_a_purged_stream_that_had_been_read_to_its_end_is_no_gap(platform: Platform) -> None:
    send_looks(platform, "a")
    take_in(platform)
    on_jetstream(platform, lambda js: js.purge_stream(STREAM))

    assert take_in(platform).gap is None
    assert wanted_full_syncs(platform) == {}


def test_a_stream_made_again_is_read_from_its_start_and_the_old_ones_pending_messages_stay(platform: Platform) -> None:
    send_looks(platform, "old 1", "old 2")
    take_in(platform)
    on_jetstream(platform, lambda js: js.delete_stream(STREAM))
    platform.nats.ensure_stream(STREAM)
    send_looks(platform, "new 1", "new 2", "new 3")

    done = take_in(platform)

    assert done.gap is not None
    assert "made again" in done.gap
    assert done.accepted == 3
    assert inbox(platform) == ["old 1", "old 2", "new 1", "new 2", "new 3"]
    assert sequences(platform) == [1, 1, 2, 2, 3]
    assert set(wanted_full_syncs(platform)) == ALL_TYPES


def test_a_stream_that_was_deleted_is_made_again_by_the_next_intake(platform: Platform) -> None:
    send_looks(platform, "old")
    take_in(platform)
    on_jetstream(platform, lambda js: js.delete_stream(STREAM))

    assert take_in(platform).gap is not None
    send_looks(platform, "new")
    take_in(platform)
    assert inbox(platform) == ["old", "new"]


def test_a_stream_that_outruns_its_reader_by_its_limits_is_a_gap(platform: Platform) -> None:
    cursor_made_at_the_beginning(platform)
    on_jetstream(
        platform,
        lambda js: js.update_stream(name=STREAM, subjects=["mcp.*.updated"], max_msgs=10),
    )
    send_looks(platform, *(str(n) for n in range(25)))

    done = take_in(platform)

    assert done.gap == "messages 1 to 15 were discarded before they were read"
    assert inbox(platform) == [str(n) for n in range(15, 25)]
    assert set(wanted_full_syncs(platform)) == ALL_TYPES


@pytest.mark.parametrize(("deleted", "gap"), [((3,), "3 to 3"), ((3, 4), "3 to 4"), ((5, 6), "5 to 6")])
def test_messages_deleted_inside_or_at_the_end_of_what_is_read_are_a_gap(
    platform: Platform, deleted: tuple[int, ...], gap: str
) -> None:
    send_looks(platform, *"abcdef")

    async def delete(js: JetStreamContext) -> None:
        for seq in deleted:
            await js.delete_msg(STREAM, seq)

    on_jetstream(platform, delete)
    # What is missing at the end shows by the next message: until then it could be a node that is behind.
    gaps = [take_in(platform).gap]
    assert pending(platform).unread == {STREAM: 0}
    send_looks(platform, "g")
    gaps.append(take_in(platform).gap)

    assert [found for found in gaps if found] == [f"messages {gap} were discarded before they were read"]
    assert sequences(platform) == [seq for seq in range(1, 8) if seq not in deleted]
    assert set(wanted_full_syncs(platform)) == ALL_TYPES
    assert take_in(platform).gap is None
    assert pending(platform).unread == {STREAM: 0}


def test_a_sites_stream_with_other_subjects_between_ours_raises_no_false_alarm(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform(streams=("SITE",), create_stream=False)
    on_jetstream(platform, lambda js: js.add_stream(name="SITE", subjects=["mcp.*.updated", "site.>"]))
    for n in range(5):
        send(platform, ("site.noise", b"\xff"), ("mcp.task.updated", {"taskId": str(n)}), ("site.noise", b"{}"))

    done = take_in(platform)

    assert done == intake_module.IntakeReport(accepted=5)
    assert inbox(platform) == [str(n) for n in range(5)]
    assert dead_letters(platform) == {}
    assert wanted_full_syncs(platform) == {}
    take_in(platform)
    assert cursor(platform) == 15


def test_events_of_several_streams_are_in_the_order_in_which_jetstream_stored_them(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform(streams=("TASKS", "PAGES"), create_stream=False)
    on_jetstream(platform, lambda js: js.add_stream(name="TASKS", subjects=["mcp.task.*"]))
    on_jetstream(platform, lambda js: js.add_stream(name="PAGES", subjects=["mcp.page.*"]))
    for n in range(4):
        send(platform, ("mcp.task.updated", {"taskId": f"t{n}"}), ("mcp.page.updated", {"pageId": f"p{n}"}))
    # Publishing is concurrent within a call of `send`: only the order of the calls is certain.
    take_in(platform)

    order = inbox(platform)
    assert [name[1] for name in order] == list("00112233")


def test_a_stream_named_in_the_settings_that_is_absent_is_refused_with_the_settings_name(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    with pytest.raises(StoreRefused, match=r"no stream ELSEWHERE.*MCP_ASSETS_STREAMS"):
        intake(make_platform(streams=("ELSEWHERE",), create_stream=False), wait_s=0.2)


def test_an_existing_stream_on_some_of_our_subjects_is_named_as_the_thing_to_set(
    settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform()
    on_jetstream(platform, lambda js: js.add_stream(name="SITE", subjects=["mcp.task.created"]))

    with pytest.raises(StoreRefused, match=r"another stream already takes some of its subjects.*MCP_ASSETS_STREAMS"):
        intake(platform, wait_s=0.2)


def test_a_request_under_mcp_gets_its_own_answer_while_the_stream_exists(platform: Platform) -> None:
    async def ask() -> bytes:
        client = await nats.connect(platform.settings.require_nats_url())
        try:

            async def answer(message: Any) -> None:
                await asyncio.sleep(0.05)  # JetStream's acknowledgement would come first
                await message.respond(b"the task")

            for subject in ("mcp.kanban.task.get", "mcp.task.get", "mcp.kanban.board.task.created"):
                await client.subscribe(subject, cb=answer)
            answers = [
                await client.request(subject, b"{}", timeout=5)
                for subject in ("mcp.kanban.task.get", "mcp.task.get", "mcp.kanban.board.task.created")
            ]
            return b", ".join(message.data for message in answers)
        finally:
            await client.close()

    assert asyncio.run(ask()) == b"the task, the task, the task"
    assert take_in(platform).accepted == 0


RUBBISH: dict[str, tuple[str, bytes, str]] = {
    "an empty message": ("mcp.task.created", b"", "empty"),
    "white space": ("mcp.task.created", b" \n\t ", "empty"),
    "bytes that are not UTF-8": ("mcp.task.created", b"\xff\xfe\x00\x01", "bad_json"),
    "cut JSON": ("mcp.task.created", b'{"taskId": "1"', "bad_json"),
    "a list": ("mcp.task.created", b'["task", "1"]', "not_an_object"),
    "a number": ("mcp.task.created", b"12", "not_an_object"),
    "NaN for an id": ("mcp.task.created", b'{"taskId": NaN}', "not_finite"),
    "a NUL in an id": ("mcp.task.created", b'{"taskId": "a\\u0000b"}', "bad_text"),
    "a lone surrogate in an id": ("mcp.task.created", b'{"taskId": "\\ud800"}', "bad_text"),
    "an id of a hundred thousand digits": ("mcp.task.created", b'{"taskId": ' + b"9" * 100_000 + b"}", "wrong_type"),
    "nesting of some levels": ("mcp.task.created", b'{"a":' * 40 + b"1" + b"}" * 40, "missing_id"),
    "nesting of a million levels": ("mcp.task.created", b"[" * 1_000_000, "bad_json"),
    "no id": ("mcp.task.created", b"{}", "missing_id"),
    "an empty id": ("mcp.task.created", b'{"taskId": ""}', "missing_id"),
    "an id of another type": ("mcp.task.created", b'{"taskId": {"a": 1}}', "wrong_type"),
    "an over-long id": ("mcp.task.created", json.dumps({"taskId": "x" * 600}).encode(), "bad_id"),
    "an unknown entity type": ("mcp.sprint.created", b'{"id": "1"}', "unknown_type"),
    "an unknown entity type in the body": (
        "vector.index.request",
        b'{"data": {"entity_id": "1", "entity_type": "sprint"}}',
        "unknown_type",
    ),
    "an unknown sync": ("data.sync.request", b'{"sync_type": "everything"}', "unknown_sync_type"),
    "a megabyte of text": ("mcp.task.created", b"x" * (1 << 20), "bad_json"),
}


def test_rubbish_of_every_kind_is_a_dead_letter_with_its_bytes_and_its_reason_and_harms_no_neighbour(
    platform: Platform,
) -> None:
    for name, (subject, data, _) in RUBBISH.items():
        send(platform, (subject, data))
        send_looks(platform, f"after {name}")

    done = take_in(platform)

    assert (done.accepted, done.rejected) == (len(RUBBISH), len(RUBBISH))
    assert inbox(platform) == [f"after {name}" for name in RUBBISH]
    kept = rows(platform, "SELECT subject, raw, error_kind, error FROM {schema}.dead_letters ORDER BY seq")
    assert [(subject, bytes(raw), kind) for subject, raw, kind, _ in kept] == list(RUBBISH.values())
    assert all(error.strip() for _, _, _, error in kept)
    assert take_in(platform).rejected == 0


ODD_SUBJECTS = {
    b"mcp.\xff\xfe.created": "mcp.\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.created",
    b"mcp.\xed\xa0\x80.created": "mcp." + "\N{REPLACEMENT CHARACTER}" * 3 + ".created",
    b"mcp.a\x00b.created": "mcp.a\N{REPLACEMENT CHARACTER}b.created",
    b"mcp.a\x0bb.created": "mcp.a\x0bb.created",
    b"mcp.a\x0cb.created": "mcp.a\x0cb.created",
    b"mcp.a\x1cb.created": "mcp.a\x1cb.created",
    b"mcp.a\xc2\x85b.created": "mcp.a\x85b.created",
    b"mcp.'; DROP TABLE tasks; --.created".replace(b" ", b"_"): "mcp.';_DROP_TABLE_tasks;_--.created",
    b"mcp.%s{}.created": "mcp.%s{}.created",
    b"mcp." + b"a" * 3000 + b".created": "mcp." + "a" * 3000 + ".created",
}


@pytest.mark.parametrize("subject", ODD_SUBJECTS, ids=lambda subject: ascii(subject)[:40])
def test_a_subject_of_odd_bytes_is_a_dead_letter_and_harms_no_neighbour(platform: Platform, subject: bytes) -> None:
    send_looks(platform, "before")
    send_raw(platform, raw_publish(subject, b'{"id": "1"}'))
    send_looks(platform, "after")

    take_in(platform)

    assert inbox(platform) == ["before", "after"]
    kept = rows(platform, "SELECT subject, raw, error_kind FROM {schema}.dead_letters")
    assert [(name, bytes(raw)) for name, raw, _ in kept] == [(ODD_SUBJECTS[subject], b'{"id": "1"}')]
    assert kept[0][2] in {"unknown_type", "unknown_subject"}
    assert wanted_full_syncs(platform) == {}


ODD_HEADERS = [
    b"NATS/1.0\r\nStatus: 100\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    b"NATS/1.0\r\nStatus: 408\r\nDescription: Request Timeout\r\n\r\n",
    b"NATS/1.0\r\nStatus: 409\r\n\r\n",
    b"NATS/1.0\r\nStatus: 503\r\n\r\n",
    b"NATS/1.0\r\nStatus: \xff\xfe\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 \xff\xfe\xfd\r\n\r\n",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0",
    b"NATS/1.0\r\n\xff\xfe\xfd: \xff\r\nno colon\r\n: no key\r\n\r\n",
    b"NATS/1.0\r\nX: " + b"y" * 60_000 + b"\r\n\r\n",
    b"no header at all",
    b"",
]


def test_headers_of_every_kind_are_read_past_and_no_message_is_lost(platform: Platform) -> None:
    send_looks(platform, "before")
    for n, header in enumerate(ODD_HEADERS):
        send_raw(platform, raw_publish(b"mcp.task.updated", b'{"taskId": "odd %d"}' % n, header))
        send_looks(platform, f"plain {n}")

    take_in(platform)

    sent = [name for n in range(len(ODD_HEADERS)) for name in (f"odd {n}", f"plain {n}")]
    assert inbox(platform) == ["before", *sent]
    assert dead_letters(platform) == {}
    assert wanted_full_syncs(platform) == {}


@pytest.mark.parametrize("header", [b"NATS/1.0\r\nStatus: 100\r\n\r\n", b"NATS/1.0"])
def test_an_odd_message_that_arrives_while_intake_waits_is_taken_in_by_the_calls_that_follow(
    platform: Platform, header: bytes
) -> None:
    take_in(platform)
    publisher = threading.Timer(
        0.2, send_raw, (platform, raw_publish(b"mcp.task.updated", b'{"taskId": "odd"}', header))
    )
    publisher.start()
    intake(platform, wait_s=0.6)
    publisher.join()
    take_in(platform)

    assert inbox(platform) == ["odd"]


def test_a_clock_of_the_server_that_steps_back_does_not_turn_the_order_of_a_stream(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_looks(platform, "first", "second")
    real = NatsStreams.read

    def read(self: NatsStreams, *args: Any, **options: Any) -> Any:
        read = real(self, *args, **options)
        at = read.messages[0].stored_at
        stepped = [
            Message(message.seq, message.subject, message.data, at.replace(year=at.year - message.seq + 1))
            for message in read.messages
        ]
        return type(read)(stepped, read.more)

    order = [json.loads(message.data)["taskId"] for message in _messages(platform)]
    monkeypatch.setattr(NatsStreams, "read", read)
    intake(platform, wait_s=0.2)

    assert inbox(platform) == order


def _messages(platform: Platform) -> list[Message]:
    state = platform.nats.state(STREAM)
    assert state is not None
    return list(platform.nats.read(state, 0, limit=10, max_bytes=1 << 20, wait_s=1).messages)


def test_an_unreachable_nats_is_unavailable_and_not_an_empty_read(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    send_looks(platform, "a")
    take_in(platform)
    away = make_platform(nats_url=SecretStr("nats://127.0.0.1:1"))
    away.nats = NatsStreams("nats://127.0.0.1:1", ["mcp.>"], timeout_s=0.5)

    with pytest.raises(StoreUnavailable, match=r"NATS does not answer.*NATS_URL"):
        intake(away, wait_s=0.2)
    assert wanted_full_syncs(platform) == {}
    found = pending(away)
    assert found.unread == {STREAM: None}
    assert not found.idle


def test_a_read_leaves_no_consumer_behind(platform: Platform) -> None:
    send_looks(platform, "a")
    take_in(platform)
    left: list[api.ConsumerInfo] = []

    async def look(js: JetStreamContext) -> None:
        left.extend(await js.consumers_info(STREAM))

    on_jetstream(platform, look)
    assert left == []


def test_an_unreachable_database_is_unavailable_before_anything_is_read(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    away = make_platform(database_url=SecretStr("postgresql://mcp@127.0.0.1:1/none?connect_timeout=1"))

    with pytest.raises(StoreUnavailable, match=r"PostgreSQL does not answer.*DATABASE_URL"):
        intake(away, wait_s=0.2)


def test_the_message_of_an_unreachable_database_does_not_hold_its_password(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    away = make_platform(database_url=SecretStr("postgresql://mcp:hunter2@127.0.0.1:1/none?connect_timeout=1"))

    with pytest.raises(StoreUnavailable) as caught:
        intake(away, wait_s=0.2)
    assert "hunter2" not in str(caught.value)
