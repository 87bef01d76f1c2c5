"""The demo: the whole platform on a laptop, from a sample workspace to search results, in one command."""

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.console import err, out, say, say_error, say_progress, shown
from mcp_assets.cli.entities import event_of
from mcp_assets.cli.services import Port, dagster_environment, start_stack
from mcp_assets.cli.steps import Steps, loading

if TYPE_CHECKING:
    from mcp_assets.cli.dagster_dev import DagsterDev
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.platform import Platform
    from mcp_assets.settings import Settings

_POLL_S = 0.5
"""How often the demo looks how far its sample is. Each look reads all stores, beside the runs that do the work."""

_LOOK_AT_RUNS_S = 5.0
"""How often the demo looks for failed runs while it waits for their work."""

_FAILED_RUNS = 9
"""Runs that fail one after the other before the demo gives up: three for each entity type."""

_SENSOR = "vector_index_sensor"
"""The sensor that has the events indexed. What Dagster has loaded without it is another project."""


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the searches instead of staying up.")] = False,
    port: Port = None,
) -> None:
    """Start everything, index a sample workspace by its events, and search it. Stays up until Ctrl-C."""
    with loading():
        from mcp_assets import sample
        from mcp_assets.cli.dagster_dev import dagster_dev, port_of_ui
        from mcp_assets.embedded import stack
        from mcp_assets.platform import Platform
        from mcp_assets.settings import read_settings

    settings = read_settings()
    _refuse_own_stores(settings)
    chosen, notice = port_of_ui(port, "127.0.0.1")
    if notice:
        say_progress(notice)
    state_dir = settings.state_dir
    log = state_dir / "log" / "dagster.log"
    ran_before = stack.status(state_dir).supervisor_pid is not None
    try:
        with Steps() as steps:
            settings = start_stack(steps)
        with (
            closing(Platform(settings)) as platform,
            dagster_dev(dagster_environment(settings), state_dir, port=chosen, log=log) as dagster,
        ):
            with Steps() as steps:
                _refuse_others(dagster.wait_until_up(steps.look).sensors)
            _index(platform, dagster)
            for query in sample.SEARCHES:
                _show(platform, query)
            _link(platform, dagster)
            _show_related(platform, sample.RELATED)
            if once:
                with Steps() as steps:
                    dagster.wait_for_runs(steps.look)
            _say_what_next(None if once else dagster.url)
            if not once:
                _stay(dagster)
    finally:
        if not ran_before:
            stack.stop(state_dir)


def _refuse_own_stores(settings: "Settings") -> None:
    """Raises SettingsError: the sample would be written into tables, streams or collections that are in use."""
    from mcp_assets.embedded import stack
    from mcp_assets.entities.registry import SOURCE_PRESETS
    from mcp_assets.setting_errors import SettingsError
    from mcp_assets.settings import variable_of

    embedded = stack.addresses(settings.state_dir)
    named = []
    for field in ("database_url", "source_database_url", "nats_url", "qdrant_url"):
        address = getattr(settings, field)
        text = getattr(address, "get_secret_value", lambda address=address: address)()
        # `eval "$(mcp-assets env)"` has named the embedded servers themselves.
        if text is not None and text != getattr(embedded, field, None):
            named.append(variable_of(field))
    if named:
        raise SettingsError(
            f"{' and '.join(named)} would be written to by the demo, which loads a sample workspace: run it in another "
            "folder, or without that setting"
        )
    if dict(settings.entity_types) != dict(SOURCE_PRESETS["mcp"]):
        raise SettingsError(
            "the settings map other source tables than those of the sample workspace, which the demo loads: run it in "
            "another folder, or without the mapping"
        )


def _refuse_others(sensors: frozenset[str]) -> None:
    """Raises ProjectError: what Dagster has loaded here is not this platform, so that no run would index the sample."""
    from mcp_assets.cli.project import ProjectError

    if _SENSOR not in sensors:
        raise ProjectError(
            f"the Dagster project in {Path.cwd()} does not contain mcp_assets: try the demo in another folder, or add "
            "the component to the project"
        )


def _index(platform: "Platform", dagster: "DagsterDev") -> None:
    """Load the sample, publish its events, and show how the sensor's runs index them."""
    from mcp_assets import sample
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
    platform.nats.publish(map(event_of, lines))
    started = time.monotonic()
    failures = _Failures(dagster)
    with Steps() as steps:
        while (left := _left(platform, differing)) is not None:
            steps.look("sample", left, False)
            dagster.check()
            failures.look(left)
            time.sleep(_POLL_S)
        steps.look("sample", f"{differing} entities are indexed", True)
    say(f"{differing} entities indexed {time.monotonic() - started:.1f} s after their events were published")


