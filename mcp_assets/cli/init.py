"""The command `init`: the files of a project folder, each line with its reason, and what to do with them."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mcp_assets.cli.console import Json, print_json, say

_PLATFORM, _FOLDER = "mcp_assets.definitions", "definitions"
"""The module that Dagster loads in a checkout, and the one in a project folder, which imports the first."""

_FILES = {
    "dagster.yaml": "Dagster's instance: storage, launcher, queue, retention",
    "workspace.yaml": "what Dagster loads",
    "definitions.py": "the module that it loads; your own definitions go here",
    "dg.toml": "the same for the commands of `dg`",
    ".env": "the settings, all of them at their defaults",
    "mcp_assets.yaml": "which tables and columns hold your tasks, pages and memories",
}
"""What `init` writes, and what each file is for."""

_WRITTEN, _KEPT, _REPLACED, _SAME = "written", "kept", "replaced", "unchanged"


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; it is made if it is not there.")] = Path(),
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace files that differ from those of a new one; each is kept as NAME.before."),
    ] = False,
    json: Json = False,
) -> None:
    """Write the files of a project: dagster.yaml, workspace.yaml, .env, a mapping of your tables.

    Each line of them has its reason beside it. A file that is there already is kept.
    """
    from mcp_assets.cli.project import ProjectError, is_dagster_project

    if is_dagster_project(folder):
        raise ProjectError(
            f"{folder.resolve()} is a Dagster project already: add the component mcp_assets.components."
            "McpAssetsComponent to it (docs/how-to/dagster-project.md), or give another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = {name: _write(folder / name, text, force=force) for name, text in _texts()}
    except OSError as error:
        raise ProjectError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    if json:
        print_json({"folder": str(folder.resolve()), "files": done})
        return
    for name, what in done.items():
        say(f"{what:<9}  {name:<15}  {_FILES[name]}")
    if _KEPT in done.values():
        say("Kept files differ from those of a new project; --force replaces them.")
    if _REPLACED in done.values():
        say("Replaced files are kept beside the new ones, as NAME.before.")
    _say_what_next(folder)


def _texts() -> Iterator[tuple[str, str]]:
    """Each file's name and text. What the checkout of this project uses itself is taken from there."""
    from mcp_assets.cli.project import packaged

    for name in _FILES:
        text = packaged(".env.example" if name == ".env" else name).read_text()
        if name == "workspace.yaml":
            text = text.replace(_PLATFORM, _FOLDER)
        yield name, text


def _write(file: Path, text: str, *, force: bool) -> str:
    """Write the file unless one is there; what was done."""
    # Keys and passwords are put into .env, which therefore this user alone may read.
    mode = 0o600 if file.name == ".env" else 0o666
    try:
        with open(file, "x", opener=partial(os.open, mode=mode)) as fresh:
            fresh.write(text)
    except FileExistsError:
        if file.read_text(errors="replace") == text:
            return _SAME
        if not force:
            return _KEPT
        # It may hold keys, or a mapping that took an afternoon.
        file.replace(file.with_name(f"{file.name}.before"))
        _write(file, text, force=False)
        return _REPLACED
    return _WRITTEN


def _say_what_next(folder: Path) -> None:
    where = "" if folder.resolve() == Path.cwd() else f"cd {folder}, then "
    say("What next:")
    say(f"  1. {where}mcp-assets demo: a sample workspace, indexed and searched on servers that it starts itself")
    say("  2. name your stores and tables in .env and mcp_assets.yaml; mcp-assets doctor tries each of them")
    say('  3. mcp-assets dev starts Dagster on them; for Dagster\'s own commands: eval "$(mcp-assets env)"')
