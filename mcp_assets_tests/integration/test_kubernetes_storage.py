"""Dagster's storage as the values for Kubernetes configure it: the pods of the chart share it with the commands."""

import shutil
import uuid
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
import yaml
from dagster_postgres import PostgresRunStorage
from dagster_postgres.utils import get_conn_string

from mcp_assets.settings import Settings
from mcp_assets_tests.commands import ROOT

CHART = yaml.safe_load((ROOT / "deploy/kubernetes/values.yaml").read_text())["postgresql"]


@pytest.mark.usefixtures("environment")
def test_a_run_that_a_command_has_written_is_read_by_the_pods_of_the_chart(settings: Settings, tmp_path: Path) -> None:
    # The Job `mcp-assets-migrate` and the commands have the image's dagster.yaml: it makes the schema and the tables.
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dg.DagsterRun(job_name="index", run_id=str(uuid.uuid4()))
        instance.add_run(run)

    server = sqlalchemy.make_url(settings.require_database_url())
    params = {name: value for name, value in CHART["postgresqlParams"].items() if not name.startswith("ssl")}
    address = get_conn_string(
        str(server.username),
        "",
        "",
        str(server.database),
        "5432",
        params | dict(server.query),
        CHART["postgresqlScheme"],
    )
    storage = PostgresRunStorage(address.replace(":5432", "", 1), should_autocreate_tables=False)
    assert [found.run_id for found in storage.get_runs()] == [run.run_id]
