"""Storage of Dagster in PostgreSQL: in a schema of its own, on kept connections, and without waits for a mute server.

`WarmPostgresStorage` is a base class, because where the database is and when its server counts as silent is for the
code location to say. This module takes its private names from Dagster by itself and not through `dagster_internals`,
because the storage is needed with every version of Dagster, also where the launcher falls back to Dagster's own.
"""

import select
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, Self

import psycopg2
import psycopg2.extensions
import sqlalchemy
from dagster import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_connection, retry_pg_creation_fn

from dagster_warm_launcher.made_storage import is_storage_made

_MOST_CONNECTIONS = 20
"""Connections that one part of the storage may open beyond the one that it keeps; they are closed after use. More than
the threads of a daemon (8 for sensors, one for each of its loops), because a thread without a connection waits."""


class Silence(Protocol):
    """When a server that is asked something and sends nothing counts as silent."""

    @property
    def after_s(self) -> float:
        """Seconds without a byte after which `reason` is called."""

    def reason(self, address: str) -> str | None:
        """Why the server at `address`, a URL, is silent; None if it answers others: the statement only takes long.

        It must end within a bound, and not use psycopg2, which would wait for its answer in the same way."""


class WarmPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage at `database_url()`, in the schema that dagster.yaml names.

    The schema is its own, because Dagster's tables have names such as `runs` and `jobs`, which the database may have,
    too.

    Each of its three parts keeps a connection, because Dagster would otherwise open one for each statement, and the
    start of a run has some thirty statements.

    A silent server is an error and not a wait without end, because psycopg2 calls `_wait` in each process that has
    opened this storage.
    """

    @classmethod
    @abstractmethod
    def database_url(cls) -> str:
        """Where the database is."""

    @classmethod
    def connection_options(cls) -> Mapping[str, int]:
        """Parameters of libpq for each connection, such as `connect_timeout`."""
        return {}

    @classmethod
    @abstractmethod
    def silence(cls) -> Silence:
        """When the server counts as silent."""

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool, inst_data: ConfigurableClassData | None = None
    ) -> None:
        address = sqlalchemy.make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
        silence = self.silence()
        psycopg2.extensions.set_wait_callback(lambda connection: _wait(connection, address, silence))
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        for part in (self._run_storage, self._event_log_storage, self._schedule_storage):
            part._engine = sqlalchemy.create_engine(
                postgres_url,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=_MOST_CONNECTIONS,
                pool_pre_ping=True,
            )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"schema": Field(str, default_value="dagster", is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        schema = config_value["schema"]
        # SQLAlchemy 2.1 takes psycopg 3 for a plain URL, with which dagster-postgres does not work.
        url = sqlalchemy.make_url(cls.database_url()).set(drivername="postgresql+psycopg2")
        url = url.update_query_dict({name: str(value) for name, value in cls.connection_options().items()})
        if not is_storage_made():
            engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
            retry_pg_creation_fn(lambda: _create_schema(engine, schema))
        in_schema = url.update_query_dict({"options": f"-csearch_path={schema}"})
        return cls(
            postgres_url=in_schema.render_as_string(hide_password=False),
            should_autocreate_tables=not is_storage_made(),
            inst_data=inst_data,
        )


def _create_schema(engine: sqlalchemy.Engine, schema: str) -> None:
    """Create the schema. It is called with retries, because an error here would end a thread of the code server."""
    with create_pg_connection(engine) as connection:
        # Asked for first: even IF NOT EXISTS needs the right to create schemas.
        query = sqlalchemy.text("SELECT FROM pg_namespace WHERE nspname = :name")
        if connection.execute(query, {"name": schema}).first() is None:
            connection.execute(sqlalchemy.text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))


def _wait(connection: Any, address: str, silence: Silence) -> None:
    """Wait for what `connection`, one of psycopg2's, has asked of the server; raises OperationalError if it is silent.

    psycopg2 closes the connection then.
    """
    while (wanted := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(
            connection.fileno(), select.POLLIN if wanted == psycopg2.extensions.POLL_READ else select.POLLOUT
        )
        while not poller.poll(silence.after_s * 1000):
            if (reason := silence.reason(address)) is not None:
                raise psycopg2.OperationalError(reason)
