"""mcp_assets: one full sync of all entity types through the platform, with shipped settings.

The search words of many texts are left to the linker: its part that writes them is a run of its own here.
"""

import sys
from contextlib import closing
from pathlib import Path

from pydantic import SecretStr
from stub import DIMENSION, Job, Stub, main

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.search_words import write_pending_words
from mcp_assets.sync.link.linker import link_until_done

# The folder of the benchmarks: the other systems' environments have nothing of it.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from hash_embedder import HashEmbedder

WORDS_AT_ONCE = 1_000
"""Entities whose words are written in one transaction."""


def settings_of(job: Job) -> Settings:
    """The shipped settings, on the stores of the job."""
    key = SecretStr(job.qdrant_api_key) if job.qdrant_api_key else None
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        database_url=SecretStr(job.database_url),
        nats_url=SecretStr(job.nats_url),
        qdrant_url=job.qdrant_url,
        qdrant_api_key=key,
    )


def sync(job: Job, stub: Stub) -> None:
    with closing(Platform(settings_of(job), embedder=HashEmbedder(DIMENSION, stub.embed))) as platform:
        entity_types = list(platform.settings.entity_types)
        if job.task == "mend":
            validate(platform, entity_types=entity_types, repair=True)
        elif job.task == "words":
            write_words(platform)
        elif job.task == "link":
            for _ in link_until_done(platform):
                pass
        else:
            for entity_type in entity_types:
                for _ in full_sync(platform, entity_type, range(platform.settings.shards)):
                    pass
        stub.note_children()


def write_words(platform: Platform) -> None:
    """Write the pending search words, in transactions as small as those of the linker."""
    with platform.postgres.transaction() as connection:
        pending = f"SELECT entity_type, entity_id FROM {platform.postgres.schema}.entities WHERE words_pending"
        rows = connection.execute(pending.encode()).fetchall()
    refs = [EntityRef(*row) for row in rows]
    for first in range(0, len(refs), WORDS_AT_ONCE):
        with platform.postgres.transaction() as connection:
            write_pending_words(platform, connection, refs[first : first + WORDS_AT_ONCE])


if __name__ == "__main__":
    main(sync)
