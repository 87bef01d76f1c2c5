"""The rule of truth: the living row, else the tombstone of one that was, else the newest event that says something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.events import Carried, Stated
from mcp_assets.events.model import JsonValue
from mcp_assets.stores.source_tables.rows import SourceRow
from mcp_assets.sync.index.truth import LedgerRow, Origin, Truth, truth_of

LIVING = SourceRow(True, "row", "content", {"k": 1}, "hash")
ARCHIVED = SourceRow(False, "row", "content", {"k": 1}, "hash")


def known(origin: Origin, order: str | None = None, *, deleted: bool = False) -> LedgerRow:
    return LedgerRow(origin, "known", "text", {"a": 1}, None, "p", "t", "s", order, deleted, dirty=False)


def said(order: str, title: str | None = "event") -> Stated[str]:
    """An event that states a title; None: that it is deleted."""
    return Stated(order, None if title is None else Carried(title, "by event", {}))


CURRENT = st.none() | st.builds(
    known, st.sampled_from(["source", "event"]), st.none() | st.sampled_from(["1", "5"]), deleted=st.booleans()
)
STATED = st.none() | st.builds(said, st.sampled_from(["0", "3", "9"]), st.none() | st.just("event"))


@given(CURRENT, STATED)
def test_a_living_row_wins_over_everything(current: LedgerRow | None, stated: Stated[str] | None) -> None:
    truth = truth_of(current, LIVING, stated)

    assert truth is not None
    assert (truth.origin, truth.title, truth.content, truth.metadata) == ("source", "row", "content", {"k": 1})
    assert (truth.source_hash, truth.deleted) == ("hash", False)


@given(CURRENT, STATED)
def test_a_row_that_is_not_alive_means_deleted(current: LedgerRow | None, stated: Stated[str] | None) -> None:
    truth = truth_of(current, ARCHIVED, stated)

    assert truth is not None
    assert (truth.origin, truth.deleted, truth.title, truth.content) == ("source", True, None, "")


@given(STATED, st.booleans())
def test_a_row_that_is_gone_means_deleted_whatever_events_say(stated: Stated[str] | None, deleted: bool) -> None:
    truth = truth_of(known("source", deleted=deleted), None, stated)

    assert truth is not None
    assert (truth.origin, truth.deleted) == ("source", True)


@pytest.mark.parametrize("order", [None, "1"])
def test_without_a_row_a_newer_event_is_the_truth(order: str | None) -> None:
    assert truth_of(known("event", order), None, said("2")) == Truth(
        "event", "event", "by event", {}, None, "2", deleted=False
    )
    assert truth_of(known("event", order), None, said("2", None)) == Truth(
        "event", None, "", {}, None, "2", deleted=True
    )


@pytest.mark.parametrize("stated", [None, said("1"), said("2"), said("2", None), said("1", None)])
def test_without_a_row_an_older_event_a_repeated_one_or_none_leaves_what_was(stated: Stated[str] | None) -> None:
    truth = truth_of(known("event", "2"), None, stated)

    assert truth == Truth("event", "known", "text", {"a": 1}, None, "2", deleted=False)


def test_an_older_event_does_not_bring_a_deleted_entity_back_and_a_newer_one_does() -> None:
    older = truth_of(known("event", "2", deleted=True), None, said("1"))
    newer = truth_of(known("event", "2", deleted=True), None, said("3"))

    assert older is not None
    assert older.deleted
    assert newer is not None
    assert not newer.deleted


def test_of_an_entity_that_has_nothing_nothing_is_known() -> None:
    assert truth_of(None, None, None) is None


def test_the_first_event_of_an_entity_is_its_truth_also_if_it_deletes() -> None:
    created, deleted = truth_of(None, None, said("1")), truth_of(None, None, said("1", None))

    assert created is not None
    assert (created.title, created.deleted) == ("event", False)
    assert deleted is not None
    assert deleted.deleted


@given(CURRENT, st.none() | st.sampled_from([LIVING, ARCHIVED]), STATED)
def test_the_place_among_events_never_goes_back(
    current: LedgerRow | None, source: SourceRow | None, stated: Stated[str] | None
) -> None:
    truth = truth_of(current, source, stated)

    if truth is not None and current is not None and current.event_order is not None:
        assert truth.event_order is not None
        assert truth.event_order >= current.event_order


def changes(fields: dict[str, tuple[str, JsonValue]], alive: tuple[str, bool] | None = None) -> Stated[str]:
    return Stated(None, None, fields, alive)


def as_row(truth: Truth | None) -> LedgerRow | None:
    if truth is None:
        return None
    return LedgerRow(
        truth.origin, truth.title, truth.content, truth.metadata, None, "p", "t", "s", truth.event_order,
        truth.deleted, dirty=False, changes=truth.changes,
    )  # fmt: skip


def test_a_change_of_an_entity_that_nothing_is_known_of_makes_none() -> None:
    assert truth_of(None, None, changes({"board": ("2", "b")})) is None
    assert truth_of(None, None, changes({}, ("2", True))) is None


def test_a_change_leaves_the_rest_as_it_is() -> None:
    truth = truth_of(known("event", "1"), None, changes({"board": ("2", "b")}))
    assert truth is not None
    assert (truth.title, truth.content, truth.metadata) == ("known", "text", {"a": 1, "board": "b"})
    assert (truth.event_order, truth.deleted) == ("1", False)


def test_what_is_archived_is_restored_as_it_was_and_what_is_deleted_is_not() -> None:
    archived = as_row(truth_of(known("event", "1"), None, changes({}, ("2", False))))
    assert archived is not None
    assert archived.deleted
    restored = truth_of(archived, None, changes({}, ("3", True)))
    assert restored is not None
    assert (restored.content, restored.deleted) == ("text", False)
    gone = as_row(truth_of(archived, None, said("4", None)))
    again = truth_of(gone, None, changes({}, ("5", True)))
    assert again is not None
    assert (again.content, again.deleted) == ("", True)


STATEMENTS = st.lists(
    st.one_of(
        st.just("delete"),
        st.sampled_from(["full a", "full b"]),
        st.builds(lambda name, value: (name, value), st.sampled_from("xy"), st.integers(0, 3)),
        st.sampled_from(["archive", "restore"]),
    ),
    min_size=1,
    max_size=6,
)


def stated_by(order: str, statement: object) -> Stated[str]:
    if isinstance(statement, tuple):
        return changes({statement[0]: (order, statement[1])})
    if statement in ("archive", "restore"):
        return changes({}, (order, statement == "restore"))
    carried = None if statement == "delete" else Carried(None, str(statement), {"x": "whole"})
    return Stated(order, carried)


@given(STATEMENTS, st.data())
def test_statements_that_come_late_lead_to_the_same_truth(statements: list[object], data: st.DataObject) -> None:
    """Once something whole is known; a change of what nothing is known of is looked at again until it is."""
    ordered = [("0", "full a"), *((str(n), each) for n, each in enumerate(statements, 1))]
    expected: LedgerRow | None = None
    for order, statement in ordered:
        expected = as_row(truth_of(expected, None, stated_by(order, statement)))
    late = ordered[:1] + data.draw(st.permutations(ordered[1:]))
    found: LedgerRow | None = None
    for order, statement in [*late, *late]:
        found = as_row(truth_of(found, None, stated_by(order, statement)))
    assert expected is not None
    assert found is not None
    assert found.deleted == expected.deleted
    if not expected.deleted:
        assert (found.content, found.metadata) == (expected.content, expected.metadata)
    assert found == expected
