"""Source tables: rows read through a site's mapping, and differences found by hashes that nothing else moves."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from mcp_assets.entities.refs import slot_of
from mcp_assets.entities.registry import SOURCE_PRESETS, SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.source_tables.reader import SourceReader
from mcp_assets.stores.source_tables.rows import SourceRow
from mcp_assets_tests.observing import (
    assert_points_are,
    drain_all,
    entity_points,
    put,
    put_tasks,
    rows,
    send,
    sync_all,
)


def execute(platform: Platform, *statements: str) -> None:
    with platform.postgres.transaction() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def read(platform: Platform, mapping: SourceTable, *ids: str) -> dict[str, SourceRow]:
    with platform.postgres.transaction() as connection:
        return SourceReader(mapping, "mcp_assets").read(connection, ids)


def read_task(platform: Platform, **columns: Any) -> SourceRow:
    """The source row of a task with these columns, and no other that stood before."""
    execute(platform, "DELETE FROM tasks")
    put(platform, "tasks", **({"id": "t", "title": "T"} | columns))
    mapping = SOURCE_PRESETS["mcp"]["task"].source
    assert mapping is not None
    return read(platform, mapping, "t")["t"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"description": None}, {"description": ""}, id="NULL and the empty text"),
        pytest.param({"title": "ab", "description": "c"}, {"title": "a", "description": "bc"}, id="text moved on"),
        pytest.param({"status": "x", "priority": None}, {"status": None, "priority": "x"}, id="value moved on"),
        pytest.param({"title": "a,b"}, {"title": '"a,b"'}, id="quotes"),
        pytest.param({"title": "a", "description": ",b"}, {"title": "a,", "description": "b"}, id="commas"),
        pytest.param({"tags": ["a,b"]}, {"tags": ["a", "b"]}, id="lists"),
        pytest.param({"tags": ["NULL"]}, {"tags": [None]}, id="NULL in a list"),
        pytest.param({"title": "a\\b"}, {"title": "a\\\\b"}, id="backslashes"),
        pytest.param({"title": "é"}, {"title": "e\u0301"}, id="letters of two forms"),
        pytest.param({"metadata": {"x": 1}}, {"metadata": {"x": "1"}}, id="numbers and texts"),
        pytest.param({"metadata": {}}, {"metadata": {"x": None}}, id="absent and null"),
    ],
)
def test_rows_that_differ_have_different_hashes(platform: Platform, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert read_task(platform, **one).source_hash != read_task(platform, **other).source_hash


def test_columns_that_are_not_mapped_do_not_move_the_hash(platform: Platform) -> None:
    one = read_task(platform, updated_at="2026-01-01", created_at="2026-01-01")
    other = read_task(platform, updated_at="2026-02-02", created_at="2026-02-02")

    assert one == other


def test_hashes_do_not_depend_on_the_settings_of_the_database(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    execute(
        platform,
        "CREATE TABLE docs (id text PRIMARY KEY, title text, content text, at timestamptz, x float8, due date)",
        "INSERT INTO docs VALUES ('d', 'T', 'C', '2026-01-01T00:00Z', 0.1::float8 + 0.2::float8, '2026-02-01')",
    )
    mapping = SourceTable(table="docs", metadata={"at": "at", "x": "x", "due": "due"})
    before = read(platform, mapping, "d")
    execute(
        platform,
        """DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET TimeZone TO ''Asia/Tokyo''', current_database());
            EXECUTE format('ALTER DATABASE %I SET DateStyle TO ''SQL, DMY''', current_database());
            EXECUTE format('ALTER DATABASE %I SET extra_float_digits TO 0', current_database());
            EXECUTE format('ALTER DATABASE %I SET bytea_output TO ''escape''', current_database());
        END $$""",
    )
    later = make_platform(database_url=SecretStr(platform.settings.require_database_url()))

    assert read(later, mapping, "d") == before


def test_the_slot_of_an_id_is_the_same_in_sql_and_in_python(platform: Platform) -> None:
    ids = ["a", "0", "ä", "\U0001f600", "x" * 500, " ", "a b", "'", "%", "\\", "A", "\u202e", "e\u0301"]
    put_tasks(platform, dict.fromkeys(ids, "T"))
    reader = platform.source("task")
    assert reader is not None
    with platform.postgres.session() as session:
        reader.find_differing(session, "task", (0, 1 << 16), "", force=False)
        found = session.execute("SELECT entity_id, slot FROM differing ORDER BY n").fetchall()

    assert dict(found) == {entity_id: slot_of(entity_id) for entity_id in ids}
    assert [slot for _, slot in found] == sorted(slot_of(entity_id) for entity_id in ids)


def test_content_columns_are_joined_and_the_empty_ones_left_out(platform: Platform) -> None:
    execute(platform, "CREATE TABLE docs (id text PRIMARY KEY, title text, a text, b text, c text)")
    put(platform, "docs", id="1", title=None, a="first", b="", c="third")
    put(platform, "docs", id="2", title="T", a=None, b=None, c=None)
    mapping = SourceTable(table="docs", content=("a", "b", "c"))

    found = read(platform, mapping, "1", "2", "absent")

    assert set(found) == {"1", "2"}
    assert (found["1"].title, found["1"].content) == (None, "first\n\nthird")
    assert (found["2"].title, found["2"].content) == ("T", "")


def test_a_free_metadata_column_that_is_no_object_counts_as_empty(platform: Platform) -> None:
    execute(platform, "CREATE TABLE docs (id text PRIMARY KEY, title text, content text, extra jsonb, n integer)")
    mapping = SourceTable(table="docs", metadata={"n": "n"}, metadata_json="extra")
    for name, extra in {"list": "[1]", "text": '"x"', "null": "null", "object": '{"n": 7, "m": 8}'}.items():
        execute(platform, f"INSERT INTO docs VALUES ('{name}', 'T', 'C', '{extra}', 1)")
    execute(platform, "INSERT INTO docs VALUES ('none', 'T', 'C', NULL, NULL)")

    found = read(platform, mapping, "list", "text", "null", "object", "none")

    assert {name: row.metadata for name, row in found.items()} == {
        "list": {"n": 1},
        "text": {"n": 1},
        "null": {"n": 1},
        "object": {"n": 1, "m": 8},
        "none": {},
    }


def test_a_percent_sign_in_the_predicate_of_what_is_alive_is_sql(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    execute(platform, "CREATE TABLE docs (id text PRIMARY KEY, title text, content text)")
    mapping = SourceTable(table="docs", alive="title NOT LIKE '%draft%' AND length(title) % 2 = 0")
    own = make_platform(types={"doc": TypeMapping(source=mapping, collection="docs")}, drain_linger_s=0)
    put(own, "docs", id="draft", title="a draft!")
    put(own, "docs", id="odd", title="odd")
    put(own, "docs", id="even", title="even")
    send(own, *(("mcp.doc.updated", {"docId": name}) for name in ("draft", "odd", "even")))
    drain_all(own)

    assert set(entity_points(own, "doc", "docs")) == {"even"}
    assert sync_all(own, "doc").scanned == 1


def test_the_preset_cards_reads_its_tables(platform: Platform, make_platform: Callable[..., Platform]) -> None:
    own = make_platform(source_preset="cards", drain_linger_s=0)
    for table in ("cards", "pages", "memories"):
        execute(
            own,
            f"CREATE TABLE {table} (id text PRIMARY KEY, title text, description text, content text, "
            "context jsonb, updated_at timestamptz)",
        )
    put(own, "cards", id="c", title="Card", description="what", content="how", context={"board": "b"})
    put(own, "pages", id="p", title="Page", content="text")
    put(own, "memories", id="m", title=None, description="said")
    send(own, ("mcp.card.updated", {"taskId": "c"}))
    drain_all(own)
    for entity_type in ("task", "page", "memory"):
        sync_all(own, entity_type)

    assert_points_are(own, {"c": "Card what how"})
    assert entity_points(own)["c"].payload["board"] == "b"
    assert_points_are(own, {"p": "Page text"}, "page")
    assert_points_are(own, {"m": "said"}, "memory")


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        (SourceTable(table="absent"), "source table absent"),
        (SourceTable(table="nowhere.tasks"), "source table nowhere.tasks"),
        (SourceTable(table="tasks", id="key"), "id column key"),
        (SourceTable(table="tasks", content=("body",)), 'column "body" does not exist'),
        (SourceTable(table="tasks", content=("description",), metadata={"x": "y"}), 'column "y" does not exist'),
        (SourceTable(table="tasks", content=("description",), alive="gone IS NULL"), 'column "gone" does not exist'),
    ],
)
def test_a_mapping_to_what_is_not_there_is_refused_with_its_name_and_is_no_empty_read(
    platform: Platform, make_platform: Callable[..., Platform], mapping: SourceTable, named: str
) -> None:
    with pytest.raises(StoreRefused, match=rf"{named}.*MCP_ASSETS_"):
        read(platform, mapping, "t")
    own = make_platform(types={"task": TypeMapping(source=mapping, collection="kanban_tasks")})
    with pytest.raises(StoreRefused, match="MCP_ASSETS_"):
        sync_all(own)


def test_a_table_that_may_not_be_read_is_refused_and_is_no_empty_read(platform: Platform) -> None:
    put_tasks(platform, {"t": "T"})
    mapping = SOURCE_PRESETS["mcp"]["task"].source
    assert mapping is not None
    execute(platform, "CREATE ROLE reader_without_rights")
    try:
        with pytest.raises(StoreRefused, match="permission denied"), platform.postgres.transaction() as connection:
            connection.execute("SET LOCAL ROLE reader_without_rights")
            SourceReader(mapping, "mcp_assets").read(connection, ["t"])
    finally:
        execute(platform, "DROP ROLE reader_without_rights")


def test_a_view_in_another_schema_serves_as_source_table(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"t": "Mend the gate"})
    execute(platform, "CREATE SCHEMA site", "CREATE VIEW site.open_tasks AS SELECT id, upper(title) AS name FROM tasks")
    mapping = SourceTable(table="site.open_tasks", title="name", content=())
    own = make_platform(types={"task": TypeMapping(source=mapping, collection="kanban_tasks")})
    sync_all(own)

    assert_points_are(own, {"t": "MEND THE GATE"})


@pytest.mark.parametrize(
    ("column_type", "stored", "spellings", "strangers"),
    [
        (
            "uuid",
            "0e4ad4b5-6f6e-4d3f-9a51-52b7e8a3f9aa",
            ["0E4AD4B5-6F6E-4D3F-9A51-52B7E8A3F9AA", "{0e4ad4b5-6f6e-4d3f-9a51-52b7e8a3f9aa}"],
            ["x", "0e4ad4b5", "7"],
        ),
        ("bigint", "7", ["007"], ["x", "7.0", "9" * 19, "-9223372036854775809", "٧", "", "-", "--7", "7 "]),
        ("smallint", "7", ["07"], ["32768", "x"]),
        ("integer", "-7", ["-07"], ["2147483648", "1e3"]),
        ("varchar(20)", "Seven", [], ["seven", "SEVEN", "x" * 50]),
        ("text", "Seven", [], ["seven", " Seven"]),
        ("numeric", "7", [], ["x", "7.5"]),
    ],
)
def test_an_id_that_its_column_cannot_hold_has_no_row_and_fails_no_other(
    platform: Platform, column_type: str, stored: str, spellings: list[str], strangers: list[str]
) -> None:
    execute(platform, f"CREATE TABLE docs (id {column_type} PRIMARY KEY, title text, content text)")
    put(platform, "docs", id=stored, title="T")
    mapping = SourceTable(table="docs")

    assert set(read(platform, mapping, stored, *strangers)) == {stored}
    with platform.postgres.transaction() as connection:
        canonical = SourceReader(mapping, "mcp_assets").canonical_ids(connection, [stored, *spellings, *strangers])
    assert {canonical[spelling] for spelling in [stored, *spellings]} == {stored}
    assert {canonical[stranger] for stranger in strangers}.isdisjoint({stored})


def test_the_lookup_by_id_uses_the_tables_index(platform: Platform) -> None:
    """A cast of the id column would read the whole table for each batch."""
    execute(
        platform,
        "CREATE TABLE docs (id uuid PRIMARY KEY, title text, content text)",
        "INSERT INTO docs SELECT gen_random_uuid(), 'T', 'C' FROM generate_series(1, 3000)",
        "ANALYZE docs",
    )
    ids = [row[0] for row in rows(platform, "SELECT id::text FROM docs LIMIT 5")]
    before = rows(platform, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'docs'")
    read(platform, SourceTable(table="docs"), *ids)

    with platform.postgres.session() as session:
        session.execute("SELECT pg_stat_force_next_flush()")
        after = session.execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'docs'").fetchall()
    assert after == before
