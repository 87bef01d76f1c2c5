"""Plan: what `mcp-assets plan` takes for 100,000 synthetic tasks, before the first full sync and after it.

The embedder is a hash of the text, which the plan does not call. `seconds_first`: nothing is indexed, so that each
row is read and prepared; `seconds_unchanged`: everything is indexed, so that rows are only compared; `seconds_forced`:
the plan of a sync with `--force`. `peak_rss_mb`: of the process of the first. `distinct_texts`: what the first said.
"""

import argparse
import time
from contextlib import closing

from harness import bench, in_fresh_process, report, say
from synthetic_tasks import ENTITY_TYPE, embedder, fill, insert

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.views.plan import make_plan


def plan(settings: Settings, *, force: bool = False) -> tuple[float, int]:
    """Seconds of the plan, and the distinct texts that it found."""
    with closing(Platform(settings, embedder=embedder(), reads_only=True)) as platform:
        began = time.perf_counter()
        made = make_plan(platform, {ENTITY_TYPE: range(settings.shards)}, force=force)
        return time.perf_counter() - began, sum(model.distinct_texts for model in made.models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    arguments = parser.parse_args()
    with bench() as stores:
        settings = stores.settings()
        insert(stores, arguments.entities)
        stores.forget_index()
        say(f"plan of {arguments.entities}")
        first = in_fresh_process(plan, settings)
        say("full sync")
        in_fresh_process(fill, settings)
        stores.settle()
        say("plan of nothing")
        unchanged = in_fresh_process(plan, settings)
        forced = in_fresh_process(plan, settings, force=True)
    report(
        rows=arguments.entities,
        seconds_first=first.result[0],
        distinct_texts=first.result[1],
        seconds_unchanged=unchanged.result[0],
        seconds_forced=forced.result[0],
        peak_rss_mb=first.peak_rss_mb,
    )


if __name__ == "__main__":
    main()
