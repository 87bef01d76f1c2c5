"""Removed types: entity types that the settings no longer name, and that left edges, messages or wanted full syncs.

Their ledger rows and points stay, so that the type can be named again: a repair then links its entities like entities
that were never linked. What disturbs other types is cleaned up: edges that lead to such entities, messages that no
drain applies, and wanted full syncs that no run will do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import Drift, DriftKind


@dataclass(frozen=True, slots=True)
class RemovedType:
    """An entity type that is not in the settings, and what it left."""

    name: str
    linked: int
    """Entities that the linker still knows as living."""
    messages: int
    """Events and requests in the inbox."""
    wants_full_sync: bool
    """Events of the type were lost, so that a full sync was asked for."""

    @property
    def sentence(self) -> str:
        return (
            f"{self.name} is no entity type of the settings; {self.linked} entities of it are linked, "
            f"{self.messages} messages of it are in the inbox"
            + (", and a full sync of it is wanted" if self.wants_full_sync else "")
        )


def removed_types(platform: Platform) -> list[RemovedType]:
    """The types that are not in the settings and have linked entities, messages or a wanted full sync, by name."""
    with platform.postgres.transaction() as connection:
        types = {"types": list(platform.settings.entity_types)}
        return platform.postgres.rows(connection, "removed_types", RemovedType, types)


def drift_of_removed_types(platform: Platform) -> Iterator[Drift]:
    """One drift a type."""
    return (Drift(DriftKind.REMOVED_TYPE, None, one.sentence, one.name) for one in removed_types(platform))


def clean_up_removed_types(platform: Platform) -> None:
    """Mark the entities of removed types, so that the linker removes their edges, and make their messages dead letters.

    Wanted full syncs of such types are deleted. Nothing is lost: once the type is named again, its dead letters can be
    replayed, and the nightly full sync finds changes without an event. The caller has to link.
    """
    types = {"types": list(platform.settings.entity_types)}
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("mark_removed_types"), types)
        connection.execute(platform.postgres.query("reject_removed_types"), types)
        connection.execute(platform.postgres.query("forget_full_syncs_of_removed_types"), types)
        connection.execute(platform.postgres.query("forget_partitions_of_removed_types"), types)
