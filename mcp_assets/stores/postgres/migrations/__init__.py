"""Alembic migrations of the platform's own schema: `migrate` brings it to the newest revision, `move` to any one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres.migrations.relationships import ensure_relationships
from mcp_assets.stores.postgres.relationships_shape import IdColumn
from mcp_assets.stores.postgres.schema_version import Database, SchemaState, Step, UnknownRevision
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, PatientConnection

WORKS_WITH = "0028"
"""The oldest revision whose code works with the tables of the newest one, as a rolling restart needs it. A migration
that takes a column or table away, or gives it another meaning, raises it to its own revision."""

# One number for all processes, so that two that start at once do not both migrate.
_MIGRATION_LOCK = 0x6D63705F6D696772


def migrate(database: Database, relationships: str, ids: Mapping[str, IdColumn]) -> str | None:
    """Bring the schema to the newest revision, and the table `relationships` to the shape that it has to have.

    Safe to call at once from many processes: one migrates, the others wait for it. All of it is one transaction.
    `ids`: where the ids of each entity type stand. Returns why the table `relationships` could not be brought to that
    shape, if so: only linking needs it. Raises StoreRefused if a newer version of this package has migrated the schema
    to tables with which this version cannot work.
    """
    with _locked(database) as (connection, config):
        state = _state(connection, config, database.schema)
        if state.newer:
            raise StoreRefused(state.newer)
        if state.steps:
            _move(connection, config, database.schema, state.newest)
        return ensure_relationships(connection, relationships, ids)


def schema_state(database: Database) -> SchemaState:
    """Where the schema is. Reads alone, and takes no lock."""
    with _connected(database) as connection:
        return _state(connection, _config(database.schema), database.schema)


def move(database: Database, revision: str) -> tuple[Step, ...]:
    """Bring the schema up or down to `revision`, in one transaction; the migrations that were done or undone, in order.

    Raises:
        UnknownRevision: this version has no migration of that name.
        StoreRefused: the schema is of a newer version; or it is to go down, and the platform still works on it.
    """
    with _locked(database) as (connection, config):
        state = _state(connection, config, database.schema)
        if revision not in state.known:
            raise UnknownRevision(f"no migration {revision!r}: one of {', '.join(state.known)}")
        if state.newer is not None:
            raise StoreRefused(
                f"the schema {database.schema} is at revision {state.found}, which only the version that migrated it "
                "can undo: run this command of that version"
            )
        script = ScriptDirectory.from_config(config)
        steps = _steps(script, state.found, revision)
        if not steps and state.found is not None and state.found != revision:
            _refuse_while_in_use(connection, database.schema)
            steps = tuple(reversed(_steps(script, revision, state.found)))
        if steps:
            _move(connection, config, database.schema, revision)
        return steps


def _state(connection: sqlalchemy.Connection, config: Config, schema: str) -> SchemaState:
    script = ScriptDirectory.from_config(config)
    known = tuple(one.revision for one in script.walk_revisions())[::-1]
    newest = known[-1]
    found = _found(connection, schema)
    if found is None or found in known:
        return SchemaState(schema, found, known, _steps(script, found, newest))
    reason = (
        f"the schema {schema} was migrated by a newer version of mcp-assets (revision {found}), whose tables this "
        f"version (revision {newest}) does not know: install that version again, let it undo its migrations "
        f"(`mcp-assets migrate --to {newest}`), or restore a backup from before the upgrade"
    )
    works = _works_with(connection, schema)
    return SchemaState(schema, found, known, (), newer="" if works in known else reason)


def _steps(script: ScriptDirectory, below: str | None, to: str) -> tuple[Step, ...]:
    """The migrations above `below` up to `to`, oldest first; none if `to` is not above it."""
    above = {one.revision: one for one in script.iterate_revisions(to, "base")}
    if below is not None:
        if below not in above:
            return ()
        for one in script.iterate_revisions(below, "base"):
            del above[one.revision]
    return tuple(Step(one.revision, one.doc.splitlines()[0]) for one in reversed(above.values()))


def _found(connection: sqlalchemy.Connection, schema: str) -> str | None:
    if not _has(connection, schema, "version_num"):
        return None
    return connection.execute(sqlalchemy.select(_version_table(schema).c.version_num)).scalar()


def _works_with(connection: sqlalchemy.Connection, schema: str) -> str | None:
    """The oldest revision whose code works with the tables, as the version that migrated them says."""
    if not _has(connection, schema, "works_with"):
        return None
    return connection.execute(sqlalchemy.select(_version_table(schema).c.works_with)).scalar()


def _version_table(schema: str) -> sqlalchemy.TableClause:
    columns: list[sqlalchemy.ColumnClause[str]] = [sqlalchemy.column("version_num"), sqlalchemy.column("works_with")]
    return sqlalchemy.table("schema_version", *columns, schema=schema)


def _has(connection: sqlalchemy.Connection, schema: str, column: str) -> bool:
    found = connection.execute(
        text(
            "SELECT FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
            " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            " WHERE nspname = :schema AND relname = 'schema_version' AND attname = :column AND NOT attisdropped"
        ),
        {"schema": schema, "column": column},
    )
    return found.first() is not None


def _move(connection: sqlalchemy.Connection, config: Config, schema: str, revision: str) -> None:
    if not _exists(connection, schema):
        # Asked for first: even IF NOT EXISTS needs the right to create schemas.
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    config.attributes["connection"] = connection
    goes_up = bool(_steps(ScriptDirectory.from_config(config), _found(connection, schema), revision))
    (command.upgrade if goes_up else command.downgrade)(config, revision)
    connection.execute(text("RESET search_path"))
    if _has(connection, schema, "works_with"):
        connection.execute(_version_table(schema).update().values(works_with=WORKS_WITH))


def _refuse_while_in_use(connection: sqlalchemy.Connection, schema: str) -> None:
    """Raise StoreRefused while processes of the platform are connected: they would fail, or migrate again."""
    open_ = connection.execute(
        text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'mcp_assets'"
        )
    ).scalar_one()
    if open_:
        raise StoreRefused(
            f"the schema {schema} is in use by {open_} connections of the platform: stop webserver, daemon, code "
            "server and runs first (connections that are not used close within a minute)"
        )


def _exists(connection: sqlalchemy.Connection, schema: str) -> bool:
    found = connection.execute(text("SELECT FROM pg_namespace WHERE nspname = :name"), {"name": schema})
    return found.first() is not None


def _config(schema: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["schema"] = schema
    return config


@contextmanager
def _locked(database: Database) -> Iterator[tuple[sqlalchemy.Connection, Config]]:
    """A transaction in which no other process migrates."""
    with _connected(database) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        yield connection, _config(database.schema)


@contextmanager
def _connected(database: Database) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(
        sqlalchemy.make_url(database.url).set(drivername="postgresql+psycopg"),
        poolclass=sqlalchemy.NullPool,
        creator=lambda: PatientConnection.connect(
            database.url, **LIBPQ_TIMEOUTS | {"connect_timeout": database.connect_timeout_s}
        ),
    )
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
