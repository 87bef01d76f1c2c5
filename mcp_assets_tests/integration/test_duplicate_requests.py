"""Requests for possible duplicates by NATS: answered by the MCP server's process, kept by no stream, bounded."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import NoRespondersError
from pydantic import SecretStr

from mcp_assets.events.subjects import DUPLICATES_REQUEST, result_subjects, stream_subjects
from mcp_assets.mcp_server.duplicate_requests import answering_duplicates
from mcp_assets.mcp_server.duplicate_tools import error_answer
from mcp_assets.platform import Platform
from mcp_assets.stores.nats_replies import NatsReplies, ReplyRules
from mcp_assets.stores.streams import covers
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.nats_servers import Server
from mcp_assets_tests.observing import put, sync_all
from mcp_assets_tests.waiting import until

BODY = "It ends in thirty days: order a new one, install it, restart the service, tell the people on call."


def ask(url: str, *bodies: bytes) -> list[dict[str, Any]]:
    """The answers to requests that are sent at once."""

    async def run() -> list[dict[str, Any]]:
        client = await nats.connect(url)
        try:
            answers = await asyncio.gather(*(client.request(DUPLICATES_REQUEST, body, timeout=30) for body in bodies))
            return [json.loads(answer.data) for answer in answers]
        finally:
            await client.close()

    return asyncio.run(run())


def is_served(url: str) -> bool:
    try:
        return bool(ask(url, b"{"))
    except NoRespondersError:
        return False


def test_a_request_gets_the_answer_of_the_tool_and_no_stream_keeps_it(platform: Platform) -> None:
    put(platform, "tasks", id="1", title="Renew the certificate of the gateway", description=BODY)
    sync_all(platform, "task")
    for _ in link_until_done(platform):
        pass
    url = platform.settings.require_nats_url()
    (stream,) = platform.settings.streams
    before = platform.nats.state(stream)
    assert before is not None
    # Without a server nobody answers: a stream that took the subject would, with its acknowledgement.
    assert not is_served(url)

    with answering_duplicates(platform):
        until(lambda: is_served(url), "requests are answered")
        text = json.dumps({"title": "Renew the gateway's certificate", "content": BODY}).encode()
        found, broken, large = ask(url, text, b'{"limit": 0}', b" " * 600_000)

    assert [one["entity"]["entity"] for one in found["duplicates"]] == ["task:1"]
    assert "up to date with the stream" in found["freshness"]
    assert "limit" in broken["error"]
    assert "600,000 bytes, and at most 524,288 are read" in large["error"]
    after = platform.nats.state(stream)
    assert after is not None
    assert after.last_seq == before.last_seq
    assert not covers([*stream_subjects(), *result_subjects()], DUPLICATES_REQUEST)
    assert not is_served(url), "it ends with the server"


def rules(answer: Callable[[bytes], bytes], *, at_once: int = 1, most_waiting: int = 1) -> ReplyRules:
    return ReplyRules(DUPLICATES_REQUEST, "test", answer, error_answer, 1000, at_once, most_waiting)


def test_further_requests_are_refused_while_enough_wait_and_a_fault_is_an_answer(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    url = platform.settings.require_nats_url()
    go_on = threading.Event()

    def answer(body: bytes) -> bytes:
        if body == b"fault":
            raise ZeroDivisionError
        go_on.wait(30)
        return b"{}"

    replies = NatsReplies(url, rules(answer))
    replies.start()
    try:
        until(lambda: _answers_a_fault(url), "requests are answered")

        async def crowd() -> list[dict[str, Any]]:
            client = await nats.connect(url)
            waiting = [asyncio.create_task(client.request(DUPLICATES_REQUEST, b"", timeout=30)) for _ in range(5)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 3:
                done, _ = await asyncio.wait(waiting, timeout=0.05)
            go_on.set()
            answers = [json.loads((await one).data) for one in waiting]
            await client.close()
            return answers

        answers = asyncio.run(crowd())
    finally:
        go_on.set()
        replies.close()
    assert sum(answer == {} for answer in answers) == 2
    assert sum("ask again" in answer.get("error", "") for answer in answers) == 3
    assert any("could not be answered" in record.message and record.exc_info for record in caplog.records)


def _answers_a_fault(url: str) -> bool:
    try:
        return "a fault" in ask(url, b"fault")[0]["error"]
    except NoRespondersError:
        return False


def test_without_nats_the_server_starts_and_answers_once_it_is_there_and_names_a_stream_that_takes_the_subject(
    tmp_path: Path,
    make_platform: Callable[..., Platform],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcp_assets.stores.nats_replies._TRY_AGAIN_S", 0.2)
    server = Server(tmp_path / "nats", "server_name: late")
    platform = make_platform(nats_url=SecretStr(server.url))
    with caplog.at_level(logging.WARNING), answering_duplicates(platform):
        until(lambda: "are not answered: NATS does not answer" in caplog.text, "the log says that NATS is away")
        server.start()
        try:
            until(lambda: is_served(server.url), "requests are answered")
            # The connection is lost, and the subscription comes back with it.
            server.stop()
            server.start()
            until(lambda: is_served(server.url), "requests are answered again")
        finally:
            server.stop()
    assert caplog.text.count("are not answered: NATS does not answer") <= 2


def test_a_stream_that_takes_the_subject_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(tmp_path / "nats")
    server.start()

    async def make_stream() -> None:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="GREEDY", subjects=["entity.>"])
        await client.close()

    replies = NatsReplies(server.url, rules(lambda body: body))
    try:
        asyncio.run(make_stream())
        replies.start()
        until(lambda: "the stream GREEDY takes entity.duplicates.request" in caplog.text, "the log names the stream")
    finally:
        replies.close()
        server.stop()
