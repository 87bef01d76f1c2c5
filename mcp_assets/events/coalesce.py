"""coalesce: many events about the same entities folded into one each, the same in whatever order they arrive.

Two things are remembered of an entity, each of its newest event by order key: what the newest event is, and what the
newest event that *states* something says, be it a whole state or a delete. So a newer thin event asks to look and
leaves an older full one standing, for an entity that lives by its events, while a newer delete drops it. Both are
maxima, so folding is associative, commutative and idempotent: batches may overlap and come in any order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events.model import Carried, Event, Kind, Verb


class Comparable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


OrderKey = TypeVar("OrderKey", bound=Comparable)


@dataclass(frozen=True, slots=True)
class Stated(Generic[OrderKey]):
    """What an entity without a source row is, said by the event at `order`. `carried` None: deleted."""

    order: OrderKey
    carried: Carried | None


@dataclass(frozen=True, slots=True)
class Coalesced(Generic[OrderKey]):
    """All events about one entity as one. `order` and `event` are the newest's; `stated` is None if all were thin.

    `kinds`: all kinds that were folded, so that a relate request is not lost under a newer entity event.
    """

    order: OrderKey
    event: Event
    stated: Stated[OrderKey] | None
    kinds: frozenset[Kind]


def coalesce(
    events: Iterable[tuple[OrderKey, Event]], onto: Mapping[EntityRef, Coalesced[OrderKey]] | None = None
) -> dict[EntityRef, Coalesced[OrderKey]]:
    """`events` with their order keys, folded by entity; `onto`, an earlier result, is folded in and left unchanged.

    Order keys are total and belong to one event each: a second event with the same key is a redelivery.
    Raises ValueError for a sync or validate request, which is about no single entity.
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
    states = event.verb is Verb.DELETE or event.carried is not None
    stated = Stated(order, None if event.verb is Verb.DELETE else event.carried) if states else None
    return Coalesced(order, event, stated, frozenset({event.kind}))


def _merge(a: Coalesced[OrderKey], b: Coalesced[OrderKey]) -> Coalesced[OrderKey]:
    newest = b if a.order < b.order else a
    return Coalesced(newest.order, newest.event, _newest_stated(a.stated, b.stated), a.kinds | b.kinds)


def _newest_stated(a: Stated[OrderKey] | None, b: Stated[OrderKey] | None) -> Stated[OrderKey] | None:
    if a is None or b is None:
        return b if a is None else a
    return b if a.order < b.order else a
