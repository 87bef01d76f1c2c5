"""What a stream's configuration means for intake, in words; and which subjects are ours."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_assets.stores.streams import covers, state_of
from mcp_assets.sync.inbox.stream_limits import meaning_of

MADE = datetime(2026, 1, 1, tzinfo=UTC)
OURS = ["mcp.*.updated", "mcp.*.*.updated", "data.sync.request"]


def words(**config: Any) -> tuple[str, str]:
    """What is said of a stream so configured, and why a loss may go unnoticed."""
    answer = {"config": {"subjects": OURS, **config}, "state": {"first_seq": 1, "last_seq": 0}}
    meaning = meaning_of(state_of("S", answer, OURS, MADE))
    return "; ".join(meaning.words), "; ".join(meaning.blind)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "without limit"),
        ({"max_age": 7 * 86_400 * 10**9, "max_msgs": 1_000_000}, "keeps 7 days or 1,000,000 messages: if the platform"),
        ({"max_bytes": 1_000, "discard": "new"}, "refuses what is published when it is full"),
        ({"max_msgs_per_subject": 5}, "5 messages of each subject"),
        ({"storage": "memory"}, "kept in memory"),
        ({"num_replicas": 1}, "sync_interval"),
        ({"num_replicas": 3}, "3 replicas"),
        ({"retention": "workqueue"}, "work queue"),
        ({"retention": "interest"}, "some consumer waits"),
        ({"allow_msg_ttl": True}, "time to live"),
        ({"mirror": {"name": "M"}, "subjects": None}, "mirrors M"),
    ],
)
def test_the_configuration_of_a_stream_is_reported_in_words(config: dict[str, Any], said: str) -> None:
    sentence, blind = words(**config)

    assert said in sentence
    assert blind == ""


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"mirror": {"name": "M", "filter_subject": "mcp.>"}, "subjects": None}, "filtered mirror"),
        ({"mirror": {"name": "M", "subject_transforms": [{"src": "mcp.>"}]}, "subjects": None}, "filtered mirror"),
        ({"sources": [{"name": "A"}, {"name": "B"}], "subjects": None}, "what A, B discards"),
        ({"subjects": ["mcp.>"], "max_msgs_per_subject": 5}, "limits the messages of each subject"),
    ],
)
def test_where_a_loss_may_go_unnoticed_is_reported_with_the_reason(config: dict[str, Any], reason: str) -> None:
    assert reason in words(**config)[1]


def test_too_many_missing_messages_among_foreign_ones_are_a_reason_why_a_loss_may_go_unnoticed() -> None:
    answer = {"config": {"subjects": ["mcp.>"]}, "state": {"first_seq": 1, "last_seq": 0, "num_deleted": 200_000}}

    assert "200,000 messages are missing" in meaning_of(state_of("S", answer, OURS, MADE)).blind[0]


@pytest.mark.parametrize(
    ("subject", "ours"),
    [
        ("mcp.task.updated", True),
        ("mcp.kanban.task.updated", True),
        ("mcp.*.updated", True),
        ("data.sync.request", True),
        ("mcp.task.deleted", False),
        ("mcp.a.b.c.updated", False),
        ("mcp.>", False),
        ("mcp.task.*", False),
        ("mcp.>.updated", False),
        ("*.sync.request", False),
    ],
)
def test_a_pattern_is_ours_if_all_that_it_stands_for_is(subject: str, ours: bool) -> None:
    assert covers(OURS, subject) == ours


@pytest.mark.parametrize(
    ("taken", "subject", "is_taken"),
    [
        ("mcp.>", "mcp.*.created", True),
        ("mcp.>", "mcp", False),
        ("mcp.>", "mcp.a.>", True),
        ("mcp.a.>", "mcp.>", False),
        (">", "vector.index.request", True),
        ("mcp.*.*", "mcp.*.created", True),
        ("mcp.*.created", "mcp.*.*", False),
    ],
)
def test_a_pattern_of_a_stream_covers_what_it_takes(taken: str, subject: str, is_taken: bool) -> None:
    assert covers([taken], subject) == is_taken
