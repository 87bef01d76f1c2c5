"""The definitions as Dagster sees them, and Dagster's own tables."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

import mcp_assets
from mcp_assets.definitions import build_defs
from mcp_assets.settings import Settings, variable_of

CHECKOUT = Path(mcp_assets.__file__).parents[1]


def unset() -> Settings:
    return Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no stack."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setenv("MCP_ASSETS_STATE_DIR", str(tmp_path / "none"))


def test_definitions_load_and_every_job_resolves_without_any_store(bare_environment: None) -> None:
    definitions = build_defs(unset())
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("index").executor_def is dg.in_process_executor
    for sensor in definitions.sensors or ():
        assert isinstance(sensor, dg.SensorDefinition)
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    for schedule in definitions.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_the_asset_graph_is_this(bare_environment: None) -> None:
    graph = build_defs(unset()).resolve_asset_graph()
    told = {
        key.to_user_string(): {
            "deps": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "kinds": sorted(graph.get(key).kinds),
            "owners": list(graph.get(key).owners),
            "code_version": graph.get(key).code_version,
            "partitioned": graph.get(key).is_partitioned,
            "executable": graph.get(key).is_materializable,
        }
        for key in sorted(graph.get_all_asset_keys())
    }
    source = {
        "deps": [],
        "kinds": ["postgres", "table"],
        "owners": ["team:mcp-assets"],
        "code_version": None,
        "partitioned": False,
        "executable": False,
    }
    assert told == {
        "consistency_census": {
            "deps": ["embeddings", "entities", "relationship_edges"],
            "kinds": ["postgres", "qdrant"],
            "owners": ["team:mcp-assets"],
            "code_version": None,
            "partitioned": True,
            "executable": True,
        },
        "embeddings": {
            "deps": ["entities"],
            "kinds": ["local", "qdrant"],
            "owners": ["team:mcp-assets"],
            "code_version": "wordllama-256/text-2/2000-200",
            "partitioned": True,
            "executable": True,
        },
        "entities": {
            "deps": ["nats/MCP_ASSETS", "source/memory_nodes", "source/tasks", "source/wiki_pages"],
            "kinds": ["postgres"],
            "owners": ["team:mcp-assets"],
            "code_version": "text-2/2000-200/words-1",
            "partitioned": True,
            "executable": True,
        },
        "quality": {
            "deps": ["embeddings", "relationship_edges"],
            "kinds": ["postgres", "qdrant"],
            "owners": ["team:mcp-assets"],
            "code_version": None,
            "partitioned": False,
            "executable": True,
        },
        "relationship_edges": {
            "deps": ["embeddings", "entities"],
            "kinds": ["postgres"],
            "owners": ["team:mcp-assets"],
            "code_version": "wordllama-0.45/rules-3",
            "partitioned": True,
            "executable": True,
        },
        "nats/MCP_ASSETS": {**source, "kinds": ["nats"]},
        "source/memory_nodes": source,
        "source/tasks": source,
        "source/wiki_pages": source,
    }
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {"mcp"}, "one group opens unfolded"
    assert {key.to_user_string() for key in graph.observable_asset_keys} == {name for name in told if "/" in name}


def test_everything_that_a_person_may_launch_or_switch_says_what_it_is_for(bare_environment: None) -> None:
    settings = unset().model_copy(update={"alert_webhook": SecretStr("https://hooks.example.com/a")})
    repository = build_defs(settings).get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    said = {one.name: one.description for one in jobs}
    said |= {one.name: one.description for one in repository.schedule_defs}
    said |= {one.name: one.description for one in repository.sensor_defs}
    assert [name for name, words in said.items() if not words] == []
    waiting = [one for one in repository.sensor_defs if one.minimum_interval_seconds == 1]
    assert {one.name for one in waiting} == {"vector_index_sensor", "relationship_sensor", "sync_sensor"}
    for one in waiting:
        assert "A tick lasts up to 50 s" in (one.description or "")
    without = [
        f"{op.name}.{name}"
        for job in jobs
        for op in job.nodes
        if op.definition.config_schema is not None
        for name, field in getattr(op.definition.config_schema.config_type, "fields", {}).items()
        if not field.description
    ]
    assert without == []


def test_the_time_of_each_schedule_and_of_each_sensor_is_a_setting(bare_environment: None) -> None:
    cron = {
        "tag_weights_cron": "1 1 * * *", "census_cron": "2 2 * * *", "reconcile_cron": "3 3 * * *",
        "clean_up_cron": "4 4 * * *", "quality_cron": "5 5 * * *",
    }  # fmt: skip
    seconds = {"observe_every_s": 77, "alert_every_s": 78, "sensor_tick_s": 79.0}
    webhook = SecretStr("https://hooks.example.com/a")
    definitions = build_defs(unset().model_copy(update={**cron, **seconds, "alert_webhook": webhook}))
    repository = definitions.get_repository_def()
    assert {one.cron_schedule for one in repository.schedule_defs} == set(cron.values())
    assert {one.minimum_interval_seconds for one in repository.sensor_defs} == {1, 77, 78}
    assert "up to 79 s" in (repository.get_sensor_def("sync_sensor").description or "")


def test_each_asset_links_to_its_page_of_the_documentation(bare_environment: None) -> None:
    graph = build_defs(unset()).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        path = graph.get(key).metadata["docs"]
        assert (CHECKOUT / str(path.value)).is_file(), path
    served = build_defs(unset().model_copy(update={"docs_url": "https://docs.example.com/mcp/"})).resolve_asset_graph()
    link = served.get(dg.AssetKey("embeddings")).metadata["docs"]
    assert link == dg.MetadataValue.url("https://docs.example.com/mcp/docs/reference/points/")


def test_every_check_stands_on_the_asset_that_it_judges(bare_environment: None) -> None:
    checks: dict[str, set[str]] = {}
    for key in build_defs(unset()).resolve_asset_graph().asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assert checks == {
        "entities": {"no_dead_letters", "intake_is_current", "ledger_matches_source", "search_words_match_ledger"},
        "embeddings": {
            "no_missing_vectors", "no_stale_vectors", "no_orphan_vectors", "no_duplicate_points", "vectors_are_valid",
            "no_foreign_points", "collections_match_model", "model_change_is_decided", "provider_answers",
        },
        "quality": {"quality_is_enough"},
        "relationship_edges": {
            "no_orphaned_relationships", "no_dangling_references", "edges_match_rules", "similarity_recall_suffices",
        },
    }  # fmt: skip


def test_partitions_stand_by_type_and_within_it_by_shard(bare_environment: None) -> None:
    graph = build_defs(unset().model_copy(update={"shards": 3})).resolve_asset_graph()
    for asset in ("entities", "embeddings", "relationship_edges", "consistency_census"):
        partitions = graph.get(dg.AssetKey(asset)).partitions_def
        assert partitions is not None
        assert list(partitions.get_partition_keys()) == [
            *("task-00", "task-01", "task-02"),
            *("page-00", "page-01", "page-02"),
            *("memory-00", "memory-01", "memory-02"),
        ]


def test_a_backfill_of_the_assets_is_one_run_for_each_contiguous_range(bare_environment: None) -> None:
    graph = build_defs(unset()).resolve_asset_graph()
    for asset in ("entities", "embeddings", "relationship_edges", "consistency_census"):
        assert graph.get(dg.AssetKey(asset)).backfill_policy == dg.BackfillPolicy.single_run()


def dg_command(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """`dg` in a folder that holds what it reads of the checkout, and no .env or stack of a developer."""
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    if not (folder / "mcp_assets").exists():
        (folder / "mcp_assets").symlink_to(CHECKOUT / "mcp_assets")
    return subprocess.run(
        [Path(sys.executable).parent / "dg", *words],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_dg_checks_and_lists_the_definitions_without_stack_or_settings(bare_environment: None, tmp_path: Path) -> None:
    checked = dg_command(tmp_path, "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = dg_command(tmp_path, "list", "defs", "--json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    definitions = json.loads(listed.stdout)
    assert {"entities", "embeddings", "source/tasks"} <= {asset["asset_key"] for asset in definitions["assets"]}
    assert [job["name"] for job in definitions["jobs"]] == [
        *("census", "checks", "clean_up", "dead_letters", "index", "plan", "quality", "reconcile"),
        *("refresh_tag_weights", "relate", "repair", "requests"),
    ]
    assert [sensor["name"] for sensor in definitions["sensors"]] == [
        *("relationship_sensor", "source_observation_sensor", "sync_sensor", "vector_index_sensor"),
    ]


def test_dagsters_tables_stand_in_a_schema_of_their_own_and_none_in_public(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert instance.get_runs_count() == 0
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
    assert {schema for schema, _ in rows} == {"dagster"}
    assert {"runs", "event_logs", "job_ticks", "alembic_version"} <= {table for _, table in rows}
