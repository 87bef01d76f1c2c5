"""Commands that files of a deployment hold: does the program exist, and does it know the words and options?"""

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import typer

_CLICK = {
    "dagster": ("dagster._cli", "cli"),
    "dagster-daemon": ("dagster._daemon.cli", "cli"),
    "dagster-webserver": ("dagster_webserver.cli", "cli"),
}
"""The programs of Dagster, each with the module and the name of its command."""

_MODULES = {"mcp_assets.webserver": "dagster-webserver"}
"""The modules that are run, each with the program whose options it takes."""

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent


def faults_of(words: list[str]) -> list[str]:
    """What of a command line is not known: the program, a subcommand, or an option.

    Only programs that this environment installs are looked into.
    """
    program, *rest = words
    if not (SCRIPTS / program).exists():
        return [f"{program} is not installed"]
    if program == "python":
        if rest[0] != "-m":
            return []
        program = _MODULES.get(rest[1], rest[1])
        rest = rest[2:]
    if program not in _CLICK and program != "mcp-assets":
        return [f"{program} is no program of the platform"]
    command = _command(program)
    while rest and hasattr(command, "commands"):
        name = rest.pop(0)
        if name not in command.commands:
            return [f"{program} has no command {name}"]
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [f"{program} has no option {word}" for word in rest if word.startswith("-") and word not in known]


@functools.cache
def _command(program: str) -> Any:
    if program == "mcp-assets":
        from mcp_assets.cli import app

        return typer.main.get_command(app.app)
    module, name = _CLICK[program]
    return getattr(importlib.import_module(module), name)
