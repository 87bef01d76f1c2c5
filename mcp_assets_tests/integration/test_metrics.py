"""Metrics: what a scrape says is what was committed; if PostgreSQL is away it says so, and no number."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from mcp_assets.platform import Platform
from mcp_assets.sync.metrics import METRICS, UP, PlatformCollector, sample_names
from mcp_assets_tests.observing import drain_all, put_tasks, send, send_looks, sync_all, take_in
from mcp_assets_tests.openai_stub import OpenAIStub

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scraped(platform: Platform) -> Samples:
    """The samples of a scrape, by name and labels."""
    registry = CollectorRegistry()
    registry.register(PlatformCollector(platform))
    found: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name][tuple(sorted(labels.items()))]


def test_events_their_lags_and_costs_are_counted_once_each(
    make_platform: Callable[..., Platform], platform: Platform
) -> None:
    priced = make_platform(embedding_price=1000.0)
    put_tasks(priced, {"a": "one", "b": "two words", "c": "three"})
    send_looks(priced, "a", "b", "c", "a")
    send(priced, ("mcp.task.updated", b"no json"))
    take_in(priced)
    waiting = scraped(priced)
    assert of(waiting, "mcp_assets_inbox_depth", kind="entity", entity_type="task") == 4
    assert of(waiting, "mcp_assets_inbox_oldest_seconds", kind="entity", entity_type="task") > 0
    assert "mcp_assets_events_total" not in waiting

    assert drain_all(priced).embedded == 3
    found = scraped(priced)
    assert of(found, UP) == 1
    assert "mcp_assets_inbox_depth" not in found
    assert of(found, "mcp_assets_messages_total", kind="entity", outcome="accepted") == 4
    assert of(found, "mcp_assets_messages_total", kind="", outcome="rejected") == 1
    assert of(found, "mcp_assets_events_total", entity_type="task") == 4
    assert of(found, "mcp_assets_event_lag_seconds_count", entity_type="task") == 4
    assert of(found, "mcp_assets_event_lag_seconds_bucket", entity_type="task", le="+Inf") == 4
    assert of(found, "mcp_assets_event_lag_seconds_sum", entity_type="task") > 0
    model = {"entity_type": "task", "model": priced.embedder.profile.key}
    tokens = of(found, "mcp_assets_embedding_tokens_total", **model)
    assert of(found, "mcp_assets_embedded_texts_total", **model) == 3
    assert tokens > 0
    assert of(found, "mcp_assets_embedding_cost_dollars_total", **model) == pytest.approx(tokens / 1000)
    assert of(found, "mcp_assets_embedding_cost_today_dollars") == pytest.approx(tokens / 1000)
    assert of(found, "mcp_assets_provider_request_seconds_count", model=model["model"]) >= 1
    assert of(found, "mcp_assets_entities", entity_type="task") == 3
    assert of(found, "mcp_assets_linker_backlog") == 3
    assert of(found, "mcp_assets_dead_letters", stage="intake", error_kind="bad_json") == 1


def test_refusals_of_the_provider_are_counted_by_status(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, {"a": "one"})
    stub.add_fault("status", times=2, status=503)
    sync_all(platform)
    found = scraped(platform)
    assert of(found, "mcp_assets_provider_refusals_total", model=platform.embedder.profile.key, status="503") == 2
    assert of(found, "mcp_assets_provider_request_seconds_count", model=platform.embedder.profile.key) == 1


def test_a_scrape_without_postgresql_says_that_it_is_down_and_nothing_else(
    make_platform: Callable[..., Platform],
) -> None:
    away = make_platform(database_url=SecretStr("postgresql://nobody@127.0.0.1:9/none?connect_timeout=2"))
    assert scraped(away) == {UP: {(): 0.0}}


def test_no_sample_has_a_name_that_is_not_documented(platform: Platform) -> None:
    documented = {name for metric in METRICS for name in sample_names(metric)}
    assert set(scraped(platform)) <= documented
