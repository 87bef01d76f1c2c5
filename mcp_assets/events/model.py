"""Model: what a message can be: an `Event`, or a `Rejected` with the reason why it is no event."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from mcp_assets.entities.refs import EntityRef

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class MessageKind(StrEnum):
    """What a message is about, and which sensor asks for its runs: one entity, its edges, a sync, or a validation."""

    ENTITY = "entity"
    RELATE = "relate"
    SYNC = "sync"
    VALIDATE = "validate"


class Verb(StrEnum):
    """What an event asks for. `LOOK`: bring the entity to its source row. `DELETE`: the same, and an entity without a
    source row ends."""

    LOOK = "look"
    DELETE = "delete"


class SyncType(StrEnum):
    """What a sync or validate request asks for."""

    INCREMENTAL_SYNC = "incremental_sync"
    FULL_SYNC = "full_sync"
    CONFLICT_RESOLUTION = "conflict_resolution"
    DATA_VALIDATION = "data_validation"


class ErrorKind(StrEnum):
    """Why a message is no event; stored as `dead_letters.error_kind`."""

    UNKNOWN_SUBJECT = "unknown_subject"
    UNKNOWN_VERB = "unknown_verb"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    BAD_JSON = "bad_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_DEEP = "too_deep"
    NOT_FINITE = "not_finite"
    BAD_TEXT = "bad_text"
    BAD_TIMESTAMP = "bad_timestamp"
    WRONG_TYPE = "wrong_type"
    AMBIGUOUS = "ambiguous"
    MISSING_ID = "missing_id"
    BAD_ID = "bad_id"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_SYNC_TYPE = "unknown_sync_type"


@dataclass(frozen=True, slots=True)
class Carried:
    """The whole state that an event carries of its entity, for one that may have no source row.

    Fields of the body stand in `metadata` under snake_case keys; what the sender's own metadata hold keeps its keys.
    """

    title: str | None
    content: str
    metadata: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Changed:
    """The change that a moved, assigned, archived or restored event carries, for an entity without a source row.

    The rest of the entity stays as it was.
    """

    fields: dict[str, JsonValue]
    """The metadata that changed."""
    alive: bool | None = None
    """False: archived. True: restored. None: as it was."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """A fault in a message that is an event all the same. It is kept as a warning."""

    place: str
    """JSON path, such as `$.data.tags[]`."""
    kind: ErrorKind
    sentence: str
    """As `Rejected.error`."""


@dataclass(frozen=True, slots=True)
class SyncTarget:
    """One entity that a sync request names. `type` is None for a bare id: any type may own it."""

    type: str | None
    id: str


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What a sync or validate request asks for. No targets means everything."""

    sync_type: SyncType
    targets: tuple[SyncTarget, ...]
    context: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Event:
    """One parsed message.

    Entity and relate events have a `ref` and no `request`; sync and validate requests the other way round.
    `carried` is None if the body is thin, and always for `Verb.DELETE`. `oddities`: fields left out or mended.
    """

    kind: MessageKind
    subject: str
    ref: EntityRef | None
    verb: Verb
    carried: Carried | None
    message_id: str | None
    request: SyncRequest | None
    changed: Changed | None = None
    oddities: tuple[Oddity, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is no event. `error` is a sentence for a person; it echoes at most 100 characters of the input."""

    subject: str
    error_kind: ErrorKind
    error: str
