"""Dagster's own storage in the platform's PostgreSQL, found through the settings: dagster.yaml names no address."""

import select
from functools import partial
from typing import Any, Self

import psycopg2
import psycopg2.extensions
import sqlalchemy
from dagster import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_connection, retry_pg_creation_fn

from mcp_assets.settings import load_settings
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, SILENCE_LIMITS, SilenceLimits, is_silent, silence


class SettingsPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage at DATABASE_URL or the embedded stack, in a schema of its own.

    Dagster's tables have names such as `runs` and `jobs`, which a site's database may have, too.

    Each of its three parts keeps a connection, because Dagster would otherwise open one for each statement, and the
    start of a run has some thirty statements.

    A silent server is an error, as for the platform's own connections, and not a wait without end, because psycopg2
    calls `_wait` in each process that has opened this storage.
    """

    silence_limits = SILENCE_LIMITS

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool, inst_data: ConfigurableClassData | None = None
    ) -> None:
        address = sqlalchemy.make_url(postgres_url).set(drivername="postgresql")
        psycopg2.extensions.set_wait_callback(
            partial(_wait, address.render_as_string(hide_password=False), self.silence_limits)
        )
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        for part in (self._run_storage, self._event_log_storage, self._schedule_storage):
            part._engine = sqlalchemy.create_engine(
                postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True
            )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"schema": Field(str, default_value="dagster", is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Raises SettingsError if neither DATABASE_URL is set nor an embedded stack runs."""
        schema = config_value["schema"]
        # SQLAlchemy 2.1 takes psycopg 3 for a plain URL, with which dagster-postgres does not work.
        url = sqlalchemy.make_url(load_settings().require_database_url()).set(drivername="postgresql+psycopg2")
        url = url.update_query_dict({name: str(limit) for name, limit in LIBPQ_TIMEOUTS.items()})
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        retry_pg_creation_fn(lambda: _create_schema(engine, schema))
        in_schema = url.update_query_dict({"options": f"-csearch_path={schema}"})
        return cls(
            postgres_url=in_schema.render_as_string(hide_password=False),
            should_autocreate_tables=True,
            inst_data=inst_data,
        )


def _create_schema(engine: sqlalchemy.Engine, schema: str) -> None:
    """Create the schema. It is called with retries, because an error here would end a thread of the code server."""
    with create_pg_connection(engine) as connection:
        connection.execute(sqlalchemy.text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))


def _wait(address: str, limits: SilenceLimits, connection: Any) -> None:
    """Wait for what `connection`, one of psycopg2's, has asked of the server; raises OperationalError if it is silent.

    psycopg2 closes the connection then.
    """
    while (wanted := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(
            connection.fileno(), select.POLLIN if wanted == psycopg2.extensions.POLL_READ else select.POLLOUT
        )
        while not poller.poll(limits.silent_s * 1000):
            if is_silent(address, limits):
                raise psycopg2.OperationalError(silence(limits))
