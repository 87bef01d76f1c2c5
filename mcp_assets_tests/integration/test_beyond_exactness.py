"""Beyond the bound of exact searches: what is exact all the same, what is measured, and what a census reports."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.cli.status import read_status, sentences
from mcp_assets.defs.metadata import census_metadata, edges_metadata
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.stores.qdrant_collections import QdrantCollections
from mcp_assets.stores.qdrant_search import QdrantSearches, QueryPoint
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.list_recall import ListRecall
from mcp_assets.sync.consistency.stored_censuses import recall_by_type
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.metrics import PlatformCollector
from mcp_assets.tuning import ConsistencyTuning, LinkTuning, Tuning
from mcp_assets_tests.hashing import censuses, found
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    Graph,
    delete_source,
    graph,
    index,
    rebuild,
    relink,
    sync_all,
    write_source,
)

TASKS = 90
SIMILAR = (EdgeType.SEMANTIC_SIMILARITY, EdgeType.POSSIBLE_DUPLICATE)
EXACT = tuple(edge_type for edge_type in EdgeType if edge_type not in SIMILAR)

# All lists are compared, in several requests; lists are asked of Qdrant, never found in blocks.
TUNING = Tuning(
    link=LinkTuning(rebuild_from=100_000, exact_for_s=0.0, block_start_s=1e9),
    consistency=ConsistencyTuning(recall_lists=4 * TASKS, recall_lists_a_request=7),
)


def task(number: int) -> EntityRef:
    return EntityRef("task", f"t{number:03}")


def write(platform: Platform, number: int, angle: int) -> None:
    """A task in the direction of `angle`, which names another one by id and a third by title, and has tags."""
    write_source(
        platform,
        task(number),
        f"Task {number}",
        f"@{angle} after task:t{(number * 7 + 1) % TASKS:03} and [[Task {(number * 5 + 2) % TASKS}]]",
        {"tags": [f"tag-{number % 9}", f"area-{number % 4}"]},
    )


@pytest.fixture
def beyond(make_platform: Callable[..., Platform]) -> Platform:
    """Tasks all around the circle, four degrees apart, indexed and linked; the bound lies below their number."""
    platform = make_platform(embedder=AngleEmbedder(), tuning=TUNING, types=TYPES, exact_up_to=10)
    create_source_tables(platform)
    for number in range(TASKS):
        write(platform, number, number * 4)
    sync_all(platform)
    relink(platform)
    return platform


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches that are not exact miss a hit in eight, as an index does."""
    search = QdrantSearches.nearest

    def nearest(
        self: QdrantSearches, collection: str, queries: Sequence[QueryPoint], *, exact: bool, **rest: Any
    ) -> list[list[tuple[str, float]]]:
        answers = search(self, collection, queries, exact=exact, **rest)
        if exact:
            return answers
        return [
            [hit for hit in answer if (int(hit[0][:8], 16) + int(one.point[:8], 16)) % 8]
            for one, answer in zip(queries, answers, strict=True)
        ]

    monkeypatch.setattr(QdrantSearches, "nearest", nearest)


def exactly(make_platform: Callable[..., Platform]) -> Graph:
    return rebuild(make_platform(embedder=AngleEmbedder(), tuning=TUNING, types=TYPES))


def of_types(edges: Graph, types: Sequence[EdgeType]) -> Graph:
    return {key: strength for key, strength in edges.items() if key.type in types}


def scraped_recall(platform: Platform) -> dict[str, float]:
    return {
        sample.labels["entity_type"]: sample.value
        for family in PlatformCollector(platform).collect()
        if family.name == "mcp_assets_similarity_recall"
        for sample in family.samples
    }


def recall_of(platform: Platform) -> ListRecall:
    return recall_by_type(censuses(platform))["task"]


