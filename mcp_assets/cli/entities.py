"""Commands about entities: load them into the source tables, publish their events, search them."""

import gzip
import json as json_module
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Json, err, print_json, say, say_error

if TYPE_CHECKING:
    from rich.progress import Progress

    from mcp_assets.cli.load_entities import Line
    from mcp_assets.platform import Platform

LONGEST_LINE_BYTES = 64 * 2**20
"""Longest line of a file of entities. PostgreSQL takes a text of 1 GiB, and a page of the sample has kilobytes."""

_REASONS_SHOWN = 5
"""Events that will be dead letters and are named: a file of them would fill the screen."""


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
    from mcp_assets.cli.load_entities import create_source_tables, parse_lines
    from mcp_assets.cli.load_entities import load as load_lines

    loaded = published = 0
    with connected() as platform:
        if create_tables:
            create_source_tables(platform)
        with progress_bar(quiet=json) as progress:
            for file in files:
                task = progress.add_task(f"load {file.name}", total=None if str(file) == "-" else _count_lines(file))
                with _opened(file) as lines:
                    for batch in load_lines(platform, parse_lines(lines, str(file), platform.settings.entity_types)):
                        if publish_events:
                            published += platform.nats.publish(map(event_of, batch))
                        progress.advance(task, len(batch))
                        loaded += len(batch)
    if json:
        print_json({"loaded": loaded, "published": published})
    else:
        events = f", and {published} events are published" if publish_events else ""
        say(f"{loaded} entities are in the source tables{events}")


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
    warned = _Warned()
    with connected() as platform:
        if file is None:
            assert subject is not None and body is not None  # noqa: S101  (checked above)
            count = platform.nats.publish(warned.of(platform, [(subject, body.encode())]))
        else:
            with _opened(file) as lines:
                count = platform.nats.publish(warned.of(platform, _events(lines, str(file))))
    if json:
        print_json({"published": count, "dead_letters": warned.count, "reasons": warned.reasons})
        return
    say(f"{count} published")
    for reason in warned.reasons:
        say_error(f"this will be a dead letter: {reason}")
    if warned.count > len(warned.reasons):
        say_error(f"{warned.count} of them will be dead letters")


class _Warned:
    """Events on their way to be published, and what intake will say of those that it cannot use."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[str] = []
        """Of the first events that will be dead letters."""

    def of(self, platform: "Platform", events: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        from mcp_assets.events import Rejected, parse

        for subject, body in events:
            parsed = parse(subject, body, platform.type_names)
            if isinstance(parsed, Rejected):
                self.count += 1
                if self.count <= _REASONS_SHOWN:
                    self.reasons.append(f"{subject}: {parsed.error}")
            yield subject, body


def event_of(line: "Line") -> tuple[str, bytes]:
    """The thin event that says that `line` was written: its subject and body."""
    body = {"entity_type": line.entity_type, "entity_id": line.entity_id}
    return f"mcp.{line.entity_type}.updated", json_module.dumps(body).encode()


def progress_bar(*, quiet: bool) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )


@contextmanager
def _opened(file: Path) -> Iterator[Iterable[bytes]]:
    """The lines of `file`. An error of reading is a LoadError that names the file."""
    from mcp_assets.cli.load_entities import LoadError

    try:
        if str(file) == "-":
            yield _bounded(sys.stdin.buffer, "standard input")
        else:
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
                yield _bounded(cast(IO[bytes], lines), str(file))
    except (OSError, EOFError, zlib.error) as error:
        raise LoadError(f"{file} cannot be read: {error}") from error


def _bounded(lines: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines, read one by one. Raises LoadError at one that is longer than any entity, before it fills memory.

    A few kilobytes of a compressed file can be gigabytes without a line break.
    """
    from mcp_assets.cli.load_entities import LoadError

    number = 0
    while line := lines.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > LONGEST_LINE_BYTES:
            raise LoadError(
                f"{name}, line {number}: longer than {LONGEST_LINE_BYTES // 2**20} MiB, which no entity is: give a "
                "file with one JSON object a line"
            )
        yield line


def _count_lines(file: Path) -> int:
    with _opened(file) as lines:
        return sum(1 for line in lines if line.strip())


def _events(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    from mcp_assets.cli.load_entities import LoadError

    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json_module.loads(line)
            yield str(record["subject"]), json_module.dumps(record["data"], ensure_ascii=False).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise LoadError(f"{name}, line {number}: not a JSON object with subject and data ({error})") from error
