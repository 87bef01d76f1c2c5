"""Census: comparing 100,000 synthetic tasks with their ledger rows and points, all of them clean.

The embedder is the one of `scale.py`, 64 dimensions. `points_per_s`: points of all partitions over the seconds of
their censuses, one partition after the other; `deep_points_per_s`: the same with every text prepared anew and every
payload compared whole. Edges are left out: what recomputing them costs, `linking.py` measures. `peak_rss_mb`: of the
process that took them, with Dagster loaded as in a run. `found`: what they found, which should be nothing.
"""

import argparse
from collections import Counter
from contextlib import closing

from harness import bench, in_fresh_process, report, say
from scale import _INSERT, ENTITY_TYPE, HashEmbedder, fill

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.collections.model_collections import find_collection
from mcp_assets.sync.consistency.census import take_census


def census(settings: Settings, *, deep: bool) -> tuple[int, dict[str, int], float]:
    """Points seen, what was found, and the seconds of the censuses."""
    found: Counter[str] = Counter()
    points = 0
    seconds = 0.0
    with closing(Platform(settings, embedder=HashEmbedder())) as platform:
        alias = settings.entity_types[ENTITY_TYPE].collection_name
        collection = find_collection(platform.qdrant, alias, platform.embedder.profile)
        for shard in range(settings.shards):
            taken = take_census(platform, ENTITY_TYPE, shard, deep=deep, collection=collection)
            points += taken.points
            seconds += taken.seconds
            found.update({kind.value: count for kind, count in taken.counts.items()})
    return points, dict(found), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    arguments = parser.parse_args()
    with bench() as stores:
        settings = stores.settings()
        stores.query(_INSERT.replace("%s", str(arguments.entities)))
        stores.forget_index()
        say(f"full sync of {arguments.entities}")
        in_fresh_process(fill, settings)
        stores.settle()
        say("census")
        cheap = in_fresh_process(census, settings, deep=False)
        deep = in_fresh_process(census, settings, deep=True)
    points, found, seconds = cheap.result
    report(
        points=points,
        points_per_s=points / seconds,
        deep_points_per_s=points / deep.result[2],
        peak_rss_mb=max(cheap.peak_rss_mb, deep.peak_rss_mb),
        found=found | deep.result[1],
    )


if __name__ == "__main__":
    main()
