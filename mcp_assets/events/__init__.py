"""Messages as they arrive, bytes -> `Event` | `Rejected`: subjects, verbs, dialects, coalescing. Pure, no I/O.

Nothing here knows a table, a collection or a client; what an event makes happen is decided in `sync/`.
"""

from mcp_assets.events.coalesce import Coalesced, Stated, coalesce
from mcp_assets.events.model import (
    Carried,
    ErrorKind,
    Event,
    JsonValue,
    Kind,
    Rejected,
    SyncRequest,
    SyncTarget,
    SyncType,
    Verb,
)
from mcp_assets.events.parse import parse
from mcp_assets.events.subjects import stream_subjects
from mcp_assets.events.type_names import DEFAULT_TYPE_NAMES, TypeNames

__all__ = [
    "DEFAULT_TYPE_NAMES",
    "Carried",
    "Coalesced",
    "ErrorKind",
    "Event",
    "JsonValue",
    "Kind",
    "Rejected",
    "Stated",
    "SyncRequest",
    "SyncTarget",
    "SyncType",
    "TypeNames",
    "Verb",
    "coalesce",
    "parse",
    "stream_subjects",
]
