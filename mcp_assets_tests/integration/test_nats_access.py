"""Access to NATS: users, NKeys, credentials and certificates, tried on real servers with certificates of their own."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats import NatsStreams
from mcp_assets.stores.nats_access import PLAIN, NatsAccess
from mcp_assets_tests.nats_credentials import identity, operator_mode
from mcp_assets_tests.nats_servers import Server
from mcp_assets_tests.waiting import until

SUBJECTS = ["mcp.>"]

StartServer = Callable[[str], Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with more lines of configuration; it is ended with the test."""
    started: list[Server] = []

    def run(configuration: str) -> Server:
        server = Server(tmp_path / f"server{len(started)}", configuration)
        server.launch()
        started.append(server)
        until(lambda: "Server is ready" in (server.folder / "log").read_text(), "the server is ready")
        return server

    yield run
    for server in started:
        server.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """A certificate of the server, one of the client, and their authority's; and another authority's."""
    authority = trustme.CA()
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "other_ca", "server", "client", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    trustme.CA().cert_pem.write_to_path(paths["other_ca"])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(paths["server"])
    own = authority.issue_cert("mcp-assets@example.org")
    own.cert_chain_pems[0].write_to_path(paths["client"])
    own.private_key_pem.write_to_path(paths["key"])
    return paths


def tls(paths: dict[str, Path], more: str = "") -> str:
    return f'tls {{ cert_file: "{paths["server"]}", key_file: "{paths["server"]}", ca_file: "{paths["ca"]}", {more} }}'


def use(url: str, access: NatsAccess = PLAIN, timeout_s: float = 5.0) -> None:
    """Make a stream, publish into it, and read it back. Raises what the platform would."""
    streams = NatsStreams(url, SUBJECTS, access=access, timeout_s=timeout_s)
    try:
        streams.ensure_stream("S")
        streams.publish([("mcp.task.created", b"{}")])
        state = streams.state("S")
        assert state is not None
        assert streams.read(state, 0, limit=10, max_bytes=1 << 20, wait_s=1).messages
    finally:
        streams.close()


def test_a_file_of_credentials_lets_in_and_a_server_without_them_is_named(start: StartServer, tmp_path: Path) -> None:
    mode = operator_mode()
    server = start(mode.configuration)
    (tmp_path / "creds").write_text(mode.credentials)

    use(server.url, NatsAccess(creds_file=tmp_path / "creds"))

    with pytest.raises(StoreRefused, match=r"NATS does not let this user in.*NATS_CREDS_FILE"):
        use(server.url)


def test_an_nkey_lets_in_and_that_of_another_user_does_not(start: StartServer, tmp_path: Path) -> None:
    known, other = identity(), identity()
    server = start(f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}")
    for name, seed in (("known", known.seed), ("other", other.seed), ("none", "no seed")):
        (tmp_path / name).write_text(seed + "\n")

    use(server.url, NatsAccess(nkey_file=tmp_path / "known"))

    with pytest.raises(StoreRefused, match="NATS does not let this user in"):
        use(server.url, NatsAccess(nkey_file=tmp_path / "other"))
    with pytest.raises(StoreRefused, match=f"NATS_NKEY_FILE: {tmp_path}/none holds no seed of a user"):
        use(server.url, NatsAccess(nkey_file=tmp_path / "none"))


@pytest.mark.parametrize("user", ["someone:canary", "canary-token"])
def test_a_password_or_a_token_in_the_address_lets_in_and_no_error_shows_it(start: StartServer, user: str) -> None:
    name, colon, password = user.partition(":")
    server = start(
        f"authorization {{ user: {name}, password: {password} }}" if colon else f"authorization {{ token: {user} }}"
    )

    use(server.url.replace("//", f"//{user}@"))

    wrong = user.replace("canary", "canary-wrong")
    with pytest.raises(StoreRefused, match="NATS does not let this user in: check the user and password") as caught:
        use(server.url.replace("//", f"//{wrong}@"))
    assert "canary" not in str(caught.value)


def test_the_certificate_of_the_server_is_checked(start: StartServer, certificates: dict[str, Path]) -> None:
    server = start(tls(certificates))
    secure = server.url.replace("nats://", "tls://")

    use(secure, NatsAccess(tls_ca_file=certificates["ca"]))
    use(server.url, NatsAccess(tls_ca_file=certificates["ca"]))

    for access in (NatsAccess(), NatsAccess(tls_ca_file=certificates["other_ca"])):
        with pytest.raises(StoreUnavailable, match=r"certificate of NATS is not trusted.*set NATS_TLS_CA_FILE"):
            use(secure, access)
    with pytest.raises(StoreUnavailable, match=r"certificate of NATS is not trusted.*name the server as its"):
        use(secure.replace("127.0.0.1", "localhost"), NatsAccess(tls_ca_file=certificates["ca"]))


def test_a_server_that_asks_for_a_certificate_of_the_client_gets_it(
    start: StartServer, certificates: dict[str, Path]
) -> None:
    server = start(tls(certificates, "verify: true"))
    ours = NatsAccess(
        tls_ca_file=certificates["ca"], tls_cert_file=certificates["client"], tls_key_file=certificates["key"]
    )

    use(server.url, ours)

    with pytest.raises(StoreUnavailable, match="asks clients for a certificate, set NATS_TLS_CERT_FILE"):
        use(server.url, NatsAccess(tls_ca_file=certificates["ca"]))


def test_no_password_goes_to_a_server_without_tls_where_a_setting_asks_for_it(
    start: StartServer, certificates: dict[str, Path]
) -> None:
    server = start("authorization { user: u, password: p }\ntrace: true")
    address = server.url.replace("//", "//u:p@")

    for url, access in (
        (address.replace("nats:", "tls:"), NatsAccess()),
        (address, NatsAccess(tls_ca_file=certificates["ca"])),
    ):
        with pytest.raises(StoreRefused, match=r"NATS has no TLS.*nothing was sent"):
            use(url, access)
    assert "CONNECT" not in (server.folder / "log").read_text()

    use(address)
    assert "CONNECT" in (server.folder / "log").read_text(), "the log would show what is sent"


def test_a_key_that_belongs_to_another_certificate_is_named(certificates: dict[str, Path], tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("other@example.org")
    other.private_key_pem.write_to_path(tmp_path / "other_key")
    access = NatsAccess(tls_cert_file=certificates["client"], tls_key_file=tmp_path / "other_key")

    with pytest.raises(StoreRefused, match=r"NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE.*no certificate in PEM form"):
        access.options()
    assert isinstance(
        NatsAccess(tls_cert_file=certificates["client"], tls_key_file=certificates["key"]).options()["tls"],
        ssl.SSLContext,
    )
