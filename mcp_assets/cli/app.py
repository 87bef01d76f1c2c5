"""The command's entry: all groups in one Typer application, each kind of error with its exit code."""

import signal

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException
from typer.rich_utils import rich_format_error

from mcp_assets.cli import collections, consistency, dead_letters, demo, entities, graph, services, sync
from mcp_assets.cli.console import Exit, say_error
from mcp_assets.cli.load_entities import LoadError
from mcp_assets.embedded.stack import StackError
from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.index.mass_delete import MassDeletion

app = typer.Typer(
    name="mcp-assets",
    help="Keeps embeddings of MCP tasks, pages and memories up to date: the stack, loading, publishing, searching.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    add_completion=False,
)

app.command()(services.up)
app.command()(services.down)
app.command()(services.status)
app.command()(services.dev)
app.command()(services.env)
app.command()(services.doctor)
app.command()(services.accept)
app.command()(entities.load)
app.command()(entities.publish)
app.command()(entities.search)
app.command()(graph.related)
app.add_typer(graph.graph)
app.command()(consistency.validate)
app.command()(consistency.end)
app.command()(sync.sync)
app.add_typer(dead_letters.dlq)
app.add_typer(collections.collections)
app.command()(demo.demo)


def main() -> None:
    """Run the command line; errors that a person can act on end as one sentence and an exit code."""
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
        rich_format_error(error)  # type: ignore[arg-type]
        code = Exit.USAGE
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0]) if problem["loc"] else "settings"
            say_error(f"{field}: {problem['msg']}")
        code = Exit.USAGE
    except (SettingsError, TextRefused) as error:
        say_error(str(error))
        code = Exit.USAGE
    except (StoreUnavailable, EmbedderUnavailable) as error:
        say_error(str(error))
        code = Exit.UNAVAILABLE
    except (StoreRefused, CollectionMismatch, StackError, LoadError, MassDeletion) as error:
        say_error(str(error))
        code = Exit.FAILED
    raise SystemExit(code or Exit.OK)
