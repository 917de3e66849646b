"""Traces: whether they are wanted, and how they begin and end with the service.

OpenTelemetry's standard variables decide. Leaves spans to `spans`. Invariant: nothing of OpenTelemetry is imported
where no traces are wanted, and trouble with it never stops the service.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from converter.spans import Tracing

log = logging.getLogger(__name__)

FAREWELL = 5.0
"""Seconds at the end in which the last spans are sent."""

PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Entry points of the exporters for OTLP, by protocol."""


def exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The entry points of the exporters that the variables ask for; none: no traces are wanted.

    As the SDK's specification has it, but that the default exporter needs an address: without any variable there are
    no traces. Raises ValueError for a protocol that there is not.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    addressed = any(environment.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in ("", "TRACES_"))
    names = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if addressed else "none")
    listed = [name.strip() for name in names.split(",")]
    return tuple(_entry_point(name, environment) for name in listed if name not in ("none", ""))


def _entry_point(name: str, environment: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    named = (environment.get(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL", "").strip() for signal in ("TRACES_", ""))
    protocol = next(filter(None, named), "http/protobuf")
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol} of OTLP here, but {' and '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


@asynccontextmanager
async def open_tracing(environment: Mapping[str, str]) -> AsyncIterator["Tracing | None"]:
    """Traces for the length of the block, None where none are wanted or they can't be had, which is logged."""
    provider = _make_provider(environment)
    if provider is None:
        yield None
        return
    from converter.spans import Tracing

    try:
        yield Tracing(provider)
    finally:
        # A thread that nobody waits for longer than that: a collector that is away would hold the end up.
        farewell = threading.Thread(target=provider.shutdown, daemon=True)
        farewell.start()
        await asyncio.to_thread(farewell.join, FAREWELL)


def _make_provider(environment: Mapping[str, str]) -> "TracerProvider | None":
    try:
        names = exporters(environment)
        if not names:
            return None
        from converter.spans import make_provider

        return make_provider(names)
    except ImportError:
        log.warning('there are no traces: OpenTelemetry is not installed; it comes with the extra "otel"')
    except Exception as error:  # a boundary: it may be anything that a variable can have wrong
        log.warning("there are no traces: %s", error)
    return None
