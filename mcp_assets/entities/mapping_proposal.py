"""Mapping proposal: from the shapes of a database's tables, a mapping file with a reason beside each guess. Pure."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mcp_assets.entities.registry import SOURCE_PRESETS, SourceTable


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table or view, as the catalog of its database describes it."""

    name: str
    """As a mapping names it: with its schema if that is not on the search path."""
    kind: str
    """`table`, `view` or `materialized view`."""
    columns: Mapping[str, str]
    """Name -> type, as PostgreSQL writes it, in the order of the table."""
    key: tuple[str, ...] = ()
    """The primary key, or else the columns of a unique index without NULLs; empty: there is none."""
    references: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Columns of a foreign key -> the table that it leads to."""
    rows: int | None = None
    """About how many, as the planner takes it; None: it was never counted."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The text of a mapping file, and what stands in it."""

    text: str
    types: tuple[str, ...]
    guessed: tuple[str, ...]
    """Those of `types` that no preset has."""
    left_out: Mapping[str, str]
    """By table, why it seems to hold no entities."""


_TITLES = ("title", "name", "subject", "summary", "headline", "heading", "question", "label", "caption")
_SURE_TITLES = ("title", "subject", "summary", "headline", "heading", "question")
"""A table with such a column holds texts; one that has a name alone may be a list of users."""
_CONTENTS = (
    "content", "contents", "body", "description", "text", "details", "detail", "notes", "note", "message", "markdown",
    "comment", "comments", "summary", "abstract", "acceptance", "acceptance_criteria", "answer", "excerpt",
)  # fmt: skip
_CONTENT_ENDS = ("_text", "_body", "_markdown", "_md", "_description", "_content", "_notes")
_UPDATED = (
    "updated_at", "modified_at", "changed_at", "last_modified_at", "last_updated_at", "updated_on", "modified_on",
    "updated", "modified", "last_modified", "last_updated", "date_modified", "mtime",
)  # fmt: skip
_CREATED = ("created_at", "inserted_at", "created_on", "created", "date_created", "ctime")
_METADATA: Mapping[str, Sequence[str]] = {
    "tags": ("tags", "labels", "keywords", "topics", "tag_list"),
    "concepts": ("concepts",),
    "category": ("category",),
    "slug": ("slug", "path"),
    "parent_id": ("parent_id", "parent"),
    "epic_id": ("epic_id",),
    "depends_on": ("depends_on", "dependencies"),
    "blocked_by": ("blocked_by",),
    "blocks": ("blocks",),
    "replaces": ("replaces",),
    "superseded_by": ("superseded_by",),
    "status": ("status", "state"),
    "priority": ("priority",),
    "assignee_id": ("assignee_id", "assignee", "owner_id", "owner"),
    "author_id": ("author_id", "author", "created_by"),
    "due_date": ("due_date", "due_on", "due_at"),
}
"""Metadata key that relationships or filters know -> names of columns that hold it, the best first."""
_METADATA_JSON = ("metadata", "meta", "extra", "attributes", "properties", "context", "custom_fields", "data")
_GONE_AT = ("archived_at", "deleted_at", "removed_at", "discarded_at")
_GONE = ("is_deleted", "deleted", "is_archived", "archived", "is_draft", "draft")

_TEXT_TYPES = ("text", "character varying", "character", "citext")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

_REASON_AT = 40
"""The column at which reasons begin, so that they can be read down."""

_HEAD = """\
# Which tables hold the entities, proposed by `mcp-assets sources init`. Each guess has its reason beside it.
# Correct it, then look at `mcp-assets sources preview TYPE`, `mcp-assets doctor` and `mcp-assets plan`.
# What each field means: docs/how-to/own-tables.md
"""


def propose(tables: Iterable[TableShape]) -> Proposal:
    """A mapping file for these tables: those of a preset as it has them, others as their columns seem to say."""
    shapes = {table.name: table for table in tables}
    preset, covered = _best_preset(shapes)
    types: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    of_preset = {source.table for source in covered.values()}
    for table in shapes.values():
        if table.name in of_preset:
            continue
        reason = _why_not(table)
        if reason is not None:
            left_out[table.name] = reason
            continue
        name = _free_name(table.name, {*covered, *types})
        types[name] = _type_lines(name, table, stands_in_preset=preset is not None and name in SOURCE_PRESETS[preset])
    return Proposal(_text(preset, covered, types, left_out), (*covered, *types), tuple(types), left_out)


