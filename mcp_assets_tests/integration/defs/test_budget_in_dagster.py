"""Costs in Dagster: materializations carry them; of a spent budget a sensor says so, and asks for drains alone."""

from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import DRAIN_TAG, FULL_SYNC_TAG
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts, budget_today, raise_budget
from mcp_assets_tests.integration.defs.conftest import Ran, resource_of
from mcp_assets_tests.observing import put_tasks, rows, send_looks


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A model with a price, a million tokens for one dollar, and ticks that end soon."""
    return settings.model_copy(update={"embedding_price": 1.0, "sensor_tick_s": 0.4})


@pytest.fixture
def spent(make_platform: Callable[..., Platform], platform: Platform) -> Platform:
    """A platform whose budget of today is spent."""
    made = make_platform(embedding_budget_a_day=0.5)
    costs = made.companion(EmbeddingCosts)
    costs.add("task", made.embedder.profile, 1, 0, 600_000)
    costs.write()
    return made


def ticked(platform: Platform, instance: dg.DagsterInstance) -> SensorExecutionData:
    repository = build_defs(platform.settings).get_repository_def()
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources={"platform": resource_of(platform)}
    ) as context:
        return repository.get_sensor_def("vector_index_sensor").evaluate_tick(context)


def tags_of(told: SensorExecutionData) -> set[str]:
    return {tag for request in told.run_requests or () for tag in request.tags if tag.startswith("mcp_assets/")}


def test_a_materialization_says_what_its_texts_and_the_day_have_cost(
    run: Callable[..., Ran], platform: Platform
) -> None:
    put_tasks(platform, {f"t{n}": f"some words {n}" for n in range(8)})
    ran = run("task-00", "task-03")
    assert ran.success
    told = [entries for (asset, _), entries in ran.metadata.items() if asset == "embeddings"]
    paid = [entries for entries in told if "openai.total_tokens" in entries]
    assert paid
    for entries in paid:
        assert entries["cost_dollars"] == pytest.approx(entries["openai.total_tokens"] / 1_000_000)
    assert all("total/cost_dollars_today" in entries for entries in told)
    run("task-00", "task-03", force=True)
    today = budget_today(platform).spent_usd
    assert today == pytest.approx(2 * sum(entries["cost_dollars"] for entries in paid))


def test_a_sensor_asks_for_drains_alone_and_says_why(spent: Platform, instance: dg.DagsterInstance) -> None:
    rows(spent, "INSERT INTO {schema}.wanted_full_syncs (entity_type, reason) VALUES ('task', 'a gap') RETURNING 1")
    idle = ticked(spent, instance)
    assert not idle.run_requests
    assert "the embedding budget of today is spent ($0.60 of $0.50" in (idle.skip_message or "")

    put_tasks(spent, {"a": "text"})
    send_looks(spent, "a")
    asked = tags_of(ticked(spent, instance))
    assert DRAIN_TAG in asked
    assert FULL_SYNC_TAG not in asked

    raise_budget(spent, 1.0)
    assert FULL_SYNC_TAG in tags_of(ticked(spent, instance))
