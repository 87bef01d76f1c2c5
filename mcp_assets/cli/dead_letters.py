"""Commands for dead letters: what could not be processed, and what to do with it."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mcp_assets.cli.console import Exit, out, print_json, say_error
from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings
from mcp_assets.sync.inbox.message_warnings import find_warnings
from mcp_assets.sync.requests.dead_letters import STAGES, Selection, find_letters
from mcp_assets.sync.requests.dead_letters import purge as purge_letters
from mcp_assets.sync.requests.dead_letters import replay as replay_letters

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="As `dlq list` shows them.")]
Type = Annotated[str | None, typer.Option("--type", "-t", help="Only those of entities of this type.")]
Stage = Annotated[str | None, typer.Option("--stage", "-s", help=f"Only those of this stage: {', '.join(STAGES)}.")]
Kind = Annotated[str | None, typer.Option("--kind", "-k", help="Only this kind of error, such as bad_json.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]

dlq = typer.Typer(
    name="dlq", help="Dead letters: messages and entities that could not be processed.", no_args_is_help=True
)


@dlq.command("list")
def list_(
    entity_type: Type = None,
    stage: Stage = None,
    kind: Kind = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 100,
    warnings: Annotated[
        bool, typer.Option("--warnings", "-w", help="Odd parts of messages that were taken in nevertheless.")
    ] = False,
    json: Json = False,
) -> None:
    """List dead letters with their reasons; with --warnings, odd parts of messages that were taken in."""
    if warnings and stage is not None:
        raise typer.BadParameter("--stage is of dead letters: warnings have none")
    platform = Platform(load_settings())
    try:
        selection = _selection(platform, None, entity_type, stage, kind)
        if warnings:
            _list_warnings(platform, selection, limit, json)
            return
        found = list(find_letters(platform, selection, limit=limit + 1))
    finally:
        platform.close()
    shown = found[:limit]
    if json:
        print_json([letter.as_dict() for letter in shown])
        return
    table = Table("id", "stage", "kind", "of", "tries", "last", "error", show_edge=False)
    for letter in shown:
        table.add_row(
            str(letter.id),
            letter.stage,
            letter.error_kind,
            escape(str(letter.ref) if letter.ref else f"{letter.subject} #{letter.seq}"),
            str(letter.attempts),
            f"{letter.last_at:%Y-%m-%d %H:%M:%S}" + (" (replayed)" if letter.replayed_at else ""),
            escape(letter.error[:200]),
        )
    out.print(table if shown else "no dead letters")
    if len(found) > limit:
        out.print(f"more than {limit}: see --limit")


def _list_warnings(platform: Platform, selection: Selection, limit: int, json: bool) -> None:
    found = find_warnings(platform, entity_type=selection.entity_type, error_kind=selection.error_kind, limit=limit + 1)
    shown = found[:limit]
    if json:
        print_json([warning.as_dict() for warning in shown])
        return
    table = Table("messages", "last", "subject", "kind", "newest of", "warning", show_edge=False)
    for warning in shown:
        table.add_row(
            str(warning.messages),
            f"{warning.last_at:%Y-%m-%d %H:%M:%S}",
            escape(warning.subject),
            warning.error_kind,
            escape(f"{warning.entity or ''} #{warning.seq}".strip()),
            escape(warning.warning),
        )
    out.print(table if shown else "no warnings")
    if len(found) > limit:
        out.print(f"more than {limit}: see --limit")


@dlq.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `dlq list` shows it.")], json: Json = False
) -> None:
    """Show a dead letter as a whole, with the message as it came. Exits with 1 if there is none."""
    platform = Platform(load_settings())
    try:
        letter = next(find_letters(platform, Selection(ids=[letter_id])), None)
    finally:
        platform.close()
    if letter is None:
        say_error(f"there is no dead letter {letter_id}: see `mcp-assets dlq list`")
        raise typer.Exit(Exit.FAILED)
    shown = letter.as_dict() | {"raw": letter.raw.decode(errors="backslashreplace")}
    if json:
        print_json(shown)
        return
    for name, value in shown.items():
        if value not in (None, ""):
            out.print(f"[bold]{name}[/]: {escape(str(value))}", highlight=False, soft_wrap=True)


@dlq.command()
def replay(
    ids: Ids = None,
    entity_type: Type = None,
    stage: Stage = None,
    kind: Kind = None,
    all_: All = False,
    json: Json = False,
) -> None:
    """Try dead letters again, once their cause is mended. Exits with 1 if some fail again."""
    platform = Platform(load_settings())
    try:
        done = replay_letters(platform, _chosen(platform, ids, entity_type, stage, kind, all_))
    finally:
        platform.close()
    if json:
        print_json({"accepted": done.accepted, "done": done.done, "failed": done.failed})
    else:
        out.print(
            f"{done.accepted} messages are back in the inbox, {done.done} entities are indexed, {done.failed} are "
            "still bad" if done.total else "no dead letters"
        )  # fmt: skip
    if done.failed:
        raise typer.Exit(Exit.FAILED)


@dlq.command()
def purge(
    ids: Ids = None,
    entity_type: Type = None,
    stage: Stage = None,
    kind: Kind = None,
    all_: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete dead letters. The entities that they name stay as they are."""
    platform = Platform(load_settings())
    try:
        selection = _chosen(platform, ids, entity_type, stage, kind, all_)
        if not yes:
            typer.confirm("Delete these dead letters, with the messages that they keep?", abort=True, err=True)
        count = purge_letters(platform, selection)
    finally:
        platform.close()
    if json:
        print_json({"purged": count})
    else:
        out.print(f"{count} dead letters are deleted")


def _chosen(
    platform: Platform,
    ids: list[int] | None,
    entity_type: str | None,
    stage: str | None,
    kind: str | None,
    everything: bool,
) -> Selection:
    selection = _selection(platform, ids, entity_type, stage, kind)
    if selection.everything != everything:
        raise typer.BadParameter("name dead letters by id or by --type, --stage or --kind, or say --all")
    return selection


def _selection(
    platform: Platform, ids: list[int] | None, entity_type: str | None, stage: str | None, kind: str | None
) -> Selection:
    if stage is not None and stage not in STAGES:
        raise typer.BadParameter(f"no stage {stage!r}: one of {', '.join(STAGES)}")
    if entity_type is not None:
        known = platform.type_names.canonical(entity_type)
        if known is None:
            raise typer.BadParameter(
                f"no entity type {entity_type!r}: one of {', '.join(platform.settings.entity_types)}"
            )
        entity_type = known
    return Selection(ids or None, entity_type, stage, kind)
