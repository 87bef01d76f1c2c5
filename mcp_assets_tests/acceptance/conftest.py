"""The live platform, one for a module, and the Dagster instance that its processes share."""

from collections.abc import Iterator

import dagster as dg
import pytest

from mcp_assets.definitions import build_defs
from mcp_assets.settings import load_settings
from mcp_assets_tests.acceptance.live import Live, end, launch


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The platform as processes; no process of it is left when the module's tests are done."""
    started = launch(tmp_path_factory.mktemp("live"))
    try:
        yield started
    finally:
        left = end(started)
    assert left == []


@pytest.fixture
def instance(live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance as dagster.yaml describes it."""
    for name, value in live.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(live.folder)
    with dg.DagsterInstance.from_config(str(live.folder)) as opened:
        yield opened


@pytest.fixture
def definitions(instance: dg.DagsterInstance) -> dg.Definitions:
    return build_defs(load_settings())
