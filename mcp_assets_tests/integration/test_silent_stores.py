"""Silence: a store that takes connections and sends nothing is an outage within a bound; a healthy one may be slow."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import sqlalchemy
from dagster_postgres.run_storage import PostgresRunStorage
from pydantic import SecretStr

from mcp_assets.defs.storage import SettingsPostgresStorage
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.nats_connection import NatsConnection
from mcp_assets.stores.postgres import Postgres
from mcp_assets.stores.postgres.silence import SilenceLimits
from mcp_assets.sync.views.pending import pending
from mcp_assets_tests.nats_servers import Server
from mcp_assets_tests.observing import put_tasks, sync_all
from mcp_assets_tests.relay import Relay


@pytest.fixture
def relay(settings: Settings, tmp_path: Path) -> Iterator[Relay]:
    query = parse_qs(urlsplit(settings.require_database_url()).query)
    with Relay(f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}", tmp_path / ".s.PGSQL.5432") as standing:
        yield standing


@pytest.fixture
def url(settings: Settings, tmp_path: Path) -> str:
    """Leads through the relay."""
    user = urlsplit(settings.require_database_url()).username
    return f"postgresql://{user}@/test?host={tmp_path}&port=5432"


@pytest.fixture
def hasty(settings: Settings, relay: Relay, url: str) -> Iterator[Postgres]:
    """The database through the relay. It is asked for an answer after a moment of silence."""
    postgres = Postgres(
        url, settings.schema_name, settings.relationships_table, {}, timeout_s=2, silence=SilenceLimits(0.2, 2)
    )
    yield postgres
    postgres.close()


@pytest.fixture
def relayed(make_platform: Callable[..., Platform], relay: Relay, url: str) -> Platform:
    return make_platform(database_url=SecretStr(url))


def read(postgres: Postgres, statement: str) -> list[tuple[Any, ...]]:
    with postgres.transaction() as connection:
        return connection.execute(statement.encode()).fetchall()


def test_a_statement_ends_with_an_outage_when_its_server_falls_silent_and_the_next_one_works_when_it_is_back(
    hasty: Postgres, relay: Relay
) -> None:
    assert read(hasty, "SELECT 1") == [(1,)]

    with (
        pytest.raises(StoreUnavailable, match="sent nothing for"),
        hasty.transaction() as connection,
        connection.transaction(),
    ):
        connection.execute("SELECT 1")
        relay.fall_silent()
        connection.execute("SELECT 1")

    relay.resume()
    assert read(hasty, "SELECT 1") == [(1,)]


def test_a_session_ends_with_an_outage_when_its_server_falls_silent(hasty: Postgres, relay: Relay) -> None:
    with (
        pytest.raises(StoreUnavailable, match="sent nothing for"),
        hasty.session() as session,
    ):
        relay.fall_silent()
        session.execute("SELECT 1")


def test_a_first_connection_to_a_silent_server_ends_with_an_outage(hasty: Postgres, relay: Relay) -> None:
    relay.fall_silent()

    with pytest.raises(StoreUnavailable, match="timeout"), hasty.transaction():
        pass


def test_a_long_statement_is_waited_for_while_its_server_answers_others(hasty: Postgres) -> None:
    assert read(hasty, "SELECT pg_sleep(1), 1") == [("", 1)]


def test_dagsters_storage_does_not_wait_for_a_silent_server(
    relay: Relay, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    class Hasty(SettingsPostgresStorage):
        silence_limits = SilenceLimits(0.2, 2)

    storage = Hasty.from_config_value(None, {"schema": "dagster"})
    runs = storage.run_storage
    assert isinstance(runs, PostgresRunStorage)

    with (
        pytest.raises(sqlalchemy.exc.OperationalError, match="sent nothing for"),
        runs.connect() as connection,
    ):
        relay.fall_silent()
        connection.execute(sqlalchemy.text("SELECT 1"))

    relay.resume()
    assert storage.run_storage.get_runs_count() == 0


def test_a_database_that_takes_no_writes_is_away_for_what_writes_and_status_says_so(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"t": "T"})
    sync_all(platform)
    with psycopg.connect(platform.settings.require_database_url(), autocommit=True) as connection:
        connection.execute("ALTER DATABASE test SET default_transaction_read_only = on")
    standby = make_platform()

    with pytest.raises(StoreUnavailable, match="takes no writes"):
        sync_all(standby)
    found = pending(standby)
    assert found.entities["task"] == (1, 0)
    assert [said for said in found.unavailable if "takes no writes" in said]


def test_what_is_pending_is_unknown_of_a_postgresql_that_answers_too_slowly(relayed: Platform, relay: Relay) -> None:
    assert pending(relayed).unavailable == []
    relay.fall_silent()

    found = pending(relayed, within_s=0.5)

    assert found.unread == {relayed.settings.streams[0]: None}
    assert len(found.unavailable) == 1
    assert "PostgreSQL has not answered" in found.unavailable[0]
    assert not found.idle


def test_status_names_each_store_that_is_away(platform: Platform, make_platform: Callable[..., Platform]) -> None:
    nowhere = "127.0.0.1:1"
    without_qdrant = make_platform(qdrant_url=f"http://{nowhere}")
    without_any = make_platform(
        database_url=SecretStr(f"postgresql://{nowhere}/x"),
        nats_url=SecretStr(f"nats://{nowhere}"),
        qdrant_url=f"http://{nowhere}",
    )

    assert [said.split()[0] for said in pending(without_qdrant).unavailable] == ["Qdrant"]
    assert [said.split()[0] for said in pending(without_any).unavailable] == ["PostgreSQL", "NATS", "Qdrant"]


def test_a_connection_that_was_used_a_moment_ago_meets_an_outage_at_its_next_statement(
    hasty: Postgres, relay: Relay
) -> None:
    assert read(hasty, "SELECT 1") == [(1,)]
    relay.fall_silent()
    with pytest.raises(StoreUnavailable, match="sent nothing for"):
        read(hasty, "SELECT 1")
    relay.resume()


def test_an_outage_after_the_first_use_reports_why_no_connection_is_to_be_had(
    hasty: Postgres, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were long since the connection was used.
    monkeypatch.setattr("mcp_assets.stores.postgres.connection._ASKED_EVERY_S", 0.0)
    with hasty.transaction():
        pass
    relay.fall_silent()
    with pytest.raises(StoreUnavailable, match="connection timeout expired"), hasty.transaction():
        pass
    relay.resume()


def test_one_silent_nats_server_of_several_is_no_outage(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    parts = urlsplit(platform.settings.require_nats_url())
    assert parts.hostname and parts.port
    with Relay((parts.hostname, parts.port)) as silent:
        silent.fall_silent()
        servers = f"nats://127.0.0.1:{silent.port},{parts.geturl()}"

        assert make_platform(nats_url=SecretStr(servers)).nats.state(platform.settings.streams[0]) is not None


def test_a_connection_to_nats_that_is_being_made_again_is_given_up_when_it_is_closed(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    connection = NatsConnection(server.url, timeout_s=5)
    assert connection.max_payload() > 0
    server.stop(signal.SIGKILL)

    with socket.create_server(("127.0.0.1", server.port)) as silent:
        silent.settimeout(30)
        reconnecting, _ = silent.accept()
        with reconnecting:
            connection.close()

            # The client has given up, and has not been left at it in its thread.
            reconnecting.settimeout(30)
            assert reconnecting.recv(1) == b""
