"""Spans of a request: one tree, in the caller's trace, without anything that was sent."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags
from starlette.testclient import TestClient

from recsys.config import ServeArgs, StoreConfig
from recsys.serving.http import build_http
from recsys.serving.models import Models
from recsys.serving.service import RecommenderService
from recsys.serving.tracing import Traces
from tests.serving.conftest import make_service

pytestmark = [pytest.mark.ray]  # the toy checkpoint is trained by Ray
SECRET = "alice-7731"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """What was recorded."""
    return InMemorySpanExporter()


@pytest.fixture
def traced(
    toy_args: ServeArgs, toy_models: Models, spans: InMemorySpanExporter
) -> RecommenderService:
    """A service that records its spans here."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    args = toy_args.model_copy(update={"store": StoreConfig(url="sqlite://")})
    return make_service(args, toy_models, Traces(provider))


@pytest.fixture
def client(traced: RecommenderService) -> Iterator[TestClient]:
    """Asks it."""
    with TestClient(build_http(traced), raise_server_exceptions=False) as http:
        yield http


def test_a_request_is_one_tree_in_the_callers_trace(
    client: TestClient, spans: InMemorySpanExporter, item_ids: list[str]
) -> None:
    headers = {"traceparent": TRACEPARENT}
    body = {"history": item_ids[:1]}
    answered = client.post("/v1/recommend", json=body, headers=headers)
    found = spans.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in found} == {TRACE}
    by_id = {span.context.span_id: span.name for span in found}
    parents = {span.name: by_id.get(span.parent.span_id) for span in found}
    assert parents == {
        "POST /v1/recommend": None,
        "history": "POST /v1/recommend",
        "recommend": "POST /v1/recommend",
        "compute": "recommend",
        "filter": "compute",
        "encode": "compute",
        "score": "compute",
    }
    [root] = [span for span in found if span.name == "POST /v1/recommend"]
    assert f"{root.parent.span_id:016x}" == PARENT
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "recsys.model_version": answered.json()["model_version"],
    }
    told = f"00-{TRACE}-{root.context.span_id:016x}-01"
    assert answered.headers["traceresponse"] == told


def test_no_span_holds_what_was_sent(client: TestClient, spans: InMemorySpanExporter) -> None:
    event = {"user_id": SECRET, "item_id": SECRET, "event": SECRET}
    client.post("/v1/events", json={"events": [event]})
    client.post("/v1/recommend", json={"user_id": SECRET, "context": {SECRET: SECRET}})
    client.post("/v1/search", json={"text": SECRET})
    client.get("/v1/suggest", params={"text": SECRET})
    client.get(f"/v1/items/{SECRET}")
    client.delete(f"/v1/users/{SECRET}")
    found = spans.get_finished_spans()
    assert len([span for span in found if span.name.startswith(("GET", "POST", "DELETE"))]) == 6
    assert SECRET not in "".join(span.to_json() for span in found)


def test_a_fault_is_told_by_its_status_alone(
    client: TestClient,
    spans: InMemorySpanExporter,
    traced: RecommenderService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"no history of {SECRET}")

    monkeypatch.setattr(traced.models.of("live").recommender, "recommend", fail)
    assert client.post("/v1/recommend", json={"history": []}).status_code == 500
    found = {span.name: span for span in spans.get_finished_spans()}
    assert found["POST /v1/recommend"].status.status_code is StatusCode.ERROR
    assert SECRET not in "".join(span.to_json() for span in found.values())


def test_probes_of_health_leave_no_span(client: TestClient, spans: InMemorySpanExporter) -> None:
    client.get("/health/live")
    client.get("/v1/model")
    assert [span.name for span in spans.get_finished_spans()] == ["GET /v1/model"]


def test_a_batch_belongs_to_the_first_recorded_request_and_links_the_others(
    traced: RecommenderService, spans: InMemorySpanExporter
) -> None:
    def context(number: int, flags: int) -> SpanContext:
        return SpanContext(number, number, True, TraceFlags(flags))

    with traced.traces.batch([context(1, 0), context(2, 1), context(3, 1)]):
        pass
    [span] = spans.get_finished_spans()
    assert (span.parent.span_id, [link.context.span_id for link in span.links]) == (2, [3])
    assert span.attributes == {"recsys.batch_requests": 3}
    with traced.traces.batch([context(4, 0)]) as silent:
        assert not silent.is_recording()


def test_without_an_endpoint_nothing_is_recorded_and_the_callers_trace_is_logged(
    toy_args: ServeArgs, toy_models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "recsys")
    with TestClient(build_http(make_service(toy_args, toy_models, Traces.to("")))) as client:
        headers = {"traceparent": TRACEPARENT}
        answered = client.post("/v1/recommend", json={"history": []}, headers=headers)
        client.post("/v1/recommend", json={"history": []}, headers={"traceparent": "00-nonsense"})
    assert "traceresponse" not in answered.headers
    lines = [record.request for record in caplog.records if hasattr(record, "request")]
    assert [line["trace_id"] for line in lines] == [TRACE, None]
    assert lines[0]["model_version"] == answered.json()["model_version"]


@pytest.fixture
def sent() -> list[bytes]:
    """Bodies that a collector was sent."""
    return []


@pytest.fixture
def url(sent: list[bytes]) -> Iterator[str]:
    """Where a collector listens."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            sent.append(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()
        thread.join()


def test_spans_are_sent_to_the_endpoint(sent: list[bytes], url: str) -> None:
    traces = Traces.to(url)
    with traces.batch([SpanContext(5, 6, True, TraceFlags(1))]):
        pass
    traces.close()
    assert b"compute" in b"".join(sent)
