"""Source tables in another database than the platform's: compared by streaming, read where they are, never mistaken."""

import threading
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg
import pytest
from pydantic import SecretStr, ValidationError

from mcp_assets.cli.load_entities import create_source_tables, load, parse_records
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable, Stranger
from mcp_assets.stores.source_tables import merge
from mcp_assets.sync.index.full_sync import count_differing, full_sync
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.tuning import StoreTuning, Tuning
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    ledger,
    put_tasks,
    rows,
    send,
    send_looks,
    sync_all,
)
from mcp_assets_tests.openai_stub import OpenAIStub

# In an order that collations which know languages do not share with the code points.
IDS = ["B-1", "a-1", "a1", "A", "Z", "_x", "ä", "z", "10", "9", "𝔘", "￼"]

THREE_ROWS_A_FETCH = Tuning(stores=StoreTuning(source_rows_a_fetch=3))

TASKS = {entity_id: f"Task {entity_id} in another database" for entity_id in IDS}


@pytest.fixture
def other_url(settings: Settings) -> Iterator[str]:
    """An empty database beside the platform's; gone at the end."""
    url = settings.require_database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS tracker WITH (FORCE)")
        connection.execute("CREATE DATABASE tracker")
    yield url.replace("/test?", "/tracker?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS tracker WITH (FORCE)")


@pytest.fixture
def foreign(make_platform: Callable[..., Platform], other_url: str) -> Platform:
    """A platform whose source tables are all in the other database; its own has none."""
    platform = make_platform(source_database_url=SecretStr(other_url))
    create_source_tables(platform)
    platform.nats.ensure_stream(platform.settings.streams[0])
    return platform


def write(url: str, statement: str, *parameters: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), parameters)


