"""Entity body: which entity the body of a message names, and the state that it carries."""

from collections.abc import Set as AbstractSet

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events.fields import Fields, checked_id, labels, words, wrong_type
from mcp_assets.events.model import Carried, ErrorKind, JsonValue
from mcp_assets.events.oddities import Oddities
from mcp_assets.events.rejection import Path, Rejection, quote
from mcp_assets.events.subjects import Route
from mcp_assets.events.type_names import TypeNames

_NEUTRAL_ID_KEYS = ("entity_id", "id")
"""Keys of an id that do not say of which entity type it is."""
_NOT_METADATA = frozenset({"entity_type", "title", "content", "metadata", *_NEUTRAL_ID_KEYS})
_LABEL_KEYS = ("tags", "concepts")
"""Metadata that are lists of labels."""
_LABELS = frozenset(_LABEL_KEYS)

_OBSERVATIONS = "observations"
"""The text of an entity of the reference MCP memory server, `{name, entityType, observations}`: its name is its id."""


def identify(body: Fields, routed: Route, types: TypeNames) -> EntityRef:
    """Which entity `body` is about. A registered explicit type wins, then the subject's, then that of a typed id key.

    An explicit type that is not registered is an oddity if subject or id key names the type, because it may be the
    entity's own field.

    Raises Rejection (unknown_type, wrong_type, ambiguous, missing_id, bad_id).
    """
    typed_keys = types.types_of_id_keys(body)
    entity_type, named_by = _entity_type(body, routed, types, typed_keys)
    own_key, *further_keys = types.id_keys(entity_type)
    if entity_type not in typed_keys and not any(key in body for key in _NEUTRAL_ID_KEYS) and len(typed_keys) == 1:
        ((other_type, other_key),) = typed_keys.items()
        raise Rejection(
            ErrorKind.WRONG_TYPE,
            f"{named_by} names a {entity_type}, but the only id, {body.rendered(other_key)}, is a {other_type}'s.",
        )
    own_id, neutral_id = body.id(own_key), body.id("entity_id")
    if own_id is not None and neutral_id is not None and own_id != neutral_id:
        raise Rejection(
            ErrorKind.AMBIGUOUS,
            f"{body.rendered(own_key)} and {body.rendered('entity_id')} differ; send the id of the entity once.",
        )
    # A bare `id` may be that of the message, and a node may hold a memory. Both count only if no other key has an id.
    for key in (own_key, "entity_id", *further_keys, "id"):
        entity_id = body.id(key)
        if entity_id is not None:
            return EntityRef(entity_type, entity_id)
    name = body.raw("name")
    if _OBSERVATIONS in body and isinstance(name, str) and body.mended("name") is None:
        return EntityRef(entity_type, checked_id(name, body.path("name")))
    raise Rejection(
        ErrorKind.MISSING_ID, f"The message names no {entity_type}: it has neither {own_key}, entity_id nor id."
    )


def _entity_type(body: Fields, routed: Route, types: TypeNames, typed_keys: dict[str, str]) -> tuple[str, str]:
    """The entity type of `body`, and where it is named, for an error message."""
    explicit = body.raw("entity_type")
    unknown: Rejection | None = None
    if isinstance(explicit, str):
        entity_type = types.canonical(explicit)
        if entity_type is not None:
            return entity_type, body.rendered("entity_type")
        unknown = Rejection(
            ErrorKind.UNKNOWN_TYPE,
            f"{body.rendered('entity_type')} is {quote(explicit)}, which is no registered entity type; "
            f"there are {_listed(types)}.",
        )
    elif explicit is not None:
        unknown = wrong_type(body.path("entity_type"), explicit, "a string")
    named = _type_named_elsewhere(body, routed, types, typed_keys)
    if named is not None:
        if unknown is not None:
            body.note("entity_type", unknown)
        return named
    if unknown is not None:
        raise unknown
    ids = "ids of several entity types" if typed_keys else "no entity type"
    subject = "" if routed.type_name is None else f", and its subject {quote(routed.type_name)}"
    raise Rejection(
        ErrorKind.UNKNOWN_TYPE,
        f"The message names {ids}{subject}; send entity_type as one of {_listed(types)}.",
    )


