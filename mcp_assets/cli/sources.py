"""Commands about source tables: propose a mapping of them, and show what it makes of their rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_assets.cli.console import Exit, Json, out, print_json, say, say_error, shown

if TYPE_CHECKING:
    from mcp_assets.settings import Settings
    from mcp_assets.sync.views.source_preview import Preview

sources = typer.Typer(
    name="sources", help="Your tables: propose a mapping of them, and see what it makes of rows.", no_args_is_help=True
)

_TEXT_SHOWN = 600
"""Characters of a text that a terminal shows: some lines, so that five rows can be compared; `--whole` shows all."""


@sources.command(epilog="Example: mcp-assets sources init --output mcp_assets.yaml")
def init(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write here, or - for standard output; default: the mapping file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file, also if it maps something.")] = False,
    json: Json = False,
) -> None:
    """Propose a mapping file: tables and views that look like entities, a reason beside each guess."""
    from mcp_assets.mapping_file import DEFAULT_NAME, says_nothing
    from mcp_assets.settings import read_settings
    from mcp_assets.sync.views.source_preview import propose_mapping

    settings = _settings_without_mapping()
    to_terminal = output is not None and str(output) == "-"
    path = output if output is not None else _named_file() or Path(DEFAULT_NAME)
    if path.exists() and not (force or to_terminal or json) and not (path.is_file() and says_nothing(path)):
        raise typer.BadParameter(f"{path} is there: --force replaces it, --output writes elsewhere, - prints")
    proposal = propose_mapping(settings)
    if json:
        print_json(
            {"types": list(proposal.types), "left_out": dict(proposal.left_out), "file": proposal.text, "written": None}
        )
        return
    if to_terminal:
        out.file.write(shown(proposal.text))
        return
    if not proposal.types:
        for table, reason in proposal.left_out.items():
            say(f"left out: {table}: {reason}", style="dim")
        say_error("no table or view of the database seems to hold entities, so that no file is written")
        raise typer.Exit(Exit.FAILED)
    path.write_text(proposal.text, encoding="utf-8")
    # It is read once, so that a fault of the proposal shows here and not in the next command.
    read_settings(sources_file=path)
    say(f"{path} is written: {len(proposal.types)} entity types ({', '.join(proposal.types) or 'none'})")
    for table, reason in proposal.left_out.items():
        say(f"left out: {table}: {reason}", style="dim")
    say(f"look at it, then: mcp-assets sources preview {(proposal.guessed or proposal.types)[0]}")


@sources.command(epilog="Example: mcp-assets sources preview task")
def preview(
    entity_type: Annotated[str, typer.Argument(metavar="TYPE", help="Entity type.")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Rows with these ids.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Rows, if no ids are given.")] = 5,
    whole: Annotated[bool, typer.Option("--whole", help="Show texts in full length, and all chunks.")] = False,
    json: Json = False,
) -> None:
    """Show rows as they would be embedded and linked: texts, metadata, keys. Nothing is embedded or written."""
    from mcp_assets.platform import Platform
    from mcp_assets.settings import load_settings
    from mcp_assets.sync.views.source_preview import NoSource, preview_rows

    settings = load_settings()
    named = Platform(settings).type_names.canonical(entity_type)
    if named is None:
        raise typer.BadParameter(f"no entity type {entity_type!r}: one of {', '.join(settings.entity_types)}")
    try:
        found = preview_rows(settings, named, ids or (), limit=limit)
    except NoSource as error:
        say_error(error)
        raise typer.Exit(Exit.FAILED) from error
    if json:
        print_json([_as_json(one) for one in found])
    else:
        source = settings.entity_types[named].source
        assert source is not None  # noqa: S101  (otherwise NoSource was raised)
        if not found:
            say(f"no living row of {source.table} {'has these ids' if ids else 'can be an entity'}")
        for one in found:
            _show(one, whole=whole)
    absent = [entity_id for entity_id in ids or () if entity_id not in {one.ref.id for one in found}]
    for entity_id in absent:
        say_error(f"{named}:{entity_id} has no source row")
    if absent:
        raise typer.Exit(Exit.FAILED)


def _show(one: "Preview", *, whole: bool) -> None:
    from json import dumps as to_text

    say(str(one.ref), style="bold")
    if not one.alive:
        say("  is not alive: it would be deleted", style="yellow")
    if one.problem is not None:
        say(f"  cannot be an entity: {one.problem}", style="red")
    for number, text in enumerate(one.texts if whole else one.texts[:1]):
        name = "text" if not number else f"chunk {number}"
        cut = text if whole or len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]} … (--whole shows the rest)"
        say(f"  {name}, {len(text):,} characters: {cut}")
    if not one.texts:
        say("  text: none, so that it gets no vector")
    elif not whole and len(one.texts) > 1:
        say(f"  and {len(one.texts) - 1} chunks over the whole length")
    for key, value in one.metadata.items():
        say(f"  metadata {key}: {value if isinstance(value, str) else to_text(value, ensure_ascii=False)}")
    for use in one.uses:
        direction = "from" if use.reverse else "to"
        say(f"  edge {use.relation.value} {direction} the {use.kind.value} {use.key} (by {use.rule})")
    if one.tags:
        say(f"  related by the tags: {', '.join(one.tags)}")
    say(f"  others refer to it by: {', '.join(f'{key.kind.value} {key.key}' for key in one.keys)}")


def _as_json(one: "Preview") -> dict[str, Any]:
    return {
        "entity_type": one.ref.type,
        "entity_id": one.ref.id,
        "alive": one.alive,
        "title": one.title,
        "texts": list(one.texts),
        "metadata": dict(one.metadata),
        "references": [
            {
                "type": use.relation.value,
                "kind": use.kind.value,
                "key": use.key,
                "rule": use.rule,
                "reverse": use.reverse,
            }
            for use in one.uses
        ],
        "tags": list(one.tags),
        "found_by": [{"kind": key.kind.value, "key": key.key} for key in one.keys],
        "problem": one.problem,
    }


def _settings_without_mapping() -> "Settings":
    """The settings as if there were no mapping file: it may be absent or wrong, which is why one is proposed."""
    import os

    from mcp_assets.settings import load_settings

    return load_settings(sources_file=Path(os.devnull))


def _named_file() -> Path | None:
    """The file that MCP_ASSETS_SOURCES_FILE names; None if it is not set."""
    import os

    from dotenv import dotenv_values

    named = os.environ.get("MCP_ASSETS_SOURCES_FILE") or dotenv_values(".env").get("MCP_ASSETS_SOURCES_FILE")
    return Path(named) if named else None
