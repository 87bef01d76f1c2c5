"""`mcp-assets metrics` and `costs`, as a person and Prometheus call them."""

import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets_tests.command import COMMAND, Place, bare_environment
from mcp_assets_tests.observing import put_tasks, sync_all


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    """A folder whose settings lead to the test's stores, with a price and a budget."""
    given = {name: getattr(settings, name) for name in Settings.model_fields if name != "state_dir"}
    changed = {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name, value in given.items()
        if value != Settings.model_fields[name].get_default()
    }
    return Place(
        tmp_path, bare_environment() | changed | {"EMBEDDING_PRICE": "100000", "EMBEDDING_BUDGET_A_DAY": "0.5"}
    )


def test_costs_are_listed_by_day_and_the_budget_can_be_raised_for_today(
    place: Place, platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    assert "nothing was embedded in the last 30 days" in place.run("costs").stdout
    put_tasks(platform, {"a": "one two three four five six"})
    sync_all(make_platform(embedding_price=100_000.0))

    answer = place.answer("costs")
    (cost,) = answer["days"]
    assert (cost["entity_type"], cost["model"], cost["texts"]) == ("task", "stub/16", 1)
    assert cost["usd"] == pytest.approx(cost["tokens"] / 10)
    assert answer["today"] == {"spent_usd": pytest.approx(cost["usd"]), "allowed_usd": 0.5}
    assert "full syncs pause until 00:00 UTC" in place.run("costs").stdout
    assert "full syncs pause until 00:00 UTC" in place.run("status").stdout

    raised = place.run("costs", "--raise-today", "1.25")
    assert raised.code == 0, raised.stderr
    assert "of $1.75" in raised.stdout
    assert place.run("costs", "--raise-today", "-1").code == 2


def test_metrics_are_printed_once_and_are_down_without_postgresql(place: Place, platform: Platform) -> None:
    sync_all(platform)
    printed = place.run("metrics", "--once")
    assert printed.code == 0, printed.stderr
    assert "mcp_assets_up 1.0\n" in printed.stdout
    assert "# TYPE mcp_assets_messages_total counter" not in printed.stdout
    away = Place(place.folder, {**place.environment, "DATABASE_URL": "postgresql://x@127.0.0.1:9/x"})
    down = away.run("metrics", "--once")
    assert down.code == 3
    assert [line for line in down.stdout.splitlines() if not line.startswith("#")] == ["mcp_assets_up 0.0"]


def test_metrics_are_served_until_the_command_is_ended(place: Place, platform: Platform) -> None:
    sync_all(platform)
    with subprocess.Popen(
        [COMMAND, "metrics", "--port", "0"],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:\d+/metrics", process.stdout.readline())
            assert address is not None
            with urllib.request.urlopen(address.group(), timeout=30) as answer:
                assert "mcp_assets_up 1.0" in answer.read().decode()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130


def test_a_port_that_is_taken_is_named(place: Place, settings: Settings) -> None:
    port = settings.require_nats_url().rpartition(":")[2].rstrip("/")
    done = place.run("metrics", "--port", port)
    assert done.code == 1
    assert f"metrics cannot be served on 127.0.0.1:{port} (Address already in use): give another --port" in done.stderr
