"""Dagster's storage in the process of a run: it is there, because the run stands in it, and is not looked for."""

from contextlib import suppress

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from dagster_warm_launcher import made_storage
from mcp_assets.defs.storage import SettingsPostgresStorage
from mcp_assets.settings import Settings


@pytest.mark.parametrize("made", [False, True])
def test_tables_are_made_only_where_they_are_not_known_to_be_there(
    settings: Settings, environment: None, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    monkeypatch.setattr(made_storage, "_known", [made])

    storage = SettingsPostgresStorage.from_config_value(None, {"schema": "another"})

    runs = None
    with suppress(ProgrammingError):
        runs = storage.run_storage.get_runs_count()
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.dispose()
    with psycopg.connect(settings.require_database_url()) as connection:
        found = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'another'").fetchone()
    assert (runs, found) == ((None, (0,)) if made else (0, (1,)))
