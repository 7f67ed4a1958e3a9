"""OpenTelemetry spans: one for each request that the layers of safety let through, one for each
stage of it. No span holds a text, a path, an item or a user: a route is told by its pattern.

Ray Serve can trace too; its spans are named by the path as it came, where ids of users stand, so
its `tracing_config` stays off.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAMPLED = 0.01
"""Share of the requests that are traced where the caller does not say; it says in `traceparent`."""
PROPAGATOR = TraceContextTextMapPropagator()
# An exception's message may quote what was sent.
SILENT: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}


class Traces:
    """The spans of one replica; without a provider there are none, and a caller's trace goes on."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = (provider or trace.NoOpTracerProvider()).get_tracer("recsys")

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """Spans that go to a collector by OTLP over HTTP; an empty endpoint sends none.

        Raises:
            ValueError: the exporter is not installed.
        """
        if not endpoint:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ValueError("trace_endpoint: it takes `pip install 'recsys[trace]'`") from error
        about = {"service.name": "recsys", "service.version": version("recsys")}
        sampler = ParentBased(TraceIdRatioBased(SAMPLED))
        provider = TracerProvider(sampler, Resource.create(about))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        return cls(provider)

    def request(self, headers: Headers) -> AbstractContextManager[Span]:
        """The span of a whole request, in the trace that its headers name, if any."""
        parent = PROPAGATOR.extract(headers, Context())
        if self._provider is None:
            return trace.use_span(trace.get_current_span(parent), **SILENT)
        return self._tracer.start_as_current_span("request", parent, SpanKind.SERVER, **SILENT)

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A stage within what is current."""
        return self._tracer.start_as_current_span(name, **SILENT)

    def batch(self, waiting: Sequence[SpanContext]) -> AbstractContextManager[Span]:
        """What is done once for several requests: part of the first one's trace that is recorded,
        with links to the others'."""
        recorded = [one for one in waiting if one.trace_flags.sampled] or list(waiting)
        first, *others = recorded
        parent = trace.set_span_in_context(NonRecordingSpan(first), Context())
        return self._tracer.start_as_current_span(
            "compute",
            parent,
            attributes={"recsys.batch_requests": len(waiting)},
            links=[Link(one) for one in others],
            **SILENT,
        )

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


class Traced:
    """The layer around the application that begins a request's span and ends it.

    It leaves `trace_id` in the request's state for the log, and where spans are recorded answers
    `traceresponse` (W3C Trace Context, level 2), by which a client finds its trace.
    """

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if "principal" not in scope.get("state", {}):  # probes of health, start and stop
            await self._app(scope, receive, send)
            return
        with self._traces.request(Headers(scope=scope)) as span:
            found = span.get_span_context()
            if found.is_valid:
                scope["state"]["trace_id"] = trace.format_trace_id(found.trace_id)

            async def send_with_trace(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message["status"])
                    if span.is_recording():
                        MutableHeaders(scope=message)["traceresponse"] = _told(found)
                await send(message)

            await self._app(scope, receive, send_with_trace)


def _describe(span: Span, scope: Scope, status: int) -> None:
    """By OpenTelemetry's semantic conventions for HTTP."""
    route = getattr(scope.get("route"), "path", "unknown")
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes(
        {
            "http.request.method": scope["method"],
            "http.route": route,
            "http.response.status_code": status,
            "recsys.model_version": scope["state"].get("model_version") or "",
        }
    )
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _told(context: SpanContext) -> str:
    trace_id = trace.format_trace_id(context.trace_id)
    return f"00-{trace_id}-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"
