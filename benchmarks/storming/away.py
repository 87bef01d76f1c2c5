"""Away: the ways in which a store or the provider can be away, and how each is brought about.

The platform reaches each store and the provider through a proxy; the world and the oracle reach them directly.
"""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nats
import psutil
import psycopg
from nats.js.api import DiscardPolicy, StreamConfig

from mcp_assets.embedded import stack
from mcp_assets_tests.clients import key_of
from storming.proxy import Mode, Proxy


class Kind(StrEnum):
    """In which way a store or provider is away."""

    DOWN = "down"
    FROZEN = "frozen"
    REFUSING = "refusing"
    SLOW = "slow"
    GARBAGE = "garbage"
    FULL = "full"
    QUOTA = "quota"


class Where(StrEnum):
    """What is away."""

    POSTGRES = "postgres"
    NATS = "nats"
    QDRANT = "qdrant"
    PROVIDER = "provider"


CELLS = [
    *((where, kind) for where in (Where.POSTGRES, Where.NATS, Where.QDRANT) for kind in Kind if kind is not Kind.QUOTA),
    *((Where.PROVIDER, kind) for kind in Kind if kind is not Kind.FULL),
]
"""All 24."""

_MODES = {
    Kind.DOWN: Mode.DOWN,
    Kind.REFUSING: Mode.REFUSING,
    Kind.SLOW: Mode.SLOW,
    Kind.GARBAGE: Mode.GARBAGE,
}


@dataclass(frozen=True, slots=True)
class Stores:
    """The real stores, where the world and the oracle reach them, and the proxies that the platform uses."""

    addresses: stack.StackAddresses
    provider_url: str
    proxies: Mapping[Where, Proxy]
    state_dir: Path

    @property
    def database_url(self) -> str:
        assert self.addresses.database_url is not None
        return self.addresses.database_url

    @property
    def nats_url(self) -> str:
        assert self.addresses.nats_url is not None
        return self.addresses.nats_url

    @property
    def qdrant_url(self) -> str:
        assert self.addresses.qdrant_url is not None
        return self.addresses.qdrant_url

    def variables(self) -> dict[str, str]:
        """Environment variables that lead the platform through the proxies."""
        user = urlsplit(self.database_url).username
        return {
            "DATABASE_URL": f"postgresql://{user}:unused@127.0.0.1:{self.proxies[Where.POSTGRES].port}/mcp",
            "NATS_URL": f"nats://{urlsplit(self.nats_url).netloc.rpartition('@')[0]}@127.0.0.1:"
            f"{self.proxies[Where.NATS].port}",
            "QDRANT_URL": f"http://127.0.0.1:{self.proxies[Where.QDRANT].port}",
            "QDRANT_API_KEY": key_of(self.addresses),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.proxies[Where.PROVIDER].port}/v1",
        }


@contextmanager
def stores(folder: Path, provider_url: str) -> Iterator[Stores]:
    """Real stores in `folder`, and a proxy before each of them and before the provider."""
    with ExitStack() as opened:
        state_dir = folder / ".stores"
        addresses = opened.enter_context(stack.running(list(stack.Part), state_dir))
        assert addresses.database_url and addresses.nats_url and addresses.qdrant_url
        query = parse_qs(urlsplit(addresses.database_url).query)
        targets: dict[Where, tuple[str, int] | str] = {
            Where.POSTGRES: f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}",
            Where.NATS: _host_port(addresses.nats_url),
            Where.QDRANT: _host_port(addresses.qdrant_url),
            Where.PROVIDER: _host_port(provider_url),
        }
        proxies = {
            where: opened.enter_context(Proxy(target, http=where in (Where.QDRANT, Where.PROVIDER)))
            for where, target in targets.items()
        }
        yield Stores(addresses, provider_url, proxies, state_dir)


@contextmanager
def outage(there: Stores, where: Where, kind: Kind) -> Iterator[None]:
    """The store or provider is away in this way while the block runs."""
    if kind is Kind.FROZEN:
        frozen = _freeze(there, where)
        try:
            yield
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        return
    begin, end = _switch(there, where, kind)
    begin()
    try:
        yield
    finally:
        end()


def _switch(there: Stores, where: Where, kind: Kind) -> tuple[Callable[[], None], Callable[[], None]]:
    """What begins the outage, and what ends it."""
    proxy = there.proxies[where]
    if kind in _MODES:
        return lambda: proxy.set(_MODES[kind]), lambda: proxy.set(Mode.PASS)
    match where:
        case Where.POSTGRES:
            return lambda: _read_only(there, on=True), lambda: _read_only(there, on=False)
        case Where.NATS:
            return lambda: _full_stream(there, full=True), lambda: _full_stream(there, full=False)
        case Where.QDRANT:
            return lambda: proxy.set(Mode.NO_SPACE), lambda: proxy.set(Mode.PASS)
        case Where.PROVIDER:
            return lambda: _fault(there, "insufficient_quota"), lambda: _fault(there, None)


def _freeze(there: Stores, where: Where) -> list[psutil.Process]:
    """SIGSTOP the server and its children."""
    words = {Where.POSTGRES: "postgres", Where.NATS: "nats-server", Where.QDRANT: "mcp_assets.embedded.qdrant"}
    frozen = []
    if where is Where.PROVIDER:
        ours = psutil.Process().children()
        frozen += [process for process in ours if "mcp_assets_tests.openai_stub" in process.cmdline()]
    else:
        supervisor = psutil.Process(stack.status(there.state_dir).supervisor_pid or 0)
        for server in supervisor.children():
            if any(words[where] in word for word in server.cmdline()):
                frozen += [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    return frozen


def _read_only(there: Stores, *, on: bool) -> None:
    """Every new transaction of the platform's own sessions is refused its writes; the world's ask for theirs."""
    with psycopg.connect(there.database_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        connection.execute("SELECT pg_reload_conf()")


def _full_stream(there: Stores, *, full: bool) -> None:
    async def change() -> None:
        client = await nats.connect(there.nats_url)
        try:
            context = client.jetstream()
            names = [info.config.name for info in await context.streams_info()]
            for name in filter(None, names):
                info = await context.stream_info(name)
                config: StreamConfig = info.config
                config.max_bytes = max(1, info.state.bytes) if full else -1
                config.discard = DiscardPolicy.NEW if full else DiscardPolicy.OLD
                await context.update_stream(config)
        finally:
            await client.close()

    asyncio.run(change())


def _fault(there: Stores, kind: str | None) -> None:
    url = f"{there.provider_url.removesuffix('/v1')}/faults"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    faults: list[dict[str, Any]] = [{"kind": "latency", "times": None, "latency_s": 0.2}]
    faults += [{"kind": kind, "times": None}] if kind is not None else []
    for fault in faults:
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(fault).encode())).close()


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
