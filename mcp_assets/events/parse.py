"""parse: one message, subject and bytes, to an `Event` or a `Rejected`.

The body is an envelope with the entity or request under `data`, or the entity or request itself. A body without
`data` keeps only `message_id` and `timestamp` for the envelope: `source`, `version` and `type` may be the entity's.
Both dialects are read by the same rules (see `Fields`).
"""

import re
from datetime import UTC, datetime

from mcp_assets.entities.refs import MAX_ID_LENGTH
from mcp_assets.events.decode import decode
from mcp_assets.events.entity_body import carried_state, identify
from mcp_assets.events.fields import Fields, wrong_type
from mcp_assets.events.model import ErrorKind, Event, Kind, Rejected, Verb
from mcp_assets.events.refusal import ROOT, Refusal
from mcp_assets.events.subjects import INDEX_REQUEST, route
from mcp_assets.events.sync_body import sync_request
from mcp_assets.events.type_names import TypeNames

_INLINE_ENVELOPE_KEYS = frozenset({"message_id", "timestamp"})
_OPERATION_KEYS = ("operation", "action")

# RFC 3339; the offset may be missing, as in Python's datetime.utcnow().isoformat(): nothing is ordered by it.
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?", re.ASCII
)
_LAST_EPOCH_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z


def parse(subject: str, raw: bytes, types: TypeNames) -> Event | Rejected:
    """The event that `raw` is on `subject`, or why it is none. Never raises; time and memory are linear in the input.

    The publisher's clock, name and version are checked and left out: order is the stream's.
    """
    try:
        return _event(subject, raw, types)
    except Refusal as refusal:
        return Rejected(subject, refusal.kind, refusal.error)


def _event(subject: str, raw: bytes, types: TypeNames) -> Event:
    routed = route(subject)
    envelope = Fields(decode(raw), ROOT)
    message_id = _message_id(envelope)
    _check_timestamp(envelope)
    data = envelope.object("data")
    if data is None:
        body, not_state = envelope, _INLINE_ENVELOPE_KEYS
    else:
        body, not_state = data, frozenset()
        envelope.text("source")
        envelope.text("type")
        _check_version(envelope)

    if routed.kind in (Kind.SYNC, Kind.VALIDATE):
        request = sync_request(body, routed.kind, types)
        return Event(routed.kind, subject, None, routed.verb, None, message_id, request)

    verb = routed.verb
    if subject == INDEX_REQUEST:
        verb = _requested_verb(body, envelope)
        not_state = not_state.union(_OPERATION_KEYS)
    ref = identify(body, routed, types)
    # Of a delete only the id counts: no field of its body may stand in its way.
    carried = None if verb is Verb.DELETE else carried_state(body, not_state.union(types.id_keys(ref.type)))
    return Event(routed.kind, subject, ref, verb, carried, message_id, None)


def _message_id(envelope: Fields) -> str | None:
    message_id = envelope.text("message_id")
    if message_id is not None and len(message_id) > MAX_ID_LENGTH:
        where = envelope.rendered("message_id")
        raise Refusal(
            ErrorKind.BAD_ID, f"{where} has {len(message_id)} characters; a message id has at most {MAX_ID_LENGTH}."
        )
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
        raise wrong_type(envelope.path("timestamp"), value, "an RFC 3339 string or epoch milliseconds")
    if not valid:
        raise Refusal(
            ErrorKind.BAD_TIMESTAMP,
            f"{envelope.rendered('timestamp')} is neither an RFC 3339 time such as 2026-03-01T12:00:00Z "
            "nor epoch milliseconds up to the year 9999.",
        )


def _is_rfc_3339(text: str) -> bool:
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


def _check_version(envelope: Fields) -> None:
    version = envelope.raw("version")
    if isinstance(version, bool | list | dict):
        raise wrong_type(envelope.path("version"), version, "a string or a number")


def _requested_verb(body: Fields, envelope: Fields) -> Verb:
    """`vector.index.request` may name its operation, in the body or beside it; the first name counts."""
    for fields in (body, envelope):
        for key in _OPERATION_KEYS:
            operation = fields.text(key)
            if operation is not None:
                return Verb.DELETE if operation.lower() == "delete" else Verb.LOOK
    return Verb.LOOK
