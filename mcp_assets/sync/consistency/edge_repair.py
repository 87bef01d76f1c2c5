"""Edge repair: removes edges without a living end, and links entities again whose edges the rules make otherwise."""

from collections.abc import Sequence

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.orphan_edges import Orphan, delete_orphans
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.edge_census import RELINKED_AT_ONCE, EdgeRules, orphaned_edges
from mcp_assets.sync.feed.edge_entries import copy_entries, entry_line, name_of
from mcp_assets.sync.feed.edition import ChangeFeed
from mcp_assets.sync.feed.entries import ChangeKind, EdgeReason
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.locks import exclusive
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.resolve_ids import pages


def link_again(platform: Platform, refs: Sequence[EntityRef], rules: EdgeRules) -> set[EntityRef]:
    """Have `refs` linked by all rules; returns those whose edges are right afterwards."""
    with platform.postgres.transaction() as connection:
        for reason in (Reason.CHANGED, Reason.REFERENCES, Reason.LISTS):
            mark(platform, connection, set(refs), reason)
    for _ in link_until_done(platform):
        pass
    left: set[EntityRef] = set()
    for part in pages(refs, RELINKED_AT_ONCE):
        left |= {drift.ref for drift in rules.differing(part) if drift.ref}
    return set(refs) - left


def remove_orphaned_edges(platform: Platform, ids: Sequence[str], kind: DriftKind) -> set[str]:
    """Remove those of the rows `ids` of `relationships` that lack a living end; returns their ids.

    `kind`: ORPHANED_EDGE for our rows alone, FOREIGN_EDGE for those of other programs alone.
    """
    orphaned = [drift.subject for drift in orphaned_edges(platform, ids) if drift.kind is kind]
    types = list(platform.settings.entity_types)
    if orphaned:
        is_told = platform.companion(ChangeFeed).open() and kind is DriftKind.ORPHANED_EDGE
        with exclusive(platform) as connection:
            removed = delete_orphans(
                platform.relationships,
                connection,
                platform.postgres.schema,
                orphaned,
                types,
                ours=kind is DriftKind.ORPHANED_EDGE,
            )
            if is_told:
                copy_entries(platform, connection, map(_entry_line, removed))
    return set(orphaned)


def _entry_line(orphan: Orphan) -> str:
    """The entry of the change feed about a removed edge of ours, whose ends have types."""
    source = name_of(EntityRef(orphan.source_type or "", orphan.source_id))
    target = name_of(EntityRef(orphan.target_type or "", orphan.target_id))
    return entry_line(ChangeKind.EDGE_REMOVED, EdgeReason.REPAIR, orphan.edge_type, source, target, None)
