"""The subjects that the stream lists, and what a message on each of them is."""

import pytest

from mcp_assets.events import DEFAULT_TYPE_NAMES, Event, MessageKind, Verb, parse, stream_subjects
from mcp_assets.events.subjects import VERBS


def matches(pattern: str, subject: str) -> bool:
    """Whether the NATS subject filter `pattern`, of literal tokens and `*`, takes `subject`."""
    wanted, given = pattern.split("."), subject.split(".")
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def test_the_stream_lists_the_four_requests_and_two_patterns_for_each_verb() -> None:
    assert stream_subjects() == [
        "vector.index.request",
        "relationship.analyze.request",
        "data.sync.request",
        "data.validate.request",
        "mcp.*.created",
        "mcp.*.*.created",
        "mcp.*.updated",
        "mcp.*.*.updated",
        "mcp.*.stored",
        "mcp.*.*.stored",
        "mcp.*.moved",
        "mcp.*.*.moved",
        "mcp.*.assigned",
        "mcp.*.*.assigned",
        "mcp.*.restored",
        "mcp.*.*.restored",
        "mcp.*.deleted",
        "mcp.*.*.deleted",
        "mcp.*.archived",
        "mcp.*.*.archived",
    ]


@pytest.mark.parametrize(
    "subject",
    ["mcp.kanban.get_task", "mcp.wiki.page.get", "mcp.memory.search.request", "vector.index.completed", "mcp.created"],
)
def test_the_stream_stays_clear_of_requests_that_expect_a_reply_and_of_our_own_results(subject: str) -> None:
    assert not any(matches(pattern, subject) for pattern in stream_subjects())


@pytest.mark.parametrize("prefix", ["mcp.task", "mcp.kanban.task"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_listed_and_asks_to_look_or_to_delete(prefix: str, verb: str) -> None:
    subject = f"{prefix}.{verb}"
    assert sum(matches(pattern, subject) for pattern in stream_subjects()) == 1
    event = parse(subject, b'{"id": "7"}', DEFAULT_TYPE_NAMES)
    assert isinstance(event, Event)
    assert event.kind is MessageKind.ENTITY
    assert event.verb is (Verb.DELETE if verb in ("deleted", "archived") else Verb.LOOK)
