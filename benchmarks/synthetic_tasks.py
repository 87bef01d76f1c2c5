"""Synthetic tasks of one size, all different, for benchmarks of which neither texts nor neighbours matter.

Their embedder is a hash of the text, 64 dimensions: vectors this short keep the embedded Qdrant engine out of the way.
"""

from contextlib import closing

from harness import Bench
from hash_embedder import HashEmbedder, scattered

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done

ENTITY_TYPE = "task"

DIMENSION = 64

# Some 600 characters each.
_INSERT = """
INSERT INTO tasks (id, title, description, status, tags)
SELECT 'task-' || n, 'Task ' || n, repeat(md5(n::text) || ' ', 18), 'open', ARRAY['tag-' || n %% 1000]
FROM generate_series(1, %s) AS n
"""


def embedder() -> HashEmbedder:
    """Deterministic vectors at the cost of one hash a text."""
    return scattered(DIMENSION)


def insert(stores: Bench, count: int) -> None:
    """The tasks task-1 to task-`count`."""
    stores.query(_INSERT, count)


def fill(settings: Settings) -> int:
    """A full sync; the number of entities embedded."""
    with closing(Platform(settings, embedder=embedder())) as platform:
        news = full_sync(platform, ENTITY_TYPE, range(settings.shards))
        return sum(one.counts.embedded for one in news if one.complete)


def link_all(settings: Settings) -> int:
    """Link all that is marked; the number of edges made."""
    with closing(Platform(settings, embedder=embedder())) as platform:
        return sum(linked.total().added.total() for linked in link_until_done(platform))
