"""The body of a message about one entity: which entity it names, and the state that it carries."""

from collections.abc import Set as AbstractSet

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events.fields import Fields, wrong_type
from mcp_assets.events.model import Carried, ErrorKind, JsonValue
from mcp_assets.events.refusal import Refusal, quote
from mcp_assets.events.subjects import Route
from mcp_assets.events.type_names import TypeNames

_NEUTRAL_ID_KEYS = ("entity_id", "id")
_NOT_METADATA = frozenset({"entity_type", "title", "content", "metadata", *_NEUTRAL_ID_KEYS})
_LABEL_KEYS = ("tags", "concepts")


def identify(body: Fields, routed: Route, types: TypeNames) -> EntityRef:
    """Which entity `body` is about. An explicit entity type wins, then the subject's, then that of a typed id key.

    Raises Refusal (unknown_type, wrong_type, ambiguous, missing_id, bad_id).
    """
    typed_keys = {entity_type: key for key in body if (entity_type := types.type_of_id_key(key))}
    entity_type, named_by = _entity_type(body, routed, types, typed_keys)
    own_key, *further_keys = types.id_keys(entity_type)
    if entity_type not in typed_keys and not any(key in body for key in _NEUTRAL_ID_KEYS) and len(typed_keys) == 1:
        ((other_type, other_key),) = typed_keys.items()
        raise Refusal(
            ErrorKind.WRONG_TYPE,
            f"{named_by} names a {entity_type}, but the only id, {body.rendered(other_key)}, is a {other_type}'s.",
        )
    own_id, neutral_id = body.id(own_key), body.id("entity_id")
    if own_id is not None and neutral_id is not None and own_id != neutral_id:
        raise Refusal(
            ErrorKind.AMBIGUOUS,
            f"{body.rendered(own_key)} and {body.rendered('entity_id')} differ; send the id of the entity once.",
        )
    # A bare `id` may be the message's own, and a node may hold a memory: both give way to what names the entity.
    for key in (own_key, "entity_id", *further_keys, "id"):
        entity_id = body.id(key)
        if entity_id is not None:
            return EntityRef(entity_type, entity_id)
    raise Refusal(
        ErrorKind.MISSING_ID, f"The message names no {entity_type}: it has neither {own_key}, entity_id nor id."
    )


def _entity_type(body: Fields, routed: Route, types: TypeNames, typed_keys: dict[str, str]) -> tuple[str, str]:
    """The entity type of `body`, and what names it, for a sentence."""
    explicit = body.text("entity_type")
    if explicit is not None:
        entity_type = types.canonical(explicit)
        if entity_type is None:
            raise Refusal(
                ErrorKind.UNKNOWN_TYPE,
                f"{body.rendered('entity_type')} is {quote(explicit)}, which is no registered entity type; "
                f"there are {_listed(types)}.",
            )
        return entity_type, body.rendered("entity_type")
    if routed.type_name is not None:
        entity_type = types.canonical(routed.type_name)
        if entity_type is not None:
            return entity_type, "The subject"
    if len(typed_keys) == 1:
        ((entity_type, key),) = typed_keys.items()
        return entity_type, body.rendered(key)
    named = "ids of several entity types" if typed_keys else "no entity type"
    subject = "" if routed.type_name is None else f", and its subject {quote(routed.type_name)}"
    raise Refusal(
        ErrorKind.UNKNOWN_TYPE,
        f"The message names {named}{subject}; send entity_type as one of {_listed(types)}.",
    )


def _listed(types: TypeNames) -> str:
    return ", ".join(types.known())


def carried_state(body: Fields, not_state: AbstractSet[str]) -> Carried | None:
    """The entity's state; None if `body` is thin: without title, content, description and metadata.

    A thin body may still bear single fields (the `boardId` of a move) or a `context`: they are no whole state.
    The metadata are the body's other fields, except those named in `not_state`, then what is in `metadata`, then
    what is in an object under `context`; of equal keys the first counts. A title may stand in any of the three.

    Raises Refusal (wrong_type, ambiguous).
    """
    title, content, description = body.text("title"), body.text("content"), body.text("description")
    metadata, context = body.object("metadata"), _context_object(body)
    inner = [fields for fields in (metadata, context) if fields is not None]
    for fields in (body, *inner):
        for key in _LABEL_KEYS:
            fields.check_strings(key)
    titles = [title, *(fields.text("title") for fields in inner)]
    if title is None and content is None and description is None and not (metadata and metadata.all_but()):
        return None

    own = not_state | _NOT_METADATA
    if not content:
        content, own = description or "", own | {"description"}
    if context is not None:
        own |= {"context"}
    merged: dict[str, JsonValue] = {}
    for fields in reversed(inner):
        merged |= fields.all_but({"title"})
    merged |= body.all_but(own)
    return Carried(next((text for text in titles if text is not None), None), content, merged)


def _context_object(body: Fields) -> Fields | None:
    """A context in words is a field like any other; an object stands for metadata."""
    context = body.raw("context")
    if context is None or isinstance(context, str):
        return None
    if not isinstance(context, dict):
        raise wrong_type(body.path("context"), context, "a string or an object")
    return body.object("context")
