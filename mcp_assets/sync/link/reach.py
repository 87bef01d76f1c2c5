"""Reach: what a changed entity's search finds, its own list and the entities whose lists it may enter."""

from collections.abc import Iterable
from typing import NamedTuple

from mcp_assets.graph import Neighbour, NeighbourList, ranked, truncated


class Reach(NamedTuple):
    """Neighbours of a changed entity, for lists of one type."""

    own: NeighbourList = NeighbourList()
    """Its own list."""
    within_reach: tuple[Neighbour, ...] = ()
    """The entities whose list or reserves it may enter: semantic ones only if its score is not below their cut-off."""


def complete_list(neighbours: Iterable[Neighbour], kept: int) -> NeighbourList:
    """The list of an entity, given all of its neighbours, or at least the kept + 1 best."""
    return truncated(ranked(neighbours, kept + 1), None, kept)
