"""The OpenAI-compatible provider against a server over HTTP that misbehaves."""

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from mcp_assets.embedding.openai_compatible import OpenAICompatibleEmbedder
from mcp_assets.embedding.profiles import ModelProfile, profile_for
from mcp_assets.embedding.protocol import Embedder, EmbedderUnavailable, EmbeddingResult, TextRefused
from mcp_assets_tests.openai_stub import REFUSE_MARKER, Kind, OpenAIStub, count_tokens, vector_of

DIMENSION = 8
KEY = "sk-test-0123456789abcdef"
ADA = replace(profile_for("text-embedding-ada-002"), dimension=DIMENSION)
TEXTS = [f"text number {number}" for number in range(16)]

MakeEmbedder = Callable[..., OpenAICompatibleEmbedder]


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub(dimension=DIMENSION) as stub:
        yield stub


@pytest.fixture
def make(stub: OpenAIStub) -> Iterator[MakeEmbedder]:
    with ExitStack() as stack:

        def make(profile: ModelProfile = ADA, **options: Any) -> OpenAICompatibleEmbedder:
            given: dict[str, Any] = {
                "api_key": KEY,
                "base_url": stub.base_url,
                "retry_delay_s": 0.01,
                "timeout_s": 5.0,
            } | options
            embedder = OpenAICompatibleEmbedder(profile, **given)
            stack.callback(embedder.close)
            # Before the embedder closes, so that no request hangs.
            stack.callback(stub.clear_faults)
            return embedder

        yield make


def assert_embedded(result: EmbeddingResult, texts: list[str]) -> None:
    assert len(result.outcomes) == len(texts)
    for text, outcome in zip(texts, result.outcomes, strict=True):
        assert outcome.refusal is None
        assert outcome.vector is not None
        assert np.array_equal(outcome.vector, vector_of(text, DIMENSION))


def refused(result: EmbeddingResult) -> dict[int, str]:
    return {
        position: outcome.refusal.error_kind
        for position, outcome in enumerate(result.outcomes)
        if outcome.refusal is not None
    }


def at(result: EmbeddingResult, positions: list[int]) -> EmbeddingResult:
    """The outcomes at `positions` only."""
    return replace(result, outcomes=[result.outcomes[position] for position in positions])


# --- the healthy server


@pytest.mark.parametrize("float_lists", [False, True])
def test_vectors_come_as_base64_or_as_lists_of_floats(stub: OpenAIStub, make: MakeEmbedder, float_lists: bool) -> None:
    stub.float_lists = float_lists
    result = make().embed(TEXTS)
    assert_embedded(result, TEXTS)
    assert result.tokens == sum(map(count_tokens, TEXTS))
    assert stub.stats()["requests"] == 1


def test_an_embedder_is_an_embedder(make: MakeEmbedder) -> None:
    embedder: Embedder = make()
    assert np.array_equal(embedder.embed_query("a query"), vector_of("a query", DIMENSION))
    assert embedder.embed([]).outcomes == []


def test_prefixes_stand_before_texts_and_queries(make: MakeEmbedder) -> None:
    embedder = make(replace(profile_for("e5-base-v2"), dimension=DIMENSION))
    (outcome,) = embedder.embed(["a text"]).outcomes
    assert outcome.vector is not None
    assert np.array_equal(outcome.vector, vector_of("passage: a text", DIMENSION))
    assert np.array_equal(embedder.embed_query("a query"), vector_of("query: a query", DIMENSION))


def test_a_shortened_model_is_asked_for_its_dimension(make: MakeEmbedder) -> None:
    (outcome,) = make(profile_for("text-embedding-3-small", dimension=5)).embed(["a text"]).outcomes
    assert outcome.vector is not None
    assert outcome.vector.shape == (5,)


