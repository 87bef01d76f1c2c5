"""Rates that all runs share, and the budget of a day: full syncs pause, events never do."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.postgres.shared_rate import BURST_S, SharedRate
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts, costs_by_day, raise_budget
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import IndexTuning, Tuning
from mcp_assets_tests.observing import drain_all, entity_points, put_tasks, rows, send_looks, sync_all
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until

IMPATIENT = Tuning(index=IndexTuning(budget_asked_again_s=0.05))
"""A full sync that pauses asks often whether there is budget again."""


class Recorder(threading.Event):
    """An event that notes for how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def bucket(platform: Platform) -> tuple[float, float]:
    """Requests and tokens that are left."""
    ((requests, tokens),) = rows(platform, "SELECT requests, tokens FROM {schema}.provider_rates")
    return requests, tokens


def rate(platform: Platform, **limits: float | None) -> SharedRate:
    return SharedRate(platform.postgres, "m/1", **{"requests_a_minute": None, "tokens_a_minute": None} | limits)


def test_two_processes_take_from_one_bucket_and_wait_for_what_is_not_there(platform: Platform) -> None:
    one, other = rate(platform, requests_a_minute=6), rate(platform, requests_a_minute=6)
    waited = Recorder()
    one.wait(1, background=False, closed=waited)
    other.wait(1, background=False, closed=waited)
    other.wait(1, background=False, closed=waited)
    # The bucket holds one request (ten seconds of six a minute), and each further one flows in within ten seconds.
    first, second, third = waited.waits
    assert first == 0
    assert BURST_S - 2 < second <= BURST_S
    assert 2 * BURST_S - 2 < third <= 2 * BURST_S


def test_a_full_sync_leaves_a_part_of_the_bucket_to_events(platform: Platform) -> None:
    shared = rate(platform, tokens_a_minute=6000)
    asked_again = threading.Event()

    class Closed(Recorder):
        def wait(self, timeout: float | None = None) -> bool:
            asked_again.set()
            return True

    waited = Recorder()
    shared.wait(700, background=True, closed=waited)
    assert waited.waits == [0.0]
    left = bucket(platform)[1]
    shared.wait(200, background=True, closed=Closed())
    assert asked_again.is_set()
    assert bucket(platform)[1] == left
    shared.wait(200, background=False, closed=waited)
    assert waited.waits == [0.0, 0.0]


def test_a_request_that_is_larger_than_the_bucket_is_sent_once_the_bucket_is_full(platform: Platform) -> None:
    shared, waited = rate(platform, tokens_a_minute=6000), Recorder()
    shared.wait(5000, background=True, closed=waited)
    assert waited.waits == [pytest.approx(40, abs=1)]


def test_what_the_provider_counts_corrects_what_was_reserved(platform: Platform) -> None:
    shared, waited = rate(platform, tokens_a_minute=6000), Recorder()
    shared.wait(1000, background=False, closed=waited)
    shared.answered(1000, 400)
    shared.wait(600, background=False, closed=waited)
    # Reserved were 1,000 and 600, and the first used 600 less.
    assert bucket(platform)[1] >= 0


def test_a_platform_with_rates_sends_no_more_than_they_allow(
    make_platform: Callable[..., Platform], platform: Platform, stub: OpenAIStub
) -> None:
    limited = make_platform(requests_a_minute=6000, tokens_a_minute=60_000_000)
    put_tasks(limited, {f"t{n}": f"text {n}" for n in range(120)})
    assert sync_all(limited).embedded == 120
    requests, tokens = bucket(limited)
    assert requests < 6000 / 60 * BURST_S
    assert tokens <= 60_000_000 / 60 * BURST_S


@pytest.fixture
def spent(make_platform: Callable[..., Platform], platform: Platform) -> Platform:
    """A platform whose budget of today is spent."""
    made = make_platform(tuning=IMPATIENT, embedding_price=1.0, embedding_budget_a_day=0.5)
    costs = made.companion(EmbeddingCosts)
    costs.add("task", made.embedder.profile, 1, 0, 600_000)
    costs.write()
    return made


def test_a_spent_budget_pauses_full_syncs_until_it_is_raised_and_never_events(
    spent: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mcp_assets.notices")
    put_tasks(spent, {"a": "by a full sync", "b": "by an event"})
    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(sync_all, spent)
        until(lambda: "this run pauses: the embedding budget of today is spent" in caplog.text, "the run pauses")
        send_looks(spent, "b")
        assert drain_all(spent).embedded == 1
        assert not syncing.done()
        assert set(entity_points(spent)) == {"b"}
        assert "EMBEDDING_BUDGET_A_DAY" in (pending(spent).budget or "")
        raise_budget(spent, 1.0)
        syncing.result(60)
    assert set(entity_points(spent)) == {"a", "b"}
    assert "this run goes on" in caplog.text
    assert pending(spent).budget is None


def test_a_full_sync_goes_on_when_the_day_is_over(spent: Platform) -> None:
    put_tasks(spent, {"a": "text"})
    rows(spent, "UPDATE {schema}.embedding_costs SET day = day - 1 RETURNING 1")
    assert sync_all(spent).embedded == 1


def test_what_is_embedded_costs_by_type_and_day(make_platform: Callable[..., Platform], platform: Platform) -> None:
    priced = make_platform(embedding_price=1000.0)
    put_tasks(priced, {"a": "one two", "b": "three"})
    sync_all(priced)
    sync_all(priced, force=True)
    (cost,) = costs_by_day(priced, 1)
    assert (cost.entity_type, cost.model, cost.texts) == ("task", priced.embedder.profile.key, 4)
    assert cost.estimated_tokens == 0
    assert cost.usd == pytest.approx(cost.tokens / 1000)


def test_tokens_that_the_provider_does_not_count_are_estimated(
    make_platform: Callable[..., Platform], platform: Platform, stub: OpenAIStub
) -> None:
    stub.add_fault("no_usage", times=None)
    put_tasks(platform, {"a": "x" * 400})
    sync_all(platform)
    (cost,) = costs_by_day(platform, 1)
    assert cost.tokens == cost.estimated_tokens == 100


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EMBEDDING_BUDGET_A_DAY", "5")
    yield


def test_a_budget_needs_a_price(_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("EMBEDDING_MODEL", "ours")
    monkeypatch.setenv("EMBEDDING_DIMENSION", "8")
    with pytest.raises(ValueError, match="the price of the model ours is not known: set EMBEDDING_PRICE"):
        Settings(_env_file=None)  # type: ignore[call-arg]
    monkeypatch.setenv("EMBEDDING_PRICE", "0.1")
    assert Settings(_env_file=None).embedding_budget_a_day == 5  # type: ignore[call-arg]
