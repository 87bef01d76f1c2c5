"""Traces: a message with a `traceparent` is one trace from intake to its answer; without one, nothing is sent."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import nats
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_assets import traces
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.announce import answer_relinked
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import drain_all, put_tasks, rows

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use_provider(provider)
    yield exporter
    traces.use_provider(None)
    provider.shutdown()


def publish(platform: Platform, subject: str, body: Mapping[str, Any], traceparent: str | None) -> None:
    async def run() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            headers = {"traceparent": traceparent} if traceparent is not None else None
            await client.jetstream().publish(subject, json.dumps(body).encode(), headers=headers)
        finally:
            await client.close()

    asyncio.run(run())


def answers(platform: Platform, subject: str) -> list[tuple[dict[str, Any], str | None]]:
    """The answers on a subject, as the stream of results keeps them: data, and the header `traceparent`."""

    async def run() -> list[tuple[dict[str, Any], str | None]]:
        client = await nats.connect(platform.settings.require_nats_url())
        try:
            subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
            found: list[tuple[dict[str, Any], str | None]] = []
            while True:
                try:
                    message = await subscription.next_msg(timeout=0.5)
                except nats.errors.TimeoutError:
                    return found
                found.append((json.loads(message.data)["data"], (message.headers or {}).get("traceparent")))
        finally:
            await client.close()

    return asyncio.run(run())


def named(exporter: InMemorySpanExporter, trace: str) -> dict[str, ReadableSpan]:
    """The spans of a trace by name."""
    return {span.name: span for span in exporter.get_finished_spans() if f"{span.context.trace_id:032x}" == trace}


def index_request(entity_id: str) -> dict[str, Any]:
    data = {"entity_id": entity_id, "entity_type": "task", "content": "", "metadata": {}}
    return {"message_id": f"m-{entity_id}", "source": "test", "data": data}


def test_a_request_is_one_trace_from_intake_to_its_answer(platform: Platform, exported: InMemorySpanExporter) -> None:
    put_tasks(platform, {"a": "one", "b": "two"})
    publish(platform, "vector.index.request", index_request("a"), PARENT)
    publish(platform, "vector.index.request", index_request("b"), f"00-{OTHER}-00f067aa0ba902b7-01")
    drain_all(platform)
    publish_waiting(platform)

    spans = named(exported, TRACE)
    assert set(spans) == {
        "mcp_assets.intake",
        "mcp_assets.index",
        "mcp_assets.apply",
        "mcp_assets.plan",
        "mcp_assets.embed",
        "mcp_assets.upsert",
        "mcp_assets.answer",
    }
    intake, index, embed = (spans[f"mcp_assets.{name}"] for name in ("intake", "index", "embed"))
    assert intake.parent is not None
    assert f"{intake.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert index.parent is not None
    assert index.parent.span_id == intake.context.span_id
    assert embed.parent is not None
    assert embed.parent.span_id == index.context.span_id
    times = [index.start_time, embed.start_time, embed.end_time, index.end_time]
    assert times == sorted(time for time in times if time is not None)
    assert index.attributes is not None
    assert index.attributes["mcp_assets.entity"] == "task:a"

    # The batch is a trace of its own that links to those of both messages, and they link to it.
    (batch,) = (span for span in exported.get_finished_spans() if span.name == "mcp_assets.batch")
    assert {f"{link.context.trace_id:032x}" for link in batch.links} == {TRACE, OTHER}
    assert [link.context.span_id for link in index.links] == [batch.context.span_id]

    # One message answers both requests, so that its header names neither trace.
    assert OTHER in {f"{span.context.trace_id:032x}" for span in exported.get_finished_spans()}
    assert set(named(exported, OTHER)) == set(spans)
    assert [header for _, header in answers(platform, "vector.index.completed")] == [None]


def test_the_answer_to_one_request_names_its_trace(platform: Platform, exported: InMemorySpanExporter) -> None:
    put_tasks(platform, {"a": "one"})
    publish(platform, "vector.index.request", index_request("a"), PARENT)
    drain_all(platform)
    publish_waiting(platform)
    answer = named(exported, TRACE)["mcp_assets.answer"]
    ((data, header),) = answers(platform, "vector.index.completed")
    assert data["requests"] == ["m-a"]
    assert header == f"00-{TRACE}-{answer.context.span_id:016x}-01"


def test_a_request_to_link_has_its_linking_in_its_trace(platform: Platform, exported: InMemorySpanExporter) -> None:
    put_tasks(platform, {"a": "one"})
    publish(platform, "relationship.analyze.request", index_request("a"), PARENT)
    drain_all(platform, "task")
    relink(platform)
    answer_relinked(platform)
    publish_waiting(platform)
    spans = named(exported, TRACE)
    assert {"mcp_assets.link", "mcp_assets.answer"} <= set(spans)
    ((_, header),) = answers(platform, "relationship.analyze.completed")
    assert header is not None
    assert TRACE in header


def test_a_message_that_names_no_trace_or_a_broken_one_has_no_span(
    platform: Platform, exported: InMemorySpanExporter
) -> None:
    put_tasks(platform, {"a": "one", "b": "two"})
    publish(platform, "vector.index.request", index_request("a"), None)
    publish(platform, "vector.index.request", index_request("b"), "00-zzz-1-01")
    assert drain_all(platform).embedded == 2
    publish_waiting(platform)
    assert exported.get_finished_spans() == ()
    assert [header for _, header in answers(platform, "vector.index.completed")] == [None]


def test_a_trace_that_is_not_sampled_is_passed_on_and_not_recorded(
    platform: Platform, exported: InMemorySpanExporter
) -> None:
    put_tasks(platform, {"a": "one"})
    publish(platform, "vector.index.request", index_request("a"), PARENT[:-1] + "0")
    drain_all(platform)
    publish_waiting(platform)
    assert named(exported, TRACE) == {}
    ((_, header),) = answers(platform, "vector.index.completed")
    assert header is not None
    assert header.startswith(f"00-{TRACE}-")
    assert header.endswith("-00")


def test_while_traces_are_off_the_answer_still_carries_the_trace_of_its_request(platform: Platform) -> None:
    assert not traces.are_on()
    put_tasks(platform, {"a": "one"})
    publish(platform, "vector.index.request", index_request("a"), PARENT)
    drain_all(platform)
    publish_waiting(platform)
    assert [header for _, header in answers(platform, "vector.index.completed")] == [PARENT]
    assert rows(platform, "SELECT count(*) FROM {schema}.outbox") == [(0,)]
