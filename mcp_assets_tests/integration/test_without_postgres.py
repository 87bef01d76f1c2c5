"""PostgreSQL is away: what only looks says so, blames no other store, and does not wait again and again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.search.search import search
from mcp_assets.sync.views import doctor
from mcp_assets.sync.views.doctor import diagnose
from mcp_assets.sync.views.pending import pending


class Frozen:
    """A server whose kernel takes connections, as that of a frozen PostgreSQL does, and that never says a word."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.setblocking(False)

    @property
    def url(self) -> str:
        return f"postgresql://nobody@127.0.0.1:{self._listener.getsockname()[1]}/none"

    def tries(self) -> int:
        """How many connections have been opened to it."""
        count = 0
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    made = Frozen()
    yield made
    made.close()


@contextmanager
def looking(settings: Settings, **changes: object) -> Iterator[Platform]:
    platform = Platform(settings.model_copy(update=changes), reads_only=True)
    try:
        yield platform
    finally:
        platform.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_status_says_of_a_frozen_postgresql_that_it_is_away_asks_it_once_and_blames_no_other_store(
    settings: Settings, frozen: Frozen
) -> None:
    with looking(settings, database_url=SecretStr(frozen.url), streams=("A", "B")) as platform:
        found = pending(platform)
    assert len(found.unavailable) == 1
    assert found.unavailable[0].startswith("PostgreSQL does not answer")
    assert found.unread == {"A": None, "B": None}
    assert not found.idle
    assert frozen.tries() == 1


def test_status_without_postgresql_still_reports_which_other_stores_are_away(settings: Settings) -> None:
    away = {
        "database_url": SecretStr(f"postgresql://nobody@127.0.0.1:{closed_port()}/none"),
        "nats_url": SecretStr(f"nats://127.0.0.1:{closed_port()}"),
        "qdrant_url": f"http://127.0.0.1:{closed_port()}",
    }
    with looking(settings, **away) as platform:
        reported = [message.split(" at ")[0].split(" (")[0] for message in pending(platform).unavailable]
    assert reported == ["PostgreSQL does not answer", "NATS does not answer", "Qdrant does not answer"]


def test_a_search_without_postgresql_fails_with_that_reason_after_one_try(settings: Settings, frozen: Frozen) -> None:
    with (
        looking(settings, database_url=SecretStr(frozen.url)) as platform,
        pytest.raises(StoreUnavailable, match=r"^PostgreSQL does not answer"),
    ):
        search(platform, "anything", by="meaning")
    assert frozen.tries() == 1


def test_doctor_without_postgresql_finds_the_other_stores_well(
    settings: Settings, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = settings.model_copy(update={"database_url": SecretStr(frozen.url)})
    monkeypatch.setattr(doctor, "load_settings", lambda: away)
    found = {finding.name: finding for finding in diagnose()}
    assert found["postgres"].message.startswith("PostgreSQL does not answer")
    assert {name for name, finding in found.items() if finding.ok} == {"settings", "nats", "qdrant", "embedder"}
    assert not any("PostgreSQL does not answer" in found[name].message for name in found if name != "postgres")
    assert frozen.tries() == 1
