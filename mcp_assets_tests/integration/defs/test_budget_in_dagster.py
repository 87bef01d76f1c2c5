"""A spent budget in Dagster: a sensor says so, and asks for no full sync, but for drains."""

from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import DRAIN_TAG, FULL_SYNC_TAG
from mcp_assets.platform import Platform
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts, raise_budget
from mcp_assets_tests.integration.defs.conftest import resource_of
from mcp_assets_tests.observing import put_tasks, rows, send_looks


@pytest.fixture
def spent(make_platform: Callable[..., Platform], platform: Platform) -> Platform:
    """A platform whose budget of today is spent, and whose ticks end soon."""
    made = make_platform(sensor_tick_s=0.4, embedding_price=1.0, embedding_budget_a_day=0.5)
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
