"""A full sync that several runs share: done by partition, one judgement about deletions, one move of the aliases."""

from collections.abc import Callable

from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.index.synced_partitions import LinkingPartitions
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.observing import entity_points, ledger, put_tasks, remove, rows
from mcp_assets_tests.openai_stub import OpenAIStub

TASKS = {f"t{number:03}": f"task {number}" for number in range(100)}


def want(platform: Platform, reason: str) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("want_full_syncs"), {"entity_types": ["task", "page"], "reason": reason}
        )


EVERYTHING = Stages()


def embed(platform: Platform, *shards: int, stages: Stages = EVERYTHING) -> None:
    """What a run of the first backfill does with its partitions."""
    for _ in full_sync(platform, "task", shards, stages=stages):
        pass


def link(platform: Platform, *shards: int) -> None:
    """What a run of the second backfill does with its partitions."""
    linking = LinkingPartitions(platform, [("task", shard) for shard in shards])
    for _ in link_until_done(platform):
        pass
    linking.record_linked()


def test_a_wanted_full_sync_ends_with_the_last_partition_that_is_embedded_and_linked_whatever_runs_did_it(
    platform: Platform,
) -> None:
    put_tasks(platform, TASKS)
    want(platform, "a gap")
    embed(platform, 0, 1)
    link(platform, 0, 1)
    embed(platform, 2, 3)
    assert wanted_full_syncs(platform) == {"task": "a gap", "page": "a gap"}, "two partitions are not linked"
    link(platform, 2)
    assert "task" in wanted_full_syncs(platform)
    link(platform, 3)
    assert wanted_full_syncs(platform) == {"page": "a gap"}


def test_work_that_began_before_the_events_were_lost_does_not_count(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    for number, _ in enumerate(full_sync(platform, "task", range(4))):
        if number == 0:
            want(platform, "a later gap")
    link(platform, 0, 1, 2, 3)
    assert "task" in wanted_full_syncs(platform), "it compared before"

    embed(platform, 0, 1, 2, 3)
    assert "task" in wanted_full_syncs(platform), "it was linked before"
    link(platform, 0, 1, 2, 3)
    assert "task" not in wanted_full_syncs(platform)


def test_what_is_indexed_after_a_run_began_to_link_is_not_taken_for_linked(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    embed(platform, 0, 1, 2, 3)
    began = LinkingPartitions(platform, [("task", shard) for shard in range(4)])
    want(platform, "a gap")
    embed(platform, 0, 1, 2, 3)
    began.record_linked()
    assert "task" in wanted_full_syncs(platform)


def test_a_run_of_one_stage_completes_no_partition(platform: Platform) -> None:
    want(platform, "a gap")
    embed(platform, 0, 1, 2, 3, stages=Stages(embeddings=False))
    embed(platform, 0, 1, 2, 3, stages=Stages(ledger=False))
    link(platform, 0, 1, 2, 3)
    assert "task" in wanted_full_syncs(platform)


def refused(platform: Platform, shard: int) -> bool:
    try:
        embed(platform, shard)
    except MassDeletion:
        return True
    return False


def of_shard(platform: Platform, shard: int) -> list[str]:
    found = rows(platform, "SELECT entity_id FROM {schema}.entities WHERE slot * 4 >> 16 = %s ORDER BY 1", shard)
    return [entity_id for (entity_id,) in found]


def test_a_run_that_would_remove_little_asks_first_if_all_runs_together_would_remove_much(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    embed(platform, 0, 1, 2, 3)
    remove(platform, "tasks", of_shard(platform, 0)[0], *of_shard(platform, 2), *of_shard(platform, 3))
    assert refused(platform, 0)
    assert len(entity_points(platform)) == len(TASKS)


def test_a_count_of_the_type_stands_for_the_runs_after_it_until_one_of_them_loses_much(platform: Platform) -> None:
    put_tasks(platform, TASKS)
    embed(platform, 0, 1, 2, 3)
    first, *rest = of_shard(platform, 0)
    remove(platform, "tasks", first, of_shard(platform, 1)[0])
    assert not refused(platform, 0)
    ((judged_at,),) = rows(platform, "SELECT judged_at FROM {schema}.deletion_judgements")
    assert not refused(platform, 1)
    assert rows(platform, "SELECT judged_at FROM {schema}.deletion_judgements") == [(judged_at,)]
    assert sum(row["deleted"] for row in ledger(platform).values()) == 2

    remove(platform, "tasks", *rest, *of_shard(platform, 2))
    assert refused(platform, 0), "the count of before does not stand for a part that loses much"


def test_the_aliases_move_with_the_last_partition_of_the_last_run(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    put_tasks(platform, TASKS)
    embed(platform, 0, 1, 2, 3)
    other = make_platform(embedding_model="other", previous_model="stub", previous_dimension=16)
    embed(other, 0, 1)
    embed(other, 3)
    assert other.qdrant.aliases()["kanban_tasks"] == "kanban_tasks__stub_16"
    embed(other, 2)
    assert other.qdrant.aliases()["kanban_tasks"] == "kanban_tasks__other_16"
