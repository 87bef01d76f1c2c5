"""What the commands share: consoles, exit codes, and errors shown as a sentence instead of a traceback."""

import json
import sys
from enum import IntEnum
from typing import Any

from rich.console import Console

out = Console()
err = Console(stderr=True)


class Exit(IntEnum):
    """Exit codes of `mcp-assets`, as scripts may rely on them."""

    OK = 0
    FAILED = 1
    """The command was tried and failed, or a check found an error."""
    USAGE = 2
    """The arguments or the settings are wrong; nothing was done."""
    UNAVAILABLE = 3
    """A store or the embedding provider does not answer; trying again later may help."""
    INTERRUPTED = 130


def print_json(value: Any) -> None:
    """`value` as one line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def say_error(message: str) -> None:
    err.print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
