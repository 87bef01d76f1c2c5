"""Steps of the state machine that each run of the tests replays: that failed once, or that random steps seldom reach.

To add some: paste what Hypothesis prints under "Falsifying example" behind `state = …`, and name the function by what
is the matter. A seed or a blob would mean something else as soon as the machine or Hypothesis changes.
"""

from collections.abc import Callable

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import Decision
from mcp_assets_tests.machine import Workspace

Steps = Callable[[Workspace], None]


def a_change_meets_a_list_with_somebody_gone_while_everybody_is_asked_anew(state: Workspace) -> None:
    tags = {"tags": ["red", "green"]}
    state.begin(
        entities=[
            (EntityRef(type="task", id="a"), "Plan", 1, [], tags),
            (EntityRef(type="task", id="b"), "Plan", 1, [], tags),
            (EntityRef(type="task", id="c"), "Plan", 1, [], tags),
            (EntityRef(type="memory", id="a"), "Plan", 1, [], tags),
            (EntityRef(type="memory", id="b"), "Plan", 2, [], tags),
        ]
    )
    # So many that all lists are rebuilt; linking ends before any list is written.
    state.delete(
        refs=[EntityRef(type="task", id="b"), EntityRef(type="task", id="c"), EntityRef(type="memory", id="a")]
    )
    state.see_some(places=[0, 1, 2], embed=True)
    state.link_some(transactions=1)
    state.end_linking()
    # One alone, which updates lists that still name an entity that is gone.
    state.write_some(entities=[(EntityRef(type="task", id="a"), "Plan", 1, [], {"tags": ["red"]})])
    state.see_some(places=[3], embed=True)
    state.link_some(transactions=2)
    state.teardown()


def a_newcomer_comes_back_with_another_vector_before_the_lists_are_asked_for(state: Workspace) -> None:
    state.begin(
        entities=[(EntityRef(type="task", id=name), "", step, [], {}) for step, name in enumerate("abcd", start=1)]
    )
    state.delete(refs=[EntityRef(type="task", id="b")])
    state.see_some(places=[0], embed=True)
    state.link_some(transactions=1)
    state.write_some(entities=[(EntityRef(type="task", id="b"), "Notes", 4, [], {})])
    state.see_some(places=[1], embed=True)
    state.link_some(transactions=1)
    state.end_linking()
    state.teardown()


def an_entity_that_lives_by_events_ends_and_comes_back_between_two_transactions(state: Workspace) -> None:
    state.begin(entities=[(EntityRef(type="task", id="a"), "Plan", 1, ["task:m memory:n"], {"depends_on": ["m"]})])
    state.tell(
        entities=[(EntityRef(type="task", id="m"), "Plan", 1, ["[[Plan]]"], {"tags": ["rare"]})],
        embed=True,
    )
    state.link_some(transactions=1)
    state.tell_of_the_end(refs=[EntityRef(type="task", id="m")])
    state.link_some(transactions=1)
    state.tell(entities=[(EntityRef(type="task", id="m"), "Notes", 2, [], {})], embed=False)
    state.link_some(transactions=1)
    state.teardown()


def a_text_changes_and_is_as_before_while_the_edges_of_it_are_rejected(state: Workspace) -> None:
    a, b, d = (EntityRef(type="task", id=name) for name in "abd")
    state.begin(
        entities=[
            (a, "Plan", 1, ["task:b"], {"tags": ["red"]}),
            (b, "Notes", 2, [], {"tags": ["red"]}),
            (EntityRef(type="task", id="c"), "", 3, [], {}),
        ]
    )
    for place in range(3):
        state.judge(place=place, decision=Decision.REJECTED)
    state.rest()
    # The ledger has another text, for which there is no vector yet, while a newcomer has the lists asked for.
    state.write_some(entities=[(b, "Notes", 9, [], {"tags": ["red", "green"]}), (d, "", 1, [], {"tags": ["red"]})])
    state.see_some(places=[0], embed=False)
    state.see_some(places=[1], embed=True)
    state.link_some(transactions=6)
    state.write_some(entities=[(b, "Notes", 2, [], {"tags": ["red"]})])
    state.see_some(places=[0], embed=True)
    state.teardown()


def an_accepted_edge_outlives_its_rule_and_not_its_end(state: Workspace) -> None:
    a, b = (EntityRef(type="task", id=name) for name in "ab")
    state.begin(entities=[(a, "Plan", 1, [], {"depends_on": ["b"]}), (b, "Plan", 2, [], {"tags": ["red"]})])
    state.judge(place=0, decision=Decision.ACCEPTED)
    state.judge(place=1, decision=Decision.ACCEPTED)
    state.write_some(entities=[(a, "Plan", 9, [], {})])
    state.see_some(places=[0], embed=True)
    state.link_some(transactions=6)
    state.delete(refs=[b])
    state.see_some(places=[1], embed=True)
    state.link_some(transactions=1)
    state.write_some(entities=[(b, "Plan", 2, [], {})])
    state.judge(place=0, decision=None)
    state.teardown()


STEPS: tuple[Steps, ...] = (
    a_change_meets_a_list_with_somebody_gone_while_everybody_is_asked_anew,
    a_newcomer_comes_back_with_another_vector_before_the_lists_are_asked_for,
    an_entity_that_lives_by_events_ends_and_comes_back_between_two_transactions,
    a_text_changes_and_is_as_before_while_the_edges_of_it_are_rejected,
    an_accepted_edge_outlives_its_rule_and_not_its_end,
)
