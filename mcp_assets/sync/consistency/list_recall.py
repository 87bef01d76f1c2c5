"""List recall: of the neighbours that exact searches find for some entities, how many have a similarity edge.

Measured where a collection holds more points than `exact_up_to` of the settings: there Qdrant finds neighbours by its
index and may miss some, so that two linkings may differ. Each census compares another sample, within a bound of time.
"""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.consistency.waiting import entities_that_wait
from mcp_assets.sync.link.link_state import read_link_states
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.verdicts import read_verdicts
from mcp_assets.sync.resolve_ids import pages

_SIMILARITY = EdgeType.SEMANTIC_SIMILARITY


class ListRecall(NamedTuple):
    """What the comparison of some lists with exact ones found."""

    lists: int = 0
    """Lists that were compared."""
    neighbours: int = 0
    """Neighbours in the exact lists."""
    found: int = 0
    """Those of them that have a similarity edge."""

    @property
    def share(self) -> float | None:
        """The recall, 0..1; None: no neighbour was compared."""
        return self.found / self.neighbours if self.neighbours else None

    def __str__(self) -> str:
        if self.share is None:
            return "not measured, because no list of the sample could be compared"
        return f"{self.share:.3f} of the {self.neighbours:,} neighbours of {self.lists:,} lists"


def sum_of_recalls(recalls: Iterable[ListRecall]) -> ListRecall:
    """That of all their lists together."""
    total = ListRecall()
    for one in recalls:
        total = ListRecall(total.lists + one.lists, total.neighbours + one.neighbours, total.found + one.found)
    return total


def measure_recall(
    platform: Platform, semantic: SemanticNeighbours, entity_type: str, slots: tuple[int, int], seed: int
) -> ListRecall | None:
    """The recall of the lists of a sample of one partition; None: all searches are exact.

    `semantic`: as a linker uses it. `seed` chooses the sample. Lists that wait to be linked are left out, and so are
    neighbours that wait.

    Raises:
        StoreUnavailable, StoreRefused: a store gave no answer.
    """
    if semantic.exact:
        return None
    tuning = platform.tuning.consistency
    exactly = SemanticNeighbours(platform, always_exact=True)
    lists = -(-tuning.recall_lists // platform.settings.shards)
    ends_at = time.monotonic() + tuning.recall_s
    total = ListRecall()
    for part in pages(_sample(platform, entity_type, slots, seed, lists), tuning.recall_lists_a_request):
        if total.lists and time.monotonic() >= ends_at:
            break
        with platform.postgres.transaction() as connection:
            # A linker may be at work: either all of its transaction is visible, or nothing.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            total = sum_of_recalls((total, _compare(platform, connection, exactly, part)))
    return total


def _sample(platform: Platform, entity_type: str, slots: tuple[int, int], seed: int, lists: int) -> list[EntityRef]:
    low, high = slots
    parameters = {"entity_type": entity_type, "lows": [low], "highs": [high], "seed": str(seed), "limit": lists}
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("sample_of_living"), parameters).fetchall()
    return [EntityRef(entity_type, row[0]) for row in rows]


def _compare(
    platform: Platform, connection: Connection, exactly: SemanticNeighbours, refs: Sequence[EntityRef]
) -> ListRecall:
    waiting = entities_that_wait(platform, connection, refs)
    states = read_link_states(platform, connection, [ref for ref in refs if ref not in waiting])
    points = {ref: row.point for ref, row in states.items() if row.point}
    rankings = {ref: found.ranking for ref, found in exactly.lists(connection, points).items()}
    # A rejected edge is missing rightly, and one that a verdict keeps is there whatever the search finds.
    verdicts = read_verdicts(platform, connection, rankings.keys())
    made = verdicts.judged_list(rankings.keys(), _SIMILARITY, exactly.edges(rankings))
    wanted = [edge for edge in made if edge.source in rankings]
    moving = entities_that_wait(platform, connection, {edge.target for edge in wanted})
    wanted = [edge for edge in wanted if edge.target not in moving]
    stored = platform.relationships.lists(connection, rankings.keys(), (_SIMILARITY,))[_SIMILARITY]
    found = sum(edge.target in stored.get(edge.source, {}) for edge in wanted)
    return ListRecall(len(rankings), len(wanted), found)
