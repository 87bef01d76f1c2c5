"""The asset `quality`: its figures are numbers that Dagster plots, and its check warns."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mcp_assets.platform import Platform
from mcp_assets_tests.observing import put_tasks, sync_all


def measured(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("quality").execute_in_process(instance=instance, raise_on_error=False)


def test_the_figures_are_numbers_and_one_below_its_threshold_is_a_warning(
    platform: Platform,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_tasks(platform, {"a": "red gate", "b": "blue hinge"})
    sync_all(platform)
    golden = tmp_path / "golden.tsv"
    golden.write_text("red gate\ttask:a\nnothing alike\ttask:b\n")
    monkeypatch.setattr(platform.settings, "golden_file", golden)
    monkeypatch.setattr(platform.settings, "quality_hit_5", 1.0)
    put_tasks(platform, {f"x{number}": f"nothing alike {number}" for number in range(9)})
    sync_all(platform)

    result = measured(definitions, instance)
    assert result.success
    (event,) = result.asset_materializations_for_node("measure_quality")
    figures: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert (figures["links"], figures["questions"], figures["hit_1"]) == (0, 2, 0.5)
    assert figures["misses"].records[0].data["query"] == "nothing alike"
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "50.0% of 2 golden questions" in (check.description or "")

    monkeypatch.setattr(platform.settings, "quality_hit_5", 0.5)
    (check,) = measured(definitions, instance).get_asset_check_evaluations()
    assert check.passed


def test_a_wrong_golden_file_fails_the_run_with_its_line(
    platform: Platform,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden = tmp_path / "golden.tsv"
    golden.write_text("red gate\n")
    monkeypatch.setattr(platform.settings, "golden_file", golden)
    result = measured(definitions, instance)
    assert not result.success
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert f"{golden}, line 1: no entity is expected" in str(failure.step_failure_data.user_failure_data) + str(
        failure.step_failure_data.error
    )
