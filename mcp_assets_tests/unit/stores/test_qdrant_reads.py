"""What every process asks of Qdrant: the address, and the errors that odd answers are."""

from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from mcp_assets.stores.errors import CollectionNotOurs, StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.stores.qdrant_connection import is_not_found
from mcp_assets.stores.qdrant_identity import rest_address

Answering = Callable[[httpx.Response], Qdrant]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Makes a Qdrant that answers everything with one response."""
    opened: list[Qdrant] = []

    def make(response: httpx.Response) -> Qdrant:
        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda *_: response)
        opened.append(Qdrant("http://qdrant:6333", "key"))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://qdrant", "http://qdrant:6333"),
        ("https://qdrant.example.com/prefix", "https://qdrant.example.com:6333/prefix"),
        ("http://qdrant:80", "http://qdrant:80"),
        ("http://[::1]", "http://[::1]:6333"),
    ],
)
def test_an_address_without_a_port_is_that_of_qdrant_client(url: str, address: str) -> None:
    assert rest_address(url) == address
    with closing(Qdrant(url)) as qdrant:
        assert qdrant._client._client.rest_uri.rstrip("/") == address  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"result": null}', b'{"result": {"aliases": 7}}', b'"\xff"'])
def test_an_answer_that_is_not_qdrants_is_an_outage_that_names_the_setting(answering: Answering, body: bytes) -> None:
    with pytest.raises(StoreUnavailable, match="QDRANT_URL leads to Qdrant itself"):
        answering(httpx.Response(200, content=body)).aliases()


@pytest.mark.parametrize(
    ("status", "content", "headers", "error", "message"),
    [
        (401, b"Invalid API key", {}, StoreRefused, r"refuses the key of this platform \(Invalid API key\)"),
        (400, b'{"status": {"error": "Bad name"}}', {}, StoreRefused, r"refused \(400\): Bad name"),
        (404, b"nothing", {}, StoreRefused, r"refused \(404\): Not Found"),
        (429, b"", {"Retry-After": "3"}, StoreUnavailable, "takes no more requests"),
        (408, b"", {}, StoreUnavailable, r"failed \(408\)"),
        (502, b"", {}, StoreUnavailable, r"failed \(502\)"),
        (302, b"", {"Location": "http://elsewhere"}, StoreUnavailable, r"failed \(302\)"),
    ],
)
def test_an_answer_other_than_success_is_the_error_that_it_is_of_a_request_by_qdrant_client(
    answering: Answering, status: int, content: bytes, headers: dict[str, str], error: type[Exception], message: str
) -> None:
    qdrant = answering(httpx.Response(status, content=content, headers=headers))
    for ask in (qdrant.collections, lambda: qdrant.drop_collection("things")):
        with pytest.raises(error, match=message) as raised:
            ask()
        assert raised.type is error
        if isinstance(raised.value, StoreRefused):
            assert is_not_found(raised.value) == (status == 404)


def test_the_name_of_a_collection_is_one_segment_of_the_path(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant = answering(httpx.Response(500))
    paths: list[bytes] = []

    def handle(_: object, request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json={"result": {"exists": True}})

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    assert qdrant.exists("a/b?c ä")
    assert paths == [b"/collections/a%2Fb%3Fc%20%C3%A4/exists"]


@pytest.mark.parametrize(
    "vectors",
    [
        {"text": {"size": 4, "distance": "Cosine"}},
        {"size": {"size": 4, "distance": "Cosine"}, "distance": {"size": 4, "distance": "Cosine"}},
        {},
        None,
    ],
)
def test_a_collection_of_named_vectors_is_not_ours_whatever_their_names(answering: Answering, vectors: object) -> None:
    description = {"config": {"params": {"vectors": vectors}}, "payload_schema": {}}
    with pytest.raises(CollectionNotOurs, match="named vectors"):
        answering(httpx.Response(200, json={"result": description})).made_for("alias", "things")


def test_a_client_that_was_closed_may_be_used_again(answering: Answering) -> None:
    qdrant = answering(httpx.Response(200, json={"result": {"collections": [{"name": "things"}]}}))
    for _ in range(2):
        assert qdrant.collections() == ["things"]
        qdrant.close()
