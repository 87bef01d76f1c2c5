"""Census: comparing 100,000 synthetic tasks with their ledger rows and points, all of them clean; mending lost vectors.

The embedder is a hash of the text, 64 dimensions. `points_per_s`: points of all partitions over the seconds of
their censuses, one partition after the other; `deep_points_per_s`: the same with every text prepared anew and every
payload compared whole. Edges are left out: what recomputing them costs, `linking.py` measures. `peak_rss_mb`: of the
process that took them, with Dagster loaded as in a run. `found`: what they found, which should be nothing.

Before that, of --mended entities, all linked, --lost vectors are deleted behind the platform's back: `mend_s`, seconds
of one validation with repair of all types, edges included; `mend_cpu_s`, CPU seconds of its process;
`validate_s`, seconds of a validation right after it, which finds nothing.
"""

import argparse
import time
from collections import Counter
from contextlib import closing

from harness import Bench, bench, in_fresh_process, report, say
from qdrant_client import models
from synthetic_tasks import ENTITY_TYPE, embedder, fill, insert, link_all

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.collections.model_collections import find_collection
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.consistency.validation import Validation, validate


def census(settings: Settings, *, deep: bool) -> tuple[int, dict[str, int], float]:
    """Points seen, what was found, and the seconds of the censuses."""
    found: Counter[str] = Counter()
    points = 0
    seconds = 0.0
    with closing(Platform(settings, embedder=embedder())) as platform:
        alias = settings.entity_types[ENTITY_TYPE].collection_name
        collection = find_collection(platform.qdrant, alias, platform.embedder.profile)
        for shard in range(settings.shards):
            taken = take_census(platform, ENTITY_TYPE, shard, deep=deep, collection=collection)
            points += taken.points
            seconds += taken.seconds
            found.update({kind.value: count for kind, count in taken.counts.items()})
    return points, dict(found), seconds


def mend(settings: Settings) -> tuple[Validation, float]:
    """A validation with repair of all types, and its CPU seconds."""
    began = time.process_time()
    with closing(Platform(settings, embedder=embedder())) as platform:
        done = validate(platform, entity_types=list(settings.entity_types), repair=True)
    return done, time.process_time() - began


def measure_mending(stores: Bench, entities: int, lost: int) -> dict[str, float]:
    settings = stores.settings()
    insert(stores, entities)
    stores.forget_index()
    say(f"full sync and linking of {entities}")
    in_fresh_process(fill, settings)
    in_fresh_process(link_all, settings)
    stores.settle()
    step = entities // lost
    points = [str(point_id(EntityRef(ENTITY_TYPE, f"task-{step * number}"))) for number in range(1, lost + 1)]
    with closing(stores.qdrant()) as client:
        client.delete(settings.entity_types[ENTITY_TYPE].collection_name, models.PointIdsList(points=points), wait=True)
    say(f"mending {lost} lost vectors")
    mended = in_fresh_process(mend, settings)
    done, cpu_s = mended.result
    assert done.embedded == lost, f"{done.embedded} of {lost} lost vectors were embedded again"
    assert done.unfinished is None, done.unfinished
    again = in_fresh_process(mend, settings)
    assert not again.result[0].found, again.result[0].found
    stores.query("TRUNCATE tasks")
    return {"mend_s": mended.seconds, "mend_cpu_s": cpu_s, "validate_s": again.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--mended", type=int, default=3_000, help="entities of which vectors are lost; 0: none")
    parser.add_argument("--lost", type=int, default=60)
    arguments = parser.parse_args()
    with bench() as stores:
        mending = measure_mending(stores, arguments.mended, arguments.lost) if arguments.mended else {}
        settings = stores.settings()
        insert(stores, arguments.entities)
        stores.forget_index()
        say(f"full sync of {arguments.entities}")
        in_fresh_process(fill, settings)
        stores.settle()
        say("census")
        cheap = in_fresh_process(census, settings, deep=False)
        deep = in_fresh_process(census, settings, deep=True)
    points, found, seconds = cheap.result
    report(
        **mending,
        points=points,
        points_per_s=points / seconds,
        deep_points_per_s=points / deep.result[2],
        peak_rss_mb=max(cheap.peak_rss_mb, deep.peak_rss_mb),
        found=found | deep.result[1],
    )


if __name__ == "__main__":
    main()
