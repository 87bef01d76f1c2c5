"""Connect: the platform for the time of one command. Its imports take seconds, so that only commands that work pay."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mcp_assets.platform import Platform
    from mcp_assets.settings import Settings


@contextmanager
def connected(*, reads_only: bool = False) -> "Iterator[Platform]":
    """The platform of the settings, closed at the end of the block.

    Raises:
        SettingsError: a setting is wrong.
    """
    from mcp_assets import traces
    from mcp_assets.logs import write_logs
    from mcp_assets.platform import Platform, send_traces_if_set
    from mcp_assets.settings import load_settings

    settings = load_settings()
    write_logs(settings.log_format)
    send_traces_if_set(settings)
    platform = Platform(settings, reads_only=reads_only)
    try:
        yield platform
    finally:
        platform.close()
        traces.flush()


def type_named(platform: "Platform", name: str) -> str:
    """The entity type that `name` or one of its aliases stands for.

    Raises:
        typer.BadParameter: there is none.
    """
    entity_type = platform.type_names.canonical(name)
    if entity_type is None:
        raise typer.BadParameter(no_type(platform.settings, name))
    return entity_type


def types_named(platform: "Platform", names: Iterable[str]) -> list[str]:
    """The types that `names` stand for, in the order of the registry; all if there are no names.

    Raises:
        typer.BadParameter: a name stands for none.
    """
    found = {type_named(platform, name) for name in names}
    return [name for name in platform.settings.entity_types if name in found or not found]


def no_type(settings: "Settings", name: str) -> str:
    """The sentence that no entity type has this name, with those that there are."""
    return f"no entity type {name!r}: one of {', '.join(settings.entity_types)}"
