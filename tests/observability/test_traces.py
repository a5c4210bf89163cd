"""One request is one trace, from its client through gateway and broker to the runner; and nothing at all when off."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.measured import measured
from contracts.broker import Broker
from contracts.tracing import span, tracing_with
from ilvr.tracing import LAST_SPANS_S, OpenTelemetryTracer
from model_runner.metrics import RunnerMetrics
from model_runner.runner import Runner
from service.app import create_app
from service.settings import ServiceSettings
from tests.faults.fleet import Fleet
from tests.faults.scripted_engine import ScriptedEngine, answering
from tests.servers import ROOT

TRACE_ID, CLIENT_SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN_ID}-01"}
ASK = {"question": "Say RRDD, the 7th"}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing_with(OpenTelemetryTracer(provider)):
        yield exporter
    provider.shutdown()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    registry = CollectorRegistry()
    broker = measured(EmbeddedBroker(), registry, max_waiting=4)
    yield broker
    await broker.aclose()


@pytest.fixture
async def client(broker: Broker, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a gateway in this process, whose broker a runner works for in a task of its own."""
    engine = ScriptedEngine(0.02, tmp_path / "runs.txt")
    runner = Runner(
        runner_id="r1",
        broker=broker,
        tools=answering(engine),
        max_num_seqs=4,
        metrics=RunnerMetrics(CollectorRegistry()),
    )
    work = asyncio.create_task(runner.run())
    await runner.announce()
    app = create_app(broker, ServiceSettings(), CollectorRegistry())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
    await app.state.gateway.aclose()
    work.cancel()
    await asyncio.wait([work])
    await engine.aclose()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    assert len({one.name for one in spans}) == len(spans)
    return {one.name: one for one in spans}


def parents(spans: dict[str, ReadableSpan]) -> dict[str, str]:
    """By name; of what came from outside, its span id in hex."""
    names = {one.context.span_id: name for name, one in spans.items()}
    return {
        name: names.get(one.parent.span_id, f"{one.parent.span_id:016x}") if one.parent else "none"
        for name, one in spans.items()
    }


async def test_one_trace_from_client_to_engine(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    answer = await client.post("/v1/reason", json=ASK, headers={**TRACEPARENT, "tracestate": "vendor=1"})
    response = answer.json()
    assert response["answer"] == "RRDD"
    spans = by_name(exporter)
    assert {f"{one.context.trace_id:032x}" for one in spans.values()} == {TRACE_ID}
    assert parents(spans) == {
        "POST /v1/reason": CLIENT_SPAN_ID,
        "submit": "POST /v1/reason",
        "answer": "submit",
        "queue": "answer",
        "prepare": "answer",
        "generate": "answer",
    }
    assert {name: one.kind for name, one in spans.items() if one.kind != SpanKind.INTERNAL} == {
        "POST /v1/reason": SpanKind.SERVER,
        "submit": SpanKind.PRODUCER,
        "answer": SpanKind.CONSUMER,
    }
    assert spans["answer"].context.trace_state.get("vendor") == "1"
    assert spans["POST /v1/reason"].attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/reason",
        "http.response.status_code": 200,
    }
    assert spans["answer"].attributes == {
        "ilvr.response_id": response["id"],
        "ilvr.attempt": 1,
        "ilvr.outcome": "completed",
    }
    usage = {f"ilvr.{name}": count for name, count in response["usage"].items() if name != "answer_tokens"}
    assert spans["generate"].attributes == {**usage, "ilvr.num_images": 0}
    assert (usage["ilvr.latent_steps"], usage["ilvr.latent_blocks"]) == (8, 1)
    assert [event.name for event in spans["generate"].events] == ["first_token", "first_step"]
    queue = spans["queue"]
    assert queue.start_time
    assert queue.end_time
    waited_ms = (queue.end_time - queue.start_time) / 1e6
    assert 0 < waited_ms < response["timings"]["total_ms"]


