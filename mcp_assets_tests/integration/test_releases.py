"""Each release's state folder and database are opened by this version; its queries are answered by today's tables."""

import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import DiagnosticField

from mcp_assets.embedded import stack
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.postgres.migrations import WORKS_WITH
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.fixtures import make_release
from mcp_assets_tests.migrating import upgrade
from mcp_assets_tests.pg_tools import run

RELEASES = sorted(make_release.FOLDER.glob("release-*"))
WAITING = {"entity memory": 1, "entity task": 1}

NO_TABLE = "42P01"
GONE = (NO_TABLE, "42703", "42883")
"""Error codes of PostgreSQL: no such table, column, function."""


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The state folder of a release, with its database, on this version's servers."""
    release: Path = request.param
    with tempfile.TemporaryDirectory(prefix="mcp", dir="/tmp") as folder:
        state = Path(folder) / ".mcp"
        state.mkdir(mode=0o700)
        with tarfile.open(release / "state.tar.xz") as archive:
            archive.extractall(state, filter="data")
        with stack.running(list(stack.Part), state) as addresses:
            assert addresses.database_url is not None
            run("psql", "--quiet", "--file", str(release / "database.sql"), addresses.database_url)
            yield Place(Path(folder), bare_environment() | make_release.SETTINGS)


@pytest.mark.parametrize("site", RELEASES, ids=lambda release: release.name, indirect=True)
def test_what_a_release_left_is_opened_and_synced_clean_and_what_its_drain_left_is_finished(site: Place) -> None:
    assert site.run("accept", "postgres").code == 0
    assert site.run("migrate", "--check").code == 0
    pending = site.answer("status")["pending"]
    assert (pending["unread"], pending["inbox"]) == ({"MCP_ASSETS": 1}, WAITING), pending

    synced = site.answer("sync", "--full", "--here")
    # The two rows that changed after the release had indexed everything, and no other text.
    assert synced["counts"]["embedded"] == 2
    assert site.answer("validate", "--deep")["found"] == {}
    assert "late" in {hit["entity_id"] for hit in site.answer("search", "A task of which no event told")}
    # What a drain of the release left in the inbox, and a message that it never read.
    make_release.work(site.folder, "drain_all")
    heard = [site.answer("search", text, "--limit", "1")[0] for text in ("third gate is painted", "a fourth fence")]
    assert [hit["entity_id"] for hit in heard] == ["heard", "heard-late"]
    assert site.answer("validate", "--deep")["found"] == {}
    # The letter that the release kept.
    assert [letter["stage"] for letter in site.answer("dlq", "list")] == ["intake"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_the_tables_answer_the_queries_of_each_release_that_may_work_with_them(
    release: Path, settings: Settings, make_platform: Callable[..., Platform]
) -> None:
    of_release = re.search(r"^COPY mcp_assets.schema_version .*\n(\w+)\t", (release / "database.sql").read_text(), re.M)
    assert of_release is not None
    known = make_platform().postgres.schema_state().known
    if known.index(of_release[1]) < known.index(WORKS_WITH):
        pytest.skip(f"{release.name} has to be stopped for the upgrade, as WORKS_WITH says")
    upgrade(settings, "head")
    assert missing(settings, release / "queries.sql") == {}


def test_a_query_that_names_a_column_that_is_gone_is_found(settings: Settings, tmp_path: Path) -> None:
    upgrade(settings, "head")
    shutil.copy(RELEASES[0] / "queries.sql", tmp_path)
    with (tmp_path / "queries.sql").open("a") as queries:
        queries.write("\n-- name: of_old\nSELECT semantic_floor FROM {schema}.linked WHERE entity_id = %(id)s\n")
    assert missing(settings, tmp_path / "queries.sql") == {"of_old": 'column "semantic_floor" does not exist'}


def missing(settings: Settings, queries: Path) -> dict[str, str]:
    """The queries of a file that name tables, columns or functions that the database does not have, with its error."""
    parts = re.split(r"^-- name: (\w+)$", queries.read_text(), flags=re.M)
    found = {}
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            answer = connection.pgconn.prepare(b"", numbered(text).encode())
            code = (answer.error_field(DiagnosticField.SQLSTATE) or b"").decode()
            error = (answer.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
            # A table without its schema is a temporary one, which the query before it makes.
            if code in GONE and not (code == NO_TABLE and '"mcp_assets.' not in error):
                found[name] = error
    return found


def numbered(query: str) -> str:
    """The query with its parameters as the server takes them: each name has a number."""
    numbers: dict[str, int] = {}
    query = re.sub(r"%\((\w+)\)s", lambda one: f"${numbers.setdefault(one[1], len(numbers) + 1)}", query)
    return query.replace("{schema}", "mcp_assets").replace("%%", "%").strip().rstrip(";")
