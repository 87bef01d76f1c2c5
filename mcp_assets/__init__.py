"""mcp_assets: embeddings, relationship edges and consistency of an MCP workspace, as Dagster assets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_assets.python_api import search

__all__ = ["search"]


# Imported when it is asked for, because each import of a module of this package comes through here.
def __getattr__(name: str) -> Any:
    if name in __all__:
        from mcp_assets import python_api

        return getattr(python_api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
