"""Entries of the change feed: positions as text, times, and what a program gets."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeKey, EdgeType
from mcp_assets.sync.feed.edge_entries import EdgeCauses, entry_line, name_of
from mcp_assets.sync.feed.entries import ChangeKind, EdgeReason, Entry, NoPosition, Position, parse_since

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
NUMBERS = st.integers(0, 2**63 - 1)
POSITIONS = st.builds(Position, st.from_regex(r"[0-9a-f]{8}", fullmatch=True), NUMBERS, NUMBERS)
A, B, C = EntityRef("task", "a"), EntityRef("page", "b"), EntityRef("task", "c")


@given(POSITIONS)
def test_a_position_is_read_back_from_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position == parse_since(str(position), NOW)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=2))
def test_positions_of_an_edition_are_in_the_order_of_transaction_and_sequence(pairs: list[tuple[int, int]]) -> None:
    one, other = (Position("00000000", xid, seq) for xid, seq in pairs)
    assert (one < other) == (pairs[0] < pairs[1])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2026-12-01T08:00+01:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
    ],
)
def test_since_may_be_a_time_or_a_span(text: str, moment: datetime) -> None:
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "5f3a9c2e-1", "5F3A9C2E-1-1", "2026-13-01", "99999999999d"])
def test_anything_else_is_refused_with_what_it_may_be(text: str) -> None:
    with pytest.raises(NoPosition, match="neither a position of the feed, nor a time such as"):
        parse_since(text, NOW)


def test_an_entry_tells_what_its_kind_has_and_nothing_else() -> None:
    entity = Entry("7", 1, NOW, ChangeKind.INDEXED, "new", "task", "a", "h", None, None, None, None, None)
    edge = Entry("7", 2, NOW, ChangeKind.EDGE_ADDED, "text", "task", "a", None, "e", "page", "b", 0.5, None)
    rebuilt = Entry("7", 3, NOW, ChangeKind.EDGES_REBUILT, "rebuild", "task", None, None, None, None, None, None, 2)
    made_at = "2026-12-01T08:00:00.000+00:00"
    assert [one.told("5f3a9c2e", 4) for one in (entity, edge, rebuilt)] == [
        {
            "position": "5f3a9c2e-7-1",
            "kind": "indexed",
            "reason": "new",
            "made_at": made_at,
            "entity": "task:a",
            "state_hash": "h",
        },
        {
            "position": "5f3a9c2e-7-2",
            "kind": "edge_added",
            "reason": "text",
            "made_at": made_at,
            "entity": "task:a",
            "edge_type": "e",
            "target": "page:b",
            "strength": 0.5,
        },
        {
            "position": "5f3a9c2e-7-3",
            "kind": "edges_rebuilt",
            "reason": "rebuild",
            "made_at": made_at,
            "partition": "task-02",
        },
    ]


@pytest.mark.parametrize(
    ("edge_type", "source", "target", "reason"),
    [
        (EdgeType.SEMANTIC_SIMILARITY, A, B, EdgeReason.TEXT),
        (EdgeType.SEMANTIC_SIMILARITY, B, A, EdgeReason.TEXT),
        (EdgeType.SEMANTIC_SIMILARITY, B, C, EdgeReason.RANKING),
        (EdgeType.TOPICAL_RELEVANCE, B, C, EdgeReason.TAGS),
        (EdgeType.TOPICAL_RELEVANCE, A, B, EdgeReason.RANKING),
        (EdgeType.CROSS_REFERENCE, A, C, EdgeReason.REFERENCE),
        (EdgeType.CROSS_REFERENCE, A, EntityRef("task", "gone"), EdgeReason.ENTITY_REMOVED),
        (EdgeType.SEMANTIC_SIMILARITY, C, B, EdgeReason.VERDICT),
    ],
)
def test_the_reason_of_an_edge_is_the_change_of_an_end_that_its_type_depends_on(
    edge_type: EdgeType, source: EntityRef, target: EntityRef, reason: EdgeReason
) -> None:
    judged = {EdgeKey(C, B, EdgeType.SEMANTIC_SIMILARITY)}
    causes = EdgeCauses(gone={EntityRef("task", "gone")}, moved={A}, retagged={C}, verdicts=judged)
    assert causes.reason(edge_type, source, target) is reason


def test_a_line_of_an_entry_escapes_ids_and_has_no_strength_where_none_is_known() -> None:
    source, target = name_of(EntityRef("task", "a\tb")), name_of(EntityRef("page", "c"))
    line = entry_line(ChangeKind.EDGE_REMOVED, EdgeReason.REPAIR, "e", source, target, None)
    assert line == "edge_removed\trepair\ttask\ta\\tb\te\tpage\tc\t\\N\n"
