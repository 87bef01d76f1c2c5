"""The upgrade to epochs carries over what waits: pending messages, requests, dead letters and the cursor."""

from collections.abc import Callable

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets_tests.migrating import downgrade, execute, upgrade
from mcp_assets_tests.observing import drain_all, inbox, ledger, rows, send, take_in

MADE = "2026-01-02 03:04:05.678+00"
EARLIER = "2025-11-12 13:14:15.161+00"

BEFORE = f"""
INSERT INTO mcp_assets.intake_cursors VALUES ('MCP_ASSETS', '{MADE}', 9, '2026-01-03 00:00:00+00');
INSERT INTO mcp_assets.inbox
    (stream, stream_created_at, seq, kind, subject, entity_type, entity_id, verb, payload, event_order, stored_at)
VALUES
    ('MCP_ASSETS', '{EARLIER}', 7, 'entity', 'mcp.memory.stored', 'memory', 'old', 'look',
     '{{"title": null, "content": "of the stream before", "metadata": {{}}}}',
     '01762953255161000|MCP_ASSETS|00000000000000000007', '{EARLIER}'),
    ('MCP_ASSETS', '{MADE}', 7, 'entity', 'mcp.memory.stored', 'memory', 'new', 'look',
     '{{"title": null, "content": "of this stream", "metadata": {{}}}}',
     '01767323045678000|MCP_ASSETS|00000000000000000007', '{MADE}');
INSERT INTO mcp_assets.dead_letters (stage, stream, stream_created_at, seq, raw, error_kind, error)
VALUES ('intake', 'MCP_ASSETS', '{EARLIER}', 3, 'a', 'bad_json', 'x'),
       ('intake', 'MCP_ASSETS', '{MADE}', 3, 'b', 'bad_json', 'x'),
       ('request', 'GONE', '{MADE}', 3, 'c', 'request_failed', 'x');
INSERT INTO mcp_assets.dead_letters (stage, entity_type, entity_id, error_kind, error)
VALUES ('embed', 'task', 't', 'input_refused', 'x');
INSERT INTO mcp_assets.full_syncs (id, entity_types, force, requested_by) VALUES ('f', '{{task}}', false, 'test');
INSERT INTO mcp_assets.full_sync_requests (stream, stream_created_at, seq, subject, full_sync_id)
VALUES ('MCP_ASSETS', '{MADE}', 5, 'data.sync.request', 'f');
"""

QUERIES = {
    "inbox": "SELECT entity_id, epoch, seq FROM mcp_assets.inbox ORDER BY event_order",
    "dead letters": "SELECT stream, epoch, seq, convert_from(raw, 'utf8') FROM mcp_assets.dead_letters ORDER BY id",
    "requests": "SELECT stream, epoch, seq FROM mcp_assets.full_sync_requests",
    "cursor": "SELECT epoch, last_seq, newest_stored_at, last_digest FROM mcp_assets.intake_cursors",
}


@pytest.fixture
def site(settings: Settings) -> Settings:
    """A database as the revision before epochs left it, with messages of two lives of the stream in it."""
    upgrade(settings, "0007")
    execute(settings, BEFORE)
    return settings


def found(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    return {name: execute(settings, query) for name, query in QUERIES.items()}


def test_each_life_of_a_stream_becomes_an_epoch_and_the_cursors_own_is_the_last(site: Settings) -> None:
    upgrade(site, "0008")

    after = found(site)
    assert after["inbox"] == [("old", 1, 7), ("new", 2, 7)]
    assert after["dead letters"] == [
        ("MCP_ASSETS", 1, 3, "a"),
        ("MCP_ASSETS", 2, 3, "b"),
        ("GONE", 1, 3, "c"),
        (None, None, None, ""),
    ]
    assert after["requests"] == [("MCP_ASSETS", 2, 5)]
    [(epoch, last_seq, newest, digest)] = after["cursor"]
    assert (epoch, last_seq, str(newest), digest) == (2, 9, "2026-01-03 00:00:00+00:00", None)


def test_a_downgrade_keeps_what_waits_and_an_upgrade_after_it_gives_the_same(site: Settings) -> None:
    upgrade(site, "0008")
    first = found(site)

    downgrade(site, "0007")
    assert execute(site, "SELECT count(DISTINCT stream_created_at) FROM mcp_assets.inbox") == [(2,)]
    upgrade(site, "0008")

    assert found(site) == first


def test_what_waited_at_the_upgrade_is_applied_after_it_beside_what_comes_then(
    site: Settings, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform()
    create_source_tables(platform)
    assert inbox(platform) == ["old", "new"]
    platform.nats.ensure_stream("MCP_ASSETS")
    send(platform, ("mcp.memory.stored", {"memoryId": "new", "content": "newer"}))

    # The stream of the test is another one than the cursor read.
    assert "made again" in (take_in(platform).gap or "")
    drain_all(platform)

    kept = {entity_id: row["content"] for entity_id, row in ledger(platform, "memory").items()}
    assert kept == {"old": "of the stream before", "new": "newer"}
    assert rows(platform, "SELECT epoch FROM {schema}.intake_cursors") == [(3,)]
