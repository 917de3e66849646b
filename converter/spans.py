"""The spans of a trace: requests, jobs, their phases, and the engine's nodes, as OpenTelemetry has them.

The only module that imports OpenTelemetry, and itself imported only where traces are wanted (`tracing`). Leaves to
others: when something begins and ends (the server, `trail`), and where spans go (the SDK, by its own variables).
Invariant: a span says ids, names and kinds, and no
text or value of a workflow's, of headers or of queries.
"""

import contextvars
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points

from multidict import CIMultiDictProxy
from opentelemetry import context, propagate, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from converter import __version__
from converter.core.events import Cached, Failed, Sound
from converter.core.progress import running_node

Headers = CIMultiDictProxy[str]


class _Getter(Getter[Headers]):
    """Reads a request's headers; `tracestate` may come in several lines (W3C Trace Context, section 3.3.1)."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return list(carrier.getall(key, [])) or None

    def keys(self, carrier: Headers) -> list[str]:
        return list(carrier)


class Tracing:
    """All spans of one replica go to the provider; its owner shuts it down."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("converter", __version__)
        self._getter = _Getter()

    @contextmanager
    def request(self, method: str, route: str | None, headers: Headers) -> Iterator["RequestSpan"]:
        """One request, a part of its caller's trace if it names one; what is begun within is a part of it.

        `route` is a pattern of paths, None where there is no such path.
        """
        attributes = {"http.request.method": method} | ({"http.route": route} if route else {})
        with self._tracer.start_as_current_span(
            f"{method} {route}" if route else method,
            context=propagate.extract(headers, getter=self._getter),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield RequestSpan(span)

    def job(self, job_id: str) -> "JobSpans":
        """The spans of a job, which is a part of the request that is under way."""
        return JobSpans(self._tracer, job_id)

    @staticmethod
    def inject(headers: MutableMapping[str, str]) -> None:
        """Add what says which span a request of ours is a part of (W3C Trace Context)."""
        propagate.inject(headers)


class RequestSpan:
    """A request's span."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """The trace's id, as logs and other tools show it."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def answered(self, status: int, request_id: str, job_id: str | None) -> None:
        """Its answer, whose status is 499 where the caller has left."""
        self._span.set_attributes({"http.response.status_code": status, "converter.request.id": request_id})
        if job_id is not None:
            self._span.set_attribute("converter.job.id", job_id)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)


class JobSpans:
    """A job's span, in it one for each phase after the other, and in a phase one for each node that is heard of."""

    def __init__(self, tracer: Tracer, job_id: str) -> None:
        self._tracer = tracer
        self._job = tracer.start_span("job", attributes={"converter.job.id": job_id})
        self._context = trace.set_span_in_context(self._job)
        self._phase: Span | None = None
        self._node: Span | None = None
        self._node_id: str | None = None

    @property
    def trace_id(self) -> str:
        """The trace's id, as logs and other tools show it."""
        return trace.format_trace_id(self._job.get_span_context().trace_id)

    def enter(self, phase: str | None, instance: str | None) -> None:
        """A phase has ended, and another begins, None after the last. `instance`: the engine that has the prompt."""
        self._leave_node()
        if self._phase is not None:
            self._phase.end()
        attributes = {} if instance is None else {"converter.engine.instance": instance}
        self._phase = None if phase is None else self._tracer.start_span(phase, self._context, attributes=attributes)

    def hear(self, sound: Sound, workflow: Mapping[str, object]) -> None:
        """A sound of the job's prompt: a node begins, or ends with the next one's beginning."""
        if self._phase is None:
            return
        if isinstance(sound, Cached):
            self._phase.set_attribute("converter.nodes.cached", len(sound.nodes))
        if isinstance(sound, Failed) and self._node is not None:
            self._node.set_attribute("error.type", sound.exception_type or "unknown")
            self._node.set_status(StatusCode.ERROR)
        node_id = running_node(self._node_id, sound)
        if node_id != self._node_id:
            self._leave_node()
            if node_id is not None:
                self._enter_node(node_id, workflow.get(node_id))

    def end(self, outcome: str | None) -> None:
        """The job is over; `outcome` is the code of its fault, None where it has succeeded."""
        self.enter(None, None)
        if outcome is not None:
            self._job.set_attribute("error.type", outcome)
            self._job.set_status(StatusCode.ERROR)
        self._job.end()

    def within(self) -> contextvars.Context:
        """A copy of the present context in which the phase is the span that is under way."""
        copy = contextvars.copy_context()
        copy.run(context.attach, trace.set_span_in_context(self._phase or self._job))
        return copy

    def _enter_node(self, node_id: str, node: object) -> None:
        class_type = node.get("class_type") if isinstance(node, Mapping) else None
        name = class_type if isinstance(class_type, str) else "node"
        attributes = {"converter.node.id": node_id, "converter.node.class_type": name}
        parent = trace.set_span_in_context(self._phase or self._job)
        self._node, self._node_id = self._tracer.start_span(name, parent, attributes=attributes), node_id

    def _leave_node(self) -> None:
        if self._node is not None:
            self._node.end()
        self._node = self._node_id = None


def make_provider(exporters: Sequence[str]) -> TracerProvider:
    """A provider that sends spans in batches to exporters, given by the names of their entry points.

    The SDK reads everything else (sampler, limits, resource, batches, addresses) from its own variables. Raises
    LookupError for an exporter that is not installed, and whatever the SDK finds wrong.
    """
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # what the SDK says where nobody does
        resource = resource.merge(Resource({SERVICE_NAME: "converter"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in exporters:
        found = [*entry_points(group="opentelemetry_traces_exporter", name=name)]
        if not found:
            raise LookupError(f"the exporter {name} is not installed")
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    return provider
