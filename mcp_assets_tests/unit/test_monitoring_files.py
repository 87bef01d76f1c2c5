"""The files in deploy/monitoring: Prometheus takes them, their alerts fire when they should, each metric exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_assets.sync.metrics import METRICS, sample_names
from mcp_assets_tests.reference.pages import ROOT

FOLDER = ROOT / "deploy/monitoring"
GUIDE = (ROOT / "docs/production/monitoring.md").read_text()
EVERY_SAMPLE = {name for metric in METRICS for name in sample_names(metric)}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on the path: install Debian's package prometheus"
)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
    return list(board["panels"])


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "--lint-fatal", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_prometheus_takes_the_files_and_the_alerts_fire_when_they_should(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_each_expression_of_the_board(tmp_path: Path) -> None:
    recorded = [
        {"record": f"board:{n}", "expr": target["expr"].replace("$job", "mcp_assets")}
        for n, target in enumerate(target for panel in panels() for target in panel["targets"])
    ]
    file = tmp_path / "board.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_metric_that_board_and_alerts_name_is_one_of_the_exporter() -> None:
    named = {name for text in expressions() for name in re.findall(r"\bmcp_assets_\w+", text)}
    assert len(named) > 20
    assert named - EVERY_SAMPLE == set()


def test_each_metric_is_on_the_board_or_in_an_alert() -> None:
    named = {name for text in expressions() for name in re.findall(r"\bmcp_assets_\w+", text)}
    assert [metric for metric in METRICS if not named & set(sample_names(metric))] == []


def test_each_alert_is_tested_and_explained() -> None:
    tested = (FOLDER / "alerts_test.yml").read_text()
    names = [rule["alert"] for rule in rules()]
    assert [name for name in names if name not in tested] == []
    assert [name for name in names if f"`{name}`" not in GUIDE] == []


def test_names_and_units_follow_the_rules_of_prometheus() -> None:
    """Base units, as suffixes; counters end in _total, and nothing else does."""
    for name, metric in METRICS.items():
        assert re.fullmatch(r"mcp_assets(_[a-z]+)+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_milliseconds", "_minutes"))
        assert metric.help.endswith(".")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())
