"""Loopback: which addresses are this machine's, and an environment in which no proxy is asked for them."""

import pytest

from mcp_assets.loopback import is_loopback, without_proxy


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:6333",
        "http://localhost:11434/v1",
        "http://[::1]:6333",
        "http://127.8.0.1",
        "http://a.localhost",
    ],
)
def test_addresses_of_this_machine_are_recognised(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://api.openai.com/v1", "http://localhost.example.com", ""])
def test_all_others_may_need_a_proxy(url: str) -> None:
    assert not is_loopback(url)


def test_a_child_process_asks_no_proxy_for_this_machine_and_keeps_what_was_named() -> None:
    given = {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intra.example.com, localhost"}
    changed = without_proxy(given)
    assert changed == {
        "HTTP_PROXY": "http://proxy:3128",
        "NO_PROXY": "intra.example.com,localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
    }
