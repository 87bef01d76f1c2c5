"""The platform's code location, which also notes the CPU seconds and the own pages of each run, at its asset's first
line and at its end."""

import json
import os
import re
import time
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from mcp_assets.definitions import build_defs, load_ahead
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings

NOTES = "BENCHMARK_NOTES"
"""Environment variable: the file that a line is added to for each run."""


def private_mb(process: int | str = "self") -> float:
    """Pages that a process has written and shares with no other, in MB of 10^6 bytes."""
    found = re.search(r"Private_Dirty:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0


class TimedPlatform(PlatformResource):
    """What the asset's first line asks for."""

    _in_run: bool = PrivateAttr(default=False)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._in_run = context.run is not None

    def get(self) -> Platform:
        if self._in_run:
            self._note("first_line")
            # The asset asks first, and then others.
            self._in_run = False
        return super().get()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        super().teardown_after_execution(context)
        if context.run is not None:
            self._note("end")

    def _note(self, moment: str) -> None:
        # Of this process: a fork's begins at 0, an interpreter's holds all that it imported.
        spent = {"cpu_s": time.process_time(), "private_mb": private_mb()}
        note = json.dumps({"moment": moment, "pid": os.getpid(), **spent})
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(note + "\n")


@dg.definitions
def defs() -> dg.Definitions:
    settings = load_settings()
    load_ahead(settings)
    return build_defs(settings, {"platform": TimedPlatform()})
