"""The state machine of linking: a workspace whose rows are written, announced, indexed and linked in any order (I4).

What Hypothesis prints of a failure is a function of `machine_steps`, word for word.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import Carried, Stated
from mcp_assets.graph import Decision
from mcp_assets.platform import Platform
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.link import linker
from mcp_assets.sync.link.counts import LinkReport
from mcp_assets.sync.link.judging import VerdictRefused, record_verdict
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets_tests.linking import (
    delete_source,
    empty_world,
    evidence,
    graph,
    index,
    judged_edges,
    rebuild,
    relink,
    write_source,
)

LIMIT = 3
"""Places in a list, so that some dozens of entities fill and overflow them."""

Entity = tuple[EntityRef, str, int, list[str], dict[str, object]]
"""Who, title, direction of the vector in tens of degrees (0: none is said), parts of the text, metadata."""

REFS = [EntityRef(name, entity_id) for name in ("task", "page", "memory") for entity_id in "abcd"]
EVENT_BORN = [EntityRef(name, entity_id) for name in ("task", "memory") for entity_id in "mn"]
"""Entities that never have a source row."""

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
    "task:m memory:n",
    # Longer than what its own point embeds: it has chunks, too.
    "at length " * 850,
    # Written twice, if the other words and the vectors agree; the second differs from the first by one word.
    "Order a new certificate, install it, restart the service, and tell all people on call about it.",
    "Order a new certificate, install it, restart the service, and ask all people on call about it.",
    "<!-- page:d --> | [[Notes\\|n]] |",
]
TAGS = ["red", "green", "blue", "rare"]
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "depends_on": st.lists(st.sampled_from(["a", "page:b", "memory:c", "m", "zz"]), max_size=2),
        "blocks": st.lists(st.sampled_from(["a", "task:b"]), max_size=2) | st.sampled_from([None, 7, "c"]),
        "parent_id": st.sampled_from(["a", "d"]),
        "slug": st.sampled_from(["x", "x/y", "x/y/z"]),
        "tags": st.lists(st.sampled_from(TAGS), max_size=3),
        "category": st.sampled_from(["one", "two"]),
    },
)


def entities_of(refs: Sequence[EntityRef]) -> st.SearchStrategy[Entity]:
    return st.tuples(
        st.sampled_from(refs),
        st.sampled_from(TITLES),
        st.integers(0, 9),
        st.lists(st.sampled_from(PARTS), max_size=2),
        METADATA,
    )


def content_of(step: int, parts: Sequence[str]) -> str:
    return " ".join([f"@{step * 10}" if step else "", *parts]).strip()


class Workspace(RuleBasedStateMachine):
    """Source rows are written; events about them, if any, come once, often, late and in any order; others live by their
    events alone; a team judges edges; a linker is at work, is held up at any point, or ends."""

    platform: Platform
    linking: Generator[LinkReport] | None = None
    stated_events = 0

    @initialize(entities=st.lists(entities_of(REFS), min_size=10, max_size=20))
    def begin(self, entities: list[Entity]) -> None:
        empty_world(self.platform)
        self.unseen: list[EntityRef] = []
        self.write_some(entities)
        self.rest()

    @rule(entities=st.lists(entities_of(REFS), min_size=1, max_size=8))
    def write_some(self, entities: list[Entity]) -> None:
        for ref, title, step, parts, metadata in entities:
            write_source(self.platform, ref, title, content_of(step, parts), metadata)
            self.unseen.append(ref)

    @rule(refs=st.lists(st.sampled_from(REFS), min_size=1, max_size=3))
    def delete(self, refs: list[EntityRef]) -> None:
        for ref in refs:
            delete_source(self.platform, ref)
            self.unseen.append(ref)

    @rule(places=st.lists(st.integers(0, 30), max_size=6), embed=st.booleans())
    def see_some(self, places: list[int], embed: bool) -> None:
        """`places`: of the entities that events wait for; of all, if none does."""
        waiting = self.unseen or REFS
        index(self.platform, *(waiting[place % len(waiting)] for place in places), embed=embed)

    @rule(entities=st.lists(entities_of(EVENT_BORN), min_size=1, max_size=3), embed=st.booleans())
    def tell(self, entities: list[Entity], embed: bool) -> None:
        """Events carry what these entities are."""
        for ref, title, step, parts, metadata in entities:
            self.apply_event(ref, Carried(title, content_of(step, parts), dict(metadata)), embed)  # type: ignore[arg-type]

    @rule(refs=st.lists(st.sampled_from(EVENT_BORN), min_size=1, max_size=2))
    def tell_of_the_end(self, refs: list[EntityRef]) -> None:
        for ref in refs:
            self.apply_event(ref, None, embed=True)

    def apply_event(self, ref: EntityRef, carried: Carried | None, embed: bool) -> None:
        self.stated_events += 1
        stated = Stated(f"{self.stated_events:020}", carried)
        Indexer(self.platform, ref.type).run([Wanted(ref.id, stated, deleting=carried is None, events=1)], embed=embed)

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

    @rule(place=st.integers(0, 60), decision=st.sampled_from([*Decision, None]))
    def judge(self, place: int, decision: Decision | None) -> None:
        """`place`: of the stored edges, and behind them those that have a verdict."""
        keys = [*sorted(graph(self.platform)), *judged_edges(self.platform)]
        if keys:
            source, target, edge_type = keys[place % len(keys)]
            with suppress(VerdictRefused):
                record_verdict(self.platform, source, target, edge_type=edge_type, decision=decision, by="machine")

    @rule()
    def rest(self) -> None:
        index(self.platform, *self.unseen, *REFS, *EVENT_BORN)
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
                self.rest()
            finally:
                self.end_linking()
