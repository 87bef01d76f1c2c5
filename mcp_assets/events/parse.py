"""Parse: one message, subject and bytes, to an `Event` or a `Rejected`.

The body is an envelope with the entity or request under `data`, or the entity or request itself. A body without
`data` keeps only `message_id` and `timestamp` for the envelope: `source`, `version` and `type` may be the entity's.
Both dialects are read by the same rules (see `Fields`).

A message whose entity is clear is an event, even if the rest of it is odd, because the source row of the entity decides
if there is one. The oddities go with the event. A sync or validate request is not about a single entity, so that its
body has to be sound.
"""

import re
from datetime import UTC, datetime

from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef
from mcp_assets.events.decode import decode
from mcp_assets.events.entity_body import carried_state, changed_fields, identify
from mcp_assets.events.fields import Fields, snake_case
from mcp_assets.events.model import Carried, Changed, ErrorKind, Event, MessageKind, Rejected, Verb
from mcp_assets.events.oddities import Oddities
from mcp_assets.events.rejection import ROOT, Rejection
from mcp_assets.events.subjects import INDEX_REQUEST, Route, route
from mcp_assets.events.sync_body import sync_request
from mcp_assets.events.type_names import TypeNames

_INLINE_ENVELOPE_KEYS = frozenset({"message_id", "timestamp"})
"""The only keys of the envelope in a body without `data`: others may be fields of the entity."""
_ENVELOPE_KEYS = _INLINE_ENVELOPE_KEYS | {"source", "type", "version"}
_OPERATION_KEYS = ("operation", "action")
"""Under these, publishers of `vector.index.request` name what is to be done."""

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?", re.ASCII
)
"""RFC 3339. The offset may lack its colon (strftime's %z) or be missing (Python's datetime.utcnow().isoformat()): no
event is ordered by it."""

_USUAL_TIMESTAMP = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|\+00:00)?", re.ASCII
)
"""Timestamps that need no further look: of a day that each month has, and without a leap second."""

_LAST_EPOCH_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z"""


def parse(subject: str, raw: bytes, types: TypeNames) -> Event | Rejected:
    """The event that `raw` is on `subject`, or the reason why it is none. Never raises; time and memory are linear.

    The publisher's clock, name and version are checked and left out, because events are ordered by their streams.
    """
    try:
        return _event(subject, raw, types)
    except Rejection as rejection:
        return Rejected(subject, rejection.kind, rejection.error)


def _event(subject: str, raw: bytes, types: TypeNames) -> Event:
    routed = route(subject)
    document, oddities = decode(raw)
    envelope = Fields(document, ROOT, oddities)
    message_id = _message_id(envelope)
    _check_timestamp(envelope)
    data = envelope.raw("data")
    body, not_state = envelope, _INLINE_ENVELOPE_KEYS
    if isinstance(data, dict):
        body, not_state = Fields(data, envelope.path("data"), oddities), frozenset()
        for key in ("source", "type"):
            if not isinstance(envelope.raw(key), str | None):
                envelope.note_type(key, "a string")
        if isinstance(envelope.raw("version"), bool | list | dict):
            envelope.note_type("version", "a string or a number")

    if routed.kind in (MessageKind.SYNC, MessageKind.VALIDATE):
        envelope.object("data")
        request = sync_request(body, routed.kind, types)
        for path, oddity in oddities:
            if len(path) == 2 and (path[0] != ROOT or snake_case(str(path[1])) not in _ENVELOPE_KEYS):
                raise oddity
        return Event(routed.kind, subject, None, routed.verb, None, message_id, request, oddities=oddities.kept())

    verb = routed.verb
    if subject == INDEX_REQUEST:
        verb = _requested_verb(body, envelope)
        not_state = not_state.union(_OPERATION_KEYS)
    ref = _identified(body, envelope, routed, types)
    not_state = not_state.union(types.id_keys(ref.type))
    carried, changed = _said(body, not_state, routed, verb, types, oddities)
    return Event(routed.kind, subject, ref, verb, carried, message_id, None, changed, oddities.kept())


def _identified(body: Fields, envelope: Fields, routed: Route, types: TypeNames) -> EntityRef:
    try:
        return identify(body, routed, types)
    except Rejection:
        if body is envelope:
            # The envelope names no entity itself. If its `data` is no object, that is the fault to report.
            envelope.object("data")
        raise


def _said(
    body: Fields, not_state: frozenset[str], routed: Route, verb: Verb, types: TypeNames, oddities: Oddities
) -> tuple[Carried | None, Changed | None]:
    """The state or the change that the message carries, in case that its entity has no source row."""
    if verb is Verb.DELETE:
        # Only the id counts, so that a fault in another field does not prevent the deletion.
        return None, None if routed.changes is None else Changed({}, routed.changes.alive)
    carried = carried_state(body, not_state, types, oddities)
    if routed.kind is MessageKind.RELATE:
        # It asks for edges. Without a text it neither makes an entity nor empties one.
        return carried if carried is not None and carried.content else None, None
    if routed.changes is None or (carried is not None and (carried.title is not None or carried.content)):
        return carried, None
    fields = changed_fields(body, not_state, types, oddities)
    alive = routed.changes.alive
    return None, Changed(fields, alive) if fields or alive is not None else None


def _message_id(envelope: Fields) -> str | None:
    if envelope.mended("message_id") is not None:
        return None
    message_id = envelope.words("message_id")
    if message_id is None:
        return None
    if len(message_id) > MAX_ID_LENGTH:
        where = envelope.rendered("message_id")
        sentence = f"{where} has {len(message_id)} characters; a message id has at most {MAX_ID_LENGTH}."
        envelope.note("message_id", Rejection(ErrorKind.BAD_ID, sentence))
        return None
    return message_id or None


def _check_timestamp(envelope: Fields) -> None:
    value = envelope.raw("timestamp")
    if value is None:
        return
    if isinstance(value, str):
        valid = _is_rfc_3339(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        valid = 0 <= value <= _LAST_EPOCH_MS
    else:
        envelope.note_type("timestamp", "an RFC 3339 string or epoch milliseconds")
        return
    if not valid:
        sentence = (
            f"{envelope.rendered('timestamp')} is neither an RFC 3339 time such as 2026-03-01T12:00:00Z "
            "nor epoch milliseconds up to the year 9999."
        )
        envelope.note("timestamp", Rejection(ErrorKind.BAD_TIMESTAMP, sentence))


def _is_rfc_3339(text: str) -> bool:
    if _USUAL_TIMESTAMP.fullmatch(text) and not text.startswith("0000"):
        return True
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second = map(int, match.groups())
    leap_second = second == 60
    try:
        datetime(year, month, day, hour, minute, 59 if leap_second else second, tzinfo=UTC)
    except ValueError:
        return False
    return True


def _requested_verb(body: Fields, envelope: Fields) -> Verb:
    """`vector.index.request` may name its operation, in the body or beside it; the first name counts."""
    for fields in (body, envelope):
        for key in _OPERATION_KEYS:
            operation = fields.raw(key)
            if isinstance(operation, str):
                return Verb.DELETE if operation.lower() == "delete" else Verb.LOOK
            if operation is not None:
                fields.note_type(key, "a string")
    return Verb.LOOK
