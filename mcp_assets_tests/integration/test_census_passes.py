"""Passes: the censuses of several partitions taken together, each with what a census of it alone finds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from qdrant_client import models

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import SLOTS, EntityRef, shard_of, slot_of, slot_range
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.census import take_census, take_censuses
from mcp_assets.sync.consistency.progress import CensusProgress, Partitions
from mcp_assets.sync.consistency.stored_censuses import Census, last_censuses
from mcp_assets.sync.consistency.validation import _covers, validate
from mcp_assets.tuning import ConsistencyTuning, Tuning
from mcp_assets_tests.faults import BROKEN, FAULTS, execute
from mcp_assets_tests.hashing import TASKS, HashEmbedder, fill, found, qdrant, task_point
from mcp_assets_tests.observing import rows

MANY = 400
"""Tasks of four partitions: fewer than 200 each, so that every sample of edges holds all of them."""

SHARDS = 4
ALL = Partitions("task", range(SHARDS))

Make = Callable[..., Platform]


@pytest.fixture
def filled(make_platform: Make) -> Platform:
    platform = make_platform(embedder=HashEmbedder(), shards=SHARDS)
    fill(platform, MANY)
    return platform


def in_each_partition(platform: Platform, entities: int) -> dict[int, list[int]]:
    """By shard, the numbers of so many tasks of it."""
    numbers: dict[int, list[int]] = {shard: [] for shard in range(SHARDS)}
    for number in range(2, MANY, 2):
        of_shard = numbers[shard_of(slot_of(f"t{number}"), SHARDS)]
        if len(of_shard) < entities:
            of_shard.append(number)
    return numbers


def figures(census: Census) -> tuple[int, int, int, int, dict[str, int]]:
    counts = {kind.value: count for kind, count in census.counts.items()}
    return census.checked, census.points, census.edges, census.by_events, counts


def test_the_drift_of_each_partition_is_stored_under_its_census(filled: Platform) -> None:
    broken = in_each_partition(filled, 5)
    lost = {shard: numbers[: shard + 1] for shard, numbers in broken.items()}
    with qdrant(filled) as client:
        gone = models.PointIdsList(points=[task_point(number) for numbers in lost.values() for number in numbers])
        client.delete(TASKS, gone, wait=True)
    wrong = {shard: f"t{numbers[4]}" for shard, numbers in broken.items()}
    execute(
        filled,
        "UPDATE relationships SET strength = 0.5"
        " WHERE source_id = ANY(%s) AND relationship_type = 'sequential_dependency'",
        list(wrong.values()),
    )
    execute(filled, "DELETE FROM mcp_assets.search_words WHERE entity_id = ANY(%s)", list(wrong.values()))
    execute(
        filled,
        "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength,"
        " origin) SELECT 'task', id, 'task', 'gone', 'follows', 1, 'others' FROM unnest(%s::text[]) AS id",
        list(wrong.values()),
    )

    taken = take_censuses(filled, ALL)

    stored = rows(filled, "SELECT census, kind, entity_id FROM {schema}.drift ORDER BY entity_id, kind")
    for census in taken:
        expected = {(f"t{number}", "missing_vector") for number in lost[census.shard]}
        kinds = ("foreign_orphaned_edge", "wrong_edge", "wrong_search_words")
        expected |= {(wrong[census.shard], kind) for kind in kinds}
        assert {(entity_id, kind) for id_, kind, entity_id in stored if id_ == census.id} == expected
        assert census.counts.total() == len(census.examples) == len(expected)
    assert {last.id: last.slots for last in last_censuses(filled)} == {
        census.id: slot_range(census.shard, SHARDS) for census in taken
    }


@pytest.mark.parametrize("shards", [range(4), range(1, 3), range(1, 4)])
def test_a_pass_finds_of_each_partition_what_a_census_of_it_alone_finds(filled: Platform, shards: range) -> None:
    for place, fault in enumerate(FAULTS):
        first = place * (MANY // len(FAULTS)) // 2 * 2 + 3
        fault.make(filled, range(first, first + BROKEN))
    with qdrant(filled) as client:
        others = models.PointStruct(id=1, vector=[1.0] * 16, payload={"of": "others", Key.SLOT: SLOTS // 2})
        client.upsert(TASKS, [others], wait=True)

    alone = [take_census(filled, "task", shard, deep=True) for shard in shards]
    together = take_censuses(filled, Partitions("task", shards), deep=True)

    assert [census.shard for census in together] == list(shards)
    for one, other in zip(alone, together, strict=True):
        checked, points, edges, by_events, counts = figures(one)
        assert figures(other) == (checked, points, edges, by_events, counts)
        assert sum(counts.values()) > BROKEN
    counted = rows(
        filled,
        "SELECT ('x' || substr(md5(source_id), 1, 4))::bit(16)::integer * 4 >> 16 AS shard, count(*)"
        " FROM relationships WHERE source_type = 'task' GROUP BY 1",
    )
    edges_of = dict(counted)
    assert [census.edges for census in together] == [edges_of[shard] for shard in shards]


def test_a_point_that_bears_a_slot_of_another_partition_is_drift_of_its_entitys_partition(filled: Platform) -> None:
    strays = in_each_partition(filled, 2)
    with qdrant(filled) as client:
        for numbers in strays.values():
            for number in numbers:
                slot = (slot_of(f"t{number}") + SLOTS // 2) % SLOTS
                client.set_payload(TASKS, {Key.SLOT: slot}, points=[task_point(number)], wait=True)
    together = take_censuses(filled, ALL)
    assert [figures(census)[-1] for census in together] == [{"stale_payload": 2}] * SHARDS
    # A pass that does not cover the entity's partition finds the point where it is.
    alone = take_census(filled, "task", 0)
    assert figures(alone)[-1] == {"stale_payload": 4}
    assert validate(filled, entity_types=["task"], repair=True).left == {}
    assert found(take_censuses(filled, ALL)) == {}


def test_source_rows_without_a_sound_id_are_reported_by_their_partitions(make_platform: Make) -> None:
    from mcp_assets_tests.integration.test_source_ids import VIEW, on_view

    fill(make_platform(embedder=HashEmbedder()), 20)
    platform = on_view(make_platform)
    execute(platform, VIEW)
    shards = platform.settings.shards
    alone = [take_census(platform, "task", shard) for shard in range(shards)]
    together = take_censuses(platform, Partitions("task", range(shards)))
    assert found(together)["unusable_source_row"] == 3
    assert [one.counts for one in together] == [one.counts for one in alone]


def test_a_pass_that_fails_leaves_the_last_censuses_of_all_its_partitions_and_their_drift(filled: Platform) -> None:
    lost = [number for numbers in in_each_partition(filled, 2).values() for number in numbers]
    with qdrant(filled) as client:
        client.delete(TASKS, models.PointIdsList(points=[task_point(number) for number in lost]), wait=True)
    take_censuses(filled, ALL)
    stored = "SELECT census, entity_id FROM {schema}.drift JOIN {schema}.censuses ON censuses.id = census"
    stored += " WHERE ended_at IS NOT NULL ORDER BY entity_id"
    before, drift = last_censuses(filled), rows(filled, stored)
    assert len(drift) == 2 * SHARDS
    # Ledger and points are compared before the search words, so that the pass has drift by then.
    execute(filled, "ALTER TABLE mcp_assets.search_words RENAME TO elsewhere")
    with pytest.raises(psycopg.errors.UndefinedTable):
        take_censuses(filled, ALL)
    execute(filled, "ALTER TABLE mcp_assets.elsewhere RENAME TO search_words")
    assert [last.id for last in last_censuses(filled)] == [last.id for last in before]
    assert rows(filled, stored) == drift
    assert rows(filled, "SELECT count(*) FROM {schema}.censuses") == [(2 * SHARDS,)]

    take_censuses(filled, ALL)
    assert rows(filled, "SELECT count(*) FROM {schema}.censuses") == [(SHARDS,)]
    assert rows(filled, "SELECT count(*) FROM {schema}.drift") == [(2 * SHARDS,)]


def test_censuses_of_single_partitions_and_passes_replace_each_other(filled: Platform) -> None:
    take_censuses(filled, ALL)
    alone = take_census(filled, "task", 2)
    assert [last.id for last in last_censuses(filled)][2] == alone.id
    upper = take_censuses(filled, Partitions("task", range(1, 3)))
    assert [last.id for last in last_censuses(filled)][1:3] == [census.id for census in upper]
    assert len(last_censuses(filled)) == SHARDS


@pytest.mark.parametrize(("shards", "entities_a_pass"), [(SHARDS, 1), (SHARDS, 100_000), (6, 100_000)])
def test_two_validations_at_once_leave_each_slot_with_a_census(
    filled: Platform, make_platform: Make, shards: int, entities_a_pass: int
) -> None:
    other = make_platform(embedder=HashEmbedder(), shards=shards)
    for platform in (filled, other):
        platform.tuning = Tuning(consistency=ConsistencyTuning(entities_a_pass=entities_a_pass))
    lost = range(2, 40)
    for _ in range(3):
        with qdrant(filled) as client:
            client.delete(TASKS, models.PointIdsList(points=[task_point(number) for number in lost]), wait=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda platform: validate(platform, entity_types=["task"], repair=True), (filled, other)))
        assert _covers([last.slots for last in last_censuses(filled)], (0, SLOTS))
        with qdrant(filled) as client:
            assert client.count(TASKS).count == MANY


def test_progress_is_said_after_each_pass_and_counts_all_entities(filled: Platform) -> None:
    filled.tuning = Tuning(consistency=ConsistencyTuning(entities_a_pass=MANY // 2 + 20))
    lines: list[str] = []

    def say(progress: CensusProgress) -> None:
        lines.append(progress.line)

    report = validate(filled, entity_types=["task", "page"], on_census=say)
    assert report.checked == MANY
    assert len(lines) > 2
    assert f"{MANY} of {MANY}" in lines[-1]
    assert f"{MANY} of {MANY}" not in lines[0]


def test_the_sample_of_edges_is_as_large_for_each_partition_of_a_pass_as_for_one_alone(
    filled: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp_assets.sync.consistency import edge_census

    monkeypatch.setattr(edge_census, "EDGES_SAMPLED", 30)
    compared: list[EntityRef] = []
    differing = edge_census.EdgeRules.differing

    def noted(rules: edge_census.EdgeRules, refs: list[EntityRef]) -> object:
        compared.extend(refs)
        return differing(rules, refs)

    monkeypatch.setattr(edge_census.EdgeRules, "differing", noted)
    take_censuses(filled, ALL)
    of_shards = [shard_of(ref.slot, SHARDS) for ref in compared]
    assert [of_shards.count(shard) for shard in range(SHARDS)] == [30] * SHARDS
    assert len(set(compared)) == len(compared)
