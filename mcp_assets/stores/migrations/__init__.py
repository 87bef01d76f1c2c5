"""Alembic migrations of the platform's own schema; `migrate` brings a database to the newest one."""

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config

# One number for all processes, so that two that start at once do not both migrate.
_MIGRATION_LOCK = 0x6D63705F6D696772


def migrate(database_url: str, schema: str) -> None:
    """Bring `schema` in the database to the newest revision; safe to call at once from many processes."""
    url = sqlalchemy.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["schema"] = schema
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            connection.execute(sqlalchemy.text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