async def test_without_a_parent_a_trace_begins_at_the_gateway(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    await client.post("/v1/reason", json=ASK)
    spans = by_name(exporter)
    assert parents(spans)["POST /v1/reason"] == "none"
    assert len({one.context.trace_id for one in spans.values()}) == 1
    exporter.clear()
    await client.get("/v1/reason/resp_none", headers={"traceparent": "nonsense"})
    assert parents(by_name(exporter)) == {"GET /v1/reason/{response_id}": "none"}


async def test_failures_are_told_by_code_alone(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    secret = "what nobody should read"
    answer = await client.post("/v1/reason", json={"question": secret})
    assert answer.status_code == 500
    spans = by_name(exporter)
    told = {name: one.status.description for name, one in spans.items() if one.status.status_code == StatusCode.ERROR}
    assert told == {
        "POST /v1/reason": "500",
        "answer": "generation_failed",
        "generate": "AssertionError",
    }
    assert not any(secret in one.to_json() for one in spans.values())


async def test_off_is_off(client: httpx.AsyncClient, broker: Broker) -> None:
    answer = await client.post("/v1/reason", json=ASK, headers=TRACEPARENT)
    assert (await broker.job(answer.json()["id"])).trace == {}
    with span("nothing") as one:
        assert one.carrier() == {}


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60
    )


BLOCKED = "import sys; sys.modules['opentelemetry'] = None; "
MODULES = "import ilvr.telemetry, service.app, broker.open, model_runner.runner; "
RUN = "from ilvr.tracing import exporting_traces\nwith exporting_traces('gateway'): print('went on')"


def test_the_package_is_neither_needed_nor_imported_when_off() -> None:
    told = python(f"import sys; {MODULES}\n{RUN}\nassert not any('opentelemetry' in name for name in sys.modules)")
    assert (told.stdout, told.returncode) == ("went on\n", 0), told.stderr
    told = python(f"{BLOCKED}{MODULES}\n{RUN}", OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="http://x:1")
    assert (told.stdout, told.returncode) == ("went on\n", 0), told.stderr


def test_traces_without_the_package_are_refused_in_one_line() -> None:
    told = python(f"{BLOCKED}{MODULES}\n{RUN}", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].endswith(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set and OpenTelemetry is not installed; install ilvr[otel]"
    )


@pytest.mark.parametrize("collector", ["nobody there", "one that never answers"])
def test_a_collector_that_cannot_be_reached_delays_no_end(collector: str) -> None:
    code = (
        "import time\nfrom contracts.tracing import span\nfrom ilvr.tracing import exporting_traces\n"
        "with exporting_traces('gateway'):\n"
        "    for _ in range(1000):\n        with span('x'): pass\n"
        "    time.sleep(0.5)\n    ended_s = time.monotonic()\n"
        "print(time.monotonic() - ended_s)"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if collector == "nobody there":
            listener.close()
        told = python(code, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="50")
    assert told.returncode == 0, told.stderr
    assert float(told.stdout) < LAST_SPANS_S + 1


class Collector:
    """Receives OTLP over HTTP. ``spans``: (service, name, trace id, span id, parent's id)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str, str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            self.spans += [
                (attributes["service.name"], one.name, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
                for scope in of_resource.scope_spans
                for one in scope.spans
            ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def test_real_processes_export_one_trace(tmp_path: Path) -> None:
    """Gateway and runner on a real Redis; what they send to a collector is connected across them."""
    collector = Collector()
    program = (
        "from ilvr.telemetry import telemetry; from tests.faults.scripted_runner_process import main\n"
        "with telemetry('runner'): status = main()\n"
        "raise SystemExit(status)"
    )

    def command(index: int, port: int) -> list[str]:
        words = ["--metrics-port", str(port), "--max-num-seqs", "4", "--seconds", "0.1"]
        return [sys.executable, "-c", program, *words, "--runs", str(tmp_path / "runs.txt")]

    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    try:
        fleet = Fleet(tmp_path, command, variables, num_gateways=1, num_runners=1, runner_start_s=60.0)
        async with fleet.running(), httpx.AsyncClient(base_url=fleet.urls[0], timeout=60) as client:
            assert (await client.post("/v1/reason", json=ASK, headers=TRACEPARENT)).json()["answer"] == "RRDD"
            async with asyncio.timeout(30):
                while len([one for one in collector.spans if one[2] == TRACE_ID]) < 6:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(collector.close)
    spans = [one for one in collector.spans if one[2] == TRACE_ID]
    names = {span_id: name for _, name, _, span_id, _ in spans}
    assert {(service, name, names.get(parent, parent)) for service, name, _, _, parent in spans} == {
        ("ilvr-gateway", "POST /v1/reason", CLIENT_SPAN_ID),
        ("ilvr-gateway", "submit", "POST /v1/reason"),
        ("ilvr-runner", "answer", "submit"),
        ("ilvr-runner", "queue", "answer"),
        ("ilvr-runner", "prepare", "answer"),
        ("ilvr-runner", "generate", "answer"),
    }
