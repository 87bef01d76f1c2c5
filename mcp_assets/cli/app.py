"""The command's entry: all commands in one Typer application, by what a person wants to do; each error as a sentence.

A command imports what it works with when it is called, because the help and the completion of a shell have to appear at
once. The modules of the commands therefore import nothing at their top but the standard library, Typer and Rich.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from mcp_assets.cli import (
    changes,
    collections,
    consistency,
    dead_letters,
    demo,
    duplicates,
    entities,
    graph,
    init,
    mcp_server,
    migrate,
    model,
    observing,
    plan,
    quality,
    search,
    services,
    sources,
    status,
    sync,
    verdicts,
)
from mcp_assets.cli.console import Exit, say_error, shown

_START = "Start"
_WORK = "Work"
_LOOK = "Look"
_MEND = "Mend"

app = typer.Typer(
    name="mcp-assets",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(panel: str, command: Callable[..., Any], example: str) -> None:
    app.command(rich_help_panel=panel, epilog=f"Example: {example}")(command)


_add(_START, demo.demo, "mcp-assets demo --once")
_add(_START, init.init, "mcp-assets init my-project")
_add(_START, services.up, 'mcp-assets up && eval "$(mcp-assets env)"')
_add(_START, services.down, "mcp-assets down")
_add(_START, services.dev, "mcp-assets dev --port 3000")
_add(_START, services.env, 'eval "$(mcp-assets env)"')
_add(_START, migrate.migrate, "mcp-assets migrate --check")
app.add_typer(sources.sources, rich_help_panel=_START)
_add(_WORK, entities.load, "mcp-assets load entities.jsonl.gz --publish")
_add(_WORK, entities.publish, """mcp-assets publish mcp.task.updated '{"entity_id": "7"}'""")
_add(_WORK, sync.sync, "mcp-assets sync --full --watch")
_add(_LOOK, plan.plan, "mcp-assets plan --model text-embedding-3-small")
_add(_LOOK, search.search, 'mcp-assets search "how do we renew certificates" --type page')
_add(_LOOK, mcp_server.mcp, "mcp-assets mcp --http --port 8765")
_add(_LOOK, graph.related, "mcp-assets related task:7 --depth 2")
_add(_LOOK, duplicates.duplicates, "mcp-assets duplicates --type task")
_add(_LOOK, changes.changes, "mcp-assets changes --since 2h --type task")
_add(_LOOK, status.status, "mcp-assets status --json")
_add(_LOOK, observing.costs, "mcp-assets costs --days 7")
_add(_LOOK, observing.metrics, "mcp-assets metrics --once")
_add(_LOOK, quality.quality, "mcp-assets quality --json")
_add(_LOOK, services.doctor, "mcp-assets doctor")
app.add_typer(graph.graph, rich_help_panel=_LOOK)
app.add_typer(verdicts.verdict, rich_help_panel=_MEND)
_add(_MEND, consistency.validate, "mcp-assets validate --deep --repair")
_add(_MEND, consistency.end, "mcp-assets end memory:42")
app.add_typer(dead_letters.dlq, rich_help_panel=_MEND)
app.add_typer(collections.collections, rich_help_panel=_MEND)
app.add_typer(model.model, rich_help_panel=_MEND)
_add(_MEND, services.accept, "mcp-assets accept qdrant")


class _Debug:
    """Whether the option --debug was given: the error is handled after Typer has ended."""

    is_on = False


def _say_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mcp-assets {version('mcp-assets')}\n")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error that is a fault.")] = False,
) -> None:
    """Keeps embeddings and relationships of MCP tasks, pages and memories up to date, and searches them."""
    _Debug.is_on = debug


def main() -> None:
    """Run the command line. An error that a person can act on ends as one sentence and an exit code."""
    # SIGTERM is handled like Ctrl-C, so that the started processes are stopped. So is SIGHUP (a terminal that was
    # closed), unless the caller (nohup) ignores it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except TyperException as error:
        _show_usage(error)
        code = Exit.USAGE
    except BrokenPipeError:
        # The program that reads our output has ended (`| head`). Without this, Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.FAILED
    except Exception as error:  # noqa: BLE001  (what `explain` does not know is reported as a fault, or raised)
        code = _explained(error)
    raise SystemExit(code or Exit.OK)


def _show_usage(error: TyperException) -> None:
    from typer.rich_utils import rich_format_error

    if hasattr(error, "message"):
        error.message = shown(error.message)
    rich_format_error(error)  # type: ignore[arg-type]


def _explained(error: Exception) -> Exit:
    from mcp_assets.cli.errors import explain

    explained = explain(error)
    if explained is None and _Debug.is_on:
        raise error
    sentence, code = explained or (
        f"{type(error).__name__}: {error}. This is a fault of mcp-assets; "
        "`mcp-assets --debug` before the same words shows where it happened",
        Exit.FAILED,
    )
    say_error(sentence)
    return code
