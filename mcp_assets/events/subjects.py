"""Subjects and verbs: which subjects the stream lists, and what the subject of a message says about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from mcp_assets.events.model import Changed, ErrorKind, MessageKind, Verb
from mcp_assets.events.rejection import Rejection, quote

INDEX_REQUEST = "vector.index.request"

DEAD_LETTER = "mcp_assets.dead_letter"
"""The subject on which each dead letter is announced."""

DUPLICATES_REQUEST = "entity.duplicates.request"
"""The subject of a request that the MCP server answers at once. No stream may list it: JetStream would acknowledge the
request, and the requester would take that for the answer."""

FEED_SUBJECTS = "mcp_assets.changes.>"
"""The subjects on which the change feed is published."""

REQUESTS: Mapping[str, MessageKind] = MappingProxyType(
    {
        INDEX_REQUEST: MessageKind.ENTITY,
        "relationship.analyze.request": MessageKind.RELATE,
        "data.sync.request": MessageKind.SYNC,
        "data.validate.request": MessageKind.VALIDATE,
    }
)

VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "created": Verb.LOOK,
        "updated": Verb.LOOK,
        "stored": Verb.LOOK,
        "moved": Verb.LOOK,
        "assigned": Verb.LOOK,
        "restored": Verb.LOOK,
        "deleted": Verb.DELETE,
        "archived": Verb.DELETE,
    }
)

CHANGES: Mapping[str, Changed] = MappingProxyType(
    {
        "moved": Changed({}),
        "assigned": Changed({}),
        "archived": Changed({}, alive=False),
        "restored": Changed({}, alive=True),
    }
)
"""Verbs whose events change a part of an entity without a source row, and leave the rest of it as it is."""

_TOKEN = r"[^.*>\s\x00\ud800-\udfff]+"  # noqa: S105 - a subject token
"""A token of a NATS subject: no dots, wildcards or white space. NUL and lone surrogates could not be stored."""

_SUBJECTS_KNOWN = 1_000
"""Subjects whose meaning is remembered: those of all publishers of a site."""

_LONGEST_SUBJECT_KNOWN = 100
"""Characters of a subject that is remembered, so that odd messages cannot fill the memory."""

_ENTITY_EVENT = re.compile(rf"mcp\.(?:{_TOKEN}\.)?(?P<type_name>{_TOKEN})\.(?P<verb>{_TOKEN})")


@dataclass(frozen=True, slots=True)
class Route:
    """The meaning of a subject. `type_name` is as sent, None for the request subjects."""

    kind: MessageKind
    verb: Verb
    type_name: str | None
    changes: Changed | None = None
    """What the verb changes, if it is one of CHANGES."""


def stream_subjects() -> list[str]:
    """Exactly the subjects that the stream must list: the requests, and the entity events of each verb.

    Not `mcp.>`, because JetStream would acknowledge, and so answer, the servers' own requests under `mcp.`.
    """
    return [*REQUESTS, *(f"mcp.{tokens}.{verb}" for verb in VERBS for tokens in ("*", "*.*"))]


def result_subjects() -> list[str]:
    """The subjects of all results: answers to requests, and dead letters."""
    stems = [subject.removesuffix("request") for subject in REQUESTS]
    return [*(f"{stem}{outcome}" for stem in stems for outcome in ("completed", "failed")), DEAD_LETTER]


def feed_subject(kind: str, entity_type: str | None) -> str:
    """The subject of an entry of the change feed; None: it is about no single entity type."""
    stem = FEED_SUBJECTS.removesuffix(">") + kind
    return stem if entity_type is None else f"{stem}.{entity_type}"


def route(subject: str) -> Route:
    """Raises Rejection (unknown_subject, unknown_verb)."""
    return _known_route(subject) if len(subject) <= _LONGEST_SUBJECT_KNOWN else _route(subject)


def _route(subject: str) -> Route:
    kind = REQUESTS.get(subject)
    if kind is not None:
        return Route(kind, Verb.LOOK, None)
    match = _ENTITY_EVENT.fullmatch(subject)
    if match is None:
        raise Rejection(
            ErrorKind.UNKNOWN_SUBJECT,
            f"The subject {quote(subject)} is neither a request ({', '.join(REQUESTS)}) nor of the form "
            "mcp.<type>.<verb> or mcp.<area>.<type>.<verb>.",
        )
    verb = VERBS.get(match["verb"])
    if verb is None:
        raise Rejection(
            ErrorKind.UNKNOWN_VERB, f"The verb {quote(match['verb'])} of the subject is none of {', '.join(VERBS)}."
        )
    return Route(MessageKind.ENTITY, verb, match["type_name"], CHANGES.get(match["verb"]))


_known_route = lru_cache(_SUBJECTS_KNOWN)(_route)
