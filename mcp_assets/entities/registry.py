"""Registry: the entity types, each with its source table, its collection, and its names in messages."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SHARED_COLLECTION = "cross_references"
"""The collection for types that are registered without a collection of their own."""


def _columns(value: Any) -> Any:
    """The value of a field that names one column, or several in order; a list of one is that column."""
    columns = (value,) if isinstance(value, str) else value
    if not isinstance(columns, list | tuple) or not columns:
        raise ValueError("give a column, or a list of columns")
    if any(not isinstance(column, str) or not column for column in columns):
        raise ValueError("each column is a text (in YAML, put quotes around a name such as no, on or 1)")
    if len(set(columns)) < len(columns):
        raise ValueError("it names a column twice")
    return columns[0] if len(columns) == 1 else tuple(columns)


def _listed(value: Any) -> Any:
    """The value of a field that is a list; a text alone is a list of one."""
    return (value,) if isinstance(value, str) else value


def _predicate(value: Any) -> Any:
    """The value of a field that is an SQL predicate: YAML and JSON have their own true and false."""
    return str(value).lower() if isinstance(value, bool) else value


Column = Annotated[str, Field(min_length=1)]
Listed = Annotated[tuple[Column, ...], BeforeValidator(_listed)]
Columns = Annotated[str | tuple[str, ...], BeforeValidator(_columns)]
"""One column, or the columns of a composite key in order; see `composite_ids`."""


class SourceTable(BaseModel):
    """How the rows of one source table become entities. Fields are names of the site's tables and columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Column = Field(description="Table or view, with its schema if that is not on the search path.")
    database_url: str | None = Field(
        default=None,
        description="Where the table is, if in a database of its own: `env:NAME` of the variable with the address.",
    )
    id: Columns = Field(default="id", description="Column of the id; a list: the columns of a composite key, in order.")
    title: Column | None = "title"
    content: Listed = Field(default=("content",), description="Text columns, joined by an empty line.")
    metadata: Mapping[str, Columns] = Field(
        default_factory=dict,
        description="Metadata key -> column; a list of columns: the id of another entity, as those of `id` make it.",
    )
    metadata_json: Column | None = Field(
        default=None, description="jsonb column whose keys are merged into the metadata."
    )
    alive: Annotated[Column, BeforeValidator(_predicate)] = Field(
        default="true", description="SQL predicate on the row: which rows are alive."
    )
    created_at: Column | None = "created_at"
    updated_at: Column | None = "updated_at"

    @property
    def id_columns(self) -> tuple[str, ...]:
        return (self.id,) if isinstance(self.id, str) else self.id

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that make title, text and metadata, each once, in the order in which they are hashed."""
        mapped = [*([self.title] if self.title else []), *self.content]
        for columns in self.metadata.values():
            mapped += (columns,) if isinstance(columns, str) else columns
        return tuple(dict.fromkeys([*mapped, *([self.metadata_json] if self.metadata_json else [])]))

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the mapping from a row to an entity; which rows are alive is not part of it."""
        mapping = [self.title, self.content, sorted(self.metadata.items()), self.metadata_json]
        return hashlib.sha256(json.dumps(mapping, ensure_ascii=False).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class EntityType:
    """One kind of entity."""

    name: str
    source: SourceTable | None
    collection: str | None = None
    aliases: tuple[str, ...] = ()
    id_keys: tuple[str, ...] = ()
    """Keys of an event's body that hold this type's id, beside `<type>_id`."""

    @property
    def collection_name(self) -> str:
        """Name of the collection (an alias in Qdrant) that holds this type's points."""
        return self.collection or SHARED_COLLECTION


class EntityTypes(Mapping[str, EntityType]):
    """Entity types by name, in the order in which their partitions stand."""

    def __init__(self, types: Iterable[EntityType]) -> None:
        self._types = {entity_type.name: entity_type for entity_type in types}

    def __getitem__(self, name: str) -> EntityType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def collections(self) -> list[str]:
        """The distinct collection names, in order."""
        return list(dict.fromkeys(entity_type.collection_name for entity_type in self.values()))


_TASK_ALIASES = ("tasks", "card", "cards", "kanban", "kanban_task")
_PAGE_ALIASES = ("pages", "wiki", "wiki_page", "wiki_pages")
_MEMORY_ALIASES = ("memories", "node", "memory_node", "memory_nodes")


def _types(task: SourceTable, page: SourceTable, memory: SourceTable) -> EntityTypes:
    return EntityTypes(
        (
            EntityType("task", task, "kanban_tasks", _TASK_ALIASES),
            EntityType("page", page, "wiki_pages", _PAGE_ALIASES),
            EntityType("memory", memory, "memory_nodes", _MEMORY_ALIASES, id_keys=("node_id", "memory_node_id")),
        )
    )


def _same_name(*columns: str) -> dict[str, str]:
    return {column: column for column in columns}


SOURCE_PRESETS: Mapping[str, EntityTypes] = {
    "mcp": _types(
        task=SourceTable(
            table="tasks",
            content=("description",),
            metadata=_same_name(
                "board_id",
                "status",
                "priority",
                "assignee_id",
                "tags",
                "parent_id",
                "depends_on",
                "blocked_by",
                "due_date",
            ),
            metadata_json="metadata",
            alive="archived_at IS NULL",
        ),
        page=SourceTable(
            table="wiki_pages",
            metadata=_same_name("slug", "category", "author_id", "tags", "parent_page_id", "replaces", "superseded_by"),
            metadata_json="metadata",
            alive="archived_at IS NULL",
        ),
        memory=SourceTable(
            table="memory_nodes",
            metadata=_same_name("context", "concepts", "tags", "author_id"),
            metadata_json="metadata",
            alive="archived_at IS NULL",
        ),
    ),
    "cards": _types(
        task=SourceTable(table="cards", content=("description", "content"), metadata_json="context", created_at=None),
        page=SourceTable(table="pages", content=("description", "content"), metadata_json="context", created_at=None),
        memory=SourceTable(
            table="memories", content=("description", "content"), metadata_json="context", created_at=None
        ),
    ),
}
