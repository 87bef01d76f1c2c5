"""Marks: rows of `relink_marks`, each of which says that one entity has to be linked again, and why.

A mark is written in the transaction of the change that makes it necessary, and removed in the transaction of the
linker that writes the edges: a process that dies leaves the marks of all that is not done.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from mcp_assets.entities.refs import EntityRef, slot_range
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.link.counts import LinkStage
from mcp_assets.sync.link.link_rules import rules_fingerprint
from mcp_assets.sync.link.link_state import by_type_and_id

_LONGEST_CHAIN = 4
"""Generations of marks, at most. It follows from the rules: a refresh of tag weights marks the holders of tags; linking
these marks lists of others, or more users of a key; linking these users marks lists; linking lists marks nothing."""


class Reason(StrEnum):
    """The values of `relink_marks.reason`."""

    CHANGED = "changed"
    VECTOR = "vector"
    TAGS = "tags"
    REFERENCES = "references"
    LISTS = "lists"


@dataclass(frozen=True, slots=True)
class MarksLeft:
    """Entities that wait to be linked, by the stage in which the linker links them."""

    changes: int
    lists: int

    def of(self, stage: LinkStage) -> int:
        return self.lists if stage is LinkStage.LISTS else self.changes

    def less(self, stage: LinkStage, linked: int) -> Self:
        """What is left when so many of a stage are linked; new marks may have come meanwhile."""
        left = max(0, self.of(stage) - linked)
        return replace(self, lists=left) if stage is LinkStage.LISTS else replace(self, changes=left)


def mark(platform: Platform, connection: Connection, refs: Collection[EntityRef], reason: Reason) -> None:
    """Have `refs` re-linked, once the caller's transaction is committed."""
    if refs:
        name = "mark_for_lists" if reason is Reason.LISTS else "mark_changes"
        connection.execute(platform.postgres.query(name), {**by_type_and_id(refs), "reason": reason.value})


def mark_shards(platform: Platform, entity_type: str, shards: Iterable[int], *, force: bool) -> None:
    """Mark the entities that were never linked, or by other rules or settings; with `force` all of the shards."""
    fingerprint = rules_fingerprint(platform, serving_profile(platform))
    with platform.postgres.transaction() as connection:
        for shard in shards:
            low, high = slot_range(shard, platform.settings.shards)
            connection.execute(
                platform.postgres.query("mark_range"),
                {
                    "entity_type": entity_type,
                    "low": low,
                    "high": high,
                    "linked_by": fingerprint,
                    "force": force,
                },
            )


def mark_waiting(platform: Platform, entity_type: str, slots: tuple[int, int]) -> None:
    """Mark the entities of a range of slots that wait to be indexed or linked, so that all their edges are compared.

    A census leaves these entities out, because waiting work may correct them. It does not correct an edge that the work
    has nothing to do with.
    """
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("mark_waiting"), {"entity_type": entity_type, "low": slots[0], "high": slots[1]}
        )


def pending_links(platform: Platform, *, up_to: int) -> int:
    """How many marks there are; `up_to` if there are more."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("marks_up_to"), {"limit": up_to}).fetchone()
    assert row is not None  # noqa: S101  (an aggregate has one row)
    return int(row[0])


def marks_left(platform: Platform) -> MarksLeft:
    """How many entities are marked; reads all marks, about a second for a million."""
    with platform.postgres.transaction() as connection:
        left = platform.postgres.row(connection, "count_marks", MarksLeft)
    assert left is not None  # noqa: S101  (an aggregate has one row)
    return left


def oldest_link_s(platform: Platform) -> float | None:
    """Age in seconds of the oldest mark; None if there is none."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("oldest_mark")).fetchone()
    return row[0] if row else None


class MarksMadeBefore:
    """The marks that are there when this is made, and the marks that the linking of these makes.

    The marks that linking makes are found by generation: when no mark of one generation is left, the next generation is
    all marks that are there then.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._newest = _newest_mark(platform)
        self._generations = 1

    def are_gone(self) -> bool:
        while self._newest is not None:
            if _marks_left(self._platform, self._newest):
                return False
            self._newest = _newest_mark(self._platform) if self._generations < _LONGEST_CHAIN else None
            self._generations += 1
        return True


def _newest_mark(platform: Platform) -> int | None:
    """The `seq` of the newest mark; None if there is no mark."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("newest_mark")).fetchone()
    return row[0] if row else None


def _marks_left(platform: Platform, newest: int) -> bool:
    """Whether there is a mark whose `seq` is at most `newest`."""
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("marks_left"), {"newest": newest}).fetchone() is not None
