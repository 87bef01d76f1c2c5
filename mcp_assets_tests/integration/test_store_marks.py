"""Store marks: another program, or another server, on a store's address is a stranger, and gets nothing (I12)."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import numpy as np
import psycopg
import pytest
from qdrant_client import QdrantClient, models

from mcp_assets.embedded.servers.nats import _binary
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable, Stranger
from mcp_assets.stores.qdrant_identity import METADATA_KEY
from mcp_assets.stores.qdrant_points import Point
from mcp_assets.sync.collections.model_collections import ensure_collection, physical_name
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets_tests.waiting import until

MakePlatform = Callable[..., Platform]

COMMAND = Path(sys.executable).parent / "mcp-assets"

ALIAS = "kanban_tasks"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(port: int, *command: str) -> Iterator[None]:
    """`command` while it listens on `port`; killed at the end."""
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), f"a server listens on {port}")
        yield
    finally:
        started.kill()
        started.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def when_it_answers(call: Callable[[], Any], *, ours: bool = False) -> Any:
    """What `call` returns or raises once its store is connected again; a stranger's answer is one, unless `ours`."""

    def answered() -> tuple[Any] | None:
        try:
            return (call(),)
        except StoreUnavailable as error:
            if isinstance(error, Stranger) and not ours:
                raise
            return None

    (answer,) = until(answered, "the store is connected again")
    return answer


# NATS


def nats_server(folder: Path, port: int, name: str | None, **more: object) -> Any:
    folder.mkdir(exist_ok=True)
    named = {} if name is None else {"server_name": name}
    configuration = {**named, "host": "127.0.0.1", "port": port, "jetstream": {"store_dir": str(folder)}, **more}
    given = {key: value for key, value in configuration.items() if value is not None}
    (folder / "nats.conf").write_text(json.dumps(given))
    return process(port, str(_binary()), "--config", str(folder / "nats.conf"))


def published(port: int, stream: str) -> int:
    async def run() -> int:
        client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        try:
            return int((await client.jetstream().stream_info(stream)).state.messages)
        finally:
            await client.close()

    return asyncio.run(run())


def make_stream(port: int, stream: str, subject: str) -> None:
    async def run() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        try:
            await client.jetstream().add_stream(name=stream, subjects=[subject])
        finally:
            await client.close()

    asyncio.run(run())


def test_a_nats_server_of_another_name_on_the_address_is_a_stranger_until_ours_is_back(
    make_platform: MakePlatform, tmp_path: Path, port: int
) -> None:
    platform = make_platform(nats_url=f"nats://127.0.0.1:{port}")
    message = [("mcp.task.created", b'{"entity_id": "1"}')]
    with nats_server(tmp_path / "ours", port, "ours"):
        platform.nats.ensure_stream("MCP_ASSETS")
        platform.nats.publish(message)
    with nats_server(tmp_path / "theirs", port, "theirs"):
        make_stream(port, "MCP_ASSETS", "mcp.>")
        for call in (lambda: platform.nats.publish(message), lambda: platform.nats.state("MCP_ASSETS")):
            with pytest.raises(Stranger, match=r"server theirs.*'server ours'.*mcp-assets accept nats"):
                when_it_answers(call)
        with pytest.raises(Stranger):  # in a process that connects for the first time, too
            make_platform(nats_url=f"nats://127.0.0.1:{port}").nats.publish(message)
        assert published(port, "MCP_ASSETS") == 0
    with nats_server(tmp_path / "ours", port, "ours"):
        assert when_it_answers(lambda: platform.nats.publish(message), ours=True) == 1
        assert published(port, "MCP_ASSETS") >= 2  # What was sent while the connection was lost comes late.


