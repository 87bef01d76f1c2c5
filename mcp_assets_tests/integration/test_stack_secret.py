"""The embedded stack's secret: NATS and Qdrant ask for it, no process list shows it, and no other user can read it."""

import asyncio
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import pytest
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from pydantic import SecretStr

from mcp_assets.cli.services import exports
from mcp_assets.embedded import stack
from mcp_assets.embedded.state import known_secret, secret_of, shown_address
from mcp_assets.settings import load_settings
from mcp_assets_tests.clients import key_of


def state_of(addresses: stack.StackAddresses) -> Path:
    return Path(parse_qs(urlsplit(addresses.database_url or "").query)["host"][0]).parent


def bare(url: str | None) -> str:
    """The address without user and password."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.hostname}:{parts.port}"


@pytest.mark.parametrize("user", ["", "mcp:guessed@"])
def test_nats_lets_nobody_in_without_the_secret(addresses: stack.StackAddresses, user: str) -> None:
    async def sign_in() -> None:
        client = NatsClient()
        try:
            await client.connect(bare(addresses.nats_url).replace("//", f"//{user}"), allow_reconnect=False)
        finally:
            # Refused, it leaves its socket open.
            await client.close()

    with pytest.raises(NatsError, match="Authorization Violation"):
        asyncio.run(sign_in())


def test_qdrant_answers_nobody_without_the_key_and_no_page_of_a_browser(addresses: stack.StackAddresses) -> None:
    url, key = addresses.qdrant_url or "", key_of(addresses)
    with httpx.Client(base_url=url, timeout=60) as client:
        found = {
            "no key": client.get("/collections").status_code,
            "another key": client.get("/collections", headers={"api-key": "guessed"}).status_code,
            "the key": client.get("/collections", headers={"api-key": key}).status_code,
            "the key as a token": client.get("/collections", headers={"Authorization": f"Bearer {key}"}).status_code,
            "a page": client.get("/", headers={"Origin": "http://evil.example.com"}).status_code,
            "a form": client.post(
                "/collections/aliases", content="{}", headers={"Content-Type": "text/plain", "api-key": key}
            ).status_code,
            "is it up": client.get("/readyz").status_code,
        }

    assert found == {
        "no key": 401,
        "another key": 401,
        "the key": 200,
        "the key as a token": 200,
        "a page": 403,
        "a form": 415,
        "is it up": 200,
    }


def test_the_secret_stands_in_files_that_this_user_alone_can_read(addresses: stack.StackAddresses) -> None:
    secret, folder = key_of(addresses), state_of(addresses)
    holders = {}
    for file in folder.rglob("*"):
        # The servers of the stack delete files of theirs all the while.
        with suppress(FileNotFoundError):
            if file.is_file() and file.stat().st_uid == folder.stat().st_uid and secret.encode() in file.read_bytes():
                holders[file.name] = stat.S_IMODE(file.stat().st_mode)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert holders == {"secret": 0o600, "stack.json": 0o600, "nats.conf": 0o600}


def test_no_list_of_processes_shows_the_secret(addresses: stack.StackAddresses) -> None:
    seen = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            seen.append(" ".join(process.cmdline()))

    assert any(str(state_of(addresses)) in words for words in seen)
    assert not [words for words in seen if key_of(addresses) in words]


def test_an_address_without_credentials_that_an_older_version_exported_gets_them(
    addresses: stack.StackAddresses, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCP_ASSETS_STATE_DIR", str(state_of(addresses)))
    monkeypatch.setenv("NATS_URL", bare(addresses.nats_url))
    monkeypatch.setenv("QDRANT_URL", addresses.qdrant_url or "")

    settings = load_settings()

    assert settings.nats_url == SecretStr(addresses.nats_url or "")
    assert settings.qdrant_api_key == SecretStr(key_of(addresses))
    # What other programs of the user need is exported; a NATS elsewhere keeps its own address.
    assert exports(settings)["NATS_URL"] == addresses.nats_url
    assert exports(settings)["QDRANT_API_KEY"] == key_of(addresses)
    monkeypatch.setenv("NATS_URL", "nats://bus.example.org:4222")
    assert load_settings().nats_url == SecretStr("nats://bus.example.org:4222")


def test_what_people_see_has_the_address_without_the_secret(addresses: stack.StackAddresses) -> None:
    shown = shown_address(addresses.nats_url) or ""

    assert shown.startswith("nats://mcp:***@127.0.0.1:")
    assert key_of(addresses) not in (state_of(addresses) / "log" / "supervisor.log").read_text()
    assert key_of(addresses) in json.dumps(addresses.nats_url)


def test_processes_that_make_the_secret_at_once_agree_and_an_older_folder_has_none(tmp_path: Path) -> None:
    assert known_secret(tmp_path) is None

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: secret_of(tmp_path), range(32)))

    assert made == {known_secret(tmp_path)}
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]
