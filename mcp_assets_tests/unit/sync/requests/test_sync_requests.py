"""Sync requests: the message that answers one, and the bytes under which a failed one is kept."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.events import DEFAULT_TYPE_NAMES, Event, SyncRequest, SyncTarget, SyncType, parse
from mcp_assets.sync.inbox.outbox import ResultMessage
from mcp_assets.sync.requests.full_sync_requests import RequestMessage
from mcp_assets.sync.requests.sync_requests import Answer, Request, as_message, result_message

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def asked(
    *targets: SyncTarget,
    subject: str = "data.sync.request",
    sync_type: SyncType = SyncType.INCREMENTAL_SYNC,
    message_id: str | None = "m-1",
    **context: Any,
) -> Request:
    request = SyncRequest(sync_type, targets, context)
    return Request(RequestMessage("mcp", 1, 7, subject, message_id), request, NOW, 0)


@pytest.mark.parametrize(
    ("subject", "error", "answered_on"),
    [
        ("data.sync.request", None, "data.sync.completed"),
        ("data.sync.request", "it failed", "data.sync.failed"),
        ("data.validate.request", None, "data.validate.completed"),
        ("data.validate.request", "it failed", "data.validate.failed"),
    ],
)
def test_an_answer_goes_to_the_subject_of_its_request_with_the_error_only_if_there_is_one(
    subject: str, error: str | None, answered_on: str
) -> None:
    answer = Answer(asked(subject=subject), {"counts": {"checked": 3}}, error)
    result = {"counts": {"checked": 3}} | ({"error": error} if error is not None else {})
    assert result_message(answer) == ResultMessage(answered_on, result, ["m-1"])


def test_an_answer_to_a_request_without_an_id_answers_no_id() -> None:
    assert result_message(Answer(asked(message_id=None), {})).message_ids == []


IDS = st.text(alphabet="abcXYZ-_ß/", min_size=1, max_size=9).filter(lambda text: text == text.strip())
CONTEXT: Any = st.dictionaries(
    st.text(alphabet="abc", min_size=1, max_size=5), st.booleans() | st.text("aß\U0001f600", max_size=9)
)
TARGETS = st.lists(st.builds(SyncTarget, st.sampled_from(["task", "page", "memory", None]), IDS), unique=True)


@given(st.sampled_from(SyncType), TARGETS, st.none() | IDS, CONTEXT)
def test_a_failed_request_is_kept_as_a_message_that_asks_for_the_same(
    sync_type: SyncType, targets: list[SyncTarget], message_id: str | None, context: dict[str, Any]
) -> None:
    request = Request(
        RequestMessage("mcp", 1, 7, "data.sync.request", message_id),
        SyncRequest(sync_type, tuple(targets), context),
        NOW,
        4,
    )
    again = parse("data.sync.request", as_message(request), DEFAULT_TYPE_NAMES)
    assert isinstance(again, Event)
    assert again.request == request.request
    assert again.message_id == message_id
