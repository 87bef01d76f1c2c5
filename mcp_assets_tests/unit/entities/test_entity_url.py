"""Entity URL: the pattern is checked when it is read, and ids cannot leave their place in it."""

import pytest

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.entities.refs import EntityRef


@pytest.mark.parametrize(
    ("pattern", "entity_id", "url"),
    [
        ("https://wiki.example.org/{type}/{id}", "T-1", "https://wiki.example.org/task/T-1"),
        ("http://localhost:8080/?of={id}#{type}", "a b", "http://localhost:8080/?of=a%20b#task"),
        ("https://wiki.example.org/{id}", "../é?#&%", "https://wiki.example.org/..%2F%C3%A9%3F%23%26%25"),
        ("https://wiki.example.org/{id}", "{type}", "https://wiki.example.org/%7Btype%7D"),
        ("https://wiki.example.org/{id}", "javascript:'\"", "https://wiki.example.org/javascript%3A%27%22"),
    ],
)
def test_type_and_id_are_percent_encoded(pattern: str, entity_id: str, url: str) -> None:
    assert EntityUrl.of(pattern).url(EntityRef("task", entity_id)) == url


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("https://wiki.example.org/", "must hold {id}"),
        ("https://wiki.example.org/{id}/{slug}", "no other braces"),
        ("https://wiki.example.org/{id}/{", "no other braces"),
        ("javascript:alert({id})", "must begin with http"),
        ("ftp://wiki.example.org/{id}", "must begin with http"),
        ("//wiki.example.org/{id}", "must begin with http"),
        ("https:///{id}", "must begin with http"),
        ("https://[wiki/{id}", "must begin with http"),
        ("https://wiki.example.org:port/{id}", "must begin with http"),
        ("https://{id}.example.org/", "name of the server"),
        ("https://example.org{id}", "name of the server"),
        ("https://example.org:{id}/", "must begin with http"),
        ("https://good.example.org\\.evil.example/{id}", "backslashes"),
        (" https://wiki.example.org/{id}", "white space"),
        ("https://wiki.example.org/{id}\n", "white space"),
    ],
)
def test_a_wrong_pattern_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        EntityUrl.of(pattern)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="a user or a password") as refused:
        EntityUrl.of("https://user:hunter2@wiki.example.org/{id}")
    assert "hunter2" not in str(refused.value)
