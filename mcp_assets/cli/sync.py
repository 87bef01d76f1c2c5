"""The command `sync`: bring all or single entities to the state of their source rows."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Exit, Json, err, print_json, say, say_error, say_progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mcp_assets.events import SyncTarget
    from mcp_assets.platform import Platform
    from mcp_assets.sync.index.progress import IndexProgress
    from mcp_assets.sync.link.progress import LinkProgress
    from mcp_assets.sync.requests.full_sync_requests import FullSync, PartitionProgress

_LOOK_EVERY_S = 0.5
"""How often `--watch` reads the progress: a bar that moves twice a second looks alive, at one query each time."""

_SAY_EVERY_S = 10.0
"""Seconds between two lines about a full sync in this process, where no bars are shown."""


def sync(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Entities: `type:id`, or an id of any type.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Everything that differs from the source tables.")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="With --full: only this entity type; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Embed unchanged texts again, too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="With --full: show how far each partition is.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="With --full: in this process, though a Dagster daemon runs.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="With --full: say what would be done, and do nothing.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --full --force: do not show the plan and ask.")
    ] = False,
    allow_mass_delete: Annotated[
        bool,
        typer.Option(
            "--allow-mass-delete",
            help="With --full: continue, in this process, although very many source rows are gone.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Bring entities to the state of their source rows: the named ones, or with --full all.

    A full sync is a backfill of the running Dagster daemon; without one it is done in this process. If it is
    killed, it continues where it stopped when it is asked for again. Exits with 1 if it fails, or an entity does.
    """
    if full == bool(ids):
        raise typer.BadParameter("name entities, or say --full")
    if not full and (types or watch or here or allow_mass_delete or plan):
        raise typer.BadParameter("--type, --watch, --here, --plan and --allow-mass-delete go with --full")
    if full and force and not (plan or yes) and (json or not sys.stdin.isatty()):
        raise typer.BadParameter(
            "--force embeds every text again, and here nobody can be asked: say --yes, or look at --plan first"
        )
    from mcp_assets.sync.requests import full_sync_requests

    with connected() as platform:
        if not full:
            _named(platform, ids or [], force=force, json=json)
            return
        named = types_named(platform, types or ())
        if (plan or (force and not yes)) and not _goes_on(
            platform, named, plan_alone=plan, json=json, force=force, allow_mass_delete=allow_mass_delete
        ):
            return
        # A mass deletion is done in this process, because the person at the command decides on it, not a daemon.
        if here or allow_mass_delete or not full_sync_requests.is_served(platform):
            if not (here or allow_mass_delete or json):
                say_progress("no Dagster daemon runs: the full sync is done in this process")
            _full_here(platform, named, force=force, allow_mass_delete=allow_mass_delete, watch=watch, json=json)
        else:
            _full(platform, named, force=force, watch=watch, json=json)


def _goes_on(platform: "Platform", types: list[str], *, plan_alone: bool, json: bool, **how: bool) -> bool:
    """Show the plan, and ask whether to go on; with `plan_alone` nobody is asked, and it does not go on."""
    from mcp_assets.cli.plan import as_json, make, show

    every = range(platform.settings.shards)
    made = make(platform, dict.fromkeys(types, every), **how)
    if plan_alone and json:
        print_json(as_json(made))
    else:
        show(made)
    if plan_alone:
        return False
    typer.confirm("Embed all of that again?", abort=True, err=True)
    return True


def _named(platform: "Platform", ids: list[str], *, force: bool, json: bool) -> None:
    from mcp_assets.sync.inbox.announce import counts_of
    from mcp_assets.sync.requests.incremental import bring_up_to_date
    from mcp_assets.sync.resolve_ids import find_entities

    found = find_entities(platform, [_target(platform, text) for text in dict.fromkeys(ids)])
    synced = bring_up_to_date(platform, found.refs, force=force)
    failed = {str(ref): refusal.sentence for ref, refusal in synced.refusals.items()}
    if json:
        print_json({"counts": counts_of(synced.counts), "unknown": found.unknown, "failed": failed})
    else:
        say(_summary(counts_of(synced.counts)))
        for name in found.unknown:
            say_error(f"{name} is unknown: it has no source row, and no event announced it")
        for name, reason in failed.items():
            say_error(f"{name}: {reason}")
    if found.unknown or failed:
        raise typer.Exit(Exit.FAILED)


