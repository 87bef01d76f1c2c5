"""Errors: each error that a person can act on, as a sentence and an exit code. Imported only when a command failed."""

from mcp_assets.cli.console import Exit
from mcp_assets.cli.dagster_dev import DagsterEnded
from mcp_assets.cli.load_entities import LoadError
from mcp_assets.cli.project import ProjectError
from mcp_assets.embedded.state import StackError
from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.collections.model_change import NoModelChange
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.link.judging import VerdictRefused
from mcp_assets.traces import TracesUnavailable

_CODES: dict[type[Exception], Exit] = {
    SettingsError: Exit.USAGE,
    ProjectError: Exit.USAGE,
    TextRefused: Exit.USAGE,
    TracesUnavailable: Exit.USAGE,
    StoreUnavailable: Exit.UNAVAILABLE,
    EmbedderUnavailable: Exit.UNAVAILABLE,
    StoreRefused: Exit.FAILED,
    CollectionMismatch: Exit.FAILED,
    StackError: Exit.FAILED,
    LoadError: Exit.FAILED,
    MassDeletion: Exit.FAILED,
    VerdictRefused: Exit.FAILED,
    NoModelChange: Exit.FAILED,
    DagsterEnded: Exit.FAILED,
    OSError: Exit.FAILED,
}


def explain(error: Exception) -> tuple[str, Exit] | None:
    """The sentence about `error`, and the exit code; None if it is a fault of ours."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return str(error), code
    return None
