"""Mass deletion: what would be removed waits for a person, counted over the type; all else goes on."""

from collections.abc import Callable
from typing import Any

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.index.full_sync import Progress, full_sync
from mcp_assets.sync.index.mass_delete import MassDeletion
from mcp_assets.sync.requests.full_sync_here import run_here
from mcp_assets_tests.observing import entity_points, ledger, put, put_tasks, remove, rows, sync_all


def tasks(low: int, high: int) -> dict[str, str]:
    return {f"t{number}": f"task {number}" for number in range(low, high)}


def living(platform: Platform, entity_type: str = "task") -> set[str]:
    return {entity_id for entity_id, row in ledger(platform, entity_type).items() if not row["deleted"]}


def run(platform: Platform, *shards: int) -> tuple[list[Progress], MassDeletion | None]:
    """A full sync of `shards`, all if none is named, and its refusal."""
    news: list[Progress] = []
    try:
        news.extend(one for one in full_sync(platform, "task", shards or range(platform.settings.shards)))
    except MassDeletion as refusal:
        return news, refusal
    return news, None


@pytest.mark.parametrize("count", [6, 50, 70])
@pytest.mark.parametrize("shards", [1, 4, 16])
def test_an_emptied_table_is_asked_about_however_small_and_in_however_many_shards(
    make_platform: Callable[..., Platform], platform: Platform, count: int, shards: int
) -> None:
    sharded = make_platform(shards=shards)
    put_tasks(sharded, tasks(0, count))
    sync_all(sharded)
    remove(sharded, "tasks", *tasks(0, count))
    _, refusal = run(sharded)
    assert refusal is not None
    assert f"{count} of {count}" in str(refusal)
    assert len(living(sharded)) == len(entity_points(sharded)) == count
    report = validate(sharded, entity_types=["task"], repair=True)
    assert report.refused is not None
    assert report.left["vanished_row"] == count
    assert len(living(sharded)) == len(entity_points(sharded)) == count


def test_a_sync_of_one_shard_counts_over_the_whole_type(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(shards=16)
    create_source_tables(platform)
    put_tasks(platform, tasks(0, 50))
    sync_all(platform)
    remove(platform, "tasks", *tasks(0, 50))
    for shard in range(16):
        run(platform, shard)
    assert len(living(platform)) == 50


def test_what_is_new_or_changed_does_not_wait_behind_deletions_that_are_held_back(platform: Platform) -> None:
    put_tasks(platform, tasks(0, 60))
    put(platform, "wiki_pages", id="P", title="a page")
    sync_all(platform)
    remove(platform, "tasks", *tasks(0, 40))
    put_tasks(platform, {**tasks(60, 160), "t50": "another title"})
    progress: list[Any] = []
    with pytest.raises(MassDeletion, match="40 of 60 entities of the type task"):
        progress.extend(run_here(platform, ["task", "page"], force=False))
    assert living(platform) == set(tasks(0, 160))
    assert ledger(platform)["t50"]["title"] == "another title"
    assert living(platform, "page") == {"P"}, "another type goes on"
    assert len(entity_points(platform)) == 160
    assert not rows(platform, "SELECT FROM {schema}.relink_marks"), "and all of it is linked"
    complete = {(news.entity_type, news.shard) for news in progress if news.indexed}
    assert complete == {("page", shard) for shard in range(4)}, "a shard whose deletions wait is not complete"


def test_a_shard_without_deletions_is_complete_though_those_of_others_are_held_back(platform: Platform) -> None:
    put_tasks(platform, tasks(0, 100))
    sync_all(platform)
    gone = [entity_id for (entity_id,) in rows(platform, "SELECT entity_id FROM {schema}.entities WHERE slot >= 16384")]
    remove(platform, "tasks", *gone)
    news, refusal = run(platform)
    assert refusal is not None
    assert refusal.shards == {1, 2, 3}
    assert [one.shard for one in news if one.complete] == [0]
    assert len(living(platform)) == 100


def test_a_repair_mends_what_is_not_to_be_removed_though_deletions_are_held_back(platform: Platform) -> None:
    put_tasks(platform, tasks(0, 60))
    sync_all(platform)
    remove(platform, "tasks", *tasks(0, 40))
    put_tasks(platform, {**tasks(60, 70), "t50": "another title"})
    report = validate(platform, entity_types=["task"], repair=True)
    assert report.refused is not None
    assert report.mended["ledger_behind_source"] == 11
    assert report.left["vanished_row"] == 40
    assert len(entity_points(platform)) == 70


def test_few_deletions_or_a_small_share_are_not_asked_about(platform: Platform) -> None:
    put_tasks(platform, tasks(0, 200))
    sync_all(platform)
    remove(platform, "tasks", *tasks(0, 40))
    assert run(platform)[1] is None
    remove(platform, "tasks", *tasks(40, 195))
    put_tasks(platform, tasks(195, 205))
    assert run(platform)[1] is not None
    for _ in full_sync(platform, "task", range(4), allow_mass_delete=True):
        pass
    remove(platform, "tasks", *tasks(195, 204))
    assert run(platform)[1] is None
    assert living(platform) == {"t204"}


def test_a_change_of_every_row_is_no_deletion(platform: Platform) -> None:
    put_tasks(platform, tasks(0, 60))
    sync_all(platform)
    put_tasks(platform, {entity_id: f"{title}, changed" for entity_id, title in tasks(0, 60).items()})
    assert run(platform)[1] is None
    for _ in full_sync(platform, "task", range(4), force=True):
        pass
    assert all(row["title"].endswith("changed") for row in ledger(platform).values())
