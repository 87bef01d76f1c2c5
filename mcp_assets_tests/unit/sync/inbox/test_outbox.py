"""Outbox: the bytes of a result message, and what is left out if they are too many."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.inbox.outbox import envelope_of, fitted


def test_a_result_stands_in_the_envelope_of_the_servers_beside_the_ids_of_its_requests() -> None:
    before = datetime.now(UTC)
    envelope = envelope_of({"counts": {"scanned": 1}}, ["m-1"])
    assert list(envelope) == ["message_id", "correlation_id", "timestamp", "source", "data"]
    assert envelope["source"] == "mcp_assets"
    assert envelope["data"] == {"counts": {"scanned": 1}, "requests": ["m-1"]}
    assert UUID(envelope["message_id"]).version == 4
    made = datetime.fromisoformat(envelope["timestamp"])
    assert made.utcoffset() is not None
    assert abs((made - before).total_seconds()) < 10


@pytest.mark.parametrize(("message_ids", "correlation_id"), [([], None), (["m-1"], "m-1"), (["m-1", "m-2"], None)])
def test_only_the_answer_to_one_request_has_a_correlation_id(
    message_ids: list[str], correlation_id: str | None
) -> None:
    assert envelope_of({}, message_ids)["correlation_id"] == correlation_id


def test_two_results_have_two_ids_because_jetstream_drops_a_message_whose_id_it_knows() -> None:
    assert envelope_of({}, [])["message_id"] != envelope_of({}, [])["message_id"]


def test_a_message_is_utf_8_json_as_it_is_if_it_fits_to_the_byte() -> None:
    envelope = {"message_id": "m", "data": {"entities": ["task:Größe", "task:" + "\U0001f600" * 20], "error": "ß"}}
    body = json.dumps(envelope, ensure_ascii=False).encode()
    assert fitted(envelope, len(body)) == body
    assert "Größe".encode() in body
    assert json.loads(fitted(envelope, len(body) - 1))["data"]["omitted"] == {"entities": 1}


def test_a_lone_surrogate_which_utf_8_does_not_have_becomes_a_question_mark() -> None:
    assert fitted({"data": {"error": "a\ud800b"}}, 100) == b'{"data": {"error": "a?b"}}'


def test_the_longest_list_is_halved_until_the_message_fits_and_the_rest_is_counted() -> None:
    envelope = {"data": {"entities": ["x" * 100] * 64, "unknown": ["y"] * 3, "requests": ["m-1"]}}
    data = json.loads(fitted(envelope, 2_000))["data"]
    assert data["entities"] == ["x" * 100] * 16
    assert data["unknown"] == ["y"] * 3
    assert data["requests"] == ["m-1"]
    assert data["omitted"] == {"entities": 48}


def test_texts_are_cut_only_after_all_lists_are_gone() -> None:
    envelope = {"data": {"entities": ["x" * 100] * 64, "error": "e" * 5_000, "summary": "s"}}
    cut_lists = json.loads(fitted(envelope, 8_000))["data"]
    assert cut_lists["error"] == "e" * 5_000
    assert len(cut_lists["entities"]) + cut_lists["omitted"]["entities"] == 64
    cut_texts = json.loads(fitted(envelope, 2_000))["data"]
    assert cut_texts == {"entities": [], "error": "e" * 1_000, "summary": "s", "omitted": {"entities": 64}}


def test_a_message_that_cannot_be_made_to_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(StoreRefused, match=r"a result has 1\d\d\d bytes, and the NATS server takes 100"):
        fitted({"data": {"entities": ["x"] * 64, "error": "e" * 5_000}}, 100)


def test_the_result_that_is_kept_is_not_changed_by_what_is_left_out() -> None:
    envelope = {"data": {"entities": ["x" * 100] * 64}}
    fitted(envelope, 1_000)
    assert envelope == {"data": {"entities": ["x" * 100] * 64}}


LISTS: Any = st.dictionaries(
    st.sampled_from(["entities", "unknown", "failed", "requests"]), st.lists(st.text(max_size=40), max_size=60)
)


@given(LISTS, st.integers(400, 4_000))
def test_a_message_of_lists_always_fits_is_json_and_accounts_for_each_item(
    lists: dict[str, list[str]], max_bytes: int
) -> None:
    body = fitted({"data": lists}, max_bytes)
    assert len(body) <= max_bytes
    data = json.loads(body)["data"]
    omitted = data.pop("omitted", {})
    assert {name: len(items) + omitted.get(name, 0) for name, items in data.items()} == {
        name: len(items) for name, items in lists.items()
    }
