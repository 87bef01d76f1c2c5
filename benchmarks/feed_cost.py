"""Feed cost: what the change feed costs a full sync, a burst of events and linking.

`cold_fill`: a full sync of a workspace into empty stores, by the local model, and all of it linked: a rebuild, of which
the feed tells by partition. `burst`: events of all its entities, taken in and drained in one process. `relink`: each
25th entity gets the text of another one beside its own, and its own again; both are synced and linked, and the feed
tells of each edge. Of each, the seconds with the feed and without it, medians of some rounds in which both take turns,
`slowed_by`, the share by which it is slower, and `entries`, how many the feed has of one round.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

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

from mcp_assets.cli.load_entities import Line
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.link.linker import link_until_done

_CHANGED_EACH = 25
"""4 % of the entities: from 8 % on, all lists are rebuilt."""


def fill_and_link(settings: Settings) -> None:
    """A full sync of everything, and all that it marks linked."""
    fill(settings)
    with closing(Platform(settings)) as platform:
        for _ in link_until_done(platform):
            pass


def measured(stack: Bench, rounds: int, name: str, work: Callable[[Settings], float]) -> dict[str, float]:
    """`work` gives its seconds."""
    entries = 0

    def done(with_feed: bool) -> float:
        nonlocal entries
        seconds = work(stack.settings(drain_linger_s=0, changes_kept=7.0 if with_feed else 0.0))
        entries = max(entries, stack.query("SELECT count(*) FROM mcp_assets.changes")[0][0])
        stack.query("TRUNCATE mcp_assets.changes")
        return seconds

    return {**slowdown(f"{name}: the feed", rounds, done), "entries": entries}


def main() -> None:
    arguments = workspace_parser(__doc__).parse_args()
    entities = list(read_workspace(arguments.file, arguments.entities))
    with bench() as stack:

        def from_nothing(work: Callable[[Settings], None]) -> Callable[[Settings], float]:
            def done(settings: Settings) -> float:
                stack.forget_index()
                stack.query("TRUNCATE relationships")
                return in_fresh_process(work, settings).seconds

            return done

        def relink(settings: Settings) -> float:
            seconds = 0.0
            for lines in (changed(entities), entities[::_CHANGED_EACH]):
                load_entities(stack, lines)
                stack.settle()
                seconds += in_fresh_process(fill_and_link, settings).seconds
            return seconds

        load_entities(stack, entities)
        cold_fill = measured(stack, arguments.rounds, "cold fill", from_nothing(fill_and_link))
        relinked = measured(stack, arguments.rounds, "relink", relink)
        # Each round reads the stream again, because what is known of it is forgotten with the index.
        publish(stack, [event_of(one) for one in entities])
        burst = measured(stack, arguments.rounds, "burst", from_nothing(take_in_and_drain))
    report(entities=len(entities), cold_fill=cold_fill, burst=burst, relink=relinked)


def changed(entities: list[Line]) -> list[Line]:
    """Some of the entities, with the text of another one added to their own."""
    half = len(entities) // 2
    return [
        replace(one, content=f"{one.content}\n\n{entities[(number * _CHANGED_EACH + half) % len(entities)].content}")
        for number, one in enumerate(entities[::_CHANGED_EACH])
    ]


if __name__ == "__main__":
    main()
