"""Drain: applies the inbox of an entity type until it is empty and stays so; does intake itself meanwhile.

What it takes in may be about other types, and a run for them starts seconds later. Therefore a drain takes over types
whose messages wait and that no drain works on. Each type that it works on has a worker: a thread that holds the drain
lock of the type. One reader takes in messages for all workers.
"""

import time
from collections.abc import Generator

from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain_workers import DrainWorkers
from mcp_assets.sync.inbox.drained import Drained


def drain(
    platform: Platform, entity_type: str, run_id: str, *, asked_s_ago: float = 0.0
) -> Generator[Drained, None, None]:
    """Apply the entity events and relate requests in the inbox: about `entity_type`, and about types taken over.

    The run was asked for `asked_s_ago` seconds ago. Messages of other types that came later have no run on the way.
    Ends when there have been none for DRAIN_LINGER_S, or after DRAIN_MAX_S. An error of a type that was taken over ends
    that worker alone, and is yielded. Any other error ends the drain, once the other workers have applied the waiting
    messages. A caller that does not iterate it to its end closes it, because its workers are threads.

    Yields nothing and ends at once if another drain works on `entity_type`. After it has let go of its locks it checks
    the inbox once more, so that no event is left between two drains.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: batches in flight stay in the inbox.
    """
    asked_at = time.monotonic() - asked_s_ago
    deadline = time.monotonic() + platform.settings.drain_max_s
    failed: set[str] = set()
    types = [entity_type]
    while types:
        workers = DrainWorkers(platform, entity_type, types, run_id, asked_at, deadline, failed)
        yield from workers.drained()
        types = workers.left_behind()
