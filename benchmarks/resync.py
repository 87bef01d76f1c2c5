"""Resync: a full sync of 1,000,000 synthetic rows of which none has changed.

The ledger is written in SQL to what a full sync would have written, for nothing here is about embedding. `rows_per_s`:
of the best of three full syncs of all partitions of the type, with the shipped settings; `seconds`: of each of the
three; `peak_rss_mb`: of the process that does it, with Dagster loaded as in a run. With --foreign, `foreign`: the same
with the source table in another database, whose ids and hashes are streamed across.
"""

import argparse
from contextlib import closing
from typing import Any

import psycopg
from harness import Bench, bench, in_fresh_process, report, say
from pydantic import SecretStr
from synthetic_tasks import ENTITY_TYPE, embedder

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedded.servers.postgres import DATABASE
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.index.full_sync import full_sync

# Some 600 characters each, all different.
_INSERT = """
INSERT INTO tasks (id, title, description, status, tags)
SELECT 'task-' || n, 'Task ' || n, repeat(md5(n::text) || ' ', 18), 'open', ARRAY['tag-' || n % 1000]
FROM generate_series(1, %d) AS n
"""
_LEDGER = """
INSERT INTO mcp_assets.entities
    (entity_type, entity_id, slot, origin, title, content, metadata, source_hash, prepared_by, text_hash, state_hash,
     dirty)
SELECT '{entity_type}', id, ('x' || substr(md5(id), 1, 4))::bit(16)::integer, 'source', title, description,
       jsonb_build_object('status', status, 'tags', tags), {hash}, '{prepared_by}', md5(description), md5(title), false
FROM tasks
"""


def resync(settings: Settings) -> tuple[int, int]:
    """A full sync; how many entities there are, and how many were looked at."""
    with closing(Platform(settings, embedder=embedder())) as platform:
        complete = [told for told in full_sync(platform, ENTITY_TYPE, range(settings.shards)) if told.complete]
    return sum(told.counts.scanned for told in complete), sum(told.differing for told in complete)


def fill(stores: Bench, settings: Settings, rows: int) -> None:
    """The source table and a ledger that agrees with it."""
    with closing(Platform(settings, embedder=embedder())) as platform:
        for _ in full_sync(platform, ENTITY_TYPE, range(settings.shards)):
            pass  # makes the collection
        reader = platform.source(ENTITY_TYPE)
        assert reader is not None
        stores.query(_INSERT.replace("%d", str(rows)))
        with platform.postgres.session() as session:
            hashed = reader.hash_expression.as_string(session)
            session.execute(
                _LEDGER.format(
                    entity_type=ENTITY_TYPE, hash=hashed, prepared_by=platform.prepared_by(ENTITY_TYPE)
                ).encode()
            )
    stores.settle()
    say(f"{rows} rows are in the source table and the ledger")


def measure(settings: Settings, rows: int) -> dict[str, Any]:
    """The best of three."""
    trials = [in_fresh_process(resync, settings) for _ in range(3)]
    for trial in trials:
        assert trial.result == (rows, 0), f"{trial.result}: rows scanned, and rows that were found to differ"
    seconds = [trial.seconds for trial in trials]
    say(f"full syncs: {', '.join(f'{one:.2f} s' for one in seconds)}")
    return {
        "rows_per_s": rows / min(seconds),
        "seconds": [round(one, 3) for one in seconds],
        "peak_rss_mb": max(trial.peak_rss_mb for trial in trials),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--foreign", action="store_true", help="also with the source table in another database")
    arguments = parser.parse_args()
    with bench() as stores:
        settings = stores.settings()
        fill(stores, settings, arguments.rows)
        figures = measure(settings, arguments.rows)
        if arguments.foreign:
            url = move_source(stores)
            figures["foreign"] = measure(stores.settings(source_database_url=SecretStr(url)), arguments.rows)
        report(rows=arguments.rows, **figures)


def move_source(stores: Bench) -> str:
    """Have the source table in a database of its own, without the platform's; its address."""
    url = stores.database_url.replace(f"/{DATABASE}?", "/sources?")
    stores.query("CREATE DATABASE sources")
    with closing(Platform(stores.settings(source_database_url=SecretStr(url)))) as platform:
        create_source_tables(platform)
    with psycopg.connect(stores.database_url) as here, psycopg.connect(url, autocommit=True) as there:
        with here.cursor().copy("COPY tasks TO STDOUT") as rows, there.cursor().copy("COPY tasks FROM STDIN") as copy:
            for row in rows:
                copy.write(row)
        there.execute("VACUUM ANALYZE tasks")
    stores.query("DROP TABLE tasks")
    stores.settle()
    return url


if __name__ == "__main__":
    main()
