"""What the tests share: one embedded stack for the session, and for each test a platform with stores of its own."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedded import stack
from mcp_assets.embedded.qdrant import STRICT_VARIABLE
from mcp_assets.embedding.protocol import Embedder
from mcp_assets.platform import Platform, close_shared_platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.tuning import Tuning
from mcp_assets_tests.clients import key_of, qdrant_of
from mcp_assets_tests.openai_stub import OpenAIStub

DIMENSION = 16

# How long an example takes says how busy the machine is, not whether the rule holds.
hypothesis_settings.register_profile("without_deadline", deadline=None)
hypothesis_settings.load_profile("without_deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Every embedded Qdrant of the tests is as strict as Qdrant Cloud: it refuses filters that no index answers."""
    os.environ.setdefault(STRICT_VARIABLE, "1")
    # A shell that starts the tests in the background has them, and what they start, ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line("markers", "tuning(value): the Tuning of the platforms that a test makes")


@pytest.fixture(scope="session")
def addresses() -> Iterator[stack.StackAddresses]:
    """The embedded stack, real servers all; in a short path, for PostgreSQL's socket has one."""
    with (
        tempfile.TemporaryDirectory(prefix="mcp", dir="/tmp") as folder,
        stack.running(list(stack.Part), Path(folder) / ".mcp") as started,
    ):
        yield started


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    """An OpenAI-compatible server that counts what it embeds and misbehaves on demand."""
    with OpenAIStub(dimension=DIMENSION) as server:
        yield server


@pytest.fixture
def settings(addresses: stack.StackAddresses, stub: OpenAIStub) -> Iterator[Settings]:
    """Settings that lead to an empty database, no stream and no collection."""
    with settings_on(addresses, openai_base_url=stub.base_url) as made:
        yield made


@contextmanager
def settings_on(addresses: stack.StackAddresses, **changes: Any) -> Iterator[Settings]:
    """The same for a test of another scope. All of them lead to one database: use one at a time."""
    assert addresses.database_url is not None
    with psycopg.connect(addresses.database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS test WITH (FORCE)")
        connection.execute("CREATE DATABASE test")
    made = Settings(
        _env_file=None,  # type: ignore[call-arg]
        database_url=SecretStr(addresses.database_url.replace("/mcp?", "/test?")),
        nats_url=SecretStr(addresses.nats_url or ""),
        qdrant_url=addresses.qdrant_url,
        qdrant_api_key=SecretStr(key_of(addresses)),
        embedding_provider="openai",
        embedding_model="stub",
        embedding_dimension=DIMENSION,
        retry_delay_ms=20,
        batch_size=50,
        drain_linger_s=0.3,
        # It would act beside what a test does; the tests of it turn it on.
        sweep=False,
        store_wait_s=0,
        **changes,
    )
    try:
        yield made
    finally:
        _empty_stores(made)


@pytest.fixture
def tuning(request: pytest.FixtureRequest) -> Tuning:
    """The value of the mark `tuning`; without one, that of production."""
    mark = request.node.get_closest_marker("tuning")
    value: Tuning = mark.args[0] if mark is not None else Tuning()
    return value


@pytest.fixture
def make_platform(settings: Settings, tuning: Tuning) -> Iterator[Callable[..., Platform]]:
    """Makes platforms on the test's stores, with changed settings if need be; all are closed at the end."""
    made: list[Platform] = []

    def make(
        *, embedder: Embedder | None = None, tuning: Tuning = tuning, reads_only: bool = False, **changes: Any
    ) -> Platform:
        copied = settings.model_copy(update=changes)
        # The copy brings what was computed from the settings before the change.
        copied.__dict__.pop("entity_types", None)
        platform = Platform(copied, embedder=embedder, tuning=tuning, reads_only=reads_only)
        made.append(platform)
        return platform

    yield make
    for platform in made:
        platform.close()


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    """A platform with the source tables of the preset `mcp` and the stream made, all empty."""
    platform = make_platform()
    create_source_tables(platform)
    platform.nats.ensure_stream(platform.settings.streams[0])
    return platform


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test's settings in the environment, for what loads them by itself."""
    for field in Settings.model_fields:
        value = getattr(settings, field)
        if value == Settings.model_fields[field].get_default():
            monkeypatch.delenv(variable_of(field), raising=False)
        else:
            monkeypatch.setenv(variable_of(field), getattr(value, "get_secret_value", lambda value=value: str(value))())
    yield
    close_shared_platform()


def _empty_stores(settings: Settings) -> None:
    """Streams and collections are the server's, not the test's: the next test must not find them."""
    import asyncio

    import nats

    async def delete_streams() -> None:
        client = await nats.connect(settings.require_nats_url())
        try:
            jetstream = client.jetstream()
            for info in await jetstream.streams_info():
                assert info.config.name is not None
                await jetstream.delete_stream(info.config.name)
        finally:
            await client.close()

    asyncio.run(delete_streams())
    client = qdrant_of(settings)
    try:
        for collection in client.get_collections().collections:
            client.delete_collection(collection.name)
    finally:
        client.close()
