"""The units of deploy/systemd: their commands, run as systemd runs them, index events, also after a kill."""

import configparser
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import CHECKOUT, PATIENCE_S, SCRIPTS, Live
from mcp_assets_tests.clients import key_of
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.waiting import until

UNITS = sorted((CHECKOUT / "deploy/systemd").glob("*.service"))
INSTALLED = "/opt/mcp-assets/venv/bin"
CONFIGURATION = "/etc/mcp-assets"
STATE = "/var/lib/mcp-assets"
PORT = "4266"


def service(unit: Path) -> dict[str, str]:
    """The section [Service] of a unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # typeshed knows it as a method
    parser.read_string(unit.read_text())
    return dict(parser["Service"])


@dataclass
class Services:
    """The three services on the stores of `live`. It stands for systemd: it starts a unit, and starts it again."""

    live: Live
    folder: Path
    port: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, unit: Path) -> None:
        found = service(unit)
        environment = dict(pair.split("=", 1) for pair in self._here(found["Environment"]).split())
        addresses = self.live.addresses
        stores = {
            "DATABASE_URL": addresses.database_url or "",
            "NATS_URL": addresses.nats_url or "",
            "QDRANT_URL": addresses.qdrant_url or "",
            "QDRANT_API_KEY": key_of(addresses),
        }
        with (self.folder / f"{unit.stem}.log").open("ab") as log:
            self.running[unit.stem] = subprocess.Popen(
                self._here(found["ExecStart"]).split(),
                cwd=self._here(found["WorkingDirectory"]),
                env=self.live.environment | stores | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _here(self, text: str) -> str:
        text = text.replace(INSTALLED, str(SCRIPTS)).replace(CONFIGURATION, str(self.folder / "etc"))
        text = text.replace("--port 3000", "--port 0").replace("--port 9464", "--port 0")
        return text.replace(STATE, str(self.folder / "var")).replace(PORT, self.port)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture
def services(live: Live, tmp_path: Path) -> Iterator[Services]:
    port = str(free_port())
    etc = tmp_path / "etc"
    etc.mkdir()
    (tmp_path / "var").mkdir()
    shutil.copy(CHECKOUT / "dagster.yaml", etc)
    workspace = (CHECKOUT / "deploy/systemd/workspace.yaml").read_text()
    assert PORT in workspace
    (etc / "workspace.yaml").write_text(workspace.replace(PORT, port))
    started = Services(live, tmp_path, port)
    try:
        yield started
    finally:
        for process in started.running.values():
            process.terminate()
        for process in started.running.values():
            process.wait(60)


def test_each_unit_is_restarted_for_ever_and_may_write_its_state_folder_alone() -> None:
    assert len(UNITS) == 4
    for unit in UNITS:
        found = service(unit)
        assert "StartLimitIntervalSec=0" in unit.read_text()
        assert (found["Restart"], found["ProtectSystem"], found["StateDirectory"]) == ("always", "strict", "mcp-assets")
        assert found["User"] == "mcp-assets"


def test_the_three_services_index_an_event_also_after_the_code_server_was_killed(
    live: Live, services: Services
) -> None:
    for unit in UNITS:
        services.start(unit)

    first = EntityRef("task", "first")
    live.write(first, "First", "Written before the kill.")
    live.publish([("mcp.task.created", {"taskId": "first"})])
    until(lambda: live.found_by("Written before the kill.") == [first], "the event is found", within_s=PATIENCE_S)

    code = services.running["mcp-assets-code"]
    code.kill()
    assert code.wait(10) != 0
    services.start(next(unit for unit in UNITS if unit.stem == "mcp-assets-code"))

    second = EntityRef("task", "second")
    live.write(second, "Second", "Written after the kill.")
    live.publish([("mcp.task.created", {"taskId": "second"})])
    until(
        lambda: second in live.found_by("Written after the kill."), "the next event is found", within_s=2 * PATIENCE_S
    )
    assert all(process.poll() is None for process in services.running.values()), services.log("mcp-assets-daemon")