def test_a_replaced_nats_server_is_taken_after_mcp_assets_accept(
    make_platform: MakePlatform, tmp_path: Path, port: int
) -> None:
    platform = make_platform(nats_url=f"nats://127.0.0.1:{port}")
    with nats_server(tmp_path / "old", port, "old"):
        platform.nats.ensure_stream("MCP_ASSETS")
    with nats_server(tmp_path / "new", port, "new"):
        settings = platform.settings
        done = subprocess.run(
            [COMMAND, "accept", "nats"],
            cwd=tmp_path,
            env={
                **os.environ,
                "DATABASE_URL": settings.require_database_url(),
                "NATS_URL": settings.require_nats_url(),
                "MCP_ASSETS_STATE_DIR": str(tmp_path / "none"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "server new" in done.stdout
        when_it_answers(lambda: platform.nats.ensure_stream("MCP_ASSETS"), ours=True)


def test_a_cluster_is_known_by_its_name_and_a_server_without_a_name_of_its_own_by_nothing(
    make_platform: MakePlatform, tmp_path: Path, port: int
) -> None:
    platform = make_platform(nats_url=f"nats://127.0.0.1:{port}")
    with nats_server(tmp_path / "nameless", port, None):
        assert platform.nats.mark() is None
        platform.nats.ensure_stream("MCP_ASSETS")
    with nats_server(tmp_path / "nameless", port, None):  # whose id is another one
        when_it_answers(lambda: platform.nats.ensure_stream("MCP_ASSETS"))
    cluster = {"name": "us", "listen": "127.0.0.1:-1"}
    with nats_server(tmp_path / "cluster", port, "one", cluster=cluster, jetstream=None):
        assert platform.nats.mark() == "cluster us"


# Qdrant


def qdrant_server(folder: Path, port: int, mark: str | None) -> Any:
    marked = () if mark is None else ("--mark", mark)
    command = (sys.executable, "-m", "mcp_assets.embedded.qdrant", "--port", str(port), "--storage", str(folder))
    return process(port, *command, *marked)


def plain(port: int) -> QdrantClient:
    """A client that another program might use."""
    return QdrantClient(url=f"http://127.0.0.1:{port}", check_compatibility=False)


def make_collection(port: int, platform: Platform, metadata: dict[str, Any] | None = None) -> str:
    """One that bears our physical name and alias, made by another program."""
    profile = platform.embedder.profile
    name = physical_name(ALIAS, profile)
    with closing(plain(port)) as client:
        client.create_collection(
            name,
            vectors_config=models.VectorParams(size=profile.dimension, distance=models.Distance.COSINE),
            metadata=metadata,
        )
        operation = models.CreateAlias(collection_name=name, alias_name=ALIAS)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=operation)])
    return name


def points(port: int, collection: str) -> int:
    with closing(plain(port)) as client:
        return client.count(collection).count


def metadata_of(port: int, collection: str) -> dict[str, Any]:
    with closing(plain(port)) as client:
        return client.get_collection(collection).config.metadata or {}


def write(platform: Platform) -> None:
    vector = np.zeros(platform.embedder.profile.dimension, dtype=np.float32)
    vector[0] = 1.0
    platform.qdrant.write(ALIAS, upsert=[Point(uuid4(), vector, {"kind": "entity"})])


