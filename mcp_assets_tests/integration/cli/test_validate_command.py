"""`mcp-assets validate`, as a person calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from qdrant_client import models

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.clients import key_in
from mcp_assets_tests.hashing import TASKS, qdrant, task_point
from mcp_assets_tests.observing import put_tasks


@pytest.fixture
def world(platform: Platform) -> Platform:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(40)})
    for _ in full_sync(platform, "task", range(4)):
        pass
    for _ in link_until_done(platform):
        pass
    return platform


def call(world: Platform, *arguments: str) -> "subprocess.CompletedProcess[str]":
    settings = world.settings
    given = {
        "database_url": settings.require_database_url(),
        "qdrant_url": settings.require_qdrant_url(),
        "qdrant_api_key": key_in(settings),
        "nats_url": settings.require_nats_url(),
        "openai_base_url": settings.openai_base_url,
        "embedding_provider": settings.provider,
        "embedding_model": settings.embedding_model,
        "embedding_dimension": str(settings.embedding_dimension),
    }
    cleared = {name: value for name, value in os.environ.items() if name not in map(variable_of, Settings.model_fields)}
    environment = {**cleared, **{variable_of(name): str(value) for name, value in given.items()}}
    command = [sys.executable, "-m", "mcp_assets.cli", "validate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_validate_reports_by_its_exit_code_whether_drift_is_left_and_repair_mends_it(
    world: Platform, tmp_path: Path
) -> None:
    assert call(world).returncode == 0
    with qdrant(world) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in range(3)]), wait=True)
    report = tmp_path / "report.parquet"
    broken = call(world, "--export", str(report), "--json")
    assert broken.returncode == 1, broken.stderr
    assert json.loads(broken.stdout)["left"] == {"missing_vector": 3}
    table = pd.read_parquet(report)
    assert table.groupby("kind")["count"].sum()["missing_vector"] == 3
    assert table["count"].sum() == 3
    assert set(table["entity_type"]) == {"task", "page", "memory"}
    shown = call(world, "--type", "task", "--repair")
    assert shown.returncode == 0, shown.stderr
    assert "missing_vector" in shown.stdout
    assert call(world, "--deep").returncode == 0


def test_validate_refuses_a_mass_deletion_until_it_is_allowed(world: Platform) -> None:
    put_tasks(world, {f"u{number}": f"Task {number}" for number in range(100)})
    for _ in full_sync(world, "task", range(4)):
        pass
    with world.postgres.transaction() as connection:
        connection.execute("DELETE FROM tasks")
    refused = call(world, "--repair", "--json")
    assert refused.returncode == 1
    assert "--allow-mass-delete" in json.loads(refused.stdout)["refused"]
    with qdrant(world) as client:
        assert client.count(TASKS).count == 140
    assert call(world, "--repair", "--allow-mass-delete").returncode == 0
    with qdrant(world) as client:
        assert client.count(TASKS).count == 0


def test_validate_names_what_it_cannot_take(world: Platform, tmp_path: Path) -> None:
    assert call(world, "--type", "nothing").returncode == 2
    assert call(world, "--export", "report.xls").returncode == 2


def test_a_repair_that_leaves_an_entity_which_nothing_can_index_exits_with_1_and_names_it(
    world: Platform,
) -> None:
    put_tasks(world, {"poison": "REFUSE-ME", "sound": "another"})
    for _ in full_sync(world, "task", range(4)):
        pass
    assert call(world, "--json").returncode == 1
    left = call(world, "--repair", "--json")
    assert left.returncode == 1, left.stderr
    assert json.loads(left.stdout)["given_up"] == ["task:poison"]
    shown = call(world, "--repair")
    assert shown.returncode == 1
    assert "1 entities could not be indexed (task:poison)" in " ".join(shown.stderr.split())
