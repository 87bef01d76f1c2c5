"""The sentences of `mcp-assets status`: how far behind, and what sensors, the last census and full sync say."""

from datetime import UTC, datetime, timedelta

import pytest

from mcp_assets.cli.status import CensusStatus, DagsterStatus, FullSyncStatus, Status, age, sentences
from mcp_assets.sync.views.pending import Pending

TICKING = DagsterStatus("http://127.0.0.1:3000", 2.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59, "59 s"),
        (60, "1 minute"),
        (35 * 60 + 59, "35 minutes"),
        (3 * 3600, "3 hours"),
        (4 * 86_400 + 1, "4 days"),
    ],
)
def test_a_time_span_is_in_the_largest_unit_that_fits(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_all_applied_is_said_with_the_age_of_the_last_census() -> None:
    census = CensusStatus(2_100, 12, 0, {"task": 0.98234, "page": 1.0})
    found = Status(Pending(unread={"MCP": 0}), TICKING, edges=2_300, census=census)
    assert sentences(found) == [
        "relationships: about 2,300 edges",
        "all applied: every message that was published is applied, indexed and linked",
        "stream MCP: 0 messages unread",
        "sensors: one ticked 2 s ago",
        "census of 12 partitions: 35 minutes ago at most, no drift",
        "similarity edges are approximate, with a recall of 0.982 of task, 1.000 of page",
    ]


def test_what_waits_is_said_with_how_long_the_oldest_message_has_waited() -> None:
    oldest = datetime.now(UTC) - timedelta(minutes=5, seconds=30)
    said = sentences(Status(Pending(unread={"MCP": 3}, oldest_at=oldest), TICKING))
    assert "work is pending; the oldest message waits for 5 minutes" in said
    assert "stream MCP: 3 messages unread" in said


@pytest.mark.parametrize(
    ("sensors_s_ago", "words"), [(None, "none has ever ticked"), (7_300, "none has ticked for 2 hours")]
)
def test_sensors_that_do_not_tick_are_said_to_apply_nothing(sensors_s_ago: float | None, words: str) -> None:
    (said,) = [line for line in sentences(Status(Pending(), DagsterStatus(None, sensors_s_ago))) if "sensors" in line]
    assert words in said
    assert "no event is applied" in said


def test_drift_is_said_with_the_command_that_mends_it() -> None:
    said = sentences(Status(Pending(), TICKING, census=CensusStatus(10, 4, 17, {})))
    assert "census of 4 partitions: 10 s ago at most, 17 differences: `mcp-assets validate --repair`" in said


def test_the_last_full_sync_is_said_with_who_asked_and_why_it_failed() -> None:
    last = FullSyncStatus("abc", "mcp-assets sync", "failed", 7_200, "the provider refuses")
    said = sentences(Status(Pending(), TICKING, full_sync=last))
    assert "full sync asked for last, by mcp-assets sync: failed 2 hours ago: the provider refuses" in said


def test_while_a_store_does_not_answer_nothing_is_said_to_be_applied() -> None:
    said = sentences(
        Status(Pending(unread={"MCP": None}, unavailable=["NATS does not answer"]), DagsterStatus(None, None))
    )
    assert said == ["stream MCP: unknown"]
