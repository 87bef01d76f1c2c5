"""Coalescing: many events about an entity as one, whatever the order of arrival."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import (
    Carried,
    Changed,
    Coalesced,
    Event,
    MessageKind,
    Stated,
    SyncRequest,
    SyncType,
    Verb,
    coalesce,
)

REF = EntityRef("task", "t1")


def event(
    carried: str | None = None, verb: Verb = Verb.LOOK, ref: EntityRef = REF, kind: MessageKind = MessageKind.ENTITY
) -> Event:
    state = None if carried is None else Carried(None, carried, {})
    return Event(kind, "mcp.task.updated", ref, verb, state, message_id=None, request=None)


def change(fields: dict[str, Any], alive: bool | None = None) -> Event:
    verb = Verb.DELETE if alive is False else Verb.LOOK
    changed = Changed(fields, alive)
    return Event(MessageKind.ENTITY, "mcp.task.moved", REF, verb, None, message_id=None, request=None, changed=changed)


THIN = event()
DELETE = event(verb=Verb.DELETE)


@pytest.mark.parametrize(
    ("events", "order", "stated"),
    [
        ([(1, THIN)], 1, None),
        ([(1, event("a")), (2, event("b"))], 2, Stated(2, Carried(None, "b", {}))),
        ([(1, event("a")), (2, THIN)], 2, Stated(1, Carried(None, "a", {}))),
        ([(1, event("a")), (2, DELETE)], 2, Stated(2, None)),
        ([(1, event("a")), (2, DELETE), (3, THIN)], 3, Stated(2, None)),
        ([(1, DELETE), (2, event("a"))], 2, Stated(2, Carried(None, "a", {}))),
        ([(1, DELETE), (2, event("a")), (3, THIN)], 3, Stated(2, Carried(None, "a", {}))),
        ([(1, change({"x": 1}))], 1, Stated(None, None, {"x": (1, 1)})),
        ([(1, change({"x": 1})), (2, event("a"))], 2, Stated(2, Carried(None, "a", {}))),
        ([(1, event("a")), (2, change({"x": 1}))], 2, Stated(1, Carried(None, "a", {}), {"x": (2, 1)})),
        (
            [(1, change({"x": 1, "y": 1})), (2, change({"x": 2}, alive=True)), (3, change({}, alive=False))],
            3,
            Stated(None, None, {"x": (2, 2), "y": (1, 1)}, (3, False)),
        ),
    ],
)
def test_the_newest_event_leads_and_the_newest_that_states_something_is_kept(
    events: list[tuple[int, Event]], order: int, stated: Stated[int] | None
) -> None:
    for arrival in (events, events[::-1]):
        folded = coalesce(arrival)[REF]
        assert (folded.order, folded.event, folded.stated) == (order, dict(events)[order], stated)


def test_a_relate_request_is_not_lost_under_a_newer_entity_event() -> None:
    folded = coalesce([(1, event(kind=MessageKind.RELATE)), (2, event("a"))])[REF]
    assert folded.event.kind is MessageKind.ENTITY
    assert folded.kinds == {MessageKind.ENTITY, MessageKind.RELATE}


def test_entities_are_kept_apart_by_type_and_id() -> None:
    refs = [EntityRef("task", "1"), EntityRef("page", "1"), EntityRef("task", "2")]
    assert coalesce((n, event(str(n), ref=ref)) for n, ref in enumerate(refs)) == {
        ref: Coalesced(n, event(str(n), ref=ref), Stated(n, Carried(None, str(n), {})), frozenset({MessageKind.ENTITY}))
        for n, ref in enumerate(refs)
    }


def test_an_earlier_result_is_left_unchanged() -> None:
    earlier = coalesce([(1, event("a"))])
    before = dict(earlier)
    later = coalesce([(2, DELETE)], onto=earlier)
    assert earlier == before
    assert later[REF].stated == Stated(2, None)


def test_an_order_key_may_be_any_comparable_value() -> None:
    folded = coalesce([(("2026-03-01", 2), event("a")), (("2026-03-01", 10), event("b"))])
    assert folded[REF].order == ("2026-03-01", 10)


def test_a_sync_request_is_about_no_single_entity() -> None:
    request = SyncRequest(SyncType.FULL_SYNC, (), {})
    full_sync = Event(MessageKind.SYNC, "data.sync.request", None, Verb.LOOK, None, message_id=None, request=request)
    with pytest.raises(ValueError, match=r"a sync request on data\.sync\.request is about no single entity"):
        coalesce([(1, full_sync)])


CHANGES = st.builds(
    change, st.dictionaries(st.sampled_from("xy"), st.integers(0, 3)), st.sampled_from([None, True, False])
)
EVENTS = CHANGES | st.builds(
    event,
    carried=st.none() | st.sampled_from("abc"),
    verb=st.sampled_from(Verb),
    ref=st.sampled_from([REF, EntityRef("page", "t1")]),
    kind=st.sampled_from([MessageKind.ENTITY, MessageKind.RELATE]),
)


def one_after_another(events: list[tuple[int, Event]]) -> dict[EntityRef, Coalesced[int]]:
    """What applying the events one by one in stream order leads to."""
    outcome: dict[EntityRef, Coalesced[int]] = {}
    for order, each in sorted(events, key=lambda pair: pair[0]):
        assert each.ref is not None
        known = outcome.get(each.ref)
        stated = known.stated if known else None
        if each.changed is not None:
            known_so_far = stated or Stated(None, None)
            fields = {name: (order, value) for name, value in each.changed.fields.items()}
            alive = known_so_far.alive if each.changed.alive is None else (order, each.changed.alive)
            stated = replace(known_so_far, fields={**known_so_far.fields, **fields}, alive=alive)
        elif each.verb is Verb.DELETE:
            stated = Stated(order, None)
        elif each.carried is not None:
            stated = Stated(order, each.carried)
        kinds = (known.kinds if known else frozenset()) | {each.kind}
        outcome[each.ref] = Coalesced(order, each, stated, kinds)
    return outcome


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=8), st.data())
def test_arrival_order_batches_and_redeliveries_make_no_difference(events: list[Event], data: Any) -> None:
    in_order = list(enumerate(events))
    expected = one_after_another(in_order)
    arrival = data.draw(st.permutations(in_order))
    assert coalesce(arrival) == expected
    cut, overlap = data.draw(st.integers(0, len(arrival))), data.draw(st.integers(0, 3))
    first, second = arrival[:cut], arrival[max(0, cut - overlap) :]
    assert coalesce(second, onto=coalesce(first)) == expected
    assert coalesce(first, onto=coalesce(second)) == expected
