"""Traces: one trace from a message through intake, embedding, upsert and linking to its answer, by OpenTelemetry.

They are off unless `send_traces` is called. A message belongs to a trace if its header `traceparent` (W3C Trace
Context) names one, which is passed on to the answer in any case. Batches serve many messages: the span of a batch is a
trace of its own and links to those of the messages, and each message gets spans for what the batch did.
"""

# OpenTelemetry is loaded by what uses a tracer, because most processes have none.
from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util.types import AttributeValue

    Attributes = Mapping[str, AttributeValue]

Kind = Literal["INTERNAL", "CONSUMER", "PRODUCER"]
"""Of a span, by the names of OpenTelemetry's SpanKind."""

HEADER = "traceparent"
"""The header of a message that names its trace."""

_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_SERVICE = "mcp_assets"

_SENT_WITHIN_MS = 2_000
"""How long the end of a run waits until its spans are sent: a collector that is away must not hold up runs."""


class Provider(Protocol):
    """The parts of the SDK's TracerProvider that are used here."""

    def get_tracer(self, instrumenting_module_name: str) -> Tracer: ...

    def force_flush(self, timeout_millis: int = ...) -> bool: ...

    def shutdown(self) -> None: ...


class TracesUnavailable(Exception):
    """Traces are wanted, and the packages that send them are not installed."""


class _Sending:
    """Where the spans of this process go."""

    lock = threading.Lock()
    provider: Provider | None = None
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What a batch did in a span of time. Times are nanoseconds since 1970, as OpenTelemetry has them."""

    name: str
    began_ns: int
    ended_ns: int


def send_traces(endpoint: str | None) -> None:
    """Have the spans of this process sent to an OTLP collector, over HTTP; further calls do nothing.

    `endpoint`: as OTEL_EXPORTER_OTLP_ENDPOINT has it, without the path; None: the exporter's default.

    Raises:
        TracesUnavailable: the extra `otel` is not installed.
    """
    with _Sending.lock:
        if _Sending.provider is not None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracesUnavailable(
                f"traces are on, and {error.name} is not installed: pip install 'mcp-assets[otel]', or unset "
                "MCP_ASSETS_TRACES and OTEL_EXPORTER_OTLP_ENDPOINT"
            ) from error
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None)
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what is given here.
        provider = TracerProvider(resource=Resource.create({"service.name": _SERVICE} if not _named() else {}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        _use(provider)


def use_provider(provider: Provider | None) -> None:
    """Have spans go to `provider`, such as one with an exporter in memory; None: nowhere."""
    with _Sending.lock:
        _use(provider)


def are_on() -> bool:
    """Whether spans go anywhere."""
    return _Sending.tracer is not None


def flush() -> None:
    """Send the spans that have ended, because this process may end next."""
    if _Sending.provider is not None:
        _Sending.provider.force_flush(_SENT_WITHIN_MS)


def traceparent_in(headers: Mapping[str, Any] | None) -> str | None:
    """The trace that the headers of a message name; None if they name none, or not in a valid form."""
    value = headers.get(HEADER) if headers else None
    return value if isinstance(value, str) and _VALID.fullmatch(value) else None


def distinct(traceparents: Iterable[str | None]) -> tuple[str, ...]:
    """Those that name a trace, each once, in their order."""
    return tuple(found for found in dict.fromkeys(traceparents) if found is not None)


def begin(
    name: str,
    traceparent: str | None,
    *,
    began_ns: int | None = None,
    attributes: Attributes | None = None,
    links: Sequence[Span] = (),
    kind: Kind = "INTERNAL",
) -> Span | None:
    """A span in the trace that `traceparent` names, which the caller ends; None if traces are off or it names none.

    It is sent only if it is ended.
    """
    tracer = _Sending.tracer
    if tracer is None or traceparent is None:
        return None
    from opentelemetry.trace import SpanKind

    return tracer.start_span(
        name,
        context=_propagator().extract({HEADER: traceparent}),
        kind=SpanKind[kind],
        attributes=attributes,
        links=[_link_to(span) for span in links],
        start_time=began_ns,
    )


def traceparent_of(span: Span | None, otherwise: str | None) -> str | None:
    """How a span is named as a parent; `otherwise` if there is no span."""
    if span is None:
        return otherwise
    from opentelemetry import trace

    carrier: dict[str, str] = {}
    _propagator().inject(carrier, trace.set_span_in_context(span))
    return carrier.get(HEADER, otherwise)


def record_batch(
    name: str, messages: Sequence[tuple[str, Attributes]], stages: Sequence[Stage], attributes: Attributes
) -> None:
    """Record what a batch did, in a trace of its own and in those of its messages.

    `messages`: of those with a trace, its `traceparent`, and attributes such as the entity. `stages`: in their order;
    the first and the last bound the batch.
    """
    tracer = _Sending.tracer
    if tracer is None or not messages or not stages:
        return
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

    began_ns, ended_ns = stages[0].began_ns, stages[-1].ended_ns
    contexts = [_propagator().extract({HEADER: traceparent}) for traceparent, _ in messages]
    links = [_link_to(trace.get_current_span(context)) for context in contexts]
    batch = tracer.start_span(name, Context(), SpanKind.INTERNAL, attributes, links, began_ns)
    _record_stages(tracer, batch, stages)
    batch.end(ended_ns)
    back = [_link_to(batch)]
    for context, (_, of_message) in zip(contexts, messages, strict=True):
        span = tracer.start_span("mcp_assets.index", context, SpanKind.CONSUMER, of_message, back, began_ns)
        _record_stages(tracer, span, stages)
        span.end(ended_ns)


def record(name: str, traceparent: str, began_ns: int, attributes: Attributes | None = None) -> None:
    """Record a span that began then and ends now."""
    span = begin(name, traceparent, began_ns=began_ns, attributes=attributes)
    if span is not None:
        span.end()


def _record_stages(tracer: Tracer, parent: Span, stages: Sequence[Stage]) -> None:
    from opentelemetry import trace

    context = trace.set_span_in_context(parent)
    for stage in stages:
        tracer.start_span(f"mcp_assets.{stage.name}", context, start_time=stage.began_ns).end(stage.ended_ns)


def _link_to(span: Span) -> Link:
    from opentelemetry.trace import Link

    return Link(span.get_span_context())


@cache
def _propagator() -> TraceContextTextMapPropagator:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def _named() -> bool:
    """Whether the environment names the service by OpenTelemetry's own variables."""
    return "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _use(provider: Provider | None) -> None:
    _Sending.provider = provider
    _Sending.tracer = provider.get_tracer(_SERVICE) if provider is not None else None
