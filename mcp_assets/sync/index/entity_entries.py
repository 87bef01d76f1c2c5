"""Entity entries: what the change feed tells of an entity whose plan is written."""

from mcp_assets.sync.feed.entries import ChangeKind, EntityReason
from mcp_assets.sync.index.write_plan import WritePlan

GONE = ""
"""The value of `entities.fed_state` of an entity that the feed has said to be removed."""

Told = tuple[ChangeKind, EntityReason]


def fed_state(plan: WritePlan) -> str:
    """The value of `entities.fed_state` after the plan."""
    return GONE if plan.removes else plan.dirty.state_hash


def told(plan: WritePlan, fed: str | None) -> Told | None:
    """What the feed tells of the entity; None: nothing, because readers know the state.

    So an entity that is indexed again as it was, by force, by a repair or for another model, makes no entry. `fed`: the
    column `fed_state` before; NULL if the feed never told of the entity: then what the collection held says what was.
    """
    known = fed
    if known is None:
        known = plan.recorded.state_hash if plan.recorded is not None else GONE
    if known == fed_state(plan):
        return None
    if plan.removes:
        return ChangeKind.REMOVED, EntityReason.DELETED if plan.dirty.deleted else EntityReason.EMPTY
    if known == GONE:
        return ChangeKind.INDEXED, EntityReason.NEW
    return ChangeKind.INDEXED, EntityReason.TEXT if plan.vectors is not None else EntityReason.METADATA
