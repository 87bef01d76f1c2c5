"""Load: entities from JSON lines into the source tables, as an MCP server would have written them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from itertools import islice
from typing import Any

from mcp_assets.entities.refs import MAX_ID_LENGTH, id_excess
from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.writer import SourceWriter

_ROWS_AT_ONCE = 1_000
"""Lines in one transaction: few commits for a large file, and little memory."""


class LoadError(Exception):
    """A line is no entity; the message says which line and why. Lines before it may have been loaded."""


@dataclass(frozen=True, slots=True)
class Line:
    """One entity to load."""

    entity_type: str
    entity_id: str
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    created_at: datetime | None
    updated_at: datetime | None


def parse_lines(lines: Iterable[str | bytes], name: str, types: Iterable[str]) -> Iterator[Line]:
    """The entities of JSON lines `{entity_type, entity_id, title, content, metadata, created_at, updated_at}`.

    Raises:
        LoadError: naming the line of `name`.
    """
    known = set(types)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _line(lambda line=line: json.loads(line), f"{name}, line {number}", known)  # type: ignore[misc]


def parse_records(records: Iterable[Mapping[str, Any]], name: str, types: Iterable[str]) -> Iterator[Line]:
    """The same from records that are JSON objects already."""
    known = set(types)
    for number, record in enumerate(records, start=1):
        yield _line(lambda record=record: record, f"{name}, entity {number}", known)  # type: ignore[misc]


def load(platform: Platform, lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Upsert `lines` into the source tables; yields each batch after it was committed.

    Raises:
        LoadError: an entity's type has no source table.
        StoreRefused: a source table is absent.
    """
    rest = iter(lines)
    while batch := list(islice(rest, _ROWS_AT_ONCE)):
        by_type: dict[str, list[Line]] = {}
        for line in batch:
            by_type.setdefault(line.entity_type, []).append(line)
        with ExitStack() as transactions:
            # One connection for each database, so that all types of the batch in one database are committed together.
            connections: dict[str | None, Connection] = {}
            for entity_type, rows in by_type.items():
                mapping = platform.settings.entity_types[entity_type].source
                if mapping is None:
                    raise LoadError(f"the entity type {entity_type} has no source table: publish its events instead")
                database = platform.settings.source_url(mapping)
                if database not in connections:
                    connections[database] = transactions.enter_context(platform.source_transaction(mapping))
                # The last of several lines about one entity wins, as it would line by line.
                newest = {row.entity_id: row for row in rows}
                SourceWriter(mapping).upsert(connections[database], list(newest.values()))
        yield batch


def create_source_tables(platform: Platform) -> None:
    """Make the source tables of the preset `mcp`, those that are absent."""
    statements = resources.files("mcp_assets.stores").joinpath("source_tables.sql").read_text()
    preset = SOURCE_PRESETS["mcp"]["task"].source
    assert preset is not None  # noqa: S101  (each of its types has one)
    with platform.source_transaction(preset) as connection:
        connection.execute(statements.encode())


def _line(read: Callable[[], Any], place: str, known: set[str]) -> Line:
    try:
        return _line_of(read(), known)
    except KeyError as error:
        raise LoadError(f"{place}: {error.args[0]} is missing") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise LoadError(f"{place}: {error}") from error


def _line_of(record: Any, known: set[str]) -> Line:
    if not isinstance(record, dict):
        raise TypeError("it is not a JSON object")
    entity_type, entity_id = record["entity_type"], record["entity_id"]
    if entity_type not in known:
        raise ValueError(f"the entity type {entity_type!r} is not registered (registered: {', '.join(sorted(known))})")
    if not isinstance(entity_id, str) or not entity_id:
        raise ValueError(f"entity_id must be a text of 1 to {MAX_ID_LENGTH} characters")
    excess = id_excess(entity_id)
    if excess is not None:
        raise ValueError(f"entity_id {excess}")
    title, content, metadata = record.get("title"), record.get("content"), record.get("metadata")
    if not isinstance(title, str | None) or not isinstance(content, str | None):
        raise TypeError("title and content must be texts or null")
    if not isinstance(metadata, dict | None):
        raise TypeError("metadata must be an object or null")
    return Line(
        entity_type,
        entity_id,
        title,
        content or "",
        metadata or {},
        _time(record.get("created_at")),
        _time(record.get("updated_at")),
    )


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("created_at and updated_at must be RFC 3339 times or null")
    return datetime.fromisoformat(value)
