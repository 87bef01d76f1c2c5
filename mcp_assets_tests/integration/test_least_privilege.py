"""Least privilege: what the roles and NATS users of deploy/ may do is enough, and all else is refused by name."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import psycopg
import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr

from mcp_assets.defs.storage import SettingsPostgresStorage
from mcp_assets.embedded.stack import StackAddresses
from mcp_assets.events import result_subjects, stream_subjects
from mcp_assets.mcp_server.change_tools import ChangeTools
from mcp_assets.mcp_server.tools import Tools
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets.sync.views.doctor import diagnose
from mcp_assets_tests.clients import key_in
from mcp_assets_tests.linking import relink
from mcp_assets_tests.nats_servers import Server
from mcp_assets_tests.observing import dead_letters, drain_all, sync_all

EDGE_OF_OTHERS = """
INSERT INTO relationships (source_id, target_id, relationship_type, strength, origin)
VALUES ('t1', 't2', 'theirs', 0.5, 'others')
"""

ROLES = ("mcp_assets", "mcp_assets_reader", "mcp_assets_dagster", "mcp_assets_search")

DENIED_WITHIN_S = 2.0
"""How long a denial is waited for; it comes with the answer to the next request."""

DEPLOY = Path(__file__).parents[2] / "deploy"


def run_as_administrator(url: str, *files: str) -> None:
    with psycopg.connect(url) as connection:
        for file in files:
            connection.execute((DEPLOY / "postgres" / file).read_text())


@pytest.fixture
def administrator(settings: Settings, platform: Platform) -> Iterator[str]:
    """The address of the database's owner, with the files of deploy/postgres run in it, twice."""
    url = settings.require_database_url()
    platform.close()
    with psycopg.connect(url) as connection:
        # The schemas and the table that the platform has made as the owner are those of another installation.
        connection.execute("DROP SCHEMA mcp_assets CASCADE; DROP TABLE relationships")
    for _ in range(2):
        run_as_administrator(url, "roles.sql", "source_tables.sql", "relationships.sql")
    yield url
    with psycopg.connect(url) as connection:
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role} CASCADE")
        connection.execute(f"DROP ROLE {', '.join(ROLES)}")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A NATS with the users of deploy/nats, and both streams."""
    for user in ("ADMIN", "MCP_ASSETS", "MCP_SERVERS"):
        monkeypatch.setenv(f"NATS_{user}_PASSWORD", user.lower())
    server = Server(tmp_path / "bus", f'server_name: bus\ninclude "{tmp_path}/mcp_assets.conf"')
    (tmp_path / "bus" / "nats.conf").write_text(
        (tmp_path / "bus" / "nats.conf").read_text().replace(f"{tmp_path}/mcp_assets.conf", "mcp_assets.conf")
    )
    (tmp_path / "bus" / "mcp_assets.conf").write_text((DEPLOY / "nats" / "mcp_assets.conf").read_text())
    server.start("admin:admin@")

    async def make_streams() -> None:
        client = await nats.connect(of(server, "admin"))
        await client.jetstream().add_stream(name="MCP_ASSETS", subjects=stream_subjects())
        await client.jetstream().add_stream(name="MCP_ASSETS_RESULTS", subjects=result_subjects())
        await client.close()

    asyncio.run(make_streams())
    yield server
    server.stop()


def of(server: Server, user: str) -> str:
    return server.url.replace("//", f"//{user}:{user}@")


@pytest.fixture
def restricted(
    administrator: str, bus: Server, make_platform: Callable[..., Platform], addresses: StackAddresses
) -> Platform:
    """The platform as the role mcp_assets and the NATS user mcp_assets."""
    assert addresses.database_url is not None
    return make_platform(
        database_url=SecretStr(administrator.replace("//mcp@", "//mcp_assets@")),
        nats_url=SecretStr(of(bus, "mcp_assets")),
        create_stream=False,
    )


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


async def is_denied(server: Server, user: str, subject: str, *, listens: bool = False) -> bool:
    """The server refuses the user a message on the subject, or, if it `listens`, a subscription."""
    denied = asyncio.Event()
    kind = "subscription" if listens else "publish"

    async def heard(error: Exception) -> None:
        if f"permissions violation for {kind}" in str(error).lower():
            denied.set()

    client = await nats.connect(of(server, user), error_cb=heard, inbox_prefix="_INBOX.mcp_assets")
    try:
        await (client.subscribe(subject) if listens else client.publish(subject, b""))
        await client.flush()
        # The client may hand on the error after the answer to the flush.
        async with asyncio.timeout(DENIED_WITHIN_S):
            await denied.wait()
    except TimeoutError:
        return False
    finally:
        await client.close()
    return True


def test_everything_works_with_the_roles_and_the_user_that_are_shipped(
    restricted: Platform, administrator: str, bus: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        administrator, "INSERT INTO tasks (id, title) SELECT 't' || n, 'about lions ' || n FROM generate_series(1, 9) n"
    )
    execute(administrator, "INSERT INTO relationships (source_id, target_id, relationship_type, strength, origin)"
            " VALUES ('t1', 't2', 'theirs', 0.5, 'others')")  # fmt: skip

    for name in restricted.settings.entity_types:
        sync_all(restricted, name)
    execute(administrator, "UPDATE tasks SET description = 'depends on task:t2' WHERE id = 't1'")
    asyncio.run(publish_as_server(bus))
    assert drain_all(restricted).embedded == 1
    relink(restricted)
    request_results = publish_waiting(restricted)
    for name in restricted.settings.entity_types:
        take_census(restricted, name, 0)

    with psycopg.connect(administrator) as connection:
        origins: dict[str, int] = dict(
            connection.execute("SELECT origin, count(*) FROM relationships GROUP BY 1").fetchall()
        )
    assert origins["others"] == 1
    assert origins[ORIGIN] > 0
    assert request_results > 0
    assert not dead_letters(restricted)
    for variable, value in {
        "DATABASE_URL": restricted.settings.require_database_url(),
        "NATS_URL": restricted.settings.require_nats_url(),
        "QDRANT_URL": restricted.settings.require_qdrant_url(),
        "QDRANT_API_KEY": key_in(restricted.settings),
        "MCP_ASSETS_CREATE_STREAM": "false",
    }.items():
        monkeypatch.setenv(variable, value)
    storage = SettingsPostgresStorage.from_config_value(None, {"schema": "dagster"})
    assert storage.run_storage.get_runs_count() == 0
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part.dispose()
    checked = {found.name: found.message for found in diagnose() if not found.ok}
    assert not checked.keys() & {"postgres", "source task", "relationships", "nats", "streams", "publish"}, checked


async def publish_as_server(bus: Server) -> None:
    client = await nats.connect(of(bus, "mcp_servers"))
    await client.jetstream().publish("mcp.task.updated", b'{"taskId": "t1"}')
    await client.jetstream().publish("vector.index.request", b'{"data": {"entity_id": "t2", "entity_type": "task"}}')
    await client.close()


REFUSED = (
    "CREATE SCHEMA another",
    "CREATE TABLE public.another ()",
    "CREATE EXTENSION pg_trgm",
    "UPDATE public.tasks SET title = ''",
    "DELETE FROM public.tasks",
    "TRUNCATE public.relationships",
    "ALTER TABLE public.relationships DISABLE TRIGGER ALL",
    "INSERT INTO relationships (source_id, target_id, relationship_type, strength) VALUES ('a', 'b', 'x', 1)",
    "UPDATE relationships SET strength = 0 WHERE origin = 'others'",
    "UPDATE relationships SET origin = 'mcp_assets' WHERE origin = 'others'",
    "DELETE FROM relationships",
    "SELECT * FROM secrets_of_others",
    "SELECT pg_read_file('/etc/passwd')",
    "SET ROLE mcp",
    "CREATE ROLE another",
)


def test_the_role_of_a_search_reads_all_that_the_mcp_server_gives_and_writes_nothing(
    restricted: Platform, administrator: str, make_platform: Callable[..., Platform]
) -> None:
    execute(
        administrator, "INSERT INTO tasks (id, title, depends_on) VALUES ('t1', 'gate', '{t2}'), ('t2', 'hinge', '{}')"
    )
    sync_all(restricted)
    relink(restricted)
    url = administrator.replace("//mcp@", "//mcp_assets_search@")
    tools = Tools(make_platform(database_url=SecretStr(url), reads_only=True))

    assert [one.entity for one in tools.search("gate").results][:1] == ["task:t1"]
    assert tools.fetch("task:t1").title == "gate"
    assert tools.related("task:t1").edges
    assert "up to date" in tools.index_status().freshness
    changes = ChangeTools(make_platform(database_url=SecretStr(url), reads_only=True), tools).changed_since("1h")
    assert "task:t1" in {change.entity for change in changes.changes}
    for statement in (
        "DELETE FROM mcp_assets.entities",
        "UPDATE mcp_assets.search_words SET length = 0",
        "DELETE FROM relationships",
        "SELECT * FROM tasks",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def test_the_role_is_refused_what_the_platform_does_not_need(restricted: Platform, administrator: str) -> None:
    execute(administrator, "CREATE TABLE secrets_of_others (secret text)")
    execute(administrator, EDGE_OF_OTHERS)
    done = []

    for statement in REFUSED:
        try:
            execute(restricted.settings.require_database_url(), statement)
        except psycopg.errors.InsufficientPrivilege:
            continue
        done.append(statement)

    assert not done


def test_a_privilege_that_is_missing_is_named(restricted: Platform, administrator: str) -> None:
    execute(administrator, "INSERT INTO tasks (id, title) VALUES ('a', 'lions and tigers'), ('b', 'lions and tigers')")
    sync_all(restricted)

    execute(administrator, "REVOKE INSERT, UPDATE ON relationships FROM mcp_assets")
    with pytest.raises(StoreRefused, match=r"the role mcp_assets has no INSERT, UPDATE on public.relationships"):
        relink(restricted)

    execute(administrator, "REVOKE DELETE ON mcp_assets.inbox FROM mcp_assets")
    with (
        pytest.raises(StoreRefused, match=r"forbids the role.*the role mcp_assets has no DELETE on mcp_assets.inbox"),
        restricted.postgres.transaction() as connection,
    ):
        connection.execute("DELETE FROM mcp_assets.inbox")

    execute(administrator, "REVOKE SELECT ON tasks FROM mcp_assets_reader")
    with pytest.raises(StoreRefused, match=r"source table tasks may not be read .*: grant SELECT on it"):
        sync_all(restricted)


def test_without_a_schema_the_missing_right_to_make_it_is_named(restricted: Platform, administrator: str) -> None:
    execute(administrator, "DROP SCHEMA mcp_assets")

    with pytest.raises(StoreRefused, match=r"schema mcp_assets cannot be made .*grant CREATE on the database"):
        sync_all(restricted)


def test_the_users_of_nats_are_refused_what_they_do_not_need(bus: Server) -> None:
    platform = (
        "mcp.task.created",
        "vector.index.request",
        "$JS.API.STREAM.CREATE.ANOTHER",
        "$JS.API.STREAM.UPDATE.MCP_ASSETS",
        "$JS.API.STREAM.DELETE.MCP_ASSETS",
        "$JS.API.STREAM.PURGE.MCP_ASSETS",
        "$JS.API.STREAM.MSG.DELETE.MCP_ASSETS",
        "$JS.API.STREAM.MSG.GET.ANOTHER",
        "$JS.API.CONSUMER.CREATE.ANOTHER",
        "_INBOX.of.another",
    )
    servers = ("$JS.API.STREAM.MSG.GET.MCP_ASSETS", "vector.index.completed", "mcp.task.anything")
    listening = (
        ("mcp_servers", "entity.duplicates.request"),
        ("mcp_assets", "mcp.>"),
        ("mcp_assets", "_INBOX.>"),
        ("mcp_assets", ">"),
    )

    async def allowed() -> list[str]:
        found = [subject for subject in platform if not await is_denied(bus, "mcp_assets", subject)]
        found += [subject for subject in servers if not await is_denied(bus, "mcp_servers", subject)]
        for user, subject in (*listening, ("mcp_servers", "_INBOX.mcp_assets.>")):
            if not await is_denied(bus, user, subject, listens=True):
                found.append(f"{user} listens to {subject}")
        return found

    assert asyncio.run(allowed()) == []
    assert not asyncio.run(is_denied(bus, "mcp_assets", "vector.index.completed"))


def test_a_request_for_duplicates_is_answered_to_who_asked_and_to_no_other(bus: Server) -> None:
    async def answer_it(asked: Msg) -> None:
        await asked.respond(b"{}")

    async def ask() -> tuple[bytes, bool]:
        answering = await nats.connect(of(bus, "mcp_assets"), inbox_prefix="_INBOX.mcp_assets")
        await answering.subscribe("entity.duplicates.request", queue="mcp_assets", cb=answer_it)
        await answering.flush()
        asking = await nats.connect(of(bus, "mcp_servers"))
        answer = await asking.request("entity.duplicates.request", b"{}", timeout=10)
        for client in (answering, asking):
            await client.close()
        return answer.data, await is_denied(bus, "mcp_assets", "_INBOX.of.another")

    assert asyncio.run(ask()) == (b"{}", True)


def test_a_message_that_the_user_may_not_publish_is_named(restricted: Platform) -> None:
    with pytest.raises(StoreRefused, match=r"NATS forbids this user a request .*mcp.task.created"):
        restricted.nats.publish([("mcp.task.created", b"{}")])
