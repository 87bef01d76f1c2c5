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
        "owners": [],
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
            "code_version": "text-2/2000-200",
            "partitioned": True,
            "executable": True,
        },
        "relationship_edges": {
            "deps": ["embeddings", "entities"],
            "kinds": ["postgres"],
            "owners": ["team:mcp-assets"],
            "code_version": "wordllama-0.45/rules-2",
            "partitioned": True,
            "executable": True,
        },
        "nats/MCP_ASSETS": {**source, "kinds": ["nats"]},
        "source/memory_nodes": source,
        "source/tasks": source,
        "source/wiki_pages": source,
    }
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())


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
        *("census", "checks", "clean_up", "dead_letters", "index", "plan", "reconcile", "refresh_tag_weights"),
        *("relate", "repair", "requests"),
    ]
    assert [sensor["name"] for sensor in definitions["sensors"]] == [
        *("relationship_sensor", "sync_sensor", "vector_index_sensor"),
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
