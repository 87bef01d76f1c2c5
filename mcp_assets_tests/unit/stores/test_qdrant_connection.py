"""The connection to Qdrant: what is left of an answer when it has been used."""

import gc
import weakref

import httpx

from mcp_assets.stores.qdrant_connection import freed_after_use


def test_an_answer_is_freed_as_soon_as_it_has_been_used_and_not_by_the_garbage_collector() -> None:
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"result": 7}))) as client:
        request = client.build_request("POST", "http://qdrant/")
        gc.collect()
        gc.disable()
        try:
            response = freed_after_use(request, client.send)
            assert response.json() == {"result": 7}
            held = weakref.ref(response)
            del response
            assert held() is None
        finally:
            gc.enable()