def _type_named_elsewhere(
    body: Fields, routed: Route, types: TypeNames, typed_keys: dict[str, str]
) -> tuple[str, str] | None:
    if routed.type_name is not None:
        entity_type = types.canonical(routed.type_name)
        if entity_type is not None:
            return entity_type, "The subject"
    if len(typed_keys) == 1:
        ((entity_type, key),) = typed_keys.items()
        return entity_type, body.rendered(key)
    return None


def _listed(types: TypeNames) -> str:
    return ", ".join(types.known())


def carried_state(body: Fields, not_state: AbstractSet[str], types: TypeNames, oddities: Oddities) -> Carried | None:
    """The entity's state; None if `body` is thin: without title, content, description, observations and metadata.

    A thin body may still have single fields (the `boardId` of a move) or a `context`, which are no whole state. The
    metadata are those of `changed_fields`, then those of an object under `context`; of equal keys the first counts. A
    title may be in any of the three. A field of a wrong type is an oddity, and is read as far as possible.
    """
    title, content, description = body.words("title"), body.words("content"), body.words("description")
    metadata, context = body.as_sent("metadata"), _context_object(body)
    observed = _observed(body)
    titles = [title]
    for name, fields in (("metadata", metadata), ("context", context)):
        if fields:
            titles.append(words(fields.get("title"), (body.path(name), "title"), oddities))
    thin = title is None and content is None and description is None and observed is None and not metadata
    left_out = {"title", "content"}
    if not content:
        content = description or observed or ""
        left_out.add("description")
    if observed is not None and content == observed:
        left_out |= {_OBSERVATIONS, "name"}
        titles.append(body.words("name"))
    merged = _inner(context, body.path("context"), oddities) if context is not None else {}
    merged |= changed_fields(body, not_state | left_out, types, oddities, with_context=context is None)
    if thin:
        return None
    return Carried(next((text for text in titles if text is not None), None), content, merged)


def changed_fields(
    body: Fields, not_state: AbstractSet[str], types: TypeNames, oddities: Oddities, *, with_context: bool = False
) -> dict[str, JsonValue]:
    """The metadata in `body`: its own fields except `not_state`, then the fields of `metadata`."""
    own = not_state | _NOT_METADATA
    if not with_context:
        own |= {"context"}
    merged = _inner(body.as_sent("metadata") or {}, body.path("metadata"), oddities)
    merged |= body.all_but(own | _LABELS)
    for key in _LABEL_KEYS:
        if key not in own and (labelled := body.labels(key)) is not None:
            merged[key] = [*labelled]
    explicit = body.raw("entity_type")
    if isinstance(explicit, str) and types.canonical(explicit) is None:
        # It is not a registered type, so that it is a field of the entity itself.
        merged[body.spelled("entity_type")] = explicit
    if with_context and not isinstance(merged.get("context", ""), str):
        del merged["context"]
    return merged


def _inner(fields: dict[str, JsonValue], path: Path, oddities: Oddities) -> dict[str, JsonValue]:
    """The sender's own metadata, under the sender's keys."""
    if not fields:
        return {}
    found = {key: value for key, value in fields.items() if key != "title" and key not in _LABEL_KEYS}
    for key in _LABEL_KEYS:
        labelled = labels(fields.get(key), (path, key), oddities)
        if labelled is not None:
            found[key] = [*labelled]
    return found


def _observed(body: Fields) -> str | None:
    """The observations of the reference MCP memory server, one on each line."""
    value = body.raw(_OBSERVATIONS)
    if not isinstance(value, list):
        return None
    return "\n".join(item for item in value if isinstance(item, str)) or None


def _context_object(body: Fields) -> dict[str, JsonValue] | None:
    """The `context`, if it is an object: it holds metadata. A text there is a field like any other."""
    context = body.raw("context")
    return None if isinstance(context, str) else body.as_sent("context", "a string or an object")
