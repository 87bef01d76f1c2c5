"""The demo: the whole platform on a laptop, from a sample workspace to search results, in one command."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.console import Exit, err, out, say, say_error, shown
from mcp_assets.cli.entities import event_of, progress_bar
from mcp_assets.cli.services import dagster_environment, start_stack

if TYPE_CHECKING:
    from mcp_assets.cli.dagster_dev import DagsterDev
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.platform import Platform

_INDEX_TIMEOUT_S = 300.0
"""The sample takes seconds; a machine that needs five minutes for it has a fault that the log shows."""

_UI_SILENT_S = 300.0
"""Dagster's services write no log line while they load, which takes minutes on a busy machine."""


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the searches instead of staying up.")] = False,
    port: Annotated[int, typer.Option(help="Port of the Dagster UI, or the next free one.")] = 3000,
) -> None:
    """Start everything, index a sample workspace by its events, and search it. Stays up until Ctrl-C."""
    from mcp_assets import sample
    from mcp_assets.cli.dagster_dev import DagsterEnded, dagster_dev
    from mcp_assets.cli.load_entities import create_source_tables
    from mcp_assets.embedded import stack
    from mcp_assets.platform import Platform

    settings = start_stack(quiet=False)
    platform = Platform(settings)
    try:
        if settings.maps_sample_tables:
            create_source_tables(platform)
        with dagster_dev(
            dagster_environment(settings), settings.state_dir, port=port, log=settings.state_dir / "log" / "dagster.log"
        ) as dagster:
            with err.status("Dagster is starting") as status:
                dagster.wait_until_up(
                    _UI_SILENT_S,
                    on_wait=lambda waited_s: status.update(f"Dagster is starting, {waited_s:.0f} s so far"),
                )
            _index(platform, dagster)
            for query in sample.SEARCHES:
                _show(platform, query)
            _link(platform, dagster)
            _show_related(platform, sample.RELATED)
            say(f"Dagster UI: {dagster.url}")
            if not once:
                _stay(dagster)
    except DagsterEnded as error:
        say_error(error)
        raise typer.Exit(Exit.FAILED) from error
    finally:
        platform.close()
        stack.stop(settings.state_dir)


def _index(platform: "Platform", dagster: "DagsterDev") -> None:
    """Load the sample, publish its events, and show how the sensor's runs index them."""
    from mcp_assets import sample
    from mcp_assets.cli.dagster_dev import DagsterEnded
    from mcp_assets.cli.load_entities import load, parse_records
    from mcp_assets.sync.index.full_sync import count_differing

    types = platform.settings.entity_types
    lines = list(parse_records(sample.entities(), "the sample workspace", types))
    for _ in load(platform, iter(lines)):
        pass
    differing = count_differing(platform)
    if differing == 0:
        say(f"{len(lines)} entities are loaded and indexed already: nothing to embed")
        return
    before = platform.nats.publish(map(event_of, lines))
    started = time.monotonic()
    with progress_bar(quiet=False) as progress:
        task = progress.add_task(f"index {before} entities", total=differing)
        while left := count_differing(platform) or _unapplied(platform):
            dagster.check()
            if time.monotonic() - started > _INDEX_TIMEOUT_S:
                raise DagsterEnded(f"{left} entities were not indexed in {_INDEX_TIMEOUT_S:.0f} s; see {dagster.log}")
            progress.update(task, completed=max(0, differing - left))
            time.sleep(0.2)
        progress.update(task, completed=differing)
    say(f"{differing} entities indexed {time.monotonic() - started:.1f} s after their events were published")


def _link(platform: "Platform", dagster: "DagsterDev") -> None:
    """Wait until the runs have linked what they embedded."""
    from mcp_assets.cli.dagster_dev import DagsterEnded
    from mcp_assets.sync.link.marks import pending_links

    started = time.monotonic()
    with err.status("the entities are linked"):
        while pending_links(platform, up_to=1):
            dagster.check()
            if time.monotonic() - started > _INDEX_TIMEOUT_S:
                raise DagsterEnded(f"not everything was linked in {_INDEX_TIMEOUT_S:.0f} s; see {dagster.log}")
            time.sleep(0.2)


def _unapplied(platform: "Platform") -> int:
    """Messages that are published and not applied yet."""
    from mcp_assets.sync.views.pending import pending

    waiting = pending(platform)
    return sum(waiting.inbox.values()) + sum(count or 0 for count in waiting.unread.values())


def _show(platform: "Platform", query: str) -> None:
    from mcp_assets.sync.views.search import search

    rows = []
    for hit in search(platform, query, limit=3):
        part = f" (characters {hit.chunk[0]:,} to {hit.chunk[1]:,})" if hit.chunk else ""
        rows.append((f"{hit.score:.3f}", str(hit.ref), (hit.title or "") + part, hit.excerpt[:110]))
    _print_panel(f"mcp-assets search “{query}”", ("score", "entity", "title", "excerpt"), rows)


def _show_related(platform: "Platform", ref: "EntityRef") -> None:
    from mcp_assets.graph import EdgeType
    from mcp_assets.sync.views.graph import related

    edges, titles = related(platform, ref)
    outgoing = [edge for edge in edges if edge.source == ref]
    rows = [
        (edge_type.value, f"{edge.strength or 0:.3f}", str(edge.target), titles.get(edge.target) or "")
        for edge_type in EdgeType
        for edge in [edge for edge in outgoing if edge.edge_type == edge_type][:2]
    ]
    _print_panel(f"mcp-assets related {ref}", ("type", "strength", "entity", "title"), rows)


def _print_panel(command: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a frame that bears the command of which it is the result."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, show_edge=False, expand=True)
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    out.print(Panel(table, title=Text(shown(command)), title_align="left"))


def _stay(dagster: "DagsterDev") -> None:
    say("Ctrl-C ends it. Meanwhile, in another terminal: mcp-assets search …, mcp-assets related …, mcp-assets status")
    try:
        while True:
            dagster.check()
            time.sleep(1)
    except KeyboardInterrupt:
        err.print("ending")
