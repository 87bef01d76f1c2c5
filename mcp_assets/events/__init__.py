"""Messages as they arrive, bytes -> `Event` | `Rejected`: subjects, verbs, dialects, coalescing. Pure, no I/O.

Nothing here knows a table, a collection or a client; `sync/` decides what an event leads to.
"""

from mcp_assets.events.coalesce import Coalesced, Stated, coalesce, merge_stated
from mcp_assets.events.model import (
    Carried,
    Changed,
    ErrorKind,
    Event,
    JsonValue,
    MessageKind,
    Oddity,
    Rejected,
    SyncRequest,
    SyncTarget,
    SyncType,
    Verb,
)
from mcp_assets.events.parse import parse
from mcp_assets.events.payload import payload_of, read_payload
from mcp_assets.events.subjects import FEED_SUBJECTS, feed_subject, result_subjects, stream_subjects
from mcp_assets.events.type_names import DEFAULT_TYPE_NAMES, TypeNames

__all__ = [
    "DEFAULT_TYPE_NAMES",
    "FEED_SUBJECTS",
    "Carried",
    "Changed",
    "Coalesced",
    "ErrorKind",
    "Event",
    "JsonValue",
    "MessageKind",
    "Oddity",
    "Rejected",
    "Stated",
    "SyncRequest",
    "SyncTarget",
    "SyncType",
    "TypeNames",
    "Verb",
    "coalesce",
    "feed_subject",
    "merge_stated",
    "parse",
    "payload_of",
    "read_payload",
    "result_subjects",
    "stream_subjects",
]
