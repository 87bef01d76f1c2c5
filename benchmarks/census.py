"""Census: comparing 100,000 synthetic tasks with their ledger rows and points, all of them clean; mending lost vectors.

The embedder is a hash of the text, 64 dimensions. `points_per_s`: points of all partitions over the seconds of
their passes; `deep_points_per_s`: the same with every text prepared anew and every
payload compared whole. Edges are left out: what recomputing them costs, `linking.py` measures. `peak_rss_mb`: of the
process that took them, with Dagster loaded as in a run. `found`: what they found, which should be nothing.

Before that, of --mended entities, all linked, --lost vectors are deleted behind the platform's back: `mend_s`, seconds
of one validation with repair of all types, edges included; `mend_cpu_s`, CPU seconds of process, PostgreSQL and Qdrant;
`validate_s` and `validate_cpu_s`, the same of a validation right after it, which finds nothing. Medians of --rounds.

`--against PATH` names another checkout with an environment of its own in `.venv`, which takes turns at mending, and
leaves out the censuses of --entities. Its figures begin with `against_`.
"""

import argparse
import json
import statistics
import sys
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

from harness import CHECKOUT, Bench, bench, in_fresh_process, report, say
from qdrant_client import models
from synthetic_tasks import ENTITY_TYPE, embedder, fill, insert, link_all
from turns import side
from usage import watched

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.collections.model_collections import find_collection
from mcp_assets.sync.consistency.validation import Validation, validate


def census(settings: Settings, *, deep: bool) -> tuple[int, dict[str, int], float]:
    """Points seen, what was found, and the seconds of the censuses."""
    # Not at the top, because another checkout may not have them.
    from mcp_assets.sync.consistency.census import take_censuses
    from mcp_assets.sync.consistency.progress import CensusProgress

    with closing(Platform(settings, embedder=embedder())) as platform:
        alias = settings.entity_types[ENTITY_TYPE].collection_name
        collection = find_collection(platform.qdrant, alias, platform.embedder.profile)
        progress = CensusProgress(platform, [(ENTITY_TYPE, shard) for shard in range(settings.shards)])
        taken = [
            one
            for partitions in progress.passes
            for one in take_censuses(platform, partitions, deep=deep, collection=collection)
        ]
    found = sum((one.counts for one in taken), Counter())
    counts = {kind.value: count for kind, count in found.items()}
    return sum(one.points for one in taken), counts, sum(one.seconds for one in taken)


def mend(settings: Settings) -> Validation:
    """A validation with repair of all types."""
    with closing(Platform(settings, embedder=embedder())) as platform:
        return validate(platform, entity_types=list(settings.entity_types), repair=True)


def fill_and_link(stores: Bench, entities: int) -> None:
    insert(stores, entities)
    stores.forget_index()
    say(f"full sync and linking of {entities}")
    in_fresh_process(fill, stores.settings())
    in_fresh_process(link_all, stores.settings())
    stores.settle()


def measure_mending(stores: Bench, entities: int, lost: int) -> dict[str, float]:
    """One round: vectors are lost and mended, and nothing is found afterwards."""
    settings = stores.settings()
    step = entities // lost
    points = [str(point_id(EntityRef(ENTITY_TYPE, f"task-{step * number}"))) for number in range(1, lost + 1)]
    with closing(stores.qdrant()) as client:
        client.delete(settings.entity_types[ENTITY_TYPE].collection_name, models.PointIdsList(points=points), wait=True)
    figures: dict[str, float] = {}
    for name in ("mend", "validate"):
        with watched(stores) as usage:
            measured = in_fresh_process(mend, settings)
        done: Validation = measured.result
        expected = lost if name == "mend" else 0
        assert done.embedded == expected, f"{done.embedded} of {expected} lost vectors were embedded again"
        assert done.unfinished is None, done.unfinished
        stores_s = usage.cpu_s["postgres"] + usage.cpu_s["qdrant"]
        figures |= {f"{name}_s": measured.seconds, f"{name}_cpu_s": measured.cpu_s + stores_s}
    return figures


def serve(entities: int, lost: int) -> None:
    """One side: a stack with linked entities; a line of figures for each line of standard input."""
    with bench() as stores:
        fill_and_link(stores, entities)
        print(json.dumps({}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure_mending(stores, entities, lost)), flush=True)


def mending_in_turns(entities: int, lost: int, rounds: int, against: Path | None) -> dict[str, float]:
    """The medians of this checkout, and those of the other, if one is named."""
    checkouts = [CHECKOUT, *([against.resolve()] if against is not None else [])]
    passed = ["--mended", str(entities), "--lost", str(lost)]
    with ExitStack() as running:
        sides = [running.enter_context(side(__file__, one, passed)) for one in checkouts]
        # A round before them finds the files of the stores cold.
        for number in range(rounds + 1):
            for one in sides:
                one.take_turn(counts=number > 0)
    figures = {}
    for prefix, one in zip(("", "against_"), sides, strict=False):
        for name in one.rounds[0]:
            figures[prefix + name] = statistics.median(taken[name] for taken in one.rounds)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--mended", type=int, default=3_000, help="entities of which vectors are lost; 0: none")
    parser.add_argument("--lost", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3, help="of mending")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout, which takes turns")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    mended, lost = arguments.mended, arguments.lost
    if arguments.serve:
        serve(mended, lost)
        return
    mending = mending_in_turns(mended, lost, arguments.rounds, arguments.against) if mended else {}
    if arguments.against is not None:
        report(**mending)
        return
    with bench() as stores:
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
