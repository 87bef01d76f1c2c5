"""Journal: the state of a change of the embedding model, one row for each alias in `collection_changes`.

The rows of all aliases pass through the same states together:

- *building*: the full sync that finds another model in the settings writes the rows. The old collections serve
  searches, and receive writes as long as their model is still configured; the new ones are filled beside them.
- *moving*: the new collections hold everything, and the aliases are being moved (`move`).
- *moved*: the aliases point to the new collections. The old ones are kept for a day, in case the site changes its mind.

Writers of points and the linker choose their collections by the journal. While they write they hold a shared advisory
lock, and compare the journal with the one that they chose by; each change of the journal holds the same lock alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold, lock_name, share_in_transaction


@dataclass(frozen=True, slots=True)
class Change:
    """One alias in the journal of a change of model."""

    alias: str
    old: str | None
    """The physical collection that the alias pointed to when the change began; None: there was none."""
    new: str
    model: str
    """That `new` is built for."""
    dimension: int
    state: Literal["building", "moving", "moved"]
    kept_long_enough: bool | None
    """The aliases were moved so long ago that the old collection can be dropped; None: they are not moved yet."""

    @property
    def choice(self) -> tuple[str, ...]:
        """The part by which a writer chooses its collections."""
        return (self.alias, self.new, self.state)

    def is_for(self, profile: ModelProfile) -> bool:
        """The new collection is built for the model of `profile`."""
        return (self.model, self.dimension) == (profile.name, profile.dimension)


Journal = tuple[Change, ...]


def stored_journal(platform: Platform, connection: Connection) -> Journal:
    """The journal as the table has it. A move may have been interrupted: see `move.read_journal`."""
    return tuple(platform.postgres.rows(connection, "collection_changes", Change))


def is_same_choice(one: Journal, other: Journal) -> bool:
    """A writer chooses the same collections by both."""
    return [change.choice for change in one] == [change.choice for change in other]


def hold_collections(platform: Platform, connection: Connection, journal: Journal) -> bool:
    """Keep the aliases where they are until the transaction ends.

    False: the collections chosen by `journal` are no longer the right ones, so that nothing may be written to them. The
    first statement of the transaction has to be this one: otherwise it could wait for the lock with rows locked.
    """
    share_in_transaction(connection, lock_name(platform.postgres, Lock.COLLECTIONS))
    return is_same_choice(stored_journal(platform, connection), journal)


@contextmanager
def exclusive(platform: Platform) -> Iterator[Connection]:
    """A connection of its own, in autocommit; no process writes points or edges while the block runs."""
    with platform.postgres.session() as session:
        hold(session, lock_name(platform.postgres, Lock.COLLECTIONS))
        yield session


def building_collection(platform: Platform, entity_type: str) -> str | None:
    """The physical collection that is being built for the type's alias; None: no change of model is under way."""
    alias = platform.settings.entity_types[entity_type].collection_name
    with platform.postgres.transaction() as connection:
        journal = stored_journal(platform, connection)
    return next((one.new for one in journal if one.alias == alias and one.state == "building"), None)


def types_of_alias(platform: Platform, alias: str) -> list[str]:
    """The entity types whose points the alias holds."""
    types = platform.settings.entity_types
    return [name for name in types if types[name].collection_name == alias]
