"""Commands about Qdrant collections: hand over one that another program filled under a name of this platform."""

from typing import Annotated

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Json, err, print_json, say, shown

collections = typer.Typer(
    name="collections", help="Qdrant collections that have names of this platform.", no_args_is_help=True
)


@collections.callback()
def _group() -> None:
    """Without a callback, Typer would make `adopt`, the only command, the group itself."""


@collections.command(epilog="Example: mcp-assets collections adopt kanban_tasks")
def adopt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection, e.g. kanban_tasks.")],
    backup: Annotated[
        str | None,
        typer.Option("--backup", help="Copy its points to this collection first; default NAME-before-mcp-assets."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Make no copy: its points are lost for good.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Hand over a collection that another program filled. The next full sync replaces it."""
    from mcp_assets.sync.collections.adoption import BACKUP_SUFFIX, replaceable
    from mcp_assets.sync.collections.adoption import adopt as adopt_collection

    if remove and backup is not None:
        raise typer.BadParameter("--backup and --remove exclude one another")
    kept = None if remove else backup or f"{name}{BACKUP_SUFFIX}"
    with connected() as platform:
        physical = replaceable(platform, name)
        points = platform.qdrant.count(physical)
        fate = "its points are lost for good" if remove else f"its points are copied to {kept} first"
        if physical != name:
            fate = f"{physical}, to which the alias leads now, stays as it is"
        if not yes:
            typer.confirm(
                shown(
                    f"Hand {name} over, a collection of {points} points of another program? The next full sync builds "
                    f"one beside it and then takes its name; {fate}."
                ),
                abort=True,
                err=True,
            )
        with err.status("copying") as status:
            given = adopt_collection(
                platform,
                name,
                backup=kept,
                on_progress=lambda done, total: status.update(f"copying: {done} of {total} points"),
            )
    if json:
        print_json({"collection": given.alias, "points": given.points, "backup": given.backup})
        return
    copied = f", copied to {given.backup}" if given.backup else ""
    say(f"{name} is handed over: {given.points} points{copied}. Run a full sync: mcp-assets sync --full")
