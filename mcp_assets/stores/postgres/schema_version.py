"""Schema version: the revision of the platform's tables, and whether a start of a process has anything to migrate.

It is read without Alembic, which takes a fifth of a second to load, and which nearly no start needs.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

_VERSIONS = Path(__file__).parent / "migrations" / "versions"
"""One file for each migration, whose name begins with r and its revision."""


class Step(NamedTuple):
    """One migration, and the first line of its description."""

    revision: str
    title: str


@dataclass(frozen=True)
class SchemaState:
    """Where the platform's schema is, compared with the migrations of this version."""

    schema: str
    found: str | None
    """The revision of its tables; None: there are none."""
    known: tuple[str, ...]
    """The revisions of this version, oldest first."""
    steps: tuple[Step, ...]
    """What has to be done to come to the newest of them, in order."""
    newer: str | None = None
    """A newer version has migrated it. Why this version cannot work with its tables, or an empty text if it can."""

    @property
    def newest(self) -> str:
        """The newest revision that this version knows."""
        return self.known[-1]

    @property
    def fits(self) -> bool:
        """This version works with the tables as they are, without migrating them."""
        return not self.steps and not self.newer

    def goes_down_to(self, revision: str) -> bool:
        """Whether migrations are undone on the way to `revision`."""
        both = revision in self.known and self.found in self.known
        return both and self.known.index(revision) < self.known.index(self.found or "")


class UnknownRevision(LookupError):
    """No migration of this version has the name that was asked for."""


@dataclass(frozen=True)
class Database:
    """Where the schema is, and how long a connection may take."""

    url: str
    schema: str
    connect_timeout_s: int


def is_newest(connection: psycopg.Connection[TupleRow], schema: str) -> bool:
    """Whether the tables of `schema` are of the newest revision that this version knows."""
    table = f'"{schema}".schema_version'
    there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if there is None or not there[0]:
        return False
    found = connection.execute(
        sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema, "schema_version"))
    ).fetchall()
    return found == [(newest_revision(),)]


@cache
def newest_revision() -> str:
    """The newest revision that this version knows, by the names of its migrations."""
    return max(file.name[1:].partition("_")[0] for file in _VERSIONS.glob("r[0-9]*_*.py"))
