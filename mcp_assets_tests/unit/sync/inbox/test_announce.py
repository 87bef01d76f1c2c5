"""Announce: which result messages a batch of the inbox has, and what stands in each."""

import pytest

from mcp_assets.embedding.protocol import Refusal
from mcp_assets.stores.relationships import EdgeChanges
from mcp_assets.sync.inbox.announce import counts_of, edge_results, indexed_results, result_subject
from mcp_assets.sync.inbox.drained import Drained, IdentifiedMessage
from mcp_assets.sync.inbox.outbox import ResultMessage
from mcp_assets.sync.index.batch_report import BatchReport, Counts

NONE = {"scanned": 0, "embedded": 0, "updated": 0, "unchanged": 0, "deleted": 0, "empty": 0, "failed": 0}


def request(entity_id: str, message_id: str) -> IdentifiedMessage:
    return IdentifiedMessage("vector.index.request", entity_id, message_id)


def completed(*entity_ids: str, answers: tuple[str, ...] = (), **counts: int) -> ResultMessage:
    result = {
        "entity_type": "task",
        "counts": NONE | {"scanned": len(entity_ids)} | counts,
        "entities": [f"task:{entity_id}" for entity_id in entity_ids],
    }
    return ResultMessage("vector.index.completed", result, list(answers))


def failed(errors: dict[str, str], *, answers: tuple[str, ...] = ()) -> ResultMessage:
    result = {
        "entity_type": "task",
        "counts": {"failed": len(errors)},
        "failed": [{"entity": f"task:{entity_id}", "error": error} for entity_id, error in errors.items()],
    }
    return ResultMessage("vector.index.failed", result, list(answers))


@pytest.mark.parametrize(
    ("request_subject", "done", "failure"),
    [
        ("vector.index.request", "vector.index.completed", "vector.index.failed"),
        ("data.validate.request", "data.validate.completed", "data.validate.failed"),
    ],
)
def test_a_request_is_answered_on_the_subject_of_its_name(request_subject: str, done: str, failure: str) -> None:
    assert result_subject(request_subject, failed=False) == done
    assert result_subject(request_subject, failed=True) == failure


def test_events_that_changed_nothing_have_no_result() -> None:
    assert indexed_results(Drained("task", 2, entity_ids=("a", "b"))) == []
    assert indexed_results(Drained("task", 0)) == []


def test_events_that_changed_something_have_one_result_with_what_became_of_each_entity() -> None:
    report = BatchReport(outcomes={"a": "embedded", "b": "deleted"})
    drained = Drained("task", 3, report, entity_ids=("a", "b", "c"))
    assert indexed_results(drained) == [completed("a", "b", "c", embedded=1, deleted=1, unchanged=1)]


def test_a_request_is_answered_though_it_changed_nothing() -> None:
    drained = Drained("task", 1, entity_ids=("a",), identified=(request("a", "m-1"),))
    assert indexed_results(drained) == [completed("a", answers=("m-1",), unchanged=1)]


def test_an_answer_counts_what_its_requests_name_and_events_have_a_result_of_their_own() -> None:
    report = BatchReport(outcomes={"a": "embedded", "b": "updated", "c": "updated"})
    requests = (request("b", "m-1"), request("a", "m-2"), request("b", "m-3"))
    drained = Drained("task", 5, report, entity_ids=("a", "b", "c"), identified=requests)
    assert indexed_results(drained) == [
        completed("a", "b", answers=("m-2", "m-1", "m-3"), embedded=1, updated=1),
        completed("c", updated=1),
    ]


def test_events_that_changed_nothing_have_no_result_beside_an_answer_either() -> None:
    drained = Drained("task", 2, entity_ids=("a", "b"), identified=(request("a", "m-1"),))
    assert indexed_results(drained) == [completed("a", answers=("m-1",), unchanged=1)]


def test_a_message_with_an_id_that_is_no_request_to_index_gets_no_answer() -> None:
    event = IdentifiedMessage("mcp.task.updated", "a", "m-1")
    drained = Drained("task", 1, BatchReport(outcomes={"a": "updated"}), entity_ids=("a",), identified=(event,))
    assert indexed_results(drained) == [completed("a", updated=1)]


def test_failures_are_results_of_their_own_with_the_reason_for_each_entity() -> None:
    refusals = {"a": Refusal("input_refused", "the provider refuses it"), "b": Refusal("bad_answer", "no vector")}
    report = BatchReport(outcomes={"a": "failed", "b": "failed", "c": "embedded"}, refusals=refusals)
    drained = Drained("task", 4, report, entity_ids=("a", "b", "c"), given_up=("d",), identified=(request("a", "m-1"),))
    unknown = "nothing is known of it: it has no source row, and no event states it"
    assert indexed_results(drained) == [
        completed("c", embedded=1),
        failed({"a": "the provider refuses it"}, answers=("m-1",)),
        failed({"b": "no vector", "d": unknown}),
    ]


def test_an_entity_whose_recheck_is_due_is_not_announced_yet() -> None:
    waiting = Drained("task", 1, BatchReport(early={"a"}), entity_ids=(), identified=(request("a", "m-1"),))
    assert indexed_results(waiting) == []


def test_counts_are_reported_under_their_names_of_entities_only() -> None:
    counts = Counts(1, 2, texts=99, updated=3, unchanged=4, deleted=5, empty=6, failed=7, tokens=99)
    assert counts_of(counts) == {
        "scanned": 1,
        "embedded": 2,
        "updated": 3,
        "unchanged": 4,
        "deleted": 5,
        "empty": 6,
        "failed": 7,
    }


def test_changes_of_edges_are_summed_by_type() -> None:
    first, second = EdgeChanges(), EdgeChanges()
    first.added["cross_reference"], first.removed["semantic_similarity"] = 2, 1
    second.added["cross_reference"], second.changed["topical_relevance"] = 3, 4
    assert edge_results([first, second]) == {
        "added": {"cross_reference": 5},
        "changed": {"topical_relevance": 4},
        "removed": {"semantic_similarity": 1},
    }
    assert edge_results([]) == {"added": {}, "changed": {}, "removed": {}}