def _best_preset(shapes: Mapping[str, TableShape]) -> tuple[str | None, dict[str, SourceTable]]:
    """The preset of which the most types are there, and these types with their tables."""
    best: tuple[str | None, dict[str, SourceTable]] = (None, {})
    for preset, types in SOURCE_PRESETS.items():
        covered = {
            name: entity_type.source
            for name, entity_type in types.items()
            if entity_type.source is not None and _fits(entity_type.source, shapes.get(entity_type.source.table))
        }
        if len(covered) > len(best[1]):
            best = (preset, covered)
    return best


def _fits(source: SourceTable, table: TableShape | None) -> bool:
    needed = {*source.id_columns, *source.columns, *re.findall(r"\w+_at\b", source.alive)}
    return table is not None and needed <= table.columns.keys()


def _why_not(table: TableShape) -> str | None:
    """Why a table seems to hold no entities; None if it does."""
    title, content = _title(table), _contents(table)
    if not content and title not in _SURE_TITLES:
        return "it has a name and no text" if title else "it has no column that seems to be a text"
    key, referring = set(table.key), [set(names) for names in table.references]
    if key and key <= set().union(*referring) and not any(key <= names for names in referring):
        return "it joins other tables"
    return None


def _type_lines(name: str, table: TableShape, *, stands_in_preset: bool) -> list[str]:
    about = f", about {table.rows:,} rows" if table.rows is not None else ""
    lines = [f"  # {table.name}: a {table.kind}{about}", f"  {name}:"]
    if stands_in_preset:
        lines.append(_line("    preset: none", "the preset has another table for this type"))
    collection = table.name.rpartition(".")[2].lower()
    lines.append(_line(f"    collection: {_scalar(collection)}", "in Qdrant; without one: cross_references"))
    lines += ["    source:", f"      table: {_scalar(table.name)}"]
    for field_line, reason in _fields(name, table):
        lines.append(_line(f"      {field_line}", reason))
    return lines


def _fields(name: str, table: TableShape) -> Iterator[tuple[str, str]]:
    """The fields of `source` below its table, each with the reason of the guess."""
    key, why = _key(name, table)
    yield f"id: {_columns(key)}", why
    title, contents = _title(table), _contents(table)
    yield f"title: {_scalar(title) if title else 'null'}", "" if title else "no column seems to be one"
    yield f"content: {_list(contents)}", "joined by an empty line" if len(contents) > 1 else ""
    metadata, used = _metadata(table)
    if metadata:
        yield "metadata:", ""
        for entry, columns, reason in metadata:
            yield f"  {entry}: {_columns(columns)}", reason
    free = _first(table, _METADATA_JSON, ("jsonb", "json"))
    if free:
        yield f"metadata_json: {_scalar(free)}", "its keys become metadata"
    alive, alive_columns = _alive(table)
    if alive:
        yield f"alive: {alive}", "other rows count as deleted"
    created, updated = _first(table, _CREATED, ("timestamp", "date")), _first(table, _UPDATED, ("timestamp", "date"))
    yield f"created_at: {_scalar(created) if created else 'null'}", "" if created else "no column seems to be one"
    yield f"updated_at: {_scalar(updated) if updated else 'null'}", "" if updated else "no column seems to be one"
    taken = {*key, title, *contents, *used, free, *alive_columns, created, updated}
    rest = [column for column in table.columns if column not in taken]
    if rest:
        yield f"# not mapped: {', '.join(rest)}", ""


def _key(name: str, table: TableShape) -> tuple[tuple[str, ...], str]:
    if table.key:
        return table.key, "a unique key" if len(table.key) == 1 else "a key of several columns, in this order"
    guess = next(
        (column for column in ("id", f"{name}_id", "uuid", "key", *table.columns) if column in table.columns), "id"
    )
    return (guess,), "a guess: no key keeps it unique; `mcp-assets doctor` counts"


