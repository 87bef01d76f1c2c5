"""Tag weights: the table `tag_weights`, counted again from `linked`; entities whose tags changed weight are marked.

Weights are an input of the topical rule. They change only here, so that one new entity does not change the weight of a
tag, and with it the edges of all other holders. Between two counts only a tag that comes to too many holders gets one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from mcp_assets.graph import UNKNOWN_TAG, TagWeight, weight_of
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.link.locks import exclusive


@dataclass(frozen=True, slots=True)
class TagWeightRefresh:
    """The result of one refresh."""

    tags: int
    """Tags that any entity holds."""
    changed: int
    """Tags whose weight changed, or that make candidates now and did not before, or the reverse."""
    marked: int
    """Entities marked because they hold a changed tag."""


class _StoredWeight(NamedTuple):
    """One row of `tag_weights`."""

    tag: str
    holders: int
    weight: float
    makes_candidates: bool


def refresh_tag_weights(platform: Platform) -> TagWeightRefresh:
    """Bring `tag_weights` to the present numbers of holders. Waits until no linker's transaction is open."""
    query = platform.postgres.query
    limit = platform.settings.tag_candidates
    with exclusive(platform) as connection:
        held: dict[str, int] = dict(connection.execute(query("count_tags")).fetchall())
        stored = {
            row.tag: (row.holders, TagWeight(row.weight, row.makes_candidates))
            for row in map(_StoredWeight._make, connection.execute(query("read_all_tag_weights")))
        }
        wanted = {tag: (holders, weight_of(holders, limit)) for tag, holders in held.items()}
        changed = [
            tag
            for tag in sorted(wanted.keys() | stored.keys())
            if wanted.get(tag, _UNKNOWN)[1] != stored.get(tag, _UNKNOWN)[1]
        ]
        rewritten = sorted(tag for tag in wanted if wanted[tag] != stored.get(tag))
        if rewritten:
            connection.execute(
                query("write_tag_weights"),
                {
                    "tags": rewritten,
                    "holders": [wanted[tag][0] for tag in rewritten],
                    "weights": [wanted[tag][1].weight for tag in rewritten],
                    "makes": [wanted[tag][1].makes_candidates for tag in rewritten],
                },
            )
        connection.execute(query("delete_tag_weights"), {"tags": sorted(stored.keys() - wanted.keys())})
        marked = 0
        # During a rebuild all entities are marked for lists in any case.
        if changed and connection.execute(query("linked_not_marked_for_lists")).fetchone() is not None:
            marked = connection.execute(query("mark_tag_holders"), {"tags": changed}).rowcount
    return TagWeightRefresh(len(wanted), len(changed), marked)


def weigh_crowded(platform: Platform, connection: Connection, tags: Collection[str], *, mark_holders: bool) -> None:
    """Let those of `tags` make no candidates from now on that have come to more holders than `tag_candidates` says.

    The nightly count would be too late: until then each holder would be compared with all others, and the cost of a tag
    that very many get in one day would grow with their square. Its weight is that of one holder too many, until the
    next count.

    `mark_holders`: have the lists of all holders made again; not necessary if a rebuild makes them.
    """
    query = platform.postgres.query
    limit = platform.settings.tag_candidates
    rows = connection.execute(query("crowded_tags"), {"tags": sorted(tags), "limit": limit}).fetchall()
    crowded = sorted(row[0] for row in rows)
    if not crowded:
        return
    weight = weight_of(limit + 1, limit)
    connection.execute(
        query("write_tag_weights"),
        {
            "tags": crowded,
            "holders": [limit + 1] * len(crowded),
            "weights": [weight.weight] * len(crowded),
            "makes": [weight.makes_candidates] * len(crowded),
        },
    )
    if mark_holders:
        connection.execute(query("mark_tag_holders"), {"tags": crowded})


_UNKNOWN = (0, UNKNOWN_TAG)
