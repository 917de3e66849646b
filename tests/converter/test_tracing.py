"""Traces: what is told to OpenTelemetry of requests and jobs, that all of it comes to an end, and that off is off."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from converter import tracing
from converter.spans import Tracing
from converter.tracing import exporters, open_tracing
from tests.converter.faults.graphs import loaded, passed_through, picture
from tests.converter.faults.phases import data_uri
from tests.converter.faults.replica import Caller, converter, give_up
from tests.fakes.engine import FakeEngine

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The example of W3C Trace Context."""

PHASES = ("waiting", "submitting", "queued", "running", "collecting", "delivering")


class Notes(SpanProcessor):
    """Everything that was begun, and everything that has ended, in order."""

    def __init__(self) -> None:
        self.begun: list[ReadableSpan] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.begun.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)

    def all(self, name: str) -> list[ReadableSpan]:
        """The spans of that name that have ended, in the order of their beginnings."""
        return sorted((span for span in self.ended if span.name == name), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        [span] = self.all(name)
        return span

    def within(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The spans that are parts of another, in the order of their beginnings."""
        found = [span for span in self.ended if span.parent and span.parent.span_id == parent.context.span_id]
        return sorted(found, key=lambda span: span.start_time or 0)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
def notes() -> Iterator[Notes]:
    """At the end of a test nothing is open."""
    notes = Notes()
    yield notes
    assert [span.name for span in notes.begun if span.end_time is None] == []


@asynccontextmanager
async def traced(engine: FakeEngine, notes: Notes, **settings: Any) -> AsyncIterator[Caller]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(notes)
    async with converter(engine.url, tracing=Tracing(provider), **settings) as caller:
        yield caller


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


# One job -----------------------------------------------------------------------------------------------------------


async def test_a_job_is_a_part_of_its_callers_trace_phase_by_phase_and_node_by_node(
    engine: FakeEngine, notes: Notes
) -> None:
    async with traced(engine, notes) as caller:
        reply = await caller.run(picture(1), {"traceparent": CALLER, "tracestate": "a=b"}, id="mine")
        await caller.until_empty()
    request = notes.one("POST /v1/run")
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == tuple(CALLER.split("-")[1:3])
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/run",
        "http.response.status_code": 200,
        "converter.request.id": reply.headers["X-Request-Id"],
        "converter.job.id": "mine",
    }
    [job] = notes.within(request)
    assert (job.name, attributes(job)) == ("job", {"converter.job.id": "mine"})
    phases = notes.within(job)
    assert [span.name for span in phases] == list(PHASES)
    assert {span.context.trace_state.get("a") for span in (request, job, *phases)} == {"b"}
    running = phases[3]
    assert attributes(running)["converter.engine.instance"] == reply.document["engine"]["instance"]
    nodes = notes.within(running)
    assert [(span.name, attributes(span)["converter.node.id"]) for span in nodes] == [
        ("EmptyImage", "1"),
        ("SaveImage", "2"),
    ]
    assert notes.begun[0].name == "POST /v1/run", "neither probes nor the warm-up are told"
    assert len(notes.ended) == 2 + len(PHASES) + 2


async def test_what_is_asked_of_the_engine_is_a_part_of_the_phase(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        before = len(engine.requests)
        await caller.run(loaded(data_uri(9)), {"traceparent": CALLER})
        await caller.until_empty()
    asked = {request.path: request.trace for request in engine.requests[before:] if request.trace}
    phases = {"/upload/image": "staging", "/prompt": "submitting", "/view": "collecting"}
    assert asked == {
        path: f"00-{CALLER.split('-')[1]}-{notes.one(phase).context.span_id:016x}-01" for path, phase in phases.items()
    }
    assert not any(request.trace for request in engine.requests[:before])


async def test_whoever_gives_a_turn_gives_no_trace(engine: FakeEngine, notes: Notes) -> None:
    """A job that another one's end lets begin is a part of its own request."""
    async with traced(engine, notes, engine_depth=1) as caller:
        engine.hold()
        first = caller.start(picture(1))
        await engine.until_held()
        second = caller.start(picture(2), {"traceparent": CALLER})
        await caller.until(lambda: caller.tickets == 2)
        engine.release()
        await asyncio.gather(first, second)
        await caller.until_empty()
    submissions = [request.trace.split("-")[1] for request in engine.asked("POST", "/prompt")[1:]]
    assert submissions[1] == CALLER.split("-")[1]
    assert submissions[0] != submissions[1]


async def test_a_caller_without_a_trace_begins_one(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        await caller.run(picture(1), {"traceparent": "nonsense"})
        await caller.until_empty()
    assert notes.one("POST /v1/run").parent is None
    assert len({span.context.trace_id for span in notes.ended}) == 1


# Jobs that go another way ------------------------------------------------------------------------------------------


async def test_a_node_that_raises_is_marked_and_not_quoted(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        reply = await caller.run(passed_through("TestRaise", kind="ValueError", message="s3cret"))
        await caller.until_empty()
    assert reply.code == "execution_failed"
    node, job = notes.one("TestRaise"), notes.one("job")
    assert node.status.status_code is job.status.status_code is StatusCode.ERROR
    assert (attributes(node)["error.type"], attributes(job)["error.type"]) == ("ValueError", "execution_failed")
    assert notes.one("POST /v1/run").status.status_code is StatusCode.UNSET, "422 is the caller's"
    assert not any("s3cret" in span.to_json() for span in notes.ended)


async def test_nodes_that_are_cached_are_counted(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        await caller.run(picture(1))
        await caller.run(picture(1))
        await caller.until_empty()
    counts = [attributes(span).get("converter.nodes.cached") for span in notes.all("running")]
    assert counts[1] == 2


async def test_each_run_of_a_job_whose_engine_dies_is_told(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        engine.hold()
        task = caller.start(picture(1), id="mine")
        await engine.until_held()
        await caller.until_job("mine", "running")
        await engine.crash()
        engine.release()
        await engine.restart()
        reply = await task
        await caller.until_empty()
    first, second = notes.all("running")
    instances = [attributes(span)["converter.engine.instance"] for span in (first, second)]
    assert instances[1] == reply.document["engine"]["instance"] != instances[0]
    assert [span.name for span in notes.within(first)] == ["EmptyImage"]
    assert [span.name for span in notes.within(second)] == ["EmptyImage", "SaveImage"]


async def test_a_job_in_the_background_outlives_its_request(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        engine.hold()
        await caller.run(picture(1), {"Prefer": "respond-async"}, id="mine")
        await engine.until_held()
        request = notes.one("POST /v1/run")
        engine.release()
        await caller.until_job("mine", "succeeded")
        await caller.until_empty()
    job = notes.one("job")
    assert job.parent is not None
    assert job.parent.span_id == request.context.span_id
    assert (job.end_time or 0) > (request.end_time or 0)
    assert attributes(notes.all("GET /v1/jobs/{id}")[0])["converter.job.id"] == "mine"


async def test_a_caller_who_leaves_is_told_as_499(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        engine.hold()
        task = caller.start(picture(1))
        await engine.until_held()
        await give_up(task)
        await caller.until_empty()
        engine.release()
    assert attributes(notes.one("POST /v1/run"))["http.response.status_code"] == 499
    assert attributes(notes.one("job"))["error.type"] == "canceled"
    assert len(notes.all("stopping")) == 1


async def test_refusals_and_strange_paths_are_told_without_a_job(engine: FakeEngine, notes: Notes) -> None:
    async with traced(engine, notes) as caller:
        await caller.get("/no/such/path")
        await caller.run({})
        for probe in ("/livez", "/readyz", "/metrics", "/v2/health/ready"):
            await caller.get(probe)
    assert [(span.name, attributes(span)["http.response.status_code"]) for span in notes.ended] == [
        ("GET", 404),
        ("POST /v1/run", 422),
    ]


# Whether there are traces ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, ("otlp_proto_http",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, ("otlp_proto_http",)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": " True "}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp_proto_http",)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("console", "otlp_proto_http")),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp_proto_grpc",)),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("otlp_proto_http",),
        ),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], wanted: tuple[str, ...]) -> None:
    assert exporters(variables) == wanted


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "the exporter zipkin is not installed"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}, "no protocol smoke"),
    ],
)
async def test_what_can_not_be_had_is_one_line_and_no_end(
    variables: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_tracing(variables) as opened:
        assert opened is None
    [record] = caplog.records
    assert (record.levelno, words in record.getMessage()) == (logging.WARNING, True)


async def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delitem(sys.modules, "converter.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with open_tracing({"OTEL_TRACES_EXPORTER": "console"}) as opened:
        assert opened is None
    assert 'the extra "otel"' in caplog.text


async def test_what_goes_wrong_within_is_raised() -> None:
    for variables in ({}, {"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_TRACES_EXPORTER": "console"}):
        with pytest.raises(KeyError):
            async with open_tracing(variables):
                raise KeyError


def test_off_imports_nothing() -> None:
    program = "import asyncio, sys\nfrom converter import app, tracing\n"
    program += "async def main():\n    async with tracing.open_tracing({}) as opened:\n        assert opened is None\n"
    program += "asyncio.run(main())\nassert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


# Where they go -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def collector(answer: asyncio.Event) -> AsyncIterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector of OTLP over HTTP, which answers once it is told to; its address, and what it was sent."""
    received = []

    async def take(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        await answer.wait()
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        answer.set()  # whoever still waits for it can end
        await runner.cleanup()


def standard(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, str]:
    """Variables of the process, since the SDK reads them itself."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


async def test_spans_reach_a_collector_before_the_end(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.Event()
    answer.set()
    async with collector(answer) as (url, received):
        variables = standard(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_RESOURCE_ATTRIBUTES="zone=north")
        async with open_tracing(variables) as opened, converter(engine.url, tracing=opened) as caller:
            await caller.run(picture(1))
            await caller.until_empty()
        [spans] = [message.resource_spans[0] for message in received]
    resource = {attribute.key: attribute.value.string_value for attribute in spans.resource.attributes}
    assert (resource["service.name"], resource["zone"]) == ("converter", "north")
    assert resource["service.instance.id"]
    names = {span.name for span in spans.scope_spans[0].spans}
    assert names == {"POST /v1/run", "job", *PHASES, "EmptyImage", "SaveImage"}


async def test_the_operators_name_of_the_service_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.Event()
    answer.set()
    async with collector(answer) as (url, received):
        variables = standard(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_SERVICE_NAME="painter")
        async with open_tracing(variables) as opened:
            assert opened is not None
            opened.job("x").end(None)
    attributes = received[0].resource_spans[0].resource.attributes
    assert [each.value.string_value for each in attributes if each.key == "service.name"] == ["painter"]


async def test_a_collector_that_does_not_answer_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FAREWELL", 0.1)
    async with collector(asyncio.Event()) as (url, received):
        variables = standard(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_TIMEOUT="60")
        async with open_tracing(variables) as opened:
            assert opened is not None
            opened.job("x").end(None)
        assert len(received) <= 1