@pytest.mark.usefixtures("misses")
def test_references_and_topics_are_those_of_a_rebuild_and_similarity_differs_by_what_the_census_measures(
    beyond: Platform, make_platform: Callable[..., Platform]
) -> None:
    for number in range(0, TASKS, 6):
        write(beyond, number, number * 4 + 2)
    gone = [task(number) for number in range(3, TASKS, 10)]
    for ref in gone:
        delete_source(beyond, ref)
    index(beyond, *(task(number) for number in range(0, TASKS, 6)), *gone)
    relink(beyond)
    incremental, measured, drift = graph(beyond), recall_of(beyond), found(censuses(beyond, deep=True))
    rebuilt, measured_again = rebuild(beyond), recall_of(beyond)
    exact = exactly(make_platform)

    assert len(of_types(exact, EXACT)) > 200
    assert of_types(incremental, EXACT) == of_types(rebuilt, EXACT) == of_types(exact, EXACT)
    wanted = of_types(exact, [EdgeType.SEMANTIC_SIMILARITY])
    for edges, recall in ((incremental, measured), (rebuilt, measured_again)):
        there = of_types(edges, [EdgeType.SEMANTIC_SIMILARITY])
        # Each edge is right, and as many are missing as the recall says.
        assert there.items() < wanted.items()
        assert recall == ListRecall(TASKS - len(gone), len(wanted), len(there))
        assert recall.share is not None
        assert 0.8 < recall.share < 0.95
    # What a search missed is no drift, because linking again would find no more.
    assert {kind: count for kind, count in drift.items() if kind != "dangling_reference"} == {}


def test_lost_similarity_edges_lower_the_recall_and_linking_again_brings_them_back(beyond: Platform) -> None:
    assert recall_of(beyond).share == 1.0
    assert evaluate(beyond, "similarity_recall_suffices").passed
    with beyond.postgres.transaction() as connection:
        connection.execute(
            "DELETE FROM relationships WHERE relationship_type = 'semantic_similarity' AND source_id < 't030'"
        )

    taken = censuses(beyond)
    recall = recall_by_type(taken)["task"]
    assert recall.share == pytest.approx(2 / 3, abs=0.01)
    assert found(taken) == {}
    plotted = [census_metadata(census)["recall"].value for census in taken]
    assert plotted == [round(census.recall.share, 4) for census in taken if census.recall and census.recall.share]
    outcome = evaluate(beyond, "similarity_recall_suffices")
    assert (outcome.passed, outcome.severity.value, outcome.count) == (False, "warning", 1)
    assert outcome.figures["recall/task"] == round(recall.share or 0, 4)
    assert "force: true" in outcome.advice
    assert scraped_recall(beyond) == {"task": recall.share}
    assert "similarity edges are approximate, with a recall of 0.667 of task" in sentences(read_status(beyond))
    assert validate(beyond, entity_types=["task"]).recall["task"].share == recall.share

    mark_shards(beyond, "task", range(beyond.settings.shards), force=True)
    # Lists that wait to be linked are not judged.
    assert recall_of(beyond) == ListRecall()
    relink(beyond)
    assert recall_of(beyond).share == 1.0


def test_wrong_similarity_edges_are_drift_beyond_the_bound_too_and_a_repair_mends_them(beyond: Platform) -> None:
    before = graph(beyond)
    with beyond.postgres.transaction() as connection:
        connection.execute(
            "UPDATE relationships SET strength = 0.91 WHERE relationship_type = 'semantic_similarity'"
            " AND source_id = 't001' AND target_id = 't002'"
        )
        connection.execute(
            "UPDATE relationships SET target_id = 't050' WHERE relationship_type = 'semantic_similarity'"
            " AND source_id = 't010' AND target_id = 't011'"
        )
        lost = connection.execute(
            "DELETE FROM relationships WHERE relationship_type = 'cross_reference' AND source_id = 't020'"
        ).rowcount

    report = validate(beyond, entity_types=["task"], repair=True, deep=True)

    assert lost
    assert report.found == {"missing_edge": lost, "wrong_edge": 1, "surplus_edge": 1}
    assert report.left == {}
    assert graph(beyond) == before


