"""TLS to PostgreSQL, Qdrant and the embedding provider: the certificate of an authority of one's own is checked."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from pydantic import SecretStr

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets_tests.openai_stub import OpenAIStub

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""By which a client of PostgreSQL asks for TLS."""


class TlsServer:
    """Ends TLS on a free port of 127.0.0.1, in an event loop of its own. `first`: TLS begins with the first byte."""

    def __init__(self, certificate: Path, *, first: bool) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context if first else None)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the server with its connections: what is left open would be a warning in a later test."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        # asyncio names nobody the transport of a handshake that failed, and does not close it.
        for transport in list(self._loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        # Closed transports let go of their sockets in the next turns of the loop.
        await asyncio.sleep(0.05)


class TlsProxy(TlsServer):
    """Passes on what comes to the server at an http:// address, as a reverse proxy does."""

    def __init__(self, target: str, certificate: Path) -> None:
        self._target = urlsplit(target)
        super().__init__(certificate, first=True)
        self.url = f"https://127.0.0.1:{self.port}{self._target.path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
            await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))


class PostgresTls(TlsServer):
    """Stands before the PostgreSQL behind a UNIX socket, whose build has no TLS, and has it in its place."""

    def __init__(self, socket: str, certificate: Path) -> None:
        self._socket = socket
        super().__init__(certificate, first=False)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            # Each request is a length of 8 and a code; the client goes on in TLS when it is answered by S.
            while await reader.readexactly(8) != SSL_REQUEST:
                writer.write(b"N")
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self.context)
            there_reader, there_writer = await asyncio.open_unix_connection(self._socket)
            await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    return made


@pytest.fixture
def proxy(authority: trustme.CA, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Gives the https:// address of a proxy before the server at an http:// address."""
    opened: list[TlsProxy] = []

    def before(url: str) -> str:
        opened.append(TlsProxy(url, tmp_path / "server.pem"))
        return opened[-1].url

    yield before
    for one in opened:
        one.close()


def test_qdrant_is_reached_over_tls_with_the_certificate_of_its_authority(
    make_platform: Callable[..., Platform], settings: Settings, proxy: Callable[[str], str], tmp_path: Path
) -> None:
    url = proxy(settings.require_qdrant_url())

    reached = make_platform(qdrant_url=url, qdrant_tls_ca_file=tmp_path / "ca.pem")
    assert reached.qdrant.collections() == []

    for file in (None, tmp_path / "other.pem"):
        with pytest.raises(StoreUnavailable, match=r"Qdrant does not answer.*CERTIFICATE_VERIFY_FAILED"):
            make_platform(qdrant_url=url, qdrant_tls_ca_file=file).qdrant.collections()


def test_the_provider_is_reached_over_tls_with_the_certificate_of_its_authority(
    make_platform: Callable[..., Platform], stub: OpenAIStub, proxy: Callable[[str], str], tmp_path: Path
) -> None:
    url = proxy(stub.base_url)

    reached = make_platform(openai_base_url=url, embedding_tls_ca_file=tmp_path / "ca.pem")
    assert len(reached.embedder.embed_query("text")) > 0

    with pytest.raises(EmbedderUnavailable, match=r"certificate|Connection error"):
        make_platform(openai_base_url=url, retry_attempts=1).embedder.embed_query("text")


def test_a_key_that_qdrant_does_not_know_is_refused_by_name(make_platform: Callable[..., Platform]) -> None:
    for key in (None, SecretStr("canary")):
        with pytest.raises(StoreRefused, match=r"Qdrant refuses the key .*set QDRANT_API_KEY") as caught:
            make_platform(qdrant_api_key=key).qdrant.collections()
        assert "canary" not in str(caught.value)


def test_commands_that_read_take_the_read_only_key(settings: Settings) -> None:
    changed = settings.model_copy(
        update={"qdrant_read_api_key": settings.qdrant_api_key, "qdrant_api_key": SecretStr("another")}
    )
    reading, writing = Platform(changed, reads_only=True), Platform(changed)
    try:
        assert reading.qdrant.collections() == []
        with pytest.raises(StoreRefused, match="Qdrant refuses the key"):
            writing.qdrant.collections()
    finally:
        reading.close()
        writing.close()


def test_postgresql_is_reached_over_tls_and_its_certificate_is_checked(
    make_platform: Callable[..., Platform],
    settings: Settings,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    parts = urlsplit(settings.require_database_url())
    socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    before = PostgresTls(socket, tmp_path / "server.pem")

    def platform(options: str, host: str = "127.0.0.1") -> Platform:
        url = f"postgresql://{parts.username}:canary@{host}:{before.port}{parts.path}?sslmode=verify-full&{options}"
        return make_platform(database_url=SecretStr(url))

    try:
        with platform(f"sslrootcert={tmp_path}/ca.pem").postgres.transaction() as connection:
            assert connection.pgconn.ssl_in_use
        for refused, said in (
            (platform(f"sslrootcert={tmp_path}/other.pem"), "certificate verify failed"),
            (platform(f"sslrootcert={tmp_path}/ca.pem", "localhost"), "does not match host name"),
        ):
            with pytest.raises(StoreUnavailable, match=said) as caught, refused.postgres.transaction():
                pass
            assert "canary" not in str(caught.value)
    finally:
        before.close()
