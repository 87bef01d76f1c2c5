"""An MCP client finds what an event has announced a moment ago: by its id, its words and its meaning."""

import asyncio
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import PATIENCE_S, SCRIPTS, Live

NEW = EntityRef("task", "CHK-104")


def test_an_event_of_a_running_platform_is_found_by_an_mcp_client_by_id_words_and_meaning(live: Live) -> None:
    live.start_daemon()
    live.write(NEW, "Renew certificates", "The gateway fails with ERR_TLS_CERT since Monday")
    found, fetched, status = asyncio.run(_ask(live))
    assert found == {
        ("both", "CHK-104"): str(NEW),
        ("words", "err_tls_cert"): str(NEW),
        ("meaning", "since monday the gateway fails"): str(NEW),
    }
    assert " ".join(fetched["text"].split()) == live.texts[NEW]
    assert fetched["indexed_at"] >= fetched["changed_at"]
    assert status["behind_stream_s"] == 0
    assert "up to date with the stream" in status["freshness"]


async def _ask(live: Live) -> tuple[dict[tuple[str, str], str], dict[str, Any], dict[str, Any]]:
    """The first answer to each question, once there is one; the entity; how fresh the index is."""
    parameters = StdioServerParameters(
        command=str(SCRIPTS / "mcp-assets"), args=["mcp"], env=live.environment, cwd=live.folder
    )
    async with Client(stdio_client(parameters)) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, result.content
            answer: dict[str, Any] = result.structured_content
            return answer

        # The client is there before the event, as an assistant is that works all day.
        assert (await call("search", query=NEW.id))["results"] == []
        await asyncio.to_thread(live.publish, [("mcp.task.created", {"entity_id": NEW.id})])
        found = {}
        for by, query in (("meaning", "since monday the gateway fails"), ("both", NEW.id), ("words", "err_tls_cert")):
            async with asyncio.timeout(PATIENCE_S):
                while not (results := (await call("search", query=query, by=by))["results"]):
                    await asyncio.sleep(0.2)
            found[by, query] = results[0]["entity"]
        return found, await call("fetch", entity=str(NEW)), await call("index_status")
