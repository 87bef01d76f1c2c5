"""Table schemas: the columns that the page of each asset shows. Tests compare those of our tables with the database."""

from collections.abc import Iterable

import dagster as dg

from mcp_assets.entities.points import Key
from mcp_assets.entities.registry import SourceTable


def _schema(columns: Iterable[tuple[str, str, str]]) -> dg.TableSchema:
    """`columns`: name, type and description of each."""
    return dg.TableSchema([dg.TableColumn(name, kind, description=words) for name, kind, words in columns])


LEDGER = _schema(
    [
        ("entity_type", "text", "The entity type."),
        ("entity_id", "text", "The id, which is any text."),
        ("slot", "integer", "The first 16 bits of md5(id), from which the shard follows."),
        ("origin", "text", "source: the state comes from a source row. event: from events, because there is no row."),
        ("title", "text", "The title; NULL: there is none."),
        ("content", "text", "The text, without the title."),
        ("metadata", "jsonb", "The metadata, a JSON object."),
        ("source_hash", "text", "md5 of the mapped columns of the source row; NULL: there is no row."),
        ("prepared_by", "text", "The version of mapping and text builder that made the hashes."),
        ("text_hash", "text", "A hash of the prepared text. It decides whether the entity is embedded."),
        ("state_hash", "text", "A hash of text, title and metadata. It decides whether payload and edges are updated."),
        ("event_order", "text", "The place of the newest event that was applied, in the order of all streams."),
        ("deleted_at", "timestamp with time zone", "When the entity was deleted; NULL: it is living."),
        ("dirty", "boolean", "A collection does not hold this state yet."),
        ("chunk_bound", "integer", "Qdrant holds no chunk of the entity numbered this or higher."),
        ("changed_at", "timestamp with time zone", "When the state last changed."),
        ("changes", "jsonb", "Changes by events that are newer than event_order. Only without a source row."),
        ("fed_state", "text", "The state_hash of which the change feed told last; empty: it told of the removal."),
        (
            "words_pending",
            "boolean",
            "The search words are of an older text, or missing, until the linker writes them.",
        ),
    ]
)
"""Of the table `entities`, the ledger."""

POINTS = _schema(
    [
        ("vector", "float[]", "The unit vector of the prepared text, or of the chunk."),
        (Key.ENTITY_TYPE, "keyword", "The entity type."),
        (Key.ENTITY_ID, "keyword", "The id of the entity. Searches group by it."),
        (Key.KIND, "keyword", "entity: the point of a whole text. chunk: of a part of a long text."),
        (Key.SLOT, "integer", "The slot of the id, by which a census reads one partition."),
        (Key.MODEL, "text", "The embedding model."),
        (Key.TEXT_HASH, "text", "The text hash of the state that the vector was made of."),
        (Key.STATE_HASH, "text", "The state hash of the state that the payload was made of."),
        (Key.VECTOR_CHECK, "float", "The dot product of the vector with a fixed one, by which a census recognises it."),
        (Key.INDEXED_AT, "datetime", "When the point was written."),
        (Key.CHUNK, "integer", "The number of the chunk; absent in a point of a whole text."),
        (Key.START, "integer", "The first character of the chunk."),
        (Key.END, "integer", "The character behind the chunk."),
        ("…", "any", "Each metadata key of the entity, as the source has it."),
    ]
)
"""Of a point in Qdrant: the vector and the payload."""

EDGES = _schema(
    [
        ("id", "uuid", "The id of the row."),
        ("source_type", "text", "The entity type of the source."),
        ("source_id", "text", "The id of the source."),
        ("target_type", "text", "The entity type of the target."),
        ("target_id", "text", "The id of the target."),
        ("relationship_type", "text", "The edge type: which rule made the edge."),
        ("strength", "real", "0 to 1: the similarity, or how certain the reference is."),
        ("metadata", "jsonb", "The evidence: the rule, the words of the text, shared tags."),
        ("origin", "text", "mcp_assets: this platform wrote the row. Anything else: another program did."),
        ("created_at", "timestamp with time zone", "When the row was written."),
        ("updated_at", "timestamp with time zone", "When the row was last changed."),
    ]
)
"""Of the table `relationships`, as this platform makes it; an adopted table may have more columns and other types."""


def mapped_columns(source: SourceTable) -> dg.TableSchema:
    """The columns that the mapping reads: in place of its type, which the database knows, what each is read as.

    Observations have all columns of the table, with their types.
    """
    composite = len(source.id_columns) > 1
    uses: dict[str, list[tuple[str, str]]] = {}
    for column, kind, use in (
        *((column, "id", "a part of the id" if composite else "the id of the entity") for column in source.id_columns),
        (source.title, "title", "the title"),
        *((column, "text", "text of the entity") for column in source.content),
        *(
            (column, "metadata", f"metadata key {key}")
            for key, columns in source.metadata.items()
            for column in ((columns,) if isinstance(columns, str) else columns)
        ),
        (source.metadata_json, "metadata", "a JSON object whose keys become metadata"),
        (source.created_at, "time", "when the row was written"),
        (source.updated_at, "time", "when the row was last changed"),
    ):
        if column is not None:
            uses.setdefault(column, []).append((kind, use))
    return _schema((column, found[0][0], ", ".join(use for _, use in found)) for column, found in uses.items())
