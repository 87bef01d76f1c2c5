"""Search cost: what the search words and the indexes of metadata cost a full sync, a burst of events, and linking.

`cold_fill`: a full sync of a workspace into empty stores, by the local model. `burst`: events of all its entities,
taken in and drained in one process. `linking`: all marks of such a full sync worked off, which also cuts the words that
it left to the linker. Of each, the seconds with and without the words of entities and the payload indexes of their
metadata, medians of some rounds in which both take turns, and `slowed_by`, the share by which it is slower.
"""

from collections.abc import Callable
from contextlib import closing

from burst import event_of, fill, take_in_and_drain
from harness import (
    Bench,
    bench,
    in_fresh_process,
    load_entities,
    publish,
    read_workspace,
    report,
    slowdown,
    workspace_parser,
)

from mcp_assets.entities.words import Words
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index import ledger
from mcp_assets.sync.link import linker


def leave_out() -> None:
    """Have this process make no words and no indexes of metadata."""
    no_words = Words("", 0)
    # The cost of exactly this is measured.
    ledger.words_of = lambda *_: no_words  # type: ignore[assignment]
    ledger.write_words = lambda *_: None  # type: ignore[assignment]
    linker.write_pending_words = lambda *_: set()  # type: ignore[assignment]
    Settings.metadata_indexes = lambda *_: {}  # type: ignore[method-assign]


def link(settings: Settings) -> None:
    """Link all that is marked."""
    with closing(Platform(settings)) as platform:
        for _ in linker.link_until_done(platform):
            pass


def work_on(settings: Settings, work: Callable[[Settings], None], with_words: bool) -> None:
    if not with_words:
        leave_out()
    work(settings)


def measured(
    stack: Bench, rounds: int, work: Callable[[Settings], None], *, after: Callable[[Settings], None] | None = None
) -> dict[str, float]:
    """`after`: work that is done before each round, and is not measured."""

    def done(with_words: bool) -> float:
        stack.forget_index()
        if after is not None:
            stack.query("TRUNCATE relationships")
            in_fresh_process(work_on, stack.settings(), after, with_words)
            stack.settle()
        return in_fresh_process(work_on, stack.settings(drain_linger_s=0), work, with_words).seconds

    return slowdown(f"{work.__name__}: words", rounds, done)


def main() -> None:
    arguments = workspace_parser(__doc__).parse_args()
    entities = list(read_workspace(arguments.file, arguments.entities))
    with bench() as stack:
        load_entities(stack, entities)
        cold_fill = measured(stack, arguments.rounds, fill)
        linking = measured(stack, arguments.rounds, link, after=fill)
        # Each round reads the stream again, because what is known of it is forgotten with the index.
        publish(stack, [event_of(one) for one in entities])
        burst = measured(stack, arguments.rounds, take_in_and_drain)
    report(entities=len(entities), cold_fill=cold_fill, burst=burst, linking=linking)


if __name__ == "__main__":
    main()
