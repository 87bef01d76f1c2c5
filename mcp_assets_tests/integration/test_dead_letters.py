"""Dead letters: published on NATS at least once, replayed once their cause is mended, counted while it is not."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets.sync.requests.dead_letters import (
    Selection,
    announce_dead_letters,
    find_letters,
    purge,
    replay,
)
from mcp_assets.sync.requests.sync_requests import answer_requests
from mcp_assets.tuning import RequestTuning, Tuning
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    ledger,
    look_again,
    put_tasks,
    send,
    send_looks,
    sync_all,
    take_in,
)
from mcp_assets_tests.openai_stub import REFUSE_MARKER, OpenAIStub

EVERYTHING = Selection()


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with Listener(platform.settings.require_nats_url()) as listening:
        yield listening


def attempts(platform: Platform) -> dict[str, int]:
    return {str(letter.ref or letter.seq): letter.attempts for letter in find_letters(platform, EVERYTHING)}


def with_a_type_more(platform: Platform, make_platform: Callable[..., Platform]) -> Platform:
    """The same stores, with `widget` among the registered types."""
    types = {
        name: TypeMapping(source=known.source, collection=known.collection, aliases=known.aliases)
        for name, known in SOURCE_PRESETS["mcp"].items()
    }
    return make_platform(types={**types, "widget": TypeMapping()})


def test_a_message_of_a_type_that_was_unknown_is_taken_in_at_its_old_place_once_the_type_is_registered(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    send(platform, ("mcp.widget.created", {"widgetId": "w", "content": "first"}))
    take_in(platform)
    assert dead_letters(platform) == {"1": "unknown_type"}
    registered = with_a_type_more(platform, make_platform)
    send(platform, ("mcp.widget.updated", {"widgetId": "w", "content": "second"}))
    drain_all(registered, "widget")

    done = replay(registered, EVERYTHING)

    assert (done.accepted, done.failed) == (1, 0)
    (letter,) = find_letters(registered, EVERYTHING)
    assert letter.replayed_at is not None
    assert replay(registered, EVERYTHING).total == 0
    drain_all(registered, "widget")
    assert dead_letters(registered) == {}
    # It is older than what was applied since.
    assert ledger(registered, "widget")["w"]["content"] == "second"


def test_a_message_that_is_still_none_keeps_its_letter_with_the_attempt_counted(
    platform: Platform, listener: Listener
) -> None:
    send(platform, ("mcp.task.created", b"not json"))
    take_in(platform)
    for tries in (2, 3):
        assert replay(platform, EVERYTHING).failed == 1
        assert attempts(platform) == {"1": tries}
    announce_dead_letters(platform)
    assert listener.one("mcp_assets.dead_letter")["data"]["attempts"] == 3
    replay(platform, EVERYTHING)
    announce_dead_letters(platform)
    assert listener.all("mcp_assets.dead_letter", 2)[1]["data"]["attempts"] == 4


def test_an_entity_is_indexed_when_its_letter_is_replayed_after_its_text_was_mended(
    platform: Platform, stub: OpenAIStub
) -> None:
    put_tasks(platform, {"t1": REFUSE_MARKER, "t2": f"{REFUSE_MARKER} too"})
    sync_all(platform)
    assert attempts(platform) == {"task:t1": 1, "task:t2": 1}
    put_tasks(platform, {"t1": "mended"})

    done = replay(platform, Selection(stage="embed"))

    assert (done.done, done.failed) == (1, 1)
    assert attempts(platform) == {"task:t2": 2}
    assert_points_are(platform, {"t1": "mended"})


def test_an_entity_that_was_unknown_is_indexed_once_its_row_is_there(platform: Platform) -> None:
    send_looks(platform, "late", "never")
    drain_all(platform)
    for _ in platform.tuning.index.rechecks_after_s:
        look_again(platform)
    drain_all(platform)
    assert attempts(platform) == {"task:late": 1, "task:never": 1}
    put_tasks(platform, {"late": "here I am"})
    done = replay(platform, Selection(error_kind="unknown_entity"))
    assert (done.done, done.failed) == (1, 1)
    assert attempts(platform) == {"task:never": 2}
    assert_points_are(platform, {"late": "here I am"})


def test_a_failed_request_is_answered_when_it_is_replayed_and_counted_when_it_fails_again(
    platform: Platform, listener: Listener
) -> None:
    send(
        platform,
        ("data.sync.request", {"message_id": "r", "data": {"sync_type": "incremental_sync", "entity_ids": ["t1"]}}),
    )
    take_in(platform)
    for tries in (1, 2):
        list(answer_requests(platform, MessageKind.SYNC, "test"))
        assert attempts(platform) == {"1": tries}
        assert replay(platform, Selection(stage="request")).accepted == 1
    put_tasks(platform, {"t1": "one"})
    list(answer_requests(platform, MessageKind.SYNC, "test"))
    assert dead_letters(platform) == {}
    assert listener.one("data.sync.completed")["correlation_id"] == "r"


def test_a_refused_request_is_a_dead_letter_and_is_answered(platform: Platform, listener: Listener) -> None:
    raw = b'{"messageId": "r", "data": {"sync_type": "sync everything!"}}'
    send(platform, ("data.sync.request", raw))
    take_in(platform)
    assert announce_dead_letters(platform) == 1
    assert announce_dead_letters(platform) == 0

    letter = listener.one("mcp_assets.dead_letter")
    assert base64.b64decode(letter["data"]["raw_base64"]) == raw
    assert (letter["data"]["error_kind"], letter["data"]["stage"]) == ("unknown_sync_type", "intake")
    assert listener.one("data.sync.failed")["correlation_id"] == "r"
    # The stream does not take them in.
    assert take_in(platform).accepted == 0


def test_letters_that_could_not_be_announced_are_announced_later(
    platform: Platform, make_platform: Callable[..., Platform], listener: Listener
) -> None:
    send(platform, *(("mcp.task.created", b"not json %d" % number) for number in range(3)))
    take_in(platform)
    deaf = make_platform(nats_url="nats://127.0.0.1:9")
    assert announce_dead_letters(deaf) == 3
    assert listener.heard() == []
    assert publish_waiting(platform) == 3
    listener.all("mcp_assets.dead_letter", 3)


def test_letters_are_found_and_purged_by_what_they_are(platform: Platform) -> None:
    put_tasks(platform, {"t1": REFUSE_MARKER})
    sync_all(platform)
    send(platform, ("mcp.task.created", b"not json"), ("mcp.task.created", {"title": "no id"}))
    take_in(platform)

    def found(**filters: Any) -> list[str]:
        return [letter.error_kind for letter in find_letters(platform, Selection(**filters))]

    assert found() == ["input_refused", "bad_json", "missing_id"]
    assert found(entity_type="task") == ["input_refused"]
    assert found(stage="intake") == ["bad_json", "missing_id"]
    assert purge(platform, Selection(error_kind="bad_json")) == 1
    assert found() == ["input_refused", "missing_id"]
    (letter, _) = find_letters(platform, EVERYTHING)
    assert purge(platform, Selection(ids=[letter.id])) == 1
    assert found() == ["missing_id"]


def test_more_letters_than_a_page_are_all_replayed(platform: Platform) -> None:
    send(platform, *(("mcp.task.created", {"title": f"no id {number}"}) for number in range(450)))
    take_in(platform)
    assert replay(platform, EVERYTHING).failed == 450
    assert set(attempts(platform).values()) == {2}


@pytest.mark.tuning(Tuning(requests=RequestTuning(tries=1)))
def test_a_request_that_was_given_up_for_a_silent_store_can_be_replayed(platform: Platform) -> None:
    put_tasks(platform, {"t1": "one"})
    send(platform, ("data.sync.request", {"data": {"sync_type": "incremental_sync", "entity_ids": ["t1"]}}))
    take_in(platform)
    url, platform.settings.qdrant_url = platform.settings.qdrant_url, "http://127.0.0.1:9"
    platform.settings.retry_attempts = 1
    (answer,) = answer_requests(platform, MessageKind.SYNC, "test")
    assert answer.error is not None
    assert dead_letters(platform) == {"1": "unavailable"}

    platform.settings.qdrant_url = url
    platform.qdrant.close()
    del platform.qdrant
    assert replay(platform, EVERYTHING).accepted == 1
    (answer,) = answer_requests(platform, MessageKind.SYNC, "test")
    assert answer.error is None
    assert_points_are(platform, {"t1": "one"})
