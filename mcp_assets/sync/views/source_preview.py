"""Source preview: what the platform makes of some source rows, and which mapping their tables suggest.

Nothing is embedded or written, not even the platform's own schema: this is for the time before the first sync.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from mcp_assets.entities.mapping_proposal import Proposal, propose
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.registry import SourceTable
from mcp_assets.entities.text import prepare
from mcp_assets.graph import ReferenceKey, Use, keys_of, tags_of
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.catalog import read_catalog
from mcp_assets.stores.source_tables.database import SourceDatabase
from mcp_assets.stores.source_tables.reader import SourceReader


@dataclass(frozen=True, slots=True)
class Preview:
    """One source row as the platform takes it."""

    ref: EntityRef
    alive: bool
    title: str | None
    texts: Sequence[str]
    """What would be embedded, as the model gets it: the entity's own text, then its chunks; empty: it has no text."""
    metadata: Mapping[str, Any]
    uses: Sequence[Use]
    """The references that it makes, each an edge if the other entity exists."""
    keys: Sequence[ReferenceKey]
    """By which references of others find it."""
    tags: Sequence[str]
    """By which it is related to others that hold them."""
    problem: str | None
    """Why the row cannot be an entity; None if it can."""


class NoSource(Exception):
    """The entity type has no source table."""


def preview_rows(settings: Settings, entity_type: str, ids: Sequence[str] = (), *, limit: int = 5) -> list[Preview]:
    """The rows with `ids`, or else some living rows, at most `limit`.

    Raises:
        NoSource: the type lives by its events.
        StoreRefused: the table or a mapped column is not there, or may not be read.
        StoreUnavailable: the database does not answer.
    """
    source = settings.entity_types[entity_type].source
    if source is None:
        raise NoSource(
            f"the entity type {entity_type} has no source table: it lives by its events, and there are no rows to show"
        )
    with _reading(settings, source) as connection:
        reader = SourceReader(source, settings.schema_name)
        wanted = list(ids) or reader.some_ids(connection, limit)
        found = reader.read(connection, wanted)
    platform = Platform(settings, reads_only=True)
    prefix = settings.profile.text_prefix
    previews = []
    for entity_id, row in found.items():
        ref = EntityRef(entity_type, entity_id)
        prepared = prepare(row.title, row.content, settings.chunks)
        texts = (prepared.text, *(chunk.text for chunk in prepared.chunks)) if prepared.text else ()
        previews.append(
            Preview(
                ref,
                row.alive,
                row.title,
                [prefix + text for text in texts],
                row.metadata,
                platform.reference_rules.uses(ref, row.title, row.content, row.metadata),
                sorted(keys_of(ref, row.title, row.metadata)),
                sorted(tags_of(row.metadata)),
                row.unstorable,
            )
        )
    return previews


def propose_mapping(settings: Settings) -> Proposal:
    """A mapping file for the tables of the database that the settings name.

    Raises:
        StoreUnavailable: it does not answer.
    """
    url = settings.source_database_url
    address = url.get_secret_value() if url is not None else settings.require_database_url()
    with closing(SourceDatabase(address)) as database, database.transaction() as connection:
        tables = read_catalog(connection, without=[settings.schema_name])
    own = {settings.relationships_table, settings.relationships_table.removeprefix("public.")}
    return propose(table for table in tables if table.name not in own)


@contextmanager
def _reading(settings: Settings, source: SourceTable) -> Iterator[Connection]:
    """A connection to the database of `source`, which no schema of the platform is made in."""
    address = settings.source_url(source) or settings.require_database_url()
    with closing(SourceDatabase(address)) as database, database.transaction() as connection:
        yield connection
