"""The `mcp-assets` command as a test calls it: in a process of its own, or in this one, which is faster."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcp_assets.cli import main
from mcp_assets.settings import Settings

COMMAND = Path(sys.executable).parent / "mcp-assets"
SETTINGS = {str(field.validation_alias): name for name, field in Settings.model_fields.items()}
"""Environment variables and what they set."""


@dataclass(frozen=True)
class Done:
    """What a call of the command came to."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Place:
    """A folder in which the command is called."""

    folder: Path
    environment: Mapping[str, str]

    def process(self, *words: str) -> Done:
        """`mcp-assets WORDS` as a process of its own, as people and scripts call it."""
        done = subprocess.run(
            [COMMAND, *words],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *words: str, given: Mapping[str, str] | None = None, stdin: bytes = b"") -> Done:
        """The same in this process: most of what a call takes is the start of Python."""
        stdout, stderr = io.StringIO(), io.StringIO()
        ended_by = signal.getsignal(signal.SIGTERM)
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            pytest.raises(SystemExit) as ended,
        ):
            for name in SETTINGS:
                patch.delenv(name, raising=False)
            for name, value in {**self.environment, **(given or {})}.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", [str(COMMAND), *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            try:
                main()
            finally:
                signal.signal(signal.SIGTERM, ended_by)
        return Done(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())

    def answer(self, *words: str, code: int = 0, given: Mapping[str, str] | None = None, stdin: bytes = b"") -> Any:
        """What the command prints with --json."""
        done = self.run(*words, "--json", given=given, stdin=stdin)
        assert done.code == code, done.stderr
        return json.loads(done.stdout)


def bare_environment() -> dict[str, str]:
    """This process's environment without any of the platform's settings."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS}
