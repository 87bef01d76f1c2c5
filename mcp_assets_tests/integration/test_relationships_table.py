"""The table `relationships`: made, or adopted with the rows of others in it, which nothing of ours touches."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from uuid import RFC_4122

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import Edge, EdgeDiff, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores import edge_table
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.locks import require_usable_edges
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.views.export import export
from mcp_assets.sync.views.graph import Format, related, strengths_of
from mcp_assets_tests.linking import TYPES, AngleEmbedder, delete_source, graph, index, rebuild, relink, write_source
from mcp_assets_tests.observing import entity_points, put, put_tasks, rows, sync_all

ORIGINAL = """
CREATE TABLE relationships (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source_id {id} NOT NULL,
    target_id {id} NOT NULL,
    relationship_type varchar(50) NOT NULL,
    strength real NOT NULL DEFAULT 1.0,
    metadata jsonb DEFAULT '{{}}',
    created_at timestamptz DEFAULT now(),
    {unique}
);
"""
U = [f"00000000-0000-4000-8000-{number:012}" for number in range(5)]
A, B = EntityRef("task", U[0]), EntityRef("page", U[1])


@pytest.fixture(params=["text", "uuid"])
def world(request: pytest.FixtureRequest, make_platform: Callable[..., Platform]) -> Platform:
    """A database with source rows and a table of edges of the original shape, which has rows of others."""
    platform = make_platform(embedder=AngleEmbedder(), types=TYPES)
    with psycopg.connect(platform.postgres.url) as connection:
        for table, body in (("tasks", "description"), ("wiki_pages", "content"), ("memory_nodes", "content")):
            connection.execute(
                f"CREATE TABLE {table} (id text PRIMARY KEY, title text, {body} text, metadata jsonb,"
                " created_at timestamptz, updated_at timestamptz)".encode()
            )
        unique = "UNIQUE (source_id, target_id, relationship_type)"
        connection.execute(ORIGINAL.format(id=request.param, unique=unique).encode())
        connection.execute("INSERT INTO tasks VALUES (%s, '@0'), (%s, 'twin')", (U[0], U[3]))
        connection.execute("INSERT INTO wiki_pages VALUES (%s, '@5'), (%s, 'twin')", (U[1], U[3]))
        connection.execute(
            "INSERT INTO relationships (source_id, target_id, relationship_type, strength) VALUES"
            " (%s, %s, 'semantic_similarity', 0.5), (%s, %s, 'blocks', 1), (%s, %s, 'blocks', 1)",
            (U[0], U[1], U[0], U[3], U[4], U[1]),
        )
    return platform


def foreign(platform: Platform) -> list[tuple[object, ...]]:
    with platform.postgres.transaction() as connection:
        return connection.execute(
            "SELECT *, xmin::text FROM relationships WHERE origin IS DISTINCT FROM 'mcp_assets' ORDER BY id"
        ).fetchall()


def types_of(platform: Platform) -> set[tuple[object, ...]]:
    with platform.postgres.transaction() as connection:
        return set(
            connection.execute(
                "SELECT source_id::text, source_type, target_id::text, target_type FROM relationships"
                " WHERE origin IS NULL"
            )
        )


def test_types_of_adopted_rows_are_filled_where_one_source_table_alone_has_the_id(world: Platform) -> None:
    assert types_of(world) == {
        (U[0], "task", U[1], "page"),
        (U[0], "task", U[3], None),
        (U[4], None, U[1], "page"),
    }


def test_rows_of_others_stand_beside_ours_and_are_never_touched(world: Platform) -> None:
    before = foreign(world)
    assert len(before) == 3
    write_source(world, A, "@0", "see page:" + U[1])
    write_source(world, B, "@5", "")
    index(world, A, B)
    relink(world)
    assert len(graph(world)) == 3
    assert graph(world) == rebuild(world)
    delete_source(world, B)
    index(world, B)
    relink(world)
    assert graph(world) == {}
    assert foreign(world) == before


def test_rows_that_others_write_later_keep_the_uniqueness_that_they_had(world: Platform) -> None:
    before = foreign(world)
    statement = "INSERT INTO relationships (source_id, target_id, relationship_type) VALUES (%s, %s, 'new')"
    with world.postgres.transaction() as connection:
        connection.execute(statement, (U[0], U[1]))
    with pytest.raises(psycopg.errors.UniqueViolation), world.postgres.transaction() as connection:
        connection.execute(statement, (U[0], U[1]))
    assert len(foreign(world)) == len(before) + 1


def test_an_edge_that_the_table_cannot_name_is_left_out_and_the_others_are_written(world: Platform) -> None:
    write_source(world, A, "@0", "")
    write_source(world, B, "@5", "")
    named = EntityRef("task", "T-1")
    write_source(world, named, "@2", "")
    index(world, A, B, named)
    relink(world)
    with world.postgres.transaction() as connection:
        holds_any_id = world.relationships.id_type(connection).as_string(connection) != "uuid"
    assert len(graph(world)) == (6 if holds_any_id else 2)


def test_migrating_again_changes_nothing(world: Platform, make_platform: Callable[..., Platform]) -> None:
    before = foreign(world)
    assert foreign(make_platform(types=TYPES)) == before


def test_edges_of_a_table_of_which_postgres_has_no_estimate_are_counted(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength)"
            " SELECT 'task', n::text, 'page', 'p', 'cross_reference', 1 FROM generate_series(1, 7) AS n"
        )
        assert platform.relationships.count_about(connection) == 7


def test_edges_beyond_what_is_counted_are_estimated(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_table, "COUNTED_EDGES", 3)
    with platform.postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO relationships (source_type, source_id, target_type, target_id, relationship_type, strength)"
            " SELECT 'task', n::text, 'page', 'p', 'cross_reference', 1 FROM generate_series(1, 7) AS n"
        )
        assert platform.relationships.count_about(connection) == 3
        connection.execute("ANALYZE relationships")
        assert platform.relationships.count_about(connection) == 7


def test_the_table_may_have_another_name_and_schema(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(types=TYPES, relationships_table="mcp_assets.edges")
    with platform.postgres.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM mcp_assets.edges").fetchone() == (0,)
        assert connection.execute("SELECT to_regclass('public.relationships')").fetchone() == (None,)


def test_rows_have_rising_ids_where_the_table_has_uuids_and_its_own_where_it_has_not(
    make_platform: Callable[..., Platform],
) -> None:
    platform = make_platform(types=TYPES, relationships_table="public.edges")
    edges = tuple(Edge(A, EntityRef("page", str(number)), EdgeType.CROSS_REFERENCE, 1) for number in range(600))
    with platform.postgres.transaction() as connection:
        platform.relationships.write(connection, EdgeDiff(edges[:300], (), ()), {})
    with platform.postgres.transaction() as connection:
        platform.relationships.write(connection, EdgeDiff(edges[300:], (), ()), {})
    # As they were written: those of the second write come after those of the first.
    ids = [row[0] for row in rows(platform, "SELECT id FROM edges ORDER BY ctid")]
    assert len(set(ids)) == 600
    assert ids == sorted(ids)
    assert {(found.version, found.variant) for found in ids} == {(7, RFC_4122)}
    assert abs(time.time() - (ids[0].int >> 80) / 1000) < 3600

    with platform.postgres.transaction() as connection:
        connection.execute("TRUNCATE edges")
        connection.execute("ALTER TABLE edges DROP COLUMN id, ADD COLUMN id bigserial PRIMARY KEY")
    platform = make_platform(types=TYPES, relationships_table="public.edges")
    with platform.postgres.transaction() as connection:
        platform.relationships.write(connection, EdgeDiff(edges, (), ()), {})
    assert [row[0] for row in rows(platform, "SELECT id FROM edges ORDER BY id")] == list(range(1, 601))


def test_indexes_of_an_earlier_shape_give_way_to_those_that_are_needed(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(types=TYPES)
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'relationships' ORDER BY 1"
    needed = rows(platform, indexes)
    with platform.postgres.transaction() as connection:
        connection.execute(
            "DROP INDEX relationships_by_source, relationships_by_target_id;"
            " CREATE UNIQUE INDEX relationships_key ON relationships"
            " (source_type, source_id, target_type, target_id, relationship_type, origin) NULLS NOT DISTINCT;"
            " CREATE INDEX relationships_by_target ON relationships (target_type, target_id, relationship_type);"
            " CREATE INDEX theirs ON relationships (strength)"
        )
    found = dict(rows(make_platform(types=TYPES), indexes))
    assert found.pop("theirs")
    assert list(found.items()) == needed


def test_a_second_table_of_edges_has_indexes_of_its_own(make_platform: Callable[..., Platform]) -> None:
    for name in ("public.relationships", "public.edges", "public." + "e" * 60):
        platform = make_platform(types=TYPES, relationships_table=name)
        made = rows(platform, "SELECT count(*) FROM pg_indexes WHERE tablename = %s", name.partition(".")[2])
        assert made == [(3,)]


def test_ids_and_evidence_of_any_text_are_stored_as_they_are(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(types=TYPES)
    odd = [EntityRef("task", text) for text in ("\\N", "\\.", "a\tb", "a\nb", "a\rb", "\\\\t", 'ü"\u2028')]
    edges = tuple(
        Edge(source, target, kind, 0.1234, {"rule": "tags", "shared": [source.id, target.id]})
        for source, target in pairwise(odd)
        for kind in (EdgeType.TOPICAL_RELEVANCE, EdgeType.CROSS_REFERENCE)
    )
    with platform.postgres.transaction() as connection:
        platform.relationships.write(connection, EdgeDiff(edges, (), ()), {})
        stored = platform.relationships.of_sources(connection, odd, tuple(EdgeType))
        lists = platform.relationships.lists(connection, odd, [EdgeType.TOPICAL_RELEVANCE])
    assert {key: edge for key, (_, edge) in stored.items()} == {edge.key: edge for edge in edges}
    assert {(source, target) for source, held in lists[EdgeType.TOPICAL_RELEVANCE].items() for target in held} == {
        *pairwise(odd)
    }


COLUMNS = (
    "id uuid PRIMARY KEY, source_id text NOT NULL, target_id text NOT NULL, relationship_type text NOT NULL,"
    " strength real, metadata jsonb, created_at timestamptz"
)
ADOPTED = {
    "the original's": COLUMNS + ", UNIQUE (source_id, target_id, relationship_type)",
    "a time without default": COLUMNS + " NOT NULL, updated_at timestamptz NOT NULL",
    "a text as id": COLUMNS.replace("id uuid", "id text", 1),
    "a number as id": COLUMNS.replace("id uuid", "id bigint GENERATED ALWAYS AS IDENTITY", 1),
    "double, json, timestamp": COLUMNS.replace("real", "double precision")
    .replace("jsonb", "json")
    .replace("timestamptz", "timestamp"),
    "two decimals": COLUMNS.replace("real", "numeric(3,2)"),
    "any decimals": COLUMNS.replace("real", "numeric"),
    "an enumeration": COLUMNS.replace("relationship_type text", "relationship_type kind"),
}
ENUMERATION = (
    "CREATE TYPE kind AS ENUM ('semantic_similarity', 'possible_duplicate', 'topical_relevance',"
    " 'sequential_dependency', 'conceptual_hierarchy', 'cross_reference', '\"blocks\"', 'blocks')"
)


def settle(platform: Platform) -> None:
    for entity_type in ("task", "page", "memory"):
        sync_all(platform, entity_type)
    for _ in link_until_done(platform):
        pass


def adopting(make_platform: Callable[..., Platform], columns: str, *statements: str) -> Platform:
    """A platform with two tasks and a page that names one, and a table of edges that was there before."""
    sources = make_platform(relationships_table="public.other_edges")
    create_source_tables(sources)
    put_tasks(sources, {"A": "alpha beta gamma", "B": "alpha beta gamma delta"})
    put(sources, "wiki_pages", id="P", title="P", content="depends on task:A")
    with psycopg.connect(sources.postgres.url) as connection:
        connection.execute(ENUMERATION)
        connection.execute(f"CREATE TABLE relationships ({columns})".encode())
        for statement in statements:
            connection.execute(statement.encode())
    return make_platform()


@pytest.mark.parametrize("columns", ADOPTED.values(), ids=ADOPTED)
def test_a_table_of_any_shape_that_can_hold_edges_is_adopted(
    make_platform: Callable[..., Platform], columns: str
) -> None:
    given = ", gen_random_uuid()" if columns.startswith("id uuid") else ", 'x'" if columns.startswith("id text") else ""
    quoted = (
        f"INSERT INTO relationships (source_id, target_id, relationship_type{', id' if given else ''}"
        f"{', created_at, updated_at' if 'updated_at' in columns else ''}) VALUES ('A', 'B', '\"blocks\"'{given}"
        f"{', now(), now()' if 'updated_at' in columns else ''})"
    )
    platform = adopting(make_platform, columns, quoted)
    settle(platform)
    written = rows(platform, "SELECT id::text, strength::text, xmin::text FROM relationships ORDER BY 1")
    assert len(written) > 1
    for entity_type in ("task", "page", "memory"):
        mark_shards(platform, entity_type, range(4), force=True)
    for _ in link_until_done(platform):
        pass
    again = rows(platform, "SELECT id::text, strength::text, xmin::text FROM relationships ORDER BY 1")
    assert again == written, "what is right is not written again"
    report = validate(platform, entity_types=["task", "page", "memory"], deep=True)
    assert report.found == {}
    put(platform, "wiki_pages", id="P", title="P", content="part of task:A")
    rows(platform, "UPDATE relationships SET strength = 0.5 WHERE origin = 'mcp_assets' RETURNING 1")
    settle(platform)
    report = validate(platform, entity_types=["task", "page", "memory"], deep=True, repair=True)
    assert report.left == {}
    assert len(related(platform, EntityRef("task", "A"))[0]) > 1
    assert rows(platform, "SELECT count(*) FROM relationships WHERE relationship_type::text = '\"blocks\"'") == [(1,)]


UNUSABLE = {
    "one edge a pair": (COLUMNS + ", UNIQUE (source_id, target_id)", "source_id_target_id_key"),
    "other types of edge": (
        COLUMNS.replace(
            "relationship_type text NOT NULL", "relationship_type text CHECK (relationship_type = 'blocks')"
        ),
        "relationship_type_check",
    ),
    "a key of one source table": (COLUMNS.replace("source_id text", "source_id text REFERENCES tasks (id)"), "fkey"),
    "a column that we cannot fill": (COLUMNS + ", author text NOT NULL", "author"),
    "a whole number as strength": (COLUMNS.replace("real", "integer"), "integer"),
    "numbers as ids": (COLUMNS.replace("source_id text", "source_id bigint"), "bigint"),
}


@pytest.mark.parametrize(("columns", "named"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_table_that_cannot_hold_edges_is_named_with_the_reason_and_stops_nothing_else(
    make_platform: Callable[..., Platform], columns: str, named: str
) -> None:
    platform = adopting(make_platform, columns)
    for entity_type in ("task", "page", "memory"):
        sync_all(platform, entity_type)
    for _ in range(2):
        with pytest.raises(StoreRefused, match=r"public\.relationships cannot hold") as refused:
            link_until_done(platform).__next__()
        assert named in str(refused.value)
        assert "MCP_ASSETS_RELATIONSHIPS_TABLE" in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(StoreRefused, match="cannot hold"):
        require_usable_edges(platform)
    report = validate(platform, entity_types=["task", "page", "memory"])
    assert report.found == {"unusable_relationships": 1}
    assert len(entity_points(platform)) == 2
    assert rows(platform, "SELECT count(*) FROM relationships") == [(0,)]


def test_a_table_that_could_not_be_adopted_is_read_with_one_clear_error_as_doctor_has_it(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    view = ("ALTER TABLE relationships RENAME TO theirs", "CREATE VIEW relationships AS SELECT * FROM theirs")
    platform = adopting(make_platform, COLUMNS, *view)
    with pytest.raises(StoreRefused, match=r"lacks source_type.*, origin") as told_by_doctor:
        require_usable_edges(platform)
    readers: list[Callable[[], object]] = [
        lambda: related(platform, EntityRef("task", "A")),
        lambda: strengths_of(platform, "task", 0),
        *(partial(export, platform, form, tmp_path / form.value) for form in Format),
    ]
    for read in readers:
        with pytest.raises(StoreRefused) as refused:
            read()
        assert str(refused.value) == str(told_by_doctor.value)


def test_rows_of_others_that_state_the_same_twice_are_adopted_as_they_are(
    make_platform: Callable[..., Platform],
) -> None:
    insert = "INSERT INTO relationships (id, source_id, target_id, relationship_type) VALUES"
    values = "(gen_random_uuid(), 'A', 'B', 'blocks')"
    platform = adopting(make_platform, COLUMNS, f"{insert} {values}, {values}")
    settle(platform)
    assert rows(platform, "SELECT count(*) FROM relationships WHERE origin IS NULL") == [(2,)]
    assert validate(platform, entity_types=["task", "page", "memory"], deep=True).found == {}


@pytest.fixture
def limited(settings: Settings, make_platform: Callable[..., Platform]) -> Iterator[Callable[[], Platform]]:
    """Makes platforms of a role that may use what is there, and make nothing in the database."""
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS limited")
        connection.execute("CREATE ROLE limited LOGIN")
        url = make_url(settings.require_database_url()).update_query_dict({"user": "limited"})
        yield lambda: make_platform(database_url=SecretStr(url.render_as_string(hide_password=False)))
        connection.execute("DROP OWNED BY limited")
        connection.execute("DROP ROLE limited")


def test_a_role_that_may_not_create_schemas_works_with_one_that_is_there(
    platform: Platform, limited: Callable[[], Platform]
) -> None:
    put_tasks(platform, {"A": "alpha beta", "B": "alpha beta gamma"})
    with platform.postgres.transaction() as connection:
        for schema in ("mcp_assets", "public"):
            connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO limited".encode())
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO limited".encode())
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO limited".encode())
    settle(limited())
    assert rows(platform, "SELECT count(*) > 0 FROM relationships") == [(True,)]


def test_a_role_that_may_not_make_the_schema_gets_an_error_that_says_what_to_grant(
    limited: Callable[[], Platform],
) -> None:
    with pytest.raises(StoreRefused, match=r"the schema mcp_assets cannot be made.*grant CREATE"):
        limited().postgres.transaction().__enter__()
