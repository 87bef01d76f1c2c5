"""Edge repair: removes edges without a living end, and links entities again whose edges the rules make otherwise."""

from collections.abc import Sequence

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.orphan_edges import delete_orphans
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.edge_census import RELINKED_AT_ONCE, EdgeRules, orphaned_edges
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
        with exclusive(platform) as connection:
            delete_orphans(
                platform.relationships,
                connection,
                platform.postgres.schema,
                orphaned,
                types,
                ours=kind is DriftKind.ORPHANED_EDGE,
            )
    return set(orphaned)
