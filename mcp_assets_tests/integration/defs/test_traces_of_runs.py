"""Traces in a run of Dagster: an event is linked in its trace, too."""

from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcp_assets import traces
from mcp_assets.platform import Platform
from mcp_assets_tests.integration.defs.conftest import Ran
from mcp_assets_tests.integration.test_traces import PARENT, TRACE, named, publish
from mcp_assets_tests.observing import put_tasks, send_looks, take_in


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use_provider(provider)
    yield exporter
    traces.use_provider(None)
    provider.shutdown()


def test_a_drain_links_the_entity_of_an_event_in_the_trace_of_the_event(
    run: Callable[..., Ran], platform: Platform, exported: InMemorySpanExporter
) -> None:
    put_tasks(platform, {"a": "one", "b": "two"})
    publish(platform, "mcp.task.updated", {"taskId": "a"}, PARENT)
    send_looks(platform, "b")
    take_in(platform)
    assert run("task-00", "task-03", assets=("entities", "embeddings", "relationship_edges"), drain=True).success
    spans = named(exported, TRACE)
    assert {"mcp_assets.intake", "mcp_assets.index", "mcp_assets.link"} <= set(spans)
    upserted, linked = spans["mcp_assets.upsert"], spans["mcp_assets.link"]
    assert upserted.end_time is not None
    assert linked.start_time is not None
    assert linked.start_time >= upserted.end_time
    assert len({span.context.trace_id for span in exported.get_finished_spans() if span.name == "mcp_assets.link"}) == 1
