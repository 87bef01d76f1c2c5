"""The files of deploy/celery: what Dagster and Celery make of them, and that they follow the checkout's own."""

import shutil
from pathlib import Path

import pytest
import yaml
from celery.bin.celery import celery as celery_command
from dagster._core.instance.ref import InstanceRef

import mcp_assets
from dagster_warm_launcher.celery_launcher import WarmCeleryRunLauncher

CHECKOUT = Path(mcp_assets.__file__).parents[1]
DEPLOYED = CHECKOUT / "deploy/celery"


def test_dagster_yaml_is_that_of_the_checkout_but_for_where_runs_are_executed() -> None:
    ours, stock = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (DEPLOYED, CHECKOUT))
    assert ours.pop("run_launcher")["class"] == "WarmCeleryRunLauncher"
    stock.pop("run_launcher")
    assert ours["run_monitoring"].pop("start_timeout_seconds") > stock["run_monitoring"].pop("start_timeout_seconds")
    assert ours == stock


def test_the_launcher_takes_its_configuration_from_the_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DEPLOYED / "dagster.yaml", tmp_path)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://broker.example:6379/0")
    monkeypatch.setenv("CELERY_RESULT_URL", "redis://broker.example:6379/1")
    launcher = InstanceRef.from_dir(str(tmp_path)).run_launcher
    assert isinstance(launcher, WarmCeleryRunLauncher)
    settings = launcher.celery.conf
    assert settings.broker_url == "redis://broker.example:6379/0"
    assert settings.include == ["mcp_assets.definitions"]
    assert settings.worker_max_tasks_per_child == 1
    assert settings.worker_disable_prefetch


def options_of(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


@pytest.mark.parametrize("file", ["deploy/celery/mcp-assets-worker.service", "docs/production/celery.md"])
def test_each_option_of_a_worker_is_one_of_celery(file: str) -> None:
    known = {name for option in celery_command.commands["worker"].params for name in option.opts} | {"--app"}
    commands = [line for line in (CHECKOUT / file).read_text().splitlines() if "celery_worker worker" in line]
    assert commands
    for command in commands:
        assert options_of(command.split()) <= known