def put_there(url: str, texts: dict[str, str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO tasks (id, title) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET title = excluded.title",
            list(texts.items()),
        )


@pytest.mark.tuning(THREE_ROWS_A_FETCH)
def test_new_changed_and_gone_rows_are_found_across_databases_and_nothing_else_is_embedded(
    foreign: Platform, other_url: str, stub: OpenAIStub
) -> None:
    put_there(other_url, TASKS)
    assert sync_all(foreign).embedded == len(TASKS)
    assert_points_are(foreign, TASKS)
    stub.reset_stats()
    assert count_differing(foreign) == 0
    assert sync_all(foreign).unchanged == len(TASKS)

    put_there(other_url, {"ä": "Changed", "a2": "New"})
    write(other_url, "DELETE FROM tasks WHERE id IN ('A', '￼')")
    write(other_url, "UPDATE tasks SET archived_at = now() WHERE id = '_x'")
    assert count_differing(foreign) == 5
    counts = sync_all(foreign)

    assert (counts.embedded, counts.deleted) == (2, 3)
    assert stub.stats()["texts"] == 2
    left = {entity_id: text for entity_id, text in TASKS.items() if entity_id not in {"A", "￼", "_x"}}
    assert_points_are(foreign, left | {"ä": "Changed", "a2": "New"})
    assert rows(foreign, "SELECT to_regclass('tasks')") == [(None,)]


def test_some_shards_alone_and_force_range_over_the_same_rows_as_within_one_database(
    foreign: Platform, other_url: str
) -> None:
    put_there(other_url, TASKS)
    send(foreign, ("mcp.task.created", {"taskId": "by event", "title": "No row"}))
    drain_all(foreign)
    first = sum(news.counts.embedded for news in full_sync(foreign, "task", [1, 2]) if news.complete)
    assert 0 < first < len(TASKS)
    assert sync_all(foreign).embedded == len(TASKS) - first

    assert sync_all(foreign, force=True).embedded == len(TASKS) + 1
    assert_points_are(foreign, TASKS | {"by event": "No row"})


def test_an_event_looks_at_the_row_in_the_other_database(foreign: Platform, other_url: str) -> None:
    put_there(other_url, {"a-1": "Mend the gate"})
    send_looks(foreign, "a-1", "nothing")
    drain_all(foreign)
    assert_points_are(foreign, {"a-1": "Mend the gate"})

    write(other_url, "DELETE FROM tasks")
    send_looks(foreign, "a-1")
    drain_all(foreign)
    assert_points_are(foreign, {})


def test_the_row_is_read_after_the_ledger_row_was_locked(
    foreign: Platform, other_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two appliers the later reads the newer truth, though it is in another database."""
    put_there(other_url, {"a": "First"})
    apply(foreign, "task", [Wanted("a")])
    began = threading.Event()
    with foreign.postgres.transaction() as connection:
        connection.execute("SELECT FROM mcp_assets.entities WHERE entity_id = 'a' FOR UPDATE")

        def look_later() -> None:
            began.set()
            apply(foreign, "task", [Wanted("a")])

        later = threading.Thread(target=look_later)
        later.start()
        assert began.wait(10)
        later.join(0.3)
        put_there(other_url, {"a": "Second"})
    later.join(10)

    assert ledger(foreign)["a"]["title"] == "Second"


def test_an_outage_of_the_other_database_deletes_nothing_and_names_it_without_its_password(
    foreign: Platform, other_url: str, make_platform: Callable[..., Platform]
) -> None:
    put_there(other_url, TASKS)
    sync_all(foreign)
    before = ledger(foreign)
    secret = "hunter2"
    host = quote(psycopg.conninfo.conninfo_to_dict(other_url)["host"], safe="")  # type: ignore[arg-type]
    gone = make_platform(
        source_database_url=SecretStr(f"postgresql://mcp:{secret}@/tracker?host={host}&port=1"), retry_attempts=1
    )

    for attempt in (
        lambda: sync_all(gone),
        lambda: count_differing(gone),
        lambda: apply(gone, "task", [Wanted("A")]),
    ):
        with pytest.raises(StoreUnavailable, match=r"source tables does not answer at .*tracker") as caught:
            attempt()
        assert "MCP_ASSETS_SOURCE_DATABASE_URL" in str(caught.value)
        assert secret not in str(caught.value)
    assert secret not in repr(gone)
    assert ledger(foreign) == before


@pytest.mark.tuning(THREE_ROWS_A_FETCH)
def test_a_connection_lost_in_the_middle_of_the_stream_is_no_end_of_the_table(
    foreign: Platform, other_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_there(other_url, TASKS)
    sync_all(foreign)
    real = merge.differing

    def cut(*sides: object) -> object:
        for number, found in enumerate(real(*sides)):  # type: ignore[arg-type]
            if number == 2:
                write(
                    foreign.settings.require_database_url(),
                    "SELECT pg_terminate_backend(pid, 10_000) FROM pg_stat_activity WHERE datname = 'tracker'",
                )
            yield found

    monkeypatch.setattr(merge, "differing", cut)
    with pytest.raises(StoreUnavailable, match="source tables does not answer"):
        sync_all(foreign, force=True)
    monkeypatch.undo()

    assert count_differing(foreign) == 0
    assert_points_are(foreign, TASKS)


def test_one_type_may_be_in_another_database_by_its_mapping_and_the_address_comes_from_its_variable(
    platform: Platform, make_platform: Callable[..., Platform], other_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(other_url, "CREATE SCHEMA desk")
    write(other_url, "CREATE TABLE desk.issues (no integer PRIMARY KEY, summary text, body text)")
    write(other_url, "INSERT INTO desk.issues VALUES (10, 'Gate', 'Mend it'), (9, 'Fence', 'Paint it')")
    issues = SourceTable(
        table="desk.issues", database_url="env:TRACKER_URL", id="no", title="summary", content=("body",)
    )
    own = make_platform(
        types={
            "issue": TypeMapping(source=issues, collection="kanban_tasks"),
            "task": TypeMapping(source=SourceTable(table="tasks", content=()), collection="own_tasks"),
        }
    )
    with pytest.raises(SettingsError, match=r"TRACKER_URL is not set.*desk\.issues"):
        own.source("issue")
    monkeypatch.setenv("TRACKER_URL", other_url)
    put_tasks(platform, {"t": "In the platform's own"})

    assert sync_all(own, "issue").embedded == 2
    assert sync_all(own, "task").embedded == 1
    assert_points_are(own, {"10": "Gate Mend it", "9": "Fence Paint it"}, "issue", "kanban_tasks")
    assert count_differing(own) == 0


def test_a_mapping_that_holds_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError, match=r"database_url of issue holds a password.*env:") as caught:
        Settings(
            _env_file=None,  # type: ignore[call-arg]
            types={
                "issue": {"source": {"table": "issues", "database_url": "postgresql://me:hunter2@db/tracker"}}  # type: ignore[dict-item]
            },
        )
    assert "hunter2" not in str(caught.value)


def test_an_absent_table_over_there_is_refused_and_deletes_nothing(foreign: Platform, other_url: str) -> None:
    put_there(other_url, TASKS)
    sync_all(foreign)
    write(other_url, "ALTER TABLE tasks RENAME TO todo")

    with pytest.raises(StoreRefused, match=r"source table tasks"):
        sync_all(foreign)
    assert count_living(foreign) == len(TASKS)


def count_living(platform: Platform) -> int:
    return sum(not row["deleted"] for row in ledger(platform).values())


def test_loading_writes_to_where_the_tables_are(foreign: Platform, other_url: str) -> None:
    records = [{"entity_type": "task", "entity_id": "t", "title": "Loaded", "content": "", "metadata": {}}]
    list(load(foreign, parse_records(records, "test", foreign.settings.entity_types)))

    with psycopg.connect(other_url) as connection:
        assert connection.execute("SELECT id, title FROM tasks").fetchall() == [("t", "Loaded")]
    assert sync_all(foreign).embedded == 1
    assert dead_letters(foreign) == {}


def test_sides_that_do_not_come_in_one_order_are_refused() -> None:
    row, other = merge.SourceSize("a", "h", 1), merge.SourceSize("b", "h", 2)
    assert list(merge.differing([row, other], [merge.LedgerSize("a", "h", None)])) == [("b", 2)]
    with pytest.raises(StoreRefused, match="order of code points"):
        list(merge.differing([other, row], []))
    # Rows that bear one id are named elsewhere; the first counts.
    assert list(merge.differing([row, row], [])) == [("a", 1)]


def test_another_database_at_the_address_is_not_read_until_it_is_accepted(
    foreign: Platform, make_platform: Callable[..., Platform], other_url: str, settings: Settings
) -> None:
    put_there(other_url, TASKS)
    sync_all(foreign)
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE tracker WITH (FORCE)")
        connection.execute("CREATE DATABASE tracker")
    emptied = make_platform(source_database_url=SecretStr(other_url))
    for platform in (foreign, emptied):
        with pytest.raises(Stranger, match="mcp-assets accept source"):
            create_source_tables(platform)
        with pytest.raises(StoreUnavailable):
            sync_all(platform)
    assert len(ledger(foreign)) == len(TASKS)

    emptied.marks.accept_sources()
    create_source_tables(emptied)
    put_there(other_url, TASKS)
    sync_all(emptied)
    assert len(ledger(emptied)) == len(TASKS)
