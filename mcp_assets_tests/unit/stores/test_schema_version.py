"""The newest revision, as a start reads it, is the one that Alembic would migrate to."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from mcp_assets.stores.postgres import migrations
from mcp_assets.stores.postgres.schema_version import newest_revision


def test_the_names_of_the_migrations_give_the_revision_that_alembic_calls_head() -> None:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()
