"""How long the Dagster UI is waited for."""

from pathlib import Path

import pytest

from mcp_assets.cli import dagster_dev
from mcp_assets.cli.dagster_dev import DagsterDev, DagsterEnded

SILENCE_S = 90.0


class Clock:
    """Time passes only while one sleeps; until `talks_until` the log grows each 80 seconds."""

    def __init__(self, log: Path, talks_until: float) -> None:
        self.now = 0.0
        self._log = log
        self._talks_until = talks_until

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 80
        if self.now <= self._talks_until:
            with self._log.open("a") as file:
                file.write("loading\n")


@pytest.mark.parametrize(("talks_until", "comes_up_at"), [(800, 800), (800, None)])
def test_the_ui_is_waited_for_while_its_log_grows_and_given_up_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talks_until: float, comes_up_at: float | None
) -> None:
    log = tmp_path / "dagster.log"
    clock = Clock(log, talks_until)
    monkeypatch.setattr(dagster_dev, "time", clock)
    dagster = DagsterDev("http://127.0.0.1:1", log, [], {})

    def loaded() -> dict[str, str] | None:
        return {"__typename": "RepositoryLocation"} if comes_up_at is not None and clock.now >= comes_up_at else None

    monkeypatch.setattr(dagster, "_code_location", loaded)
    if comes_up_at is not None:
        dagster.wait_until_up(SILENCE_S)
        assert clock.now == comes_up_at
    else:
        with pytest.raises(DagsterEnded, match="has not grown for 90 s"):
            dagster.wait_until_up(SILENCE_S)
        assert clock.now > talks_until
