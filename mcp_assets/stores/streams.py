"""Streams and messages of NATS as values, and which subjects a list of subjects covers.

It does not load the client of NATS, which most commands do not need.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_ANSWERS_KNOWN = 10_000
"""Pairs of subjects of which it is remembered whether one covers the other, because each look at a stream and each
message asks the same again: some 1 MB."""

MAX_DELETED = 100_000
"""Deleted messages that a stream is asked to list, at most."""


class Retention(StrEnum):
    """When a stream deletes a message: by its limits alone, or also because consumers have acknowledged it."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORK_QUEUE = "workqueue"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream. `stored_at` is JetStream's clock, UTC; `ours`: its subject is one that we read.

    `traceparent`: the trace that its header names, if it does.
    """

    seq: int
    subject: str
    data: bytes
    stored_at: datetime
    ours: bool = True
    traceparent: str | None = None

    @property
    def digest(self) -> bytes:
        """Of subject and bytes; with `stored_at` it distinguishes a message from another one of the same sequence."""
        subject = self.subject.encode(errors="surrogatepass")
        return hashlib.blake2b(b"%d %b" % (len(subject), subject) + self.data, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class StreamTraits:
    """The part of a stream's configuration that decides what a reader can rely on. 0 means: no such limit."""

    retention: Retention = Retention.LIMITS
    max_messages: int = 0
    max_bytes: int = 0
    max_age_s: float = 0.0
    max_per_subject: int = 0
    refuses_new: bool = False
    """A full stream refuses what is published, rather than discard its oldest message."""
    replicas: int = 1
    in_memory: bool = False
    mirror_of: str | None = None
    filtered_mirror: bool = False
    """The mirror leaves messages out and keeps the sequences of the others, so that its sequences have gaps."""
    sources: tuple[str, ...] = ()
    message_ttl: bool = False
    """A message may carry its own time to live."""
    subjects: tuple[str, ...] = ()
    """That it takes; a mirror takes none."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds now: sequences `first_seq` to `last_seq` (empty: last_seq = first_seq - 1)."""

    name: str
    created_at: datetime
    first_seq: int
    last_seq: int
    foreign_subjects: bool
    """It also carries subjects that are not ours, so that the sequences of ours have gaps."""
    last_stored_at: datetime | None = None
    deleted: int = 0
    """Messages that are missing between the first and the last."""
    traits: StreamTraits = field(default_factory=StreamTraits)


@dataclass(frozen=True, slots=True)
class Read:
    """An answer to `read`: messages in order; `more`: the stream held more of them.

    `last`: the message after which was read, as the stream has it now; None if the stream does not hold it any more,
    or it was not asked for.
    """

    messages: Sequence[Message]
    more: bool
    last: Message | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to publish once: the server drops a second message of the same `id`, while it remembers the first.

    `traceparent`: the trace that it belongs to, as its header names it.
    """

    subject: str
    data: bytes
    id: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsStream:
    """The stream that keeps announcements. If it is absent and `create` is set, it is made on `subjects`."""

    name: str
    subjects: Sequence[str]
    days: float
    create: bool


def covers(subjects: Sequence[str], subject: str) -> bool:
    """Whether each subject that `subject` (a subject, or a pattern) stands for is one of `subjects`."""
    return any(_covers(pattern, subject) for pattern in subjects)


@lru_cache(_ANSWERS_KNOWN)
def _covers(listed: str, subject: str) -> bool:
    pattern, tokens = listed.split("."), subject.split(".")
    if pattern[-1] == ">":
        pattern, tokens = pattern[:-1], tokens[: len(pattern) - 1] if len(tokens) >= len(pattern) else []
    return (
        len(tokens) == len(pattern)
        and ">" not in tokens
        and all(own in ("*", token) for own, token in zip(pattern, tokens, strict=True))
    )


def state_of(name: str, info: Mapping[str, Any], subjects: Sequence[str], created_at: datetime) -> StreamState:
    """The state of the stream `name`, by the server's answer to `STREAM.INFO`; `subjects` are those that we read."""
    state, config = info["state"], info["config"]
    mirror, sources = config.get("mirror"), config.get("sources") or ()
    listed = config.get("subjects") or ()
    last_at = instant(state["last_ts"]) if state.get("last_seq") and state.get("last_ts") else None
    return StreamState(
        name=name,
        created_at=created_at,
        first_seq=state.get("first_seq") or 1,
        last_seq=state.get("last_seq") or 0,
        # Messages from other streams bear those streams' subjects, which this one does not list.
        foreign_subjects=bool(mirror or sources) or not all(covers(subjects, subject) for subject in listed),
        last_stored_at=last_at,
        deleted=state.get("num_deleted") or 0,
        traits=StreamTraits(
            retention=Retention(config.get("retention", "limits")),
            max_messages=_limit(config, "max_msgs"),
            max_bytes=_limit(config, "max_bytes"),
            max_age_s=_limit(config, "max_age") / 1e9,
            max_per_subject=_limit(config, "max_msgs_per_subject"),
            refuses_new=config.get("discard") == "new",
            replicas=config.get("num_replicas") or 1,
            in_memory=config.get("storage") == "memory",
            mirror_of=mirror.get("name") if mirror else None,
            filtered_mirror=bool(mirror and (mirror.get("filter_subject") or mirror.get("subject_transforms"))),
            sources=tuple(source.get("name", "") for source in sources),
            message_ttl=bool(config.get("allow_msg_ttl")),
            subjects=tuple(listed),
        ),
    )


def stored_at(nanoseconds: int) -> datetime:
    """JetStream's clock, cut to microseconds: the same whichever way a message is read."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def instant(text: str) -> datetime:
    """A time of JetStream's API (RFC 3339, nanoseconds), cut to microseconds."""
    return datetime.fromisoformat(text)


def _limit(config: Mapping[str, Any], name: str) -> int:
    return max(0, int(config.get(name) or 0))