def _full(platform: "Platform", types: list[str], *, force: bool, watch: bool, json: bool) -> None:
    from mcp_assets.sync.requests import full_sync_requests

    with platform.postgres.transaction() as connection:
        sync_ = full_sync_requests.ask(platform, connection, types, force=force, requested_by="mcp-assets sync")
    if not watch:
        if json:
            print_json({"backfill_id": sync_.id, "finished": False})
        else:
            say(f"the backfill {sync_.id} is asked for: see it in the Dagster UI, or with --watch")
        return
    sync_ = _watch(platform, sync_, types, quiet=json)
    _show_full(full_sync_requests.result_of(platform, sync_), sync_.error, json=json)


def _full_here(
    platform: "Platform", types: list[str], *, force: bool, allow_mass_delete: bool, watch: bool, json: bool
) -> None:
    from mcp_assets.sync.pace import Every
    from mcp_assets.sync.requests.full_sync_here import run_here
    from mcp_assets.sync.requests.full_sync_requests import PartitionProgress, add_progress

    done: dict[tuple[str, int], PartitionProgress] = {}
    every = Every(_SAY_EVERY_S, time.monotonic())

    def on_progress(work: "IndexProgress | LinkProgress") -> None:
        if watch:
            bars.work(work)
        elif not json and every.is_due(time.monotonic()):
            say_progress(work.line)

    with _bars(platform, types, quiet=json or not watch) as bars:
        for news in run_here(
            platform, types, force=force, allow_mass_delete=allow_mass_delete, on_progress=on_progress
        ):
            part = done.setdefault((news.entity_type, news.shard), PartitionProgress(news.entity_type, news.shard))
            add_progress(part, news)
            bars.show([part])
    names = ("scanned", "embedded", "updated", "deleted", "failed")
    counts = {name: sum(getattr(part, name) for part in done.values()) for name in names}
    _show_full({"counts": counts}, None, json=json)


def _show_full(result: dict[str, object], error: str | None, *, json: bool) -> None:
    counts = result["counts"]
    assert isinstance(counts, dict)  # noqa: S101  (as result_of makes it)
    if json:
        print_json({**result, "finished": True, "error": error})
    elif error is None:
        say(_summary(counts))
    if error is not None:
        say_error(error)
    if error is not None or counts.get("failed"):
        if error is None and not json:
            say_error(f"{counts['failed']} entities are dead letters: see `mcp-assets dlq list`")
        raise typer.Exit(Exit.FAILED)


def _watch(platform: "Platform", sync_: "FullSync", types: list[str], *, quiet: bool) -> "FullSync":
    """Show how far the backfill is, until it has come to its end."""
    from mcp_assets.sync.requests import full_sync_requests

    with _bars(platform, types, quiet=quiet) as bars:
        while True:
            found = full_sync_requests.find(platform, sync_.id)
            if found is None:
                say_error(f"the full sync {sync_.id} is not known any more: ask for it again")
                raise typer.Exit(Exit.FAILED)
            bars.show(full_sync_requests.progress(platform, sync_.id))
            if found.finished:
                return found
            time.sleep(_LOOK_EVERY_S)


class _Bars:
    """A bar a partition, and a line below them about the work that is under way."""

    def __init__(self, progress: "Progress", tasks: "dict[tuple[str, int], TaskID]", below: "TaskID") -> None:
        self._progress = progress
        self._tasks = tasks
        self._below = below

    def work(self, work: "IndexProgress | LinkProgress") -> None:
        seen = work.seen
        self._progress.update(
            self._below, total=max(seen.total, 1), completed=seen.done, description=work.name,
            state=f"{seen.rate}, {seen.rest}", visible=True,
        )  # fmt: skip

    def show(self, parts: "Iterable[PartitionProgress]") -> None:
        for part in parts:
            task = self._tasks.get((part.entity_type, part.shard))
            if task is not None:
                # The bar of a partition without work is full.
                total = max(part.differing, 1)
                self._progress.update(
                    task, total=total, completed=total if part.indexed else part.done, state=_state(part)
                )


@contextmanager
def _bars(platform: "Platform", types: list[str], *, quiet: bool) -> Iterator[_Bars]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=quiet) as progress:
        tasks = {
            (entity_type, shard): progress.add_task(f"{entity_type}-{shard:02}", total=None, state="waiting")
            for entity_type in types
            for shard in range(platform.settings.shards)
        }
        yield _Bars(progress, tasks, progress.add_task("", total=None, state="", visible=False))


def _state(part: "PartitionProgress") -> str:
    if part.linked:
        return "complete"
    return "linking" if part.indexed else "indexing"


def _target(platform: "Platform", text: str) -> "SyncTarget":
    from mcp_assets.events import SyncTarget

    name, colon, entity_id = text.partition(":")
    entity_type = platform.type_names.canonical(name) if colon else None
    return SyncTarget(None, text) if entity_type is None else SyncTarget(entity_type, entity_id)


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
