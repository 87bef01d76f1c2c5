"""Census, checks and repair in Dagster: what they tell, and that a store that cannot be read never passes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from qdrant_client import models

from mcp_assets.definitions import build_defs
from mcp_assets.defs.asset_checks import check_key
from mcp_assets.defs.keys import CENSUS
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.checks import CHECKS, evaluate
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.inbox.intake import intake
from mcp_assets.sync.requests.full_sync_here import run_here
from mcp_assets_tests.hashing import TASKS, HashEmbedder, fill, qdrant, task_point
from mcp_assets_tests.integration.defs.conftest import resource_of

WORLD = ("task-00", "memory-01")


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=HashEmbedder(), shards=2)
    fill(platform, 60)
    platform.nats.ensure_stream(platform.settings.streams[0])
    return platform


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def run(
    platform: Platform,
    instance: dg.DagsterInstance,
    job: str,
    *,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    checks: list[str] | None = None,
) -> dg.ExecuteInProcessResult:
    definition = build_defs(platform.settings, {"platform": resource_of(platform)}).resolve_job_def(job)
    if checks is not None:
        definition = definition.get_subset(asset_check_selection=set(map(check_key, checks)))
    return definition.execute_in_process(instance=instance, run_config=config or {}, tags=tags, raise_on_error=False)


def everything() -> dict[str, str]:
    first, last = WORLD
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def evaluated(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_a_census_run_materializes_each_partition_with_counts_and_runs_every_check_after_it(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    with qdrant(world) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in range(1, 31)]), wait=True)
    result = run(world, instance, "census", tags=everything())
    assert result.success
    told: dict[str | None, Mapping[str, Any]] = {
        event.partition: event.materialization.metadata
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == CENSUS
    }
    assert set(told) == {f"{name}-{shard:02}" for name in ("task", "page", "memory") for shard in range(2)}
    assert sum(metadata["drift/missing_vector"].value for metadata in told.values()) == 30
    assert sum(metadata["checked"].value for metadata in told.values()) == 60
    checks = evaluated(result)
    assert set(checks) == set(CHECKS)
    assert {name for name, one in checks.items() if not one.passed} == {"no_missing_vectors"}
    missing = checks["no_missing_vectors"]
    assert missing.severity is dg.AssetCheckSeverity.ERROR
    metadata: Mapping[str, Any] = missing.metadata
    assert metadata["count"].value == 30
    assert len(metadata["offenders"].value.records) == 20
    assert "validate --repair" in metadata["what_to_do"].value


def test_a_census_without_a_partition_is_one_of_all_and_runs_the_checks(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    for asset in ("entities", "embeddings", "relationship_edges"):
        # Dagster reads versions of partitioned assets that were materialized, and for that wants a partition.
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition="task-00"))
    result = run(world, instance, "census")
    assert result.success
    assert instance.get_materialized_partitions(CENSUS) == {
        f"{entity_type}-{shard:02}" for entity_type in ("task", "page", "memory") for shard in range(2)
    }
    assert {name: one.passed for name, one in evaluated(result).items()} == dict.fromkeys(CHECKS, True)


def test_a_census_of_one_partition_is_of_that_one(world: Platform, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, "census", tags={"dagster/partition": "page-01"}).success
    assert instance.get_materialized_partitions(CENSUS) == {"page-01"}


@pytest.mark.parametrize("job", ["index", "relate"])
def test_an_index_without_a_partition_ends_with_one_sentence_and_does_nothing(
    world: Platform, instance: dg.DagsterInstance, job: str
) -> None:
    result = run(world, instance, job)
    assert not result.success
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert "names no partition, so that there is nothing to do: choose some" in (
        failure.user_failure_data.description or ""
    )
    assert not instance.get_materialized_partitions(dg.AssetKey("entities"))


def test_a_dead_letter_of_an_entity_is_an_error_where_one_of_a_message_is_a_warning(world: Platform) -> None:
    world.nats.publish([("mcp.task.updated", b"not json")])
    while intake(world, wait_s=0.2).more:
        pass
    assert evaluate(world, "no_dead_letters").severity is Severity.WARNING
    with world.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO mcp_assets.dead_letters (stage, entity_type, entity_id, raw, error_kind, error)"
            " VALUES ('embed', 'task', '1', '', 'input_refused', 'no')"
        )
    assert evaluate(world, "no_dead_letters").severity is Severity.ERROR


def test_checks_that_follow_a_materialization_judge_what_it_has_made(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    with qdrant(world) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(1)]), wait=True)
    assert not evaluated(run(world, instance, "census"))["no_missing_vectors"].passed
    with world.postgres.transaction() as connection:
        # A change, which the run embeds, and with it all that the census has found in this partition.
        connection.execute("UPDATE tasks SET title = 'changed' WHERE id = 't1'")
    tags = {"dagster/asset_partition_range_start": "task-00", "dagster/asset_partition_range_end": "task-01"}
    job = build_defs(world.settings, {"platform": resource_of(world)}).resolve_implicit_global_asset_job_def()
    made = job.get_subset(
        asset_selection={dg.AssetKey("entities"), dg.AssetKey("embeddings")},
        asset_check_selection={check_key("no_missing_vectors")},
    ).execute_in_process(instance=instance, tags=tags)
    check = evaluated(made)["no_missing_vectors"]
    assert check.passed, check.description


def test_a_check_by_itself_takes_a_census_where_there_is_none_and_says_how_old_what_it_says_is(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    first = evaluated(run(world, instance, "checks", checks=["no_missing_vectors"]))
    assert first["no_missing_vectors"].passed
    with qdrant(world) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(1)]), wait=True)
    # By the census of a moment ago; an old one is taken again.
    assert evaluated(run(world, instance, "checks", checks=["no_missing_vectors"]))["no_missing_vectors"].passed
    with world.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.censuses SET ended_at = ended_at - interval '2 hours'")
    again = evaluated(run(world, instance, "checks", checks=["no_missing_vectors"]))["no_missing_vectors"]
    assert not again.passed
    assert again.metadata["count"].value == 1
    age_s: Any = again.metadata["census_age_s"].value
    assert age_s < 60


def test_the_repair_job_mends_and_reports_what_it_did(world: Platform, instance: dg.DagsterInstance) -> None:
    with qdrant(world) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(1)]), wait=True)
    result = run(world, instance, "repair", config={"ops": {"mend": {"config": {"types": ["task"]}}}})
    assert result.success
    with qdrant(world) as client:
        assert client.count(TASKS).count == 60
    assert not run(world, instance, "repair", config={"ops": {"mend": {"config": {"types": ["no"]}}}}).success


def test_a_mass_deletion_stops_sync_and_repair_and_fails_the_check_until_it_is_allowed(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    with world.postgres.transaction() as connection:
        connection.execute("DELETE FROM tasks")
    check = evaluated(run(world, instance, "census", tags=everything()))["ledger_matches_source"]
    assert not check.passed
    assert "--allow-mass-delete" in (check.description or "")
    assert not run(world, instance, "repair").success
    first, last = "task-00", "task-01"
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    assert not run(world, instance, "index", tags=tags).success
    with qdrant(world) as client:
        assert client.count(TASKS).count == 60
    allowed = {"ops": {"mend": {"config": {"allow_mass_delete": True}}}}
    assert run(world, instance, "repair", config=allowed).success
    with qdrant(world) as client:
        assert client.count(TASKS).count == 0


@pytest.mark.parametrize(
    ("gone", "failing"),
    [
        (
            {"qdrant_url": "http://127.0.0.1:9"},
            set(CHECKS) - {"no_dead_letters", "intake_is_current", "provider_answers", "model_change_is_decided"},
        ),
        ({"nats_url": "nats://127.0.0.1:9"}, {"intake_is_current"}),
        (
            {"source_preset": "cards"},
            set(CHECKS)
            - {
                "no_dead_letters",
                "intake_is_current",
                "collections_match_model",
                "model_change_is_decided",
                "provider_answers",
            },
        ),
    ],
)
def test_checks_of_a_store_that_cannot_be_read_fail_with_the_reason(
    make_platform: Callable[..., Platform], world: Platform, gone: dict[str, Any], failing: set[str]
) -> None:
    changes = {key: SecretStr(value) if key == "nats_url" else value for key, value in gone.items()}
    platform = make_platform(embedder=HashEmbedder(), shards=2, retry_attempts=1, **changes)
    findings = {name: evaluate(platform, name) for name in CHECKS}
    assert {name for name, finding in findings.items() if not finding.passed} == failing
    for name in failing:
        assert "could not be checked" in findings[name].summary


def test_the_checks_of_intake_and_dead_letters_report_what_waits_and_what_was_given_up(
    world: Platform, instance: dg.DagsterInstance
) -> None:
    world.nats.publish([("mcp.task.updated", b"not json")])
    while intake(world, wait_s=0.2).more:
        pass
    with world.postgres.transaction() as connection:
        connection.execute("INSERT INTO mcp_assets.wanted_full_syncs (entity_type, reason) VALUES ('task', 'a gap')")
    found = evaluated(run(world, instance, "checks", checks=["no_dead_letters", "intake_is_current"]))
    assert not found["no_dead_letters"].passed
    assert found["no_dead_letters"].severity is dg.AssetCheckSeverity.WARN
    assert found["no_dead_letters"].metadata["count"].value == 1
    assert found["no_dead_letters"].metadata["docs"].value == "docs/how-to/failed-checks.md"
    assert not found["intake_is_current"].passed
    assert "events of task were lost" in (found["intake_is_current"].description or "")
    for _ in run_here(world, ["task"], force=False):
        pass
    assert evaluated(run(world, instance, "checks", checks=["intake_is_current"]))["intake_is_current"].passed
