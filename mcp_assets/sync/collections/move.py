"""Move: points all aliases at the new collections, the last step of a change of model.

A move that was interrupted is finished by the first process that reads the journal. Until then an alias may be missing:
a collection that bears the plain name of an alias has to be deleted before the alias can take that name.
"""

import logging
from collections.abc import Sequence

from mcp_assets.entities.refs import SLOTS
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.adoption import why_not_replaceable
from mcp_assets.sync.collections.journal import Change, Journal, exclusive, stored_journal
from mcp_assets.sync.collections.verify import mark_lacking_of_alias

logger = logging.getLogger(__name__)


def read_journal(platform: Platform) -> Journal:
    """The journal. A move that was interrupted is finished first."""
    with platform.postgres.transaction() as connection:
        journal = stored_journal(platform, connection)
    if all(change.state != "moving" for change in journal):
        return journal
    with exclusive(platform) as alone:
        if any(change.state == "moving" for change in stored_journal(platform, alone)):
            move_aliases(platform, alone)
        return stored_journal(platform, alone)


def move_aliases(platform: Platform, alone: Connection) -> None:
    """Do what is left of the move; the journal says `moving`, and `alone` comes from `exclusive`.

    Safe to repeat. If a new collection vanished, or would replace points that are not ours, the journal goes back to
    `building`.
    """
    query, qdrant = platform.postgres.query, platform.qdrant
    moving = [change for change in stored_journal(platform, alone) if change.state == "moving"]
    present = set(qdrant.collections())
    vanished = [change.new for change in moving if change.new not in present]
    if vanished:
        logger.error("%s vanished before the aliases were moved: built again", ", ".join(vanished))
        with alone.transaction():
            alone.execute(query("forget_embedded"), {"collections": vanished})
            alone.execute(query("set_collection_changes"), {"state": "building"})
            # What was measured was of the collections that are gone.
            alone.execute(query("end_gate"), {"ended_as": "given up"})
        return
    reason = why_not_movable(platform, moving)
    if reason is not None:
        logger.error("the aliases are not moved: %s", reason)
        alone.execute(query("set_collection_changes"), {"state": "building"})
        return
    plain = [change.alias for change in moving if change.alias in present]
    for name in plain:
        qdrant.drop_collection(name)
    qdrant.move_aliases({change.alias: change.new for change in moving})
    with alone.transaction():
        alone.execute(query("set_collection_changes"), {"state": "moved"})
        alone.execute(query("end_gate"), {"ended_as": "moved"})
        alone.execute(query("end_adoptions"), {"aliases": [change.alias for change in moving]})
        alone.execute(
            query("forget_embedded"), {"collections": [change.old for change in moving if change.old == change.alias]}
        )
        for change in moving:
            mark_lacking_of_alias(platform, alone, change.alias, change.new)
        # Semantic neighbours follow from the vectors, so that every entity has to be linked again.
        for entity_type in platform.settings.entity_types:
            alone.execute(
                query("mark_range"),
                {"entity_type": entity_type, "low": 0, "high": SLOTS, "linked_by": "", "force": True},
            )
    logger.warning("the aliases are moved: %s serve", ", ".join(change.new for change in moving))


def why_not_movable(platform: Platform, changes: Sequence[Change]) -> str | None:
    """Why an alias may not be moved: the collection that bears its name holds points that are not ours."""
    physical, aliases = set(platform.qdrant.collections()), platform.qdrant.aliases()
    reasons = (why_not_replaceable(platform, change.alias, physical, aliases) for change in changes)
    return next((reason for reason in reasons if reason is not None), None)
