"""The platform's schema at a revision that is not the newest, as a site has it before an upgrade."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config

from mcp_assets.settings import Settings
from mcp_assets.stores.postgres import migrations


def upgrade(settings: Settings, revision: str) -> None:
    """Bring the schema, which need not exist, up to `revision`."""
    _run(settings, lambda config: command.upgrade(config, revision))


def downgrade(settings: Settings, revision: str) -> None:
    """Take the schema back to `revision`."""
    _run(settings, lambda config: command.downgrade(config, revision))


def execute(settings: Settings, statement: str) -> list[tuple[object, ...]]:
    """Run one or several statements in the database; the rows of the last one, if it has any."""
    with psycopg.connect(settings.require_database_url()) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def _run(settings: Settings, act: Callable[[Config], None]) -> None:
    url = sqlalchemy.make_url(settings.require_database_url()).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["schema"] = settings.schema_name
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f'CREATE SCHEMA IF NOT EXISTS "{settings.schema_name}"'))
            config.attributes["connection"] = connection
            act(config)
    finally:
        engine.dispose()
