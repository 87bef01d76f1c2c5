"""What the commands share: exit codes, and how text, rows and JSON are written to a terminal or into a pipe."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing: C0 without tab and newline, C1, those of bidirectional text."""

_IDS_SHOWN = 40
"""Columns that a column of ids keeps for itself on a narrow terminal. Longer ids go on in the next line."""

_CHARACTERS_SHOWN = 120
"""Characters of a cell that is no id: some lines of a narrow column, so that several rows fit a screen."""


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


def shown(value: object) -> str:
    """`value` as text that a terminal only shows: a character that it would obey is written as its escape."""
    return _UNSHOWN.sub(lambda found: found.group().encode("unicode_escape").decode(), str(value))


def say(message: object, *, style: str = "") -> None:
    """A sentence on standard output. Brackets in it are text, and it is not wrapped, so that a pipe gets one line."""
    out.print(Text(shown(message), style=style), soft_wrap=True)


def say_error(message: object) -> None:
    """A sentence on standard error, after the word error."""
    err.print(Text.assemble(("error:", "bold red"), " ", shown(message)), soft_wrap=True)


def say_progress(message: object) -> None:
    """A sentence on standard error that is of no use once the command has ended."""
    err.print(Text(shown(message), style="dim"), soft_wrap=True)


def print_rows(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, ids: Sequence[str] = (), title: str | None = None
) -> None:
    """`rows` as a table, or without a terminal as lines of values between tabs, without headings and nothing cut.

    A cell is text, or a `rich.text.Text` with a style. `ids`: headings of columns that are never cut. On a terminal the
    cells of other columns have at most _CHARACTERS_SHOWN.
    """
    if not out.is_terminal:
        for row in rows:
            out.file.write("\t".join(shown(cell).replace("\t", " ").replace("\n", " ") for cell in row) + "\n")
        return
    # Rich's tables take a tenth of a second to load, and most calls print none.
    from rich.table import Table

    table = Table(show_edge=False, title=title, title_justify="left")
    made = [[cell if isinstance(cell, Text) else Text(shown(cell)) for cell in row] for row in rows]
    for number, heading in enumerate(headings):
        is_id = heading in ids
        widest = max((row[number].cell_len for row in made), default=0)
        table.add_column(
            heading, overflow="fold" if is_id else "ellipsis", min_width=min(widest, _IDS_SHOWN) if is_id else None
        )
        if not is_id:
            for row in made:
                row[number].truncate(_CHARACTERS_SHOWN, overflow="ellipsis")
    for row in made:
        table.add_row(*row)
    out.print(table)


def print_json(value: Any) -> None:
    """`value` as one line of JSON on standard output."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    sys.stdout.write(_UNSHOWN.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n")