def at(port: int, make_platform: MakePlatform) -> Platform:
    return make_platform(qdrant_url=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("marks", [("ours", "theirs"), ("ours", None)], ids=["another mark", "no mark"])
def test_another_qdrant_on_the_address_of_the_embedded_one_is_a_stranger_until_ours_is_back(
    make_platform: MakePlatform, tmp_path: Path, port: int, marks: tuple[str, str | None]
) -> None:
    platform = at(port, make_platform)
    with qdrant_server(tmp_path / "ours", port, marks[0]):
        collection = ensure_collection(platform.qdrant, ALIAS, platform.embedder.profile).name
        write(platform)
    with qdrant_server(tmp_path / "theirs", port, marks[1]):
        make_collection(port, platform)
        for one in (platform, at(port, make_platform)):
            with pytest.raises(Stranger, match="mcp-assets accept qdrant"):
                when_it_answers(partial(write, one))
        assert points(port, collection) == 0
        assert metadata_of(port, collection) == {}
    with qdrant_server(tmp_path / "ours", port, marks[0]):
        when_it_answers(lambda: write(platform))
        assert points(port, collection) == 2


@pytest.mark.parametrize("metadata", [None, {METADATA_KEY: "another platform's"}], ids=["no mark", "another mark"])
def test_a_real_qdrant_whose_collections_of_our_names_do_not_bear_our_mark_is_a_stranger(
    make_platform: MakePlatform, tmp_path: Path, port: int, metadata: dict[str, Any] | None
) -> None:
    platform = at(port, make_platform)
    with qdrant_server(tmp_path / "ours", port, None):
        collection = ensure_collection(platform.qdrant, ALIAS, platform.embedder.profile).name
        assert metadata_of(port, collection) == {METADATA_KEY: platform.marks.key()}
        with closing(at(port, make_platform)) as another_process:
            write(another_process)
    with qdrant_server(tmp_path / "theirs", port, None):
        make_collection(port, platform, metadata)
        with pytest.raises(Stranger, match="mcp-assets accept qdrant"):
            when_it_answers(lambda: write(platform))
        assert points(port, collection) == 0

        platform.accept_qdrant()
        write(platform)
        assert points(port, collection) == 1
        assert metadata_of(port, collection) == {METADATA_KEY: platform.marks.key()}


def test_a_qdrant_that_lost_all_collections_is_no_stranger_and_full_syncs_are_asked_for(
    make_platform: MakePlatform, tmp_path: Path, port: int
) -> None:
    platform = at(port, make_platform)
    with qdrant_server(tmp_path / "ours", port, None):
        collection = ensure_collection(platform.qdrant, ALIAS, platform.embedder.profile).name
        with closing(at(port, make_platform)) as another_process:
            another_process.qdrant.collections()
    with qdrant_server(tmp_path / "new", port, None):
        with closing(Platform(platform.settings, reads_only=True)) as reader:
            reader.qdrant.collections()
            assert wanted_full_syncs(reader) == {}
        when_it_answers(platform.qdrant.collections)
        assert set(wanted_full_syncs(platform)) == set(platform.settings.entity_types)
        ensure_collection(platform.qdrant, ALIAS, platform.embedder.profile)
        assert metadata_of(port, collection) == {METADATA_KEY: platform.marks.key()}


def test_collections_from_before_there_were_marks_are_marked_by_a_process_that_writes(
    make_platform: MakePlatform, tmp_path: Path, port: int
) -> None:
    platform = at(port, make_platform)
    with qdrant_server(tmp_path / "ours", port, None):
        collection = make_collection(port, platform)
        with closing(Platform(platform.settings, reads_only=True)) as reader:
            reader.qdrant.collections()
        assert metadata_of(port, collection) == {}
        write(platform)
        assert metadata_of(port, collection) == {METADATA_KEY: platform.marks.key()}


# PostgreSQL


def admin(settings: Settings) -> psycopg.Connection[Any]:
    return psycopg.connect(settings.require_database_url().replace("/test?", "/mcp?"), autocommit=True)


def test_another_database_on_the_address_is_a_stranger_for_the_processes_that_know_ours(platform: Platform) -> None:
    with platform.postgres.transaction():
        pass
    with admin(platform.settings) as connection:
        connection.execute("DROP DATABASE test WITH (FORCE)")
        connection.execute("CREATE DATABASE test")
    with pytest.raises(Stranger, match="mcp-assets accept postgres"), platform.postgres.transaction():
        pass
    with pytest.raises(Stranger), platform.postgres.session():
        pass


def test_a_copy_of_the_database_is_a_stranger_until_it_is_accepted(
    platform: Platform, make_platform: MakePlatform
) -> None:
    settings = platform.settings
    platform.close()
    with admin(settings) as connection:
        connection.execute("DROP DATABASE IF EXISTS copy WITH (FORCE)")
        connection.execute("CREATE DATABASE copy TEMPLATE test")
    try:
        url = type(settings.database_url)(settings.require_database_url().replace("/test?", "/copy?"))  # type: ignore[misc]
        copy = make_platform(database_url=url)
        with pytest.raises(Stranger, match="mcp-assets accept postgres"), copy.postgres.transaction():
            pass
        copy.postgres.accept()
        for one in (copy, make_platform(database_url=url)):
            with one.postgres.transaction() as connection_of_copy:
                assert connection_of_copy.execute("SELECT 1").fetchone() == (1,)
            one.close()
    finally:
        with admin(settings) as connection:
            connection.execute("DROP DATABASE IF EXISTS copy WITH (FORCE)")


def test_all_schemas_of_a_database_are_one_platform(platform: Platform, make_platform: MakePlatform) -> None:
    assert make_platform(schema_name="another").marks.key() == platform.marks.key()
