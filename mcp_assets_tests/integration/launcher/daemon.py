"""Stands for a Dagster daemon in tests: `daemon.py HOME MODULE_FILE RUN...` launches the runs and stays."""

import sys
import time
from pathlib import Path

from dagster import DagsterInstance

from mcp_assets_tests.integration.launcher.conftest import Location


def main(home: str, module: str, *runs: str) -> None:
    with DagsterInstance.from_config(home) as instance:
        location = Location(instance, Path(module))
        for run_id in runs:
            instance.launch_run(run_id, location.workspace)
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
