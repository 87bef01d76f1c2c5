"""Tag weights: counted anew from what is linked; the holders of tags whose weight is another are re-linked."""

from dataclasses import dataclass

from mcp_assets.graph import UNKNOWN_TAG, TagWeight, weight_of
from mcp_assets.platform import Platform
from mcp_assets.sync.link.locks import exclusive


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh came to."""

    tags: int
    changed: int
    """Tags that now have another weight, or make candidates where they did not, or the reverse."""
    marked: int
    """Entities that hold one of them, to be re-linked."""


def refresh_tag_weights(platform: Platform) -> Refreshed:
    """Bring `tag_weights` to the numbers of holders as they are. Waits for a linker that is at work."""
    query = platform.postgres.query
    limit = platform.settings.tag_candidates
    with exclusive(platform) as connection:
        held: dict[str, int] = dict(connection.execute(query("count_tags")).fetchall())
        stored = {
            tag: (holders, TagWeight(weight, makes_candidates))
            for tag, holders, weight, makes_candidates in connection.execute(query("read_all_tag_weights"))
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
        # In a sweep everybody is asked anew in any case.
        if changed and connection.execute(query("linked_not_marked_for_lists")).fetchone() is not None:
            marked = connection.execute(query("mark_tag_holders"), {"tags": changed}).rowcount
    return Refreshed(len(wanted), len(changed), marked)


_UNKNOWN = (0, UNKNOWN_TAG)