def _metadata(table: TableShape) -> tuple[list[tuple[str, tuple[str, ...], str]], set[str]]:
    """Entries of `metadata` (key, columns, reason), and the columns that they use."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    used: set[str] = set()
    own = next((columns for columns, leads_to in table.references.items() if leads_to == table.name), None)
    for entry, names in _METADATA.items():
        column = next((name for name in names if name in table.columns and name not in table.key), None)
        if entry == "parent_id" and own is not None:
            found.append((entry, own, "it refers to this table"))
            used.update(own)
        elif column is not None:
            found.append((entry, (column,), "by its name" if column != entry else ""))
            used.add(column)
    return found, used


def _alive(table: TableShape) -> tuple[str, list[str]]:
    at = [name for name in _GONE_AT if table.columns.get(name, "").startswith(("timestamp", "date"))]
    flags = [name for name in _GONE if table.columns.get(name) == "boolean"]
    return " AND ".join([*(f"{name} IS NULL" for name in at), *(f"{name} IS NOT TRUE" for name in flags)]), at + flags


def _title(table: TableShape) -> str | None:
    return _first(table, _TITLES, _TEXT_TYPES)


def _contents(table: TableShape) -> list[str]:
    title = _title(table)
    texts = [name for name, kind in table.columns.items() if kind.startswith(_TEXT_TYPES) and not kind.endswith("[]")]
    named = [name for name in texts if name != title and (name in _CONTENTS or name.endswith(_CONTENT_ENDS))]
    return [name for name in named if name not in table.key]


def _first(table: TableShape, names: Iterable[str], types: tuple[str, ...]) -> str | None:
    """The first of `names` that is a column of one of `types`."""
    for name in names:
        kind = table.columns.get(name, "")
        if kind.startswith(types) and not kind.endswith("[]"):
            return name
    return None


def _free_name(table: str, taken: Collection[str]) -> str:
    """The name of the type: the table's, in the singular, as an identifier."""
    schema, _, plain = table.rpartition(".")
    word = re.sub(r"[^a-z0-9_]", "_", plain.lower()).strip("_") or "entity"
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    word = _TYPE_OF_ALIAS.get(word, word) if _TYPE_OF_ALIAS.get(word, word) not in taken else word
    word = word if word[0].isalpha() or word[0] == "_" else f"_{word}"
    choices = [word, f"{schema}_{word}", *(f"{word}_{number}" for number in range(2, 1000))]
    return next(name[:63] for name in choices if name[:63] not in taken)


_TYPE_OF_ALIAS = {
    alias: entity_type.name for entity_type in SOURCE_PRESETS["mcp"].values() for alias in entity_type.aliases
}
"""The name that events give to a type whose table is called so."""


def _text(
    preset: str | None, covered: Mapping[str, SourceTable], types: Mapping[str, list[str]], left_out: Mapping[str, str]
) -> str:
    lines = [_HEAD, f"preset: {preset or 'none'}"]
    if preset is not None:
        stands = ", ".join(f"{name} ({source.table})" for name, source in covered.items())
        lines.append(f"# as the preset has them: {stands}")
        absent = [name for name in SOURCE_PRESETS[preset] if name not in covered and name not in types]
        if absent:
            lines.append(_line(f"without: {_list(absent)}", "their tables are not in the database"))
    if types:
        lines += ["types:", *(line for block in types.values() for line in ("", *block))]
    elif preset is None:
        lines += ["# No table seems to hold entities. Map one by hand:", "types: {}"]
    if left_out:
        lines += ["", "# Left out:", *(f"#   {table}: {reason}" for table, reason in left_out.items())]
    return "\n".join(lines) + "\n"


def _line(written: str, reason: str) -> str:
    return f"{written:<{_REASON_AT}} # {reason}" if reason else written


def _columns(names: Sequence[str]) -> str:
    return _scalar(names[0]) if len(names) == 1 else _list(names)


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, names))}]"


def _scalar(text: str) -> str:
    """A text as YAML takes it for a text."""
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
