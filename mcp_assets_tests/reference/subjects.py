"""Subjects, verbs and names in messages as a page of the reference, made from the parser's tables."""

from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.events.model import Verb
from mcp_assets.events.subjects import (
    CHANGES,
    DUPLICATES_REQUEST,
    FEED_SUBJECTS,
    VERBS,
    feed_subject,
    result_subjects,
    stream_subjects,
)
from mcp_assets.sync.feed.entries import ChangeKind

_HEAD = """# Subjects and names

[Messages](messages.md) says what the bodies are; this page lists what the parser knows.

## Subjects that a stream has to list

"""


def page() -> str:
    parts = [_HEAD, *(f"- `{subject}`\n" for subject in stream_subjects())]
    parts += ["\n## Subjects of results\n\n", *(f"- `{subject}`\n" for subject in result_subjects())]
    parts.append(
        f"\n## The subject of a request that is answered at once\n\n- `{DUPLICATES_REQUEST}`: "
        "[possible duplicates](../how-to/duplicates.md#from-another-program-by-nats); no stream may list it.\n"
    )
    parts.append(
        f"\n## Subjects of the change feed\n\n`{FEED_SUBJECTS}`, if [the feed is published](../how-to/change-feed.md): "
        "the kind of the change, and the entity type.\n\n"
    )
    parts += [f"- `{feed_subject(kind, _type_of(kind))}`\n" for kind in ChangeKind]
    parts.append("\n## Verbs\n\n| verb | with a source row | without one |\n|---|---|---|\n")
    parts += [f"| `{verb}` | the row is read | {_without_row(verb)} |\n" for verb in VERBS]
    parts.append(
        "\n## Names of entity types\n\nOf the preset `mcp`; a [mapping](../how-to/own-tables.md) names others.\n\n"
        "| entity type | also called | keys that hold its id |\n|---|---|---|\n"
    )
    for name, entity_type in SOURCE_PRESETS["mcp"].items():
        keys = [f"{name}_id", *entity_type.id_keys]
        parts.append(f"| `{name}` | {_codes(entity_type.aliases)} | {_codes(keys)}, `entity_id`, `id` |\n")
    parts.append("\nKeys are read in snake_case and in camelCase (`taskId`).\n")
    return "".join(parts)


def _type_of(kind: ChangeKind) -> str | None:
    return None if kind is ChangeKind.RESTARTED else "<type>"


def _without_row(verb: str) -> str:
    change = CHANGES.get(verb)
    if change is None:
        return "the entity is deleted" if VERBS[verb] is Verb.DELETE else "the state that the message carries"
    if change.alive is None:
        return "the fields that the message carries change, the rest stays"
    return "the entity comes back with its last state" if change.alive else "the entity ends; its last state is kept"


def _codes(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