def test_the_sample_of_lists_is_bounded_in_number_and_in_time(beyond: Platform) -> None:
    shards = beyond.settings.shards
    beyond.tuning = replace(TUNING, consistency=ConsistencyTuning(recall_lists=shards * 5, recall_lists_a_request=2))
    assert recall_of(beyond).lists == shards * 5
    beyond.tuning = replace(TUNING, consistency=replace(beyond.tuning.consistency, recall_s=0.0))
    assert recall_of(beyond).lists == shards * 2


def test_up_to_the_bound_nothing_is_measured(beyond: Platform, make_platform: Callable[..., Platform]) -> None:
    within = make_platform(embedder=AngleEmbedder(), tuning=TUNING, types=TYPES, exact_up_to=TASKS)
    assert recall_by_type(censuses(within)) == {}
    outcome = evaluate(within, "similarity_recall_suffices")
    assert outcome.passed
    assert outcome.summary.startswith("exact:")
    assert scraped_recall(within) == {}
    status = read_status(within)
    assert status.census is not None
    assert json.loads(json.dumps(asdict(status.census)))["recall"] == {}


def optimizing(monkeypatch: pytest.MonkeyPatch, looks: int) -> list[str]:
    """A Qdrant that works on its index for the next `looks` looks at it; returns the collections looked at."""
    seen: list[str] = []

    def is_optimized_now(_: QdrantCollections, name: str) -> bool:
        seen.append(name)
        return name.startswith("task_points") and sum(one.startswith("task_points") for one in seen) <= looks

    monkeypatch.setattr(QdrantCollections, "is_optimized_now", is_optimized_now)
    return seen


def link_all_again(platform: Platform, **tuning: Any) -> LinkCounts:
    link = replace(TUNING.link, rebuild_from=20, lists_at_once=20, **tuning)
    platform.tuning = replace(TUNING, link=link)
    mark_shards(platform, "task", range(platform.settings.shards), force=True)
    return relink(platform)


def test_a_linker_with_many_questions_waits_for_the_index_of_qdrant_and_its_run_says_how_long(
    beyond: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graph(beyond, SIMILAR)
    optimizing(monkeypatch, looks=2)
    waited = edges_metadata(link_all_again(beyond), None)["index_wait"].value
    assert re.fullmatch(r"waited [1-9]\d* s for Qdrant's index of task_points\S*", str(waited))

    # Beyond the bound of time the linker goes on, and its run says that the index was not done.
    optimizing(monkeypatch, looks=1_000_000)
    counts = link_all_again(beyond, index_wait_s=0.1)
    assert counts.index_wait.endswith("; went on while it was still yellow, so that searches took longer")
    assert graph(beyond, SIMILAR) == before

    # The index is not used for few questions, for lists found in blocks, and where searches are exact.
    seen = optimizing(monkeypatch, looks=1_000_000)
    write(beyond, 5, 20)
    index(beyond, task(5))
    assert "index_wait" not in edges_metadata(relink(beyond), None)
    assert link_all_again(beyond, block_start_s=0.0, exact_for_s=7_200.0).lists_in_blocks
    within = make_platform(embedder=AngleEmbedder(), tuning=TUNING, types=TYPES)
    assert "index_wait" not in edges_metadata(link_all_again(within), None)
    assert seen == []


def test_many_changes_wait_for_the_index_too(beyond: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond.tuning = replace(TUNING, link=replace(TUNING.link, rebuild_from=5, rebuild_share=1.0, index_wait_s=0.1))
    seen = optimizing(monkeypatch, looks=1_000_000)
    for number in range(8):
        write(beyond, number, number * 4 + 1)
    index(beyond, *map(task, range(8)))
    assert relink(beyond).index_wait.startswith("waited 0 s for Qdrant's index of task_points")
    assert seen
    beyond.tuning = TUNING
    changed = graph(beyond)
    assert rebuild(beyond) == changed
