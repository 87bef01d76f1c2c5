"""What is shown of an address holds no secret."""

import pytest

from mcp_assets.stores.addresses import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://mcp@/mcp?host=/tmp/x/postgres&port=5432",
            "postgresql://mcp@/mcp?host=/tmp/x/postgres&port=5432",
        ),
        ("postgresql://u:p@ss@db:5432/mcp", "postgresql://u:***@db:5432/mcp"),
        ("postgresql://db/mcp?user=u&password=secret&port=1", "postgresql://db/mcp?user=u&password=***&port=1"),
        ("nats://token@127.0.0.1:4222", "nats://***@127.0.0.1:4222"),
        ("nats://a:b@n1:4222,nats://a:b@n2:4222", "nats://a:***@n1:4222,nats://a:***@n2:4222"),
        ("https://user:key@qdrant:6333", "https://user:***@qdrant:6333"),
        ("http://127.0.0.1:6333", "http://127.0.0.1:6333"),
    ],
)
def test_passwords_and_tokens_are_starred_out_and_the_rest_stays(url: str, shown: str) -> None:
    assert without_password(url) == shown
