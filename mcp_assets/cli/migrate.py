"""The command `migrate`: the revision of the platform's tables, and their way up or down to another one."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, print_json, print_rows, say, say_error

if TYPE_CHECKING:
    from mcp_assets.stores.postgres import Postgres
    from mcp_assets.stores.postgres.schema_version import SchemaState, Step


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if there is something to migrate.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REVISION", help="To this revision, up or down, instead of to the newest."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --to: do not ask before migrations are undone.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring the platform's tables to the newest revision that this version knows, or to the one named by --to.

    Each process that opens PostgreSQL does the former by itself. Undoing migrations is what an older version needs,
    which does not work with newer tables: stop the platform first, and start the older version after it.
    """
    if check and to is not None:
        raise typer.BadParameter("--check compares with the newest revision: say it without --to")
    with connected(reads_only=check) as platform:
        state = platform.postgres.schema_state()
        if check:
            _check(state, json=json)
        elif to is None:
            # Not by `move`: a start also brings the table of edges to its shape.
            with platform.postgres.transaction():
                pass
            _done(state, platform.postgres, state.steps, json=json)
        else:
            _move(state, platform.postgres, to, yes=yes, json=json)


def _check(state: "SchemaState", *, json: bool) -> None:
    if json:
        print_json(
            {
                "schema": state.schema,
                "found": state.found,
                "newest": state.newest,
                "steps": [step._asdict() for step in state.steps],
                "ok": state.fits,
            }
        )
    else:
        _show(state)
    if not state.fits:
        raise typer.Exit(Exit.FAILED)


def _show(state: "SchemaState") -> None:
    at = f"the schema {state.schema} is at revision {state.found}"
    if state.newer:
        say_error(state.newer)
    elif state.newer is not None:
        say(f"{at} of a newer version, whose tables this version ({state.newest}) can work with", style="green")
    elif not state.steps:
        say(f"{at}, the newest that this version knows", style="green")
    else:
        say(at if state.found is not None else f"the schema {state.schema} has no tables of the platform yet")
        print_rows(("revision", "what it does"), state.steps)
        say(f"{len(state.steps)} migrations are to be done, by `mcp-assets migrate` or by the next start")


def _move(state: "SchemaState", postgres: "Postgres", revision: str, *, yes: bool, json: bool) -> None:
    from mcp_assets.stores.postgres.schema_version import UnknownRevision

    if state.goes_down_to(revision) and not yes:
        if json or not sys.stdin.isatty():
            raise typer.BadParameter(
                f"--to {revision} undoes migrations, and here nobody can be asked: say --yes, after a backup"
            )
        typer.confirm(
            f"Undo the migrations after {revision}? What only newer tables hold is lost: make a backup first",
            abort=True,
            err=True,
        )
    try:
        steps = postgres.move_schema(revision)
    except UnknownRevision as error:
        raise typer.BadParameter(str(error.args[0])) from error
    _done(state, postgres, steps, json=json)


def _done(before: "SchemaState", postgres: "Postgres", steps: "Sequence[Step]", *, json: bool) -> None:
    after = postgres.schema_state()
    if json:
        steps_done = [step._asdict() for step in steps]
        print_json({"schema": after.schema, "before": before.found, "after": after.found, "steps": steps_done})
        return
    if not steps:
        _show(after)
        return
    print_rows(("revision", "what it does"), steps)
    is_up = steps[-1].revision == after.found
    say(f"{len(steps)} migrations {'done' if is_up else 'undone'}: {after.schema} is at revision {after.found}")
