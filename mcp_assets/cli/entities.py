"""Commands about entities: load them into the source tables, publish their events, search them."""

import gzip
import json as json_module
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mcp_assets.cli.console import Exit, err, out, print_json
from mcp_assets.cli.load_entities import Line, LoadError, create_source_tables, parse_lines
from mcp_assets.cli.load_entities import load as load_lines
from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings
from mcp_assets.sync.views.search import search as search_entities

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def load(
    files: Annotated[list[Path], typer.Argument(help="JSON lines, plain or .gz; `-` for standard input.")],
    publish_events: Annotated[
        bool, typer.Option("--publish", help="Also publish an event for each entity, so that it is indexed.")
    ] = False,
    create_tables: Annotated[
        bool, typer.Option("--create-tables", help="Make the source tables of the preset `mcp` if absent.")
    ] = False,
    json: Json = False,
) -> None:
    """Load entities from JSON lines into the source tables (an entity that is there is replaced)."""
    platform = Platform(load_settings())
    try:
        if create_tables:
            create_source_tables(platform)
        loaded = 0
        with progress_bar(quiet=json) as progress:
            for file in files:
                task = progress.add_task(f"load {file.name}", total=None if str(file) == "-" else _count_lines(file))
                with _opened(file) as lines:
                    for batch in load_lines(platform, parse_lines(lines, str(file), platform.settings.entity_types)):
                        if publish_events:
                            platform.nats.publish(map(event_of, batch))
                        progress.advance(task, len(batch))
                        loaded += len(batch)
    finally:
        platform.close()
    if json:
        print_json({"loaded": loaded})
    else:
        out.print(f"{loaded} entities are in the source tables")


def publish(
    subject: Annotated[str | None, typer.Argument(help="Subject, such as mcp.task.created.")] = None,
    body: Annotated[str | None, typer.Argument(help="Body, JSON; sent as it is.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="JSON lines {subject, data}; `-` for standard input.")
    ] = None,
    json: Json = False,
) -> None:
    """Publish one event, or a file of them."""
    if (file is None) == (subject is None or body is None):
        raise typer.BadParameter("give a subject and a body, or --file")
    platform = Platform(load_settings())
    try:
        if file is None:
            assert subject is not None and body is not None  # noqa: S101  (checked above)
            count = platform.nats.publish([(subject, body.encode())])
        else:
            with _opened(file) as lines:
                count = platform.nats.publish(_events(lines, str(file)))
    finally:
        platform.close()
    if json:
        print_json({"published": count})
    else:
        out.print(f"{count} published")


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    types: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only this entity type; repeatable.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Search all collections by meaning. Exits with 1 if nothing is found."""
    settings = load_settings()
    unknown = [name for name in types or [] if name not in settings.entity_types]
    if unknown:
        raise typer.BadParameter(f"no entity type {unknown[0]!r}: one of {', '.join(settings.entity_types)}")
    platform = Platform(settings, reads_only=True)
    try:
        found = search_entities(platform, query, types=types or (), limit=limit)
    finally:
        platform.close()
    if json:
        print_json(
            [
                {
                    "entity_type": hit.ref.type,
                    "entity_id": hit.ref.id,
                    "score": round(hit.score, 4),
                    "title": hit.title,
                    "excerpt": hit.excerpt,
                    "chunk": hit.chunk,
                }
                for hit in found
            ]
        )
    else:
        table = Table("score", "entity", "title", "excerpt", show_edge=False)
        for hit in found:
            table.add_row(f"{hit.score:.3f}", str(hit.ref), hit.title or "", hit.excerpt[:120])
        out.print(table if found else "nothing found: is anything indexed? See `mcp-assets status`")
    if not found:
        raise typer.Exit(Exit.FAILED)


def event_of(line: Line) -> tuple[str, bytes]:
    """The thin event that says that `line` was written: its subject and body."""
    body = {"entity_type": line.entity_type, "entity_id": line.entity_id}
    return f"mcp.{line.entity_type}.updated", json_module.dumps(body).encode()


def progress_bar(*, quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )


@contextmanager
def _opened(file: Path) -> Iterator[Iterable[bytes]]:
    """The lines of `file`. An error of reading is a LoadError that names the file."""
    try:
        if str(file) == "-":
            yield sys.stdin.buffer
        else:
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
                yield lines
    except (OSError, EOFError, zlib.error) as error:
        raise LoadError(f"{file} cannot be read: {error}") from error


def _count_lines(file: Path) -> int:
    with _opened(file) as lines:
        return sum(1 for line in lines if line.strip())


def _events(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json_module.loads(line)
            yield str(record["subject"]), json_module.dumps(record["data"], ensure_ascii=False).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise LoadError(f"{name}, line {number}: not a JSON object with subject and data ({error})") from error
