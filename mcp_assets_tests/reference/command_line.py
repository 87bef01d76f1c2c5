"""The command line as a page of the reference, made from the help texts."""

import re

import typer.main
from typer.core import TyperCommand, TyperGroup

from mcp_assets.cli.app import app

_HEAD = """# Command line

`mcp-assets COMMAND --help` says the same in the terminal.
`mcp-assets --install-completion` completes commands and options in your shell.

With `--json`, a command prints JSON for programs.
Into a pipe, a table is printed as lines whose values stand between tabs, whole and unwrapped.
Errors go to standard error, each as one sentence.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | tried and failed, or nothing found |
| 2 | wrong arguments or settings |
| 3 | a service does not answer |
| 130 | interrupted |
"""


def page() -> str:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return _HEAD + "".join(_sections(command, "mcp-assets"))


def _sections(group: TyperGroup, words: str) -> list[str]:
    sections = []
    for name, command in group.commands.items():
        path = f"{words} {name}"
        if isinstance(command, TyperGroup):
            sections += _sections(command, path)
        else:
            assert isinstance(command, TyperCommand)
            sections.append(_section(command, path))
    return sections


def _section(command: TyperCommand, path: str) -> str:
    context = typer.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            rows.append(f"| `{record[0].replace('|', chr(92) + '|')}` | {_cell(record[1])} |\n")
    table = "\n| argument or option | |\n|---|---|\n" + "".join(rows) if rows else ""
    example = (command.epilog or "").removeprefix("Example: ")
    return f"\n## `{path}`\n\n{_text(command.help or '')}\n\n```console\n$ {path} {usage}\n```\n{table}" + (
        f"\nExample: `{example}`\n" if example else ""
    )


def _text(help_text: str) -> str:
    """Paragraphs on one line each."""
    return "\n\n".join(re.sub(r"\s+", " ", part).strip() for part in help_text.split("\n\n"))


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
