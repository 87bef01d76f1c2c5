"""The command `changes`: what changed in the index and why, since a position or a time."""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Json, print_json, print_rows, say_progress

if TYPE_CHECKING:
    from mcp_assets.platform import Platform
    from mcp_assets.sync.feed.entries import Entry, Position
    from mcp_assets.sync.feed.reader import Page

_AGAIN_S = 1.0
"""Seconds between two looks with --follow."""


def changes(
    since: Annotated[
        str | None,
        typer.Option("--since", help="A position that this command gave, a time, or a span such as 2h."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only entities of this type, and edges from them.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many changes at once.")] = 100,
    json: Json = False,
) -> None:
    """Say what changed in the index and why: entities indexed or removed, edges added, changed or removed."""
    from mcp_assets.sync.feed.entries import NoPosition, parse_since
    from mcp_assets.sync.feed.reader import newest_changes, read_changes

    try:
        start = parse_since(since, datetime.now(UTC)) if since is not None else None
    except NoPosition as error:
        raise typer.BadParameter(str(error)) from error
    with connected(reads_only=True) as platform:
        wanted = types_named(platform, types) if types else None
        if start is None:
            page = newest_changes(platform, types=wanted, limit=limit)
        else:
            page = read_changes(platform, start, types=wanted, limit=limit)
        _show(platform, page, json=json, lines=follow)
        while follow:
            if not page.more:
                time.sleep(_AGAIN_S)
            page = read_changes(platform, page.position, types=wanted, limit=limit)
            _show(platform, page, json=json, lines=True)


def _show(platform: "Platform", page: "Page", *, json: bool, lines: bool) -> None:
    """`lines`: in JSON, one line a change and no position of the page, because each change has its own."""
    shards = platform.settings.shards
    told = [entry.told(page.edition, shards) for entry in page.entries]
    if json and lines:
        for one in told:
            print_json(one)
    elif json:
        print_json({"changes": told, "position": str(page.position), "more": page.more})
    else:
        if page.entries:
            rows = [_row(entry, shards) for entry in page.entries]
            print_rows(("when (UTC)", "change", "of", "edge", "to", "strength", "reason"), rows, ids=("of", "to"))
        if not lines:
            _say_position(page.position, more=page.more)
    # Otherwise a program that follows by a pipe would get nothing for a long time.
    sys.stdout.flush()


def _row(entry: "Entry", shards: int) -> tuple[str, ...]:
    told = entry.told("", shards)
    return (
        f"{entry.made_at:%Y-%m-%d %H:%M:%S}",
        entry.kind,
        told.get("entity") or told.get("partition", ""),
        entry.edge_type or "",
        told.get("target", ""),
        "" if entry.strength is None else f"{entry.strength:.4f}",
        entry.reason,
    )


def _say_position(position: "Position", *, more: bool) -> None:
    say_progress(f"{'there are more: ' if more else ''}go on with --since {position}")
