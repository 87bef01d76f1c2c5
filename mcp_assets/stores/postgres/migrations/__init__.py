"""Alembic migrations of the platform's own schema; `migrate` brings a database to the newest one."""

from collections.abc import Mapping
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError

from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres.migrations.relationships import IdColumn, ensure_relationships
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, PatientConnection

# One number for all processes, so that two that start at once do not both migrate.
_MIGRATION_LOCK = 0x6D63705F6D696772


def migrate(
    database_url: str, schema: str, relationships: str, ids: Mapping[str, IdColumn], *, connect_timeout_s: int
) -> str | None:
    """Bring `schema` to the newest revision, and the table `relationships` to the shape that it has to have.

    Safe to call at once from many processes. `ids`: where the ids of each entity type stand. Returns why the table
    `relationships` could not be brought to that shape, if so: only linking needs it. Raises StoreRefused if a newer
    version of this package has migrated the schema.
    """
    url = sqlalchemy.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(
        url,
        poolclass=sqlalchemy.NullPool,
        creator=lambda: PatientConnection.connect(
            database_url, **LIBPQ_TIMEOUTS | {"connect_timeout": connect_timeout_s}
        ),
    )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["schema"] = schema
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            if not _exists(connection, schema):
                # Asked for first: even IF NOT EXISTS needs the right to create schemas.
                connection.execute(sqlalchemy.text(f'CREATE SCHEMA "{schema}"'))
            config.attributes["connection"] = connection
            _upgrade(config, schema)
            connection.execute(sqlalchemy.text("RESET search_path"))
            return ensure_relationships(connection, relationships, ids)
    finally:
        engine.dispose()


def _upgrade(config: Config, schema: str) -> None:
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise StoreRefused(
            f"the schema {schema} was migrated by a newer version of mcp-assets, whose tables this version does not "
            "know: install that version again, or restore a backup from before the upgrade"
        ) from error


def _exists(connection: sqlalchemy.Connection, schema: str) -> bool:
    found = connection.execute(sqlalchemy.text("SELECT FROM pg_namespace WHERE nspname = :name"), {"name": schema})
    return found.first() is not None
