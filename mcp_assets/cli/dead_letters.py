"""Commands for dead letters: what could not be processed, and what to do with it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mcp_assets.cli.connect import connected, type_named
from mcp_assets.cli.console import Exit, Json, out, print_json, print_rows, say, say_error, shown

if TYPE_CHECKING:
    from mcp_assets.platform import Platform
    from mcp_assets.sync.requests.dead_letters import Selection

_LARGEST = 2**63 - 1
"""Ids are bigint in PostgreSQL."""

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", min=1, max=_LARGEST, help="As `dlq list` shows them.")
]
Type = Annotated[str | None, typer.Option("--type", "-t", help="Only those of entities of this type.")]
Stage = Annotated[str | None, typer.Option("--stage", "-s", help="Only those of this stage, as `dlq list` shows it.")]
Kind = Annotated[str | None, typer.Option("--kind", "-k", help="Only this kind of error, such as bad_json.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]

dlq = typer.Typer(
    name="dlq", help="Dead letters: messages and entities that could not be processed.", no_args_is_help=True
)


@dlq.command("list", epilog="Example: mcp-assets dlq list --type task --kind bad_json")
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
    from mcp_assets.sync.requests.dead_letters import find_letters

    with connected() as platform:
        selection = _selection(platform, None, entity_type, stage, kind)
        if warnings:
            _list_warnings(platform, selection, limit, json)
            return
        found = list(find_letters(platform, selection, limit=limit + 1))
    letters = found[:limit]
    if json:
        print_json([letter.as_dict() for letter in letters])
        return
    if not letters:
        say("no dead letters")
    else:
        print_rows(
            ("id", "stage", "kind", "of", "tries", "last", "error"),
            [
                (
                    letter.id,
                    letter.stage,
                    letter.error_kind,
                    letter.ref or f"{letter.subject} #{letter.seq}",
                    letter.attempts,
                    f"{letter.last_at:%Y-%m-%d %H:%M:%S}" + (" (replayed)" if letter.replayed_at else ""),
                    letter.error,
                )
                for letter in letters
            ],
            ids=("id", "of"),
        )
    if len(found) > limit:
        say_error(f"there are more than {limit}: see --limit")


def _list_warnings(platform: "Platform", selection: "Selection", limit: int, json: bool) -> None:
    from mcp_assets.sync.inbox.message_warnings import find_warnings

    found = find_warnings(platform, entity_type=selection.entity_type, error_kind=selection.error_kind, limit=limit + 1)
    warnings = found[:limit]
    if json:
        print_json([warning.as_dict() for warning in warnings])
        return
    if not warnings:
        say("no warnings")
    else:
        print_rows(
            ("messages", "last", "subject", "kind", "newest of", "warning"),
            [
                (
                    warning.messages,
                    f"{warning.last_at:%Y-%m-%d %H:%M:%S}",
                    warning.subject,
                    warning.error_kind,
                    f"{warning.entity or ''} #{warning.seq}".strip(),
                    warning.warning,
                )
                for warning in warnings
            ],
            ids=("newest of",),
        )
    if len(found) > limit:
        say_error(f"there are more than {limit}: see --limit")


@dlq.command(epilog="Example: mcp-assets dlq show 12")
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID", min=1, max=_LARGEST, help="As `dlq list` shows it.")],
    json: Json = False,
) -> None:
    """Show a dead letter as a whole, with the message as it came. Exits with 1 if there is none."""
    from mcp_assets.sync.requests.dead_letters import Selection, find_letters

    with connected() as platform:
        letter = next(find_letters(platform, Selection(ids=[letter_id])), None)
    if letter is None:
        say_error(f"there is no dead letter {letter_id}: see `mcp-assets dlq list`")
        raise typer.Exit(Exit.FAILED)
    whole = letter.as_dict() | {"raw": letter.raw.decode(errors="backslashreplace")}
    if json:
        print_json(whole)
        return
    for name, value in whole.items():
        if value not in (None, ""):
            out.print(Text.assemble((name, "bold"), ": ", shown(value)), soft_wrap=True)


@dlq.command(epilog="Example: mcp-assets dlq replay --kind bad_metadata")
def replay(
    ids: Ids = None,
    entity_type: Type = None,
    stage: Stage = None,
    kind: Kind = None,
    all_: All = False,
    json: Json = False,
) -> None:
    """Try dead letters again, once their cause is mended. Exits with 1 if some fail again."""
    from mcp_assets.sync.requests.dead_letters import replay as replay_letters

    with connected() as platform:
        done = replay_letters(platform, _chosen(platform, ids, entity_type, stage, kind, all_))
    if json:
        print_json({"accepted": done.accepted, "done": done.done, "failed": done.failed})
    else:
        say(
            f"{done.accepted} messages are back in the inbox, {done.done} entities are indexed, {done.failed} are "
            "still bad"
            if done.total
            else "no dead letters"
        )
    if done.failed:
        raise typer.Exit(Exit.FAILED)


@dlq.command(epilog="Example: mcp-assets dlq purge 12 13 --yes")
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
    from mcp_assets.sync.requests.dead_letters import purge as purge_letters

    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("without a terminal nothing can be asked: say --yes to delete dead letters")
    with connected() as platform:
        selection = _chosen(platform, ids, entity_type, stage, kind, all_)
        if not yes:
            typer.confirm("Delete these dead letters, with the messages that they keep?", abort=True, err=True)
        count = purge_letters(platform, selection)
    if json:
        print_json({"purged": count})
    else:
        say(f"{count} dead letters are deleted")


def _chosen(
    platform: "Platform",
    ids: list[int] | None,
    entity_type: str | None,
    stage: str | None,
    kind: str | None,
    everything: bool,
) -> "Selection":
    selection = _selection(platform, ids, entity_type, stage, kind)
    if selection.everything != everything:
        raise typer.BadParameter("name dead letters by id or by --type, --stage or --kind, or say --all")
    return selection


def _selection(
    platform: "Platform", ids: list[int] | None, entity_type: str | None, stage: str | None, kind: str | None
) -> "Selection":
    from mcp_assets.sync.requests.dead_letters import STAGES, Selection

    if stage is not None and stage not in STAGES:
        raise typer.BadParameter(f"no stage {stage!r}: one of {', '.join(STAGES)}")
    return Selection(ids or None, type_named(platform, entity_type) if entity_type is not None else None, stage, kind)