def test_a_server_without_keys_is_sent_a_placeholder(make: MakeEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # meant for another server
    with OpenAIStub(dimension=DIMENSION, api_key="no-key") as keyless:
        assert_embedded(make(api_key=None, base_url=keyless.base_url).embed(TEXTS), TEXTS)


def test_requests_stay_within_the_limits_of_the_profile(stub: OpenAIStub, make: MakeEmbedder) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(90)]
    stub.max_inputs, stub.max_request_tokens = 7, 60
    assert_embedded(make(replace(ADA, max_inputs_per_request=7, max_tokens_per_request=60)).embed(texts), texts)
    assert stub.stats()["refused"] == 0
    assert stub.stats()["texts"] == stub.stats()["distinct_texts"] == 90


def test_requests_in_flight_are_bounded_over_all_callers(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("latency", times=None, latency_s=0.02)
    embedder = make(replace(ADA, max_inputs_per_request=2), concurrency=3)
    batches = [[f"{text} of caller {caller}" for text in TEXTS] for caller in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for batch, result in zip(batches, pool.map(embedder.embed, batches), strict=True):
            assert_embedded(result, batch)
    assert stub.stats()["requests"] == 32
    assert stub.stats()["max_in_flight"] == 3


def test_results_in_another_order_reach_their_texts(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("reordered", times=None)
    assert_embedded(make().embed(TEXTS), TEXTS)
    assert stub.stats()["requests"] == 1


def test_a_server_that_counts_no_tokens_leaves_them_unknown(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("no_usage", times=None)
    result = make().embed(TEXTS)
    assert_embedded(result, TEXTS)
    assert result.tokens is None


# --- transient failures


@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "drop"])
def test_a_transient_failure_is_retried(stub: OpenAIStub, make: MakeEmbedder, kind: Kind) -> None:
    stub.add_fault(kind, times=2)
    assert_embedded(make(attempts=3).embed(TEXTS), TEXTS)
    assert stub.stats()["requests"] == 3
    assert stub.stats()["texts"] == len(TEXTS)


@pytest.mark.parametrize(
    ("kind", "message", "probes"),
    [
        ("rate_limit", "limits the rate", 0),
        ("server_error", "answers with status 500: see its log", 1),
        ("drop", "see whether it runs", 1),
    ],
)
def test_retries_end_after_the_attempts_that_are_set(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, message: str, probes: int
) -> None:
    stub.add_fault(kind, times=None)
    with pytest.raises(EmbedderUnavailable, match=message):
        make(attempts=2).embed(TEXTS)
    assert stub.request_sizes == [len(TEXTS)] * 2 + [1] * probes


def test_the_servers_retry_after_is_waited_for(
    stub: OpenAIStub, make: MakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.add_fault("rate_limit", times=1, retry_after_s=0.25)
    stub.add_fault("rate_limit", times=1)
    embedder = make()
    slept: list[float] = []

    def wait(timeout: float) -> None:
        slept.append(timeout)

    monkeypatch.setattr(embedder._closed, "wait", wait)
    assert_embedded(embedder.embed(TEXTS), TEXTS)
    assert slept == [0.25, 0.02]


def test_a_retry_after_of_many_minutes_is_not_waited_for(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("rate_limit", times=None, retry_after_s=3600)
    with pytest.raises(EmbedderUnavailable, match="limits the rate"):
        make().embed(TEXTS)
    assert stub.stats()["requests"] == 1


def test_a_hanging_server_ends_in_unavailable(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("hang", times=None)
    with pytest.raises(EmbedderUnavailable, match=r"did not answer within 0\.1 s: .* EMBEDDING_TIMEOUT_S"):
        make(attempts=2, timeout_s=0.1).embed(TEXTS)
    assert stub.request_sizes == [len(TEXTS), 1]


def test_a_server_that_is_not_there_is_unavailable(make: MakeEmbedder) -> None:
    with OpenAIStub() as gone:
        url = gone.base_url
    with pytest.raises(EmbedderUnavailable, match=r"no answer from 127\.0\.0\.1:\d+ in 3 attempts .*OPENAI_BASE_URL"):
        make(base_url=url).embed(TEXTS)


def test_one_failing_request_fails_the_call_and_cancels_what_is_queued(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("unauthorized", times=1)
    stub.add_fault("latency", times=None, latency_s=0.01)
    embedder = make(replace(ADA, max_inputs_per_request=1), concurrency=1)
    with pytest.raises(EmbedderUnavailable):
        embedder.embed([f"text {number}" for number in range(200)])
    assert_embedded(embedder.embed(TEXTS[:1]), TEXTS[:1])
    assert stub.stats()["requests"] < 100


def test_closing_ends_retries_and_later_calls(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("server_error", times=None)
    embedder = make(retry_delay_s=30.0, attempts=100)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(embedder.embed, TEXTS)
        while stub.stats()["requests"] == 0:
            assert not call.done()
        embedder.close()
        with pytest.raises(EmbedderUnavailable, match="closed"):
            call.result()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        embedder.embed(TEXTS)


# --- failures that no retry mends


@pytest.mark.parametrize(
    ("kind", "message", "requests"),
    [
        ("insufficient_quota", "quota of this account is used up", 1),
        ("unauthorized", "check OPENAI_API_KEY", 1),
        ("forbidden", "check the permissions of OPENAI_API_KEY", 2),
        ("model_not_found", "knows no model text-embedding-ada-002 .* check EMBEDDING_MODEL and OPENAI_BASE_URL", 2),
    ],
)
def test_quota_key_and_model_errors_are_unavailable_at_once_or_once_the_probe_meets_them_too(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, message: str, requests: int
) -> None:
    stub.add_fault(kind, times=None)
    with pytest.raises(EmbedderUnavailable, match=message):
        make().embed(TEXTS)
    assert stub.stats()["requests"] == requests


@pytest.mark.parametrize("kind", ["refuse", "html", "no_data", "too_few", "nan", "zero", "too_large"])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
def test_a_server_that_embeds_nothing_is_unavailable_and_refuses_no_text(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, texts: list[str]
) -> None:
    stub.add_fault(kind, times=None)
    with pytest.raises(EmbedderUnavailable, match=r"embeds no text at all, not even 'hello world'.*EMBEDDING_MODEL"):
        make().embed(texts)
    assert stub.stats()["requests"] < 16


def test_a_wrong_dimension_throughout_names_both_dimensions_and_the_settings(
    stub: OpenAIStub, make: MakeEmbedder
) -> None:
    stub.dimension = 12
    with pytest.raises(EmbedderUnavailable, match=r"12 dimensions, where 8 are expected.*EMBEDDING_DIMENSION \(8\)"):
        make().embed(TEXTS)


# --- bad answers


@pytest.mark.parametrize("kind", ["html", "no_data", "too_few", "duplicate_index", "nan", "zero", "wrong_dimension"])
def test_a_bad_answer_is_asked_for_once_more(stub: OpenAIStub, make: MakeEmbedder, kind: Kind) -> None:
    stub.add_fault(kind, times=1)
    assert_embedded(make().embed(TEXTS), TEXTS)
    assert stub.stats()["requests"] == 2


@pytest.mark.parametrize(
    ("kind", "error_kind"), [("nan", "not_finite"), ("zero", "zero_vector"), ("wrong_dimension", "wrong_dimension")]
)
@pytest.mark.parametrize("float_lists", [False, True])
def test_bad_vectors_of_single_texts_are_refused_and_their_neighbours_embedded_once_more_at_most(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, error_kind: str, float_lists: bool
) -> None:
    stub.float_lists = float_lists
    stub.add_fault(kind, times=None, contains="POISON")
    texts = [*TEXTS[:5], "POISON one", *TEXTS[5:], "POISON two"]
    result = make().embed(texts)
    assert refused(result) == {5: error_kind, 17: error_kind}
    neighbours = at(result, [p for p in range(18) if p not in (5, 17)])
    assert_embedded(neighbours, TEXTS)
    assert {stub.times_embedded(text) for text in TEXTS} == {2}


def test_a_text_that_the_server_leaves_out_never_shifts_vectors_to_other_texts(
    stub: OpenAIStub, make: MakeEmbedder
) -> None:
    stub.add_fault("too_few", times=None, contains="LOST")
    texts = [*TEXTS[:3], "LOST", *TEXTS[3:]]
    result = make().embed(texts)
    assert refused(result) == {3: "bad_answer"}
    assert_embedded(at(result, [p for p in range(17) if p != 3]), TEXTS)


def test_a_server_that_numbers_all_results_zero_is_asked_for_one_text_at_a_time(
    stub: OpenAIStub, make: MakeEmbedder
) -> None:
    stub.add_fault("duplicate_index", times=None)
    assert_embedded(make().embed(TEXTS[:4]), TEXTS[:4])


# --- refused texts


@pytest.mark.parametrize("culprits", [{0}, {15}, {7}, {3, 4, 12}])
def test_refused_texts_are_found_and_all_others_embedded_exactly_once(
    stub: OpenAIStub, make: MakeEmbedder, culprits: set[int]
) -> None:
    texts = [f"{REFUSE_MARKER} {text}" if position in culprits else text for position, text in enumerate(TEXTS)]
    result = make().embed(texts)
    assert refused(result) == dict.fromkeys(culprits, "input_refused")
    others = [position for position in range(16) if position not in culprits]
    assert_embedded(at(result, others), [TEXTS[position] for position in others])
    assert {stub.times_embedded(TEXTS[position]) for position in others} == {1}


def test_one_refused_text_among_many_costs_a_logarithm_of_requests(stub: OpenAIStub, make: MakeEmbedder) -> None:
    texts = [f"text {number}" for number in range(1023)]
    texts.insert(600, REFUSE_MARKER)
    assert refused(make().embed(texts)) == {600: "input_refused"}
    assert stub.stats()["requests"] <= 2 * 10 + 2


def test_a_batch_of_refused_texts_only_is_refused_while_the_server_embeds_others(make: MakeEmbedder) -> None:
    result = make().embed([REFUSE_MARKER, f"{REFUSE_MARKER} again"])
    assert refused(result) == {0: "input_refused", 1: "input_refused"}
    refusal = result.outcomes[0].refusal
    assert refusal is not None
    assert refusal.sentence.endswith("refuses the input (400): the input was refused")


def test_blank_and_broken_texts_are_refused_without_being_sent(stub: OpenAIStub, make: MakeEmbedder) -> None:
    result = make().embed(["", "fine", " \n\t", "a\ud800"])
    assert refused(result) == {0: "empty_text", 2: "empty_text", 3: "invalid_text"}
    assert stub.request_sizes == [1]
    make().embed(["", " "])
    assert stub.request_sizes == [1]


def test_a_refused_query_raises_and_says_why(make: MakeEmbedder) -> None:
    with pytest.raises(TextRefused, match="the input was refused") as caught:
        make().embed_query(REFUSE_MARKER)
    assert caught.value.refusal.error_kind == "input_refused"


# --- one text at which the server fails, whatever it answers

FAILURES = [
    pytest.param("status", {"status": 500, "message": "failed to encode response: NaN"}, id="500, as Ollama does"),
    pytest.param("status", {"status": 503, "message": "overloaded"}, id="503"),
    pytest.param("status", {"status": 409, "message": "conflict"}, id="409"),
    pytest.param("status", {"status": 451, "message": "not in this country"}, id="a status of which nobody thought"),
    pytest.param("page", {"status": 403}, id="a firewall's page, 403"),
    pytest.param("page", {"status": 502}, id="a proxy's page, 502"),
    pytest.param("html", {}, id="a page with status 200"),
    pytest.param("no_data", {}, id="an error with status 200"),
    pytest.param("drop", {}, id="a cut connection"),
    pytest.param("hang", {}, id="no answer"),
    pytest.param("model_not_found", {}, id="404"),
]


@pytest.mark.parametrize(("kind", "fields"), FAILURES)
@pytest.mark.parametrize("culprits", [{0}, {3, 4, 12}])
def test_a_text_at_which_the_server_fails_is_refused_and_all_others_are_embedded_exactly_once(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, fields: dict[str, Any], culprits: set[int]
) -> None:
    stub.add_fault(kind, times=None, contains="POISON", **fields)
    texts = [f"POISON {text}" if position in culprits else text for position, text in enumerate(TEXTS)]

    result = make(timeout_s=0.3 if kind == "hang" else 5.0).embed(texts)

    answered = kind in ("html", "no_data")
    assert refused(result) == dict.fromkeys(culprits, "bad_answer" if answered else "embedding_failed")
    others = [position for position in range(16) if position not in culprits]
    assert_embedded(at(result, others), [TEXTS[position] for position in others])
    if not answered:
        assert {stub.times_embedded(TEXTS[position]) for position in others} == {1}
    assert stub.stats()["requests"] <= 10 + 12 * len(culprits)


@pytest.mark.parametrize(("kind", "fields"), FAILURES)
def test_a_text_that_came_alone_is_refused_only_if_it_fails_again_between_two_probes(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, fields: dict[str, Any]
) -> None:
    embedder = make(attempts=1, timeout_s=0.3 if kind == "hang" else 5.0)
    stub.add_fault(kind, times=2, contains="POISON", **fields)
    result = embedder.embed(["POISON"])
    assert stub.times_embedded("hello world") >= 1
    assert list(refused(result)) == [0]

    # It was the server, which had recovered by the second time.
    stub.clear_faults()
    stub.add_fault(kind, times=1, contains="POISON", **fields)
    assert refused(embedder.embed(["POISON"])) == {}


@pytest.mark.parametrize(("kind", "fields"), FAILURES)
def test_a_server_that_goes_down_while_a_text_is_looked_for_is_an_outage_and_no_text_is_blamed(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, fields: dict[str, Any]
) -> None:
    # The request and the second half of it; then the server fails at everything.
    embedder = make(attempts=1, timeout_s=0.3 if kind == "hang" else 5.0)
    real, asked = stub.answer, []

    def answer(body: dict[str, Any], key: str) -> Any:
        asked.append(body)
        if len(asked) == 4:
            stub.add_fault(kind, times=None, **fields)
        return real(body, key)

    stub.answer = answer  # type: ignore[method-assign]
    stub.add_fault(kind, times=None, contains="POISON", **fields)
    with pytest.raises(EmbedderUnavailable):
        embedder.embed([*TEXTS, "POISON"])


def test_a_rate_limit_is_never_a_texts_fault(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("rate_limit", times=None, contains="number 7")
    with pytest.raises(EmbedderUnavailable, match="limits the rate"):
        make().embed(TEXTS)


# --- texts that are too long


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            500,
            "input (1844 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        ),
        (503, "the input is too long for this model"),
        (429, "Request too large for text-embedding-3-small on tokens per min: Limit 400, Requested 900"),
    ],
)
def test_too_long_in_any_status_is_shortened_without_a_probe_and_without_retries(
    stub: OpenAIStub, make: MakeEmbedder, status: int, message: str
) -> None:
    stub.add_fault("status", times=None, contains="word150", status=status, message=message)
    long = " ".join(f"word{number}" for number in range(200))
    result = make().embed([*TEXTS, long])
    assert refused(result) == {}
    kept = result.outcomes[16].embedded_characters
    assert kept is not None
    assert len(long) / 4 < kept < len(long)
    assert_embedded(at(result, list(range(16))), TEXTS)
    assert {stub.times_embedded(text) for text in TEXTS} == {1}
    assert stub.times_embedded("hello world") == 0


def test_a_server_that_takes_too_long_has_no_text_shortened(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("status", times=3, contains="number 7", status=504, message="upstream took too long")
    result = make().embed(TEXTS)
    assert_embedded(result, TEXTS)
    assert [outcome.embedded_characters for outcome in result.outcomes] == [None] * 16


def test_a_text_above_the_models_limit_is_shortened_and_its_neighbours_are_not(
    stub: OpenAIStub, make: MakeEmbedder
) -> None:
    stub.max_input_tokens = 100
    long = " ".join(f"word{number}" for number in range(200))
    texts = [*TEXTS[:8], long, *TEXTS[8:]]
    result = make().embed(texts)
    assert refused(result) == {}
    outcome = result.outcomes[8]
    kept = long[: outcome.embedded_characters]
    assert 80 <= count_tokens(kept) <= 100
    assert long[len(kept)] == " "
    assert outcome.vector is not None
    assert np.array_equal(outcome.vector, vector_of(kept, DIMENSION))
    assert_embedded(at(result, [p for p in range(17) if p != 8]), TEXTS)
    assert all(result.outcomes[p].embedded_characters is None for p in range(17) if p != 8)
    assert {stub.times_embedded(text) for text in TEXTS} == {1}


def test_a_limit_without_numbers_is_met_by_halving(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("too_large", times=None, contains="word150")
    long = " ".join(f"word{number}" for number in range(200))
    (outcome,) = make().embed([long]).outcomes
    assert outcome.vector is not None
    assert outcome.embedded_characters is not None
    assert len(long) / 3 < outcome.embedded_characters <= len(long) / 2


def test_a_text_that_is_too_long_however_short_is_refused(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("too_large", times=None, contains="stubborn")
    result = make().embed(["stubborn " * 100, "fine"])
    assert refused(result) == {0: "input_too_long"}
    assert_embedded(at(result, [1]), ["fine"])


def test_a_request_above_the_servers_own_token_limit_is_halved(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.max_request_tokens = 30
    assert_embedded(make().embed(TEXTS), TEXTS)


# --- secrets


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden", "server_error", "refuse", "hang", "drop", "html"])
def test_the_key_is_in_no_error_no_log_and_no_repr(
    stub: OpenAIStub, make: MakeEmbedder, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.add_fault(kind, times=None)
    embedder = make(timeout_s=0.1, attempts=2)
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(TEXTS)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in caplog.text
    assert KEY not in repr(embedder)
    assert "127.0.0.1" in repr(embedder)


def test_a_key_that_the_server_quotes_in_a_refusal_is_struck_out(stub: OpenAIStub, make: MakeEmbedder) -> None:
    with OpenAIStub(dimension=DIMENSION) as quoting:
        quoting.add_fault("model_not_found", times=None)
        embedder = make(base_url=quoting.base_url, api_key="model")
        with pytest.raises(EmbedderUnavailable, match=r"The \[API key\] does not exist"):
            embedder.embed(TEXTS)


def test_credentials_in_the_url_are_in_no_error_and_no_repr(stub: OpenAIStub, make: MakeEmbedder) -> None:
    stub.add_fault("model_not_found", times=None)
    embedder = make(base_url=stub.base_url.replace("//", "//user:pass-word@"))
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(TEXTS)
    assert "pass-word" not in repr(embedder) + "".join(traceback.format_exception(caught.value))


# --- the stub, as other tests use it


def test_the_stub_is_steered_and_read_over_http(stub: OpenAIStub, make: MakeEmbedder) -> None:
    root = stub.base_url.removesuffix("/v1")
    assert httpx.post(f"{root}/faults", json={"kind": "server_error", "times": 1}).status_code == 200
    assert httpx.post(f"{root}/faults", json={"kind": "no such fault"}).status_code == 400
    assert_embedded(make().embed(TEXTS), TEXTS)
    assert httpx.get(f"{root}/stats").json() == {
        "requests": 2,
        "refused": 1,
        "texts": 16,
        "distinct_texts": 16,
        "tokens": sum(map(count_tokens, TEXTS)),
        "max_in_flight": 1,
    }
    httpx.post(f"{root}/faults", json={"kind": "unauthorized", "times": None})
    httpx.delete(f"{root}/faults")
    httpx.post(f"{root}/stats")
    assert_embedded(make().embed(TEXTS), TEXTS)
    assert httpx.get(f"{root}/stats").json()["requests"] == 1


def test_the_stub_runs_as_its_own_process_and_gives_the_same_vectors(make: MakeEmbedder) -> None:
    command = [sys.executable, "-m", "mcp_assets_tests.openai_stub", "--port", "0", "--dimension", str(DIMENSION)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert_embedded(make(base_url=process.stdout.readline().strip()).embed(TEXTS), TEXTS)
        finally:
            process.terminate()
