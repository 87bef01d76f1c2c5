"""Intake is killed around each of its statements and commits: each message is applied or dead-lettered exactly once."""

from collections.abc import Callable

import pytest
from nats.js import JetStreamContext

from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.tuning import InboxTuning, Tuning
from mcp_assets_tests.killing import killed_at, moments
from mcp_assets_tests.nats_servers import on_jetstream, remake_stream
from mcp_assets_tests.observing import drain_all, inbox, ledger, rows, send, take_in

STREAM = "MCP_ASSETS"
MESSAGES = 6


def read_all(platform: Platform) -> None:
    """Take in what the stream holds."""
    while intake(platform, wait_s=0.2).more:
        pass


def memories(life: str) -> list[tuple[str, dict[str, str]]]:
    """Events of entities that live by them alone, and one message that is no event."""
    sound = [
        ("mcp.memory.stored", {"memoryId": f"{life}{n}", "content": f"text {n} of {life}"}) for n in range(MESSAGES)
    ]
    return [*sound[:3], ("mcp.memory.stored", {"content": f"no id in {life}"}), *sound[3:]]


def begin(platform: Platform) -> None:
    """The state before the work: nothing read, and a stream with messages, sound and not."""
    forget(platform)
    on_jetstream(platform.settings.require_nats_url(), remake)
    send(platform, *memories("a"))


def begin_with_another_stream(platform: Platform) -> None:
    """The state before the work: a stream was read, its messages wait, and it was made again with others."""
    begin(platform)
    take_in(platform)
    on_jetstream(platform.settings.require_nats_url(), remake)
    send(platform, *memories("b"))


def forget(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        for table in ("inbox", "intake_cursors", "dead_letters", "wanted_full_syncs", "entities"):
            connection.execute(f"TRUNCATE mcp_assets.{table} CASCADE".encode())


async def remake(js: JetStreamContext) -> None:
    await remake_stream(js, STREAM, ["mcp.memory.*"])


# In reads of a few messages, so that one process moves the cursor several times.
@pytest.mark.tuning(Tuning(inbox=InboxTuning(messages_a_read=4)))
@pytest.mark.parametrize(("start", "lives"), [(begin, "a"), (begin_with_another_stream, "ab")])
def test_intake_killed_around_each_statement_takes_each_message_in_exactly_once(
    platform: Platform, start: Callable[[Platform], None], lives: str
) -> None:
    expected = sorted(f"{life}{n}" for life in lives for n in range(MESSAGES))
    start(platform)
    count = moments(platform, read_all)
    assert sorted(inbox(platform)) == expected
    died = 0
    for moment in range(1, count + 1):
        start(platform)
        died += killed_at(platform, read_all, moment)
        half = inbox(platform)
        assert len(half) == len(set(half)), f"twice in the inbox after a kill at moment {moment} of {count}"

        take_in(platform)

        assert sorted(inbox(platform)) == expected, f"killed at moment {moment} of {count}"
        rejected = rows(platform, "SELECT convert_from(raw, 'utf8') FROM {schema}.dead_letters")
        assert sorted(row[0] for row in rejected) == [f'{{"content": "no id in {life}"}}' for life in lives]
        assert bool(wanted_full_syncs(platform)) == (len(lives) > 1)
    assert died == count, "each moment was reached"
    drain_all(platform)
    assert sorted(ledger(platform, "memory")) == expected