def _left(platform: "Platform", total: int) -> str | None:
    """What is still waited for until `total` entities are indexed; None: nothing."""
    from mcp_assets.stores.errors import StoreUnavailable
    from mcp_assets.sync.index.full_sync import count_differing
    from mcp_assets.sync.views.pending import pending

    try:
        differing = count_differing(platform)
    except StoreUnavailable as error:
        # On a busy machine an answer is late now and then; a server that died is started again by its supervisor.
        return str(error)
    waiting = pending(platform)
    if waiting.unavailable:
        return waiting.unavailable[0]
    messages = sum(waiting.inbox.values()) + sum(count or 0 for count in waiting.unread.values())
    if differing:
        done = max(0, total - differing)
        outage = f"; {waiting.provider[0]}" if waiting.provider else ""
        said = f"{done} of {total} entities are indexed" if done else "the sensors take in the events and ask for runs"
        return said + outage
    return f"{messages} messages are still to be applied" if messages else None


def _link(platform: "Platform", dagster: "DagsterDev") -> None:
    """Wait until the runs have linked what they embedded."""
    failures = _Failures(dagster)
    with Steps() as steps:
        while (left := _links_left(platform)) is not None:
            steps.look("links", left, False)
            dagster.check()
            failures.look(left)
            time.sleep(_POLL_S)
        steps.look("links", "all entities are linked", True)


def _links_left(platform: "Platform") -> str | None:
    """What is still waited for until all entities are linked; None: nothing."""
    from mcp_assets.stores.errors import StoreUnavailable
    from mcp_assets.sync.link.marks import pending_links

    try:
        left = pending_links(platform, up_to=1000)
    except StoreUnavailable as error:
        return str(error)
    return f"{left} entities are still to be linked" if left else None


class _Failures:
    """Says each failed run once, while its work is waited for: the sensor asks for it again."""

    def __init__(self, dagster: "DagsterDev") -> None:
        self._dagster = dagster
        self._since = time.time()
        self._looked_at = time.monotonic()
        self._said: set[str] = set()
        self._left: str | None = None

    def look(self, left: str) -> None:
        """`left`: what is waited for.

        Raises:
            DagsterEnded: so many runs have failed since that has changed that the next one will fail, too.
        """
        from mcp_assets.cli.dagster_dev import DagsterEnded
        from mcp_assets.cli.dagster_ui import UiSilent

        if left != self._left:
            self._left = left
            self._said.clear()
            self._since = time.time()
        if time.monotonic() - self._looked_at < _LOOK_AT_RUNS_S:
            return
        self._looked_at = time.monotonic()
        try:
            failed = self._dagster.ui.failed_runs(self._since)
        except UiSilent:
            return
        for run in failed:
            if run.run_id not in self._said:
                self._said.add(run.run_id)
                say_error(f"{run.name} has failed, and its work is asked for again: {self._dagster.ui.url_of(run)}")
        if len(self._said) >= _FAILED_RUNS:
            raise DagsterEnded(
                f"{len(self._said)} runs have failed, and none has done anything: see {self._dagster.log}"
            )


def _show(platform: "Platform", query: str) -> None:
    from mcp_assets.sync.search.search import search

    rows = []
    for hit in search(platform, query, limit=3).results:
        part = f" (characters {hit.chunk[0]:,} to {hit.chunk[1]:,})" if hit.chunk else ""
        rows.append((f"{hit.score:.3f}", str(hit.ref), (hit.title or "") + part, hit.passage.excerpt[:110]))
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

    table = Table(show_edge=False, expand=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    out.print(Panel(table, title=Text(shown(command)), title_align="left"))


def _say_what_next(ui: str | None) -> None:
    """Three things to do next. `ui`: the address of the Dagster UI; None: everything ends with this command."""
    from mcp_assets import sample

    command = _command()
    search = f'{command} search "{sample.SEARCHES[1]}"'
    if ui is not None:
        steps = [
            f"look at the assets, the runs and the checks in the Dagster UI: {ui}",
            f"search in another terminal: {search}",
        ]
    else:
        steps = [
            f"keep it up, with the Dagster UI: {command} demo",
            f"search the sample again: {command} up && {search}",
        ]
    steps.append(f"connect your own tables, in a folder of their own: {command} init")
    say("What next:")
    for number, step in enumerate(steps, 1):
        say(f"  {number}. {step}")


def _command() -> str:
    """How this command is called from here: without its folder where the shell finds it."""
    if shutil.which("mcp-assets"):
        return "mcp-assets"
    script = Path(sys.argv[0])
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _stay(dagster: "DagsterDev") -> None:
    say("Ctrl-C ends it.")
    try:
        while True:
            dagster.check()
            time.sleep(1)
    except KeyboardInterrupt:
        err.print("ending")
