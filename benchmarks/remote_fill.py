"""Remote fill: a full sync into empty stores, against what a provider of embeddings with usual limits allows.

The provider answers a request after --request-ms, works on --at-once requests at once, and gives --texts-per-s texts a
second of all requests together; it costs next to no CPU. `ratio_remote`: the seconds in which it would give the texts
of the full sync, `allowed_s`, over those of the full sync. `ratio_remote_linking`: over those of a full sync beside
which a linker of another process works; `linked_s` is how long after it all is linked. `ratio_remote_alone`: over
those of a client that embeds the same texts and does nothing else, which is what can be reached.

`cpu_s`: CPU seconds of the full sync's process. If they come near `seconds`, or other work fills the machine, not the
provider is what was measured.
"""

import argparse
import multiprocessing
import statistics
import time
from contextlib import closing
from pathlib import Path

from cold_fill import REMOTE_DIMENSION, REMOTE_MODEL, embed_alone, fill, record
from harness import WORKSPACE, Bench, bench, in_fresh_process, load_entities, read_workspace, report, say
from rate_limited_provider import Limits, provider

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import pending_links

_LOOK_S = 0.2
"""Seconds between two looks for work of the linker."""


def timed_fill(settings: Settings) -> tuple[int, float]:
    """Texts embedded by a full sync, and CPU seconds of its process."""
    began = time.process_time()
    return fill(settings), time.process_time() - began


def link_meanwhile(settings: Settings, filled: Path) -> None:
    """Link whatever is marked until the file `filled` is there and nothing is left."""
    with closing(Platform(settings)) as platform:
        while True:
            is_last = filled.exists()
            for _ in link_until_done(platform):
                pass
            if is_last and not pending_links(platform, up_to=1):
                return
            time.sleep(_LOOK_S)


def fill_beside_linker(stores: Bench, settings: Settings) -> tuple[float, float]:
    """Seconds of a full sync beside a linker, and seconds after it until all is linked."""
    filled = stores.folder / "filled"
    filled.unlink(missing_ok=True)
    linker = multiprocessing.get_context("spawn").Process(target=link_meanwhile, args=(settings, filled))
    linker.start()
    try:
        seconds = in_fresh_process(fill, settings).seconds
        filled.touch()
        ended = time.monotonic()
        linker.join()
    finally:
        linker.kill()
    assert linker.exitcode == 0, f"the linker ended with {linker.exitcode}"
    return seconds, time.monotonic() - ended


def measure(stores: Bench, limits: Limits, rounds: int) -> None:
    batches_file = stores.folder / "batches"
    with provider(REMOTE_DIMENSION, limits) as base_url:
        remote = stores.settings(
            openai_base_url=base_url, embedding_model=REMOTE_MODEL, embedding_dimension=REMOTE_DIMENSION
        )
        stores.forget_index()
        texts = in_fresh_process(record, remote, batches_file).result
        allowed_s = texts / limits.allowed_per_s
        say(f"{texts} texts, for which the provider needs {allowed_s:.1f} s")
        alone, filled, cpu, linking, linked = [], [], [], [], []
        for _ in range(rounds):
            alone.append(in_fresh_process(embed_alone, remote, batches_file).seconds)
            stores.forget_index()
            run = in_fresh_process(timed_fill, remote)
            filled.append(run.seconds)
            cpu.append(run.result[1])
            stores.forget_index()
            seconds, after = fill_beside_linker(stores, remote)
            linking.append(seconds)
            linked.append(after)
            say(
                f"alone {alone[-1]:.1f} s, full sync {filled[-1]:.1f} s ({cpu[-1]:.1f} s CPU), beside a linker "
                f"{seconds:.1f} s, all linked {after:.1f} s later"
            )
    report(
        ratio_remote=statistics.median(allowed_s / seconds for seconds in filled),
        ratio_remote_linking=statistics.median(allowed_s / seconds for seconds in linking),
        ratio_remote_alone=statistics.median(allowed_s / seconds for seconds in alone),
        texts=texts,
        allowed_s=allowed_s,
        seconds=statistics.median(filled),
        cpu_s=statistics.median(cpu),
        linked_s=statistics.median(linked),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="entities, JSON lines, gzipped")
    parser.add_argument("--entities", type=int, help="only so many of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--request-ms", type=float, default=500)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--texts-per-s", type=float, default=1_000)
    arguments = parser.parse_args()
    limits = Limits(arguments.request_ms / 1000, arguments.at_once, texts_per_s=arguments.texts_per_s)
    with bench() as stores:
        say(f"{load_entities(stores, read_workspace(arguments.file, arguments.entities))} entities are loaded")
        measure(stores, limits, arguments.rounds)


if __name__ == "__main__":
    main()
