"""I4: whatever is created, updated, deleted, repeated and re-ordered, the edges at rest are those of a rebuild."""

from collections.abc import Callable, Generator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mcp_assets.entities.refs import EntityRef
from mcp_assets.sync import ahead, linker, lists
from mcp_assets.sync.linker import LinkReport
from mcp_assets.sync.load import create_source_tables
from mcp_assets.sync.platform import Platform
from mcp_assets.sync.tags import refresh_tag_weights
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    delete_source,
    empty_world,
    evidence,
    graph,
    index,
    rebuild,
    relink,
    shorten_lists,
    write_source,
)

LIMIT = 3
"""Places in a list, so that some dozens of entities fill and overflow them."""

REFS = [EntityRef(name, entity_id) for name in ("task", "page", "memory") for entity_id in "abcd"]
TITLES = ["", "Plan", "plan", "Notes", "Cafe\u0301", "Plan#Goals"]
PARTS = [
    "task:a",
    "page:b",
    "[[Plan]]",
    "[[Notes]]",
    "depends on task:c",
    "part of page:a",
    "after memory:d",
    "memory:zz",
    "[[Plan#Goals|the goals]]",
    "![[x/y/Plan.md]]",
    "[[x/y]]",
    "[[Café]] [[#Goals]]",
    "`task:d` and `[[Plan]]`",
    "\n```\n[[Notes]] page:c\n```\n",
    "<!-- page:d --> | [[Notes\\|n]] |",
]
TAGS = ["red", "green", "blue", "rare"]
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "depends_on": st.lists(st.sampled_from(["a", "page:b", "memory:c", "zz"]), max_size=2),
        "blocks": st.lists(st.sampled_from(["a", "task:b"]), max_size=2) | st.sampled_from([None, 7, "c"]),
        "parent_id": st.sampled_from(["a", "d"]),
        "slug": st.sampled_from(["x", "x/y", "x/y/z"]),
        "tags": st.lists(st.sampled_from(TAGS), max_size=3),
        "category": st.sampled_from(["one", "two"]),
    },
)
ENTITIES = st.tuples(
    st.sampled_from(REFS),
    st.sampled_from(TITLES),
    st.integers(0, 9),
    st.lists(st.sampled_from(PARTS), max_size=2),
    METADATA,
)


class Workspace(RuleBasedStateMachine):
    """Source rows are written; events about them, if any, come once, often, late and in any order; a linker is at work,
    is held up at any point, or ends."""

    platform: Platform
    linking: Generator[LinkReport] | None = None

    @initialize(entities=st.lists(ENTITIES, min_size=10, max_size=20))
    def begin(self, entities: list[tuple[EntityRef, str, int, list[str], dict[str, object]]]) -> None:
        empty_world(self.platform)
        self.unseen: list[EntityRef] = []
        self.write(entities)
        self.come_to_rest()

    @rule(entities=st.lists(ENTITIES, min_size=1, max_size=8))
    def write_some(self, entities: list[tuple[EntityRef, str, int, list[str], dict[str, object]]]) -> None:
        self.write(entities)

    def write(self, entities: list[tuple[EntityRef, str, int, list[str], dict[str, object]]]) -> None:
        for ref, title, step, parts, metadata in entities:
            content = " ".join([f"@{step * 10}" if step else "", *parts]).strip()
            write_source(self.platform, ref, title, content, metadata)
            self.unseen.append(ref)

    @rule(refs=st.lists(st.sampled_from(REFS), min_size=1, max_size=3))
    def delete(self, refs: list[EntityRef]) -> None:
        for ref in refs:
            delete_source(self.platform, ref)
            self.unseen.append(ref)

    @rule(data=st.data(), embed=st.booleans())
    def see_some(self, data: st.DataObject, embed: bool) -> None:
        seen = data.draw(st.lists(st.sampled_from(self.unseen or REFS), max_size=6))
        index(self.platform, *seen, embed=embed)

    @rule(transactions=st.integers(1, 6))
    def link_some(self, transactions: int) -> None:
        self.linking = self.linking or linker.link(self.platform)
        for _ in range(transactions):
            if next(self.linking, None) is None:
                self.linking = None
                break

    @rule()
    def end_linking(self) -> None:
        if self.linking is not None:
            self.linking.close()
            self.linking = None

    @rule()
    def refresh_tags(self) -> None:
        refresh_tag_weights(self.platform)

    @rule()
    def rest(self) -> None:
        self.come_to_rest()

    def come_to_rest(self) -> None:
        index(self.platform, *self.unseen, *REFS)
        self.unseen = []
        for _ in self.linking or ():
            pass
        self.linking = None
        relink(self.platform)
        incremental, shown = graph(self.platform), evidence(self.platform)
        assert incremental == rebuild(self.platform)
        assert shown == evidence(self.platform)

    def teardown(self) -> None:
        if hasattr(self, "unseen"):
            try:
                self.come_to_rest()
            finally:
                self.end_linking()


@pytest.mark.parametrize(
    ("sweep_from", "spares"),
    [(3, 2), (1_000, 2), (1_000, 0)],
    ids=["everybody is asked anew", "changes are worked in", "changes are worked in without spares"],
)
def test_the_edges_at_rest_are_those_of_a_rebuild(
    make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch, sweep_from: int, spares: int
) -> None:
    monkeypatch.setattr(linker, "SWEEP_FROM", sweep_from)
    monkeypatch.setattr(linker, "CHANGES_AT_ONCE", 5)
    monkeypatch.setattr(linker, "SWEPT_AT_ONCE", 5)
    monkeypatch.setattr(linker, "_LISTS_BETWEEN_CHANGES", 2)
    monkeypatch.setattr(ahead, "LISTS_AT_ONCE", 2)
    monkeypatch.setattr(linker, "REFERRING_AT_ONCE", 4)
    monkeypatch.setattr(lists, "DEEP", 2)
    monkeypatch.setattr(lists, "ASKED", 2)
    shorten_lists(monkeypatch, LIMIT, LIMIT + spares)
    platform = make_platform(types=TYPES, tag_candidates=4)
    platform._embedder = AngleEmbedder(threshold=0.8)
    create_source_tables(platform)

    class OnThisPlatform(Workspace):
        pass

    OnThisPlatform.platform = platform
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisPlatform,
        settings=settings(
            max_examples=12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
