"""The platform's code location, which also notes the CPU seconds of each run at its asset's first line and its end."""

import json
import os
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
        note = json.dumps({"moment": moment, "cpu_s": time.process_time(), "pid": os.getpid()})
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(note + "\n")


@dg.definitions
def defs() -> dg.Definitions:
    settings = load_settings()
    load_ahead(settings)
    return build_defs(settings, {"platform": TimedPlatform()})
