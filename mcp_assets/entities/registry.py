"""Registry: the entity types, each with its source table, its collection, and its names in messages."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

SHARED_COLLECTION = "cross_references"
"""The collection for types that are registered without a collection of their own."""


class SourceTable(BaseModel):
    """How the rows of one source table become entities. Fields are names of the site's tables and columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str = Field(description="Table or view, with its schema if that is not on the search path.")
    database_url: str | None = Field(
        default=None,
        description="Where the table is, if in a database of its own: `env:NAME` of the variable with the address.",
    )
    id: str = "id"
    title: str | None = "title"
    content: tuple[str, ...] = Field(default=("content",), description="Text columns, joined by an empty line.")
    metadata: Mapping[str, str] = Field(default_factory=dict, description="Metadata key -> column.")
    metadata_json: str | None = Field(default=None, description="jsonb column whose keys are merged into the metadata.")
    alive: str = Field(default="true", description="SQL predicate on the row: which rows are alive.")
    created_at: str | None = "created_at"
    updated_at: str | None = "updated_at"

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
