"""Coalesce: folds many events about an entity into one, with the same result in any order of arrival.

The order key of an event is its place in the order of all streams. For each entity the fold keeps the newest event, the
newest whole state (or delete), and for each field and for archiving the newest change after that state. So a newer thin
event leaves an older whole state in place, for an entity that lives by its events, while a newer delete drops it. All
of these are maxima by order key. Therefore folding is associative, commutative and idempotent: batches may overlap and
come in any order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events.model import Carried, Event, JsonValue, MessageKind, Verb


class Comparable(Protocol):
    """An order key."""

    def __lt__(self, other: Any, /) -> bool: ...


OrderKey = TypeVar("OrderKey", bound=Comparable)


@dataclass(frozen=True, slots=True)
class Stated(Generic[OrderKey]):
    """The state of an entity by its events, in case that it has no source row: a whole state or a delete, and changes.

    Changes are newer than `order`, because the whole state contains or overrules older ones.
    """

    order: OrderKey | None
    """The order key of the newest event that carries a whole state or deletes; None: there is no such event."""
    carried: Carried | None
    """The whole state; None: deleted, if there is an `order`."""
    fields: Mapping[str, tuple[OrderKey, JsonValue]] = field(default_factory=dict)
    """Metadata that changed, each with the order key of its event."""
    alive: tuple[OrderKey, bool] | None = None
    """With the order key of its event. False: archived. True: restored."""


@dataclass(frozen=True, slots=True)
class Coalesced(Generic[OrderKey]):
    """All events about one entity as one. `order` and `event` are the newest; `stated` is None if all were thin.

    `kinds`: all kinds that were folded, so that a newer entity event does not hide a relate request.
    """

    order: OrderKey
    event: Event
    stated: Stated[OrderKey] | None
    kinds: frozenset[MessageKind]


def coalesce(
    events: Iterable[tuple[OrderKey, Event]], onto: Mapping[EntityRef, Coalesced[OrderKey]] | None = None
) -> dict[EntityRef, Coalesced[OrderKey]]:
    """`events` with their order keys, folded by entity; `onto`, an earlier result, is folded in and left unchanged.

    Each order key belongs to one event, so that a second event with the same key is a redelivery.
    Raises ValueError for a sync or validate request, because it is not about a single entity.
    """
    folded = dict(onto or {})
    for order, event in events:
        if event.ref is None:
            raise ValueError(f"a {event.kind} request on {event.subject} is about no single entity: run it by itself")
        known = folded.get(event.ref)
        one = _of_one(order, event)
        folded[event.ref] = one if known is None else _merge(known, one)
    return folded


def _of_one(order: OrderKey, event: Event) -> Coalesced[OrderKey]:
    stated: Stated[OrderKey] | None = None
    if event.changed is not None:
        alive = None if event.changed.alive is None else (order, event.changed.alive)
        stated = Stated(None, None, {name: (order, value) for name, value in event.changed.fields.items()}, alive)
    elif event.verb is Verb.DELETE or event.carried is not None:
        stated = Stated(order, None if event.verb is Verb.DELETE else event.carried)
    return Coalesced(order, event, stated, frozenset({event.kind}))


def _merge(a: Coalesced[OrderKey], b: Coalesced[OrderKey]) -> Coalesced[OrderKey]:
    newest = b if a.order < b.order else a
    return Coalesced(newest.order, newest.event, merge_stated(a.stated, b.stated), a.kinds | b.kinds)


def merge_stated(a: Stated[OrderKey] | None, b: Stated[OrderKey] | None) -> Stated[OrderKey] | None:
    """Both together: the newest whole state, and the newest change of each field and of archiving after it."""
    if a is None or b is None:
        return b if a is None else a
    whole = b if a.order is None or (b.order is not None and a.order < b.order) else a
    order = whole.order
    fields = dict(a.fields)
    for name, change in b.fields.items():
        if name not in fields or fields[name][0] < change[0]:
            fields[name] = change
    alive = b.alive if a.alive is None or (b.alive is not None and a.alive[0] < b.alive[0]) else a.alive
    if order is not None:
        fields = {name: change for name, change in fields.items() if order < change[0]}
        alive = alive if alive is not None and order < alive[0] else None
    return Stated(order, whole.carried, fields, alive)
