"""Removed types: entity types that the settings no longer name, of which edges, messages or wants are still there.

Their ledger rows and points stay as they are, so that the type can be named again: then a repair links its entities as
it links all that were never linked. What is cleaned up is what harms the others: edges that lead to such entities,
messages that no drain takes, and wanted full syncs that never come.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import Drift, DriftKind


@dataclass(frozen=True, slots=True)
class RemovedType:
    """What is left of an entity type that is not in the settings."""

    name: str
    linked: int
    """Entities that the linker takes for living."""
    messages: int
    """Events and requests in the inbox."""
    wants_full_sync: bool
    """Events of it were lost."""

    @property
    def sentence(self) -> str:
        return (
            f"{self.name} is no entity type of the settings; {self.linked} entities of it are linked, "
            f"{self.messages} messages of it are in the inbox"
            + (", and a full sync of it is wanted" if self.wants_full_sync else "")
        )


def removed_types(platform: Platform) -> list[RemovedType]:
    """The types that are not in the settings and of which something is linked, waits, or is wanted, by name."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("removed_types"), {"types": list(platform.settings.entity_types)}
        ).fetchall()
    return [RemovedType(*row) for row in rows]


def drift_of_removed_types(platform: Platform) -> Iterator[Drift]:
    """One finding a type."""
    return (Drift(DriftKind.REMOVED_TYPE, None, one.sentence, one.name) for one in removed_types(platform))


def clean_up_removed_types(platform: Platform) -> None:
    """Have the linker take the entities of removed types out of all edges, and make their messages dead letters.

    A full sync of such a type is wanted no longer. Nothing is lost: once the type is named again, a dead letter is
    replayed, and the nightly full sync finds what events did not tell. The caller links.
    """
    types = {"types": list(platform.settings.entity_types)}
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("mark_removed_types"), types)
        connection.execute(platform.postgres.query("reject_removed_types"), types)
        connection.execute(platform.postgres.query("forget_full_syncs_of_removed_types"), types)
