"""The composition root: one replica made of its parts, and how it comes and goes.

Introduces the parts to each other and leaves all work to them. Invariant: whatever ends the service, it ends in this
order: readiness, new orders, work in flight, the listener, the link, and the engine child last.
"""

import asyncio
import importlib.util
import json
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from converter.api.bodies import Bounds
from converter.api.comfyui import open_passthrough
from converter.api.dialects import Hall, open_dialects
from converter.api.native import Native
from converter.api.notices import Notices
from converter.api.outputs import Outputs
from converter.api.probes import Probes
from converter.core import admission, readiness, signals
from converter.core.restarts import Policy
from converter.core.webhooks import parse_secrets
from converter.entrance import Doors, Entrance
from converter.errors import CannotStart
from converter.fitting import fit, open_dispatch, open_removal, open_stores
from converter.gate import Gate, Limits
from converter.greeting import compose_greeting
from converter.jobs import Jobs
from converter.link.client import EngineClient
from converter.link.engine import EngineLink
from converter.link.loopback import free_port
from converter.link.session import Session
from converter.link.supervisor import Supervisor
from converter.media.fetch import Fetcher
from converter.media.vetted import Dialer
from converter.postbox import Postbox, Terms
from converter.renewal import renew
from converter.settings import Settings, declarations
from converter.stores import EngineModels, describe_engine
from converter.telemetry import Metrics
from converter.template_files import SHIPPED
from converter.templates import Templates
from converter.tracing import open_tracing
from converter.watch import Watch

if TYPE_CHECKING:
    from converter.spans import Tracing

log = logging.getLogger(__name__)

WARMUP: Mapping[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
"""What shows that an engine works, unless the operator names another workflow."""

COMFYUI_PORT = 8188
"""Where ComfyUI listens unless it is told otherwise."""


async def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve until a signal says otherwise. Raises CannotStart."""
    end = _catch_signals()
    async with open_tracing(environment) as tracing, run_replica(settings, environment, tracing) as replica:
        log.info("listening on %s", replica.address)
        if replica.probes != replica.address:
            log.info("probes are on %s", replica.probes)
        async with asyncio.TaskGroup() as group:
            words = compose_greeting(settings, replica.address, replica.probes)
            greeting = group.create_task(_greet(replica.watch, words))
            interactive = await end
            greeting.cancel()
        await _drain(replica, settings.grace, delay=0.0 if interactive else settings.drain_delay)


@dataclass(frozen=True, slots=True)
class Replica:
    """A converter that runs; `address` is where callers are served, `probes` where the probes are. `retire`: no engine
    is started any more.
    """

    gate: Gate
    jobs: Jobs
    postbox: Postbox
    watch: Watch
    address: str
    probes: str
    retire: Callable[[], None]


@asynccontextmanager
async def run_replica(
    settings: Settings, environment: Mapping[str, str], tracing: "Tracing | None" = None
) -> AsyncIterator[Replica]:
    """Everything that one replica is made of, running; it listens from the start, and is ready later.

    `environment` is that of an engine child; `tracing` is None where no traces are wanted. Raises CannotStart.
    """
    loop = asyncio.get_running_loop()
    metrics = Metrics()
    gate = Gate(_limits(settings), loop.time, metrics)
    watch = Watch(gate, settings.staleness, metrics)
    gate.on_stall = watch.stalled
    tag = settings.replica_tag or secrets.token_hex(3)
    templates = Templates(_folders(settings))
    warmup = WARMUP if settings.warmup is None else _read_workflow(settings.warmup)
    async with AsyncExitStack() as stack:
        scratch = ""
        if settings.embedded:
            scratch = stack.enter_context(TemporaryDirectory(prefix="converter-engine-"))
            settings = _settle(settings, Path(scratch))
        # First of all: an engine that is started in vain may cost minutes.
        stores = open_stores(settings)
        removal = await stack.enter_async_context(open_removal(settings))
        dispatch = open_dispatch(settings, tag, await stack.enter_async_context(Dialer()), removal)
        entrance = await stack.enter_async_context(Entrance(settings))
        await stack.enter_async_context(_beside(renew(entrance.sources)))
        url, command = _engine(settings, environment, scratch)
        inject = None if tracing is None else tracing.inject
        client = await stack.enter_async_context(EngineClient(url, clock=loop.time, inject=inject))
        link = EngineLink(client, watch)
        child = None
        if command is not None:
            policy = Policy(budget=settings.restart_budget, window=settings.restart_window)
            on_event = partial(watch.child_event, link=link)
            child = Supervisor(command, _make_environment(environment), policy, on_event, scratch=scratch)
            await stack.enter_async_context(child)
        link.attach(await stack.enter_async_context(Session(url, link)))
        fetcher = await stack.enter_async_context(
            Fetcher(settings.fetch_timeout, settings.fetch_redirects, settings.fetch_origins)
        )
        means = fit(settings, link, watch, metrics, tracing, fetcher, stores, dispatch, removal)
        jobs = Jobs(means, settings.keep_jobs, warmup, settings.engine_start_timeout, tag)
        watch.on_loss = jobs.engine_lost
        postbox = await stack.enter_async_context(Postbox(_terms(settings), metrics))
        await stack.enter_async_context(jobs)
        await stack.enter_async_context(_beside(watch.run(link, jobs.warm_up, child)))
        await stack.enter_async_context(_beside(templates.keep(client, watch.warm_instance)))
        hall = Hall(
            gate,
            jobs,
            templates,
            lambda: templates.offers,
            Bounds(settings.max_body, settings.body_timeout),
            settings.timeout,
            settings.max_timeout,
            settings.sse_keepalive,
            settings.max_pixels,
            settings.public_url or "",
            Notices(postbox, gate, jobs),
            EngineModels(client),
            partial(describe_engine, client),
            keep_jobs=settings.keep_jobs,
            state_dir=settings.state_dir,
            keep_assets=settings.keep_assets,
            asset_bytes=settings.asset_bytes,
            url_secret=settings.url_secret.encode() if settings.url_secret else None,
        )
        dialects = [*await stack.enter_async_context(open_dialects(settings.dialects, hall))]
        if settings.comfy_passthrough:
            root = "comfyui-api" not in settings.dialects
            dialects.append(await stack.enter_async_context(open_passthrough(hall, root=root)))
        probes = Probes(gate, metrics, lambda: {"url": url, "instance": watch.instance})
        native = [*Native(hall).routes(), *Outputs(jobs).routes()]
        doors = Doors(native, dialects, probes.routes(), hall.offers)
        opened = entrance.open(doors, gate, metrics, tracing)
        addresses = await stack.enter_async_context(opened)
        retire = (lambda: None) if child is None else child.retire
        yield Replica(gate, jobs, postbox, watch, address=addresses[0], probes=addresses[-1], retire=retire)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do the work as long as this is entered; where it fails, the block is canceled and the failure raised."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        except Exception as error:  # raised again below: the group would wrap it
            failure = error
        finally:
            task.cancel()
    if failure is not None:
        raise failure


def _terms(settings: Settings) -> Terms:
    return Terms(
        secrets=parse_secrets(settings.webhook_secret) if settings.webhook_secret else (),
        origins=settings.webhook_origins,
        patience=settings.webhook_patience,
        places=settings.webhook_backlog,
        room=settings.webhook_bytes,
        folder=settings.state_dir,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        admission=admission.Limits(settings.capacity, settings.busy_at, engine_depth=settings.engine_depth or 2),
        readiness=readiness.Limits(
            busy_at=settings.busy_at,
            ready_at=settings.ready_at,
            busy_is_ready=settings.busy_is_ready,
            staleness=settings.staleness,
            stall_patience=settings.stall_patience,
            stranger_patience=settings.max_timeout,
            startup_patience=settings.engine_start_timeout,
        ),
        engine_depth=settings.engine_depth,
    )


def _engine(settings: Settings, environment: Mapping[str, str], scratch: str) -> tuple[str, Sequence[str] | None]:
    """Where the engine answers, and the command that starts it (None where it runs already).

    `scratch` is a folder for what an embedded engine removes when it starts. In a command `{port}` stands for a free
    port; else its own `--port` counts, or ComfyUI's default.
    """
    if settings.engine_url is not None:
        return settings.engine_url, None
    if settings.engine_command is not None:
        program = settings.engine_command[0]
        if shutil.which(program, path=environment.get("PATH", os.defpath)) is None:
            raise CannotStart(f"the engine can't be started: there is no program {program}")
        port = free_port() if any("{port}" in word for word in settings.engine_command) else None
        command = tuple(word.replace("{port}", str(port)) for word in settings.engine_command)
        return f"http://127.0.0.1:{port or _own_port(command)}", command
    if importlib.util.find_spec("engine") is None or importlib.util.find_spec("torch") is None:
        raise CannotStart(
            "there is no engine: name one with --engine-url or --engine-command, or install the embedded one "
            'with the extra "engine"'
        )
    port = free_port()
    words = [sys.executable, "-m", "engine", "--port", str(port), "--temp-dir", scratch]
    for flag, folder in (("--input-dir", settings.input_dir), ("--output-dir", settings.output_dir)):
        words += [] if folder is None else [flag, str(folder)]
    return f"http://127.0.0.1:{port}", tuple(words)


def _settle(settings: Settings, scratch: Path) -> Settings:
    """The settings of a replica with an embedded engine: what callers send and get lies in folders of its own that go
    with it, unless others are named. Outputs that are kept, or are to be had after a restart, stay in the engine's.
    """
    own = {}
    if settings.input_dir is None:
        own["input_dir"] = scratch / "input"
    lasting = settings.keep_outputs or settings.state_dir is not None or settings.url_secret is not None
    if settings.output_dir is None and not lasting:
        own["output_dir"] = scratch / "output"
    for folder in own.values():
        folder.mkdir()
    return settings.model_copy(update=own)


def _make_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an engine child: our secrets are none of its business, nor of what its custom nodes do."""
    secrets = {declaration.variable for declaration in declarations() if declaration.secret}
    return {name: value for name, value in environment.items() if name not in secrets} | {"PYTHONUNBUFFERED": "1"}


def _own_port(command: Sequence[str]) -> int:
    for word, following in zip(command, (*command[1:], ""), strict=True):
        value = following if word == "--port" else word.removeprefix("--port=")
        if word.startswith("--port") and value.isdigit():
            return int(value)
    return COMFYUI_PORT


def _folders(settings: Settings) -> list[Path]:
    """Where templates are; the operator's own count before those that ship."""
    shipped = [SHIPPED] if settings.shipped_workflows else []
    return shipped + ([] if settings.workflows_dir is None else [settings.workflows_dir])


def _read_workflow(path: Path) -> Mapping[str, Any]:
    try:
        workflow = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path} is no workflow: {error}") from None
    if not isinstance(workflow, dict):
        raise CannotStart(f"{path} is no workflow: it must be a JSON object")
    return workflow


# Coming and going ----------------------------------------------------------------------------------------------------


async def _greet(watch: Watch, greeting: str) -> None:
    """Say what to try, once it would work."""
    await watch.warmed.wait()
    sys.stdout.write(greeting)
    sys.stdout.flush()


def _catch_signals() -> "asyncio.Future[bool]":
    """Is done when a signal asks for the end; the value tells whether a person did so at a terminal."""
    loop = asyncio.get_running_loop()
    end: asyncio.Future[bool] = loop.create_future()
    state = signals.Signals()

    def receive(number: int) -> None:
        nonlocal state
        state, effects = signals.step(state, signals.Signal(interactive=number == signal.SIGINT), loop.time())
        for effect in effects:
            match effect:
                case signals.Drain(interactive):
                    end.set_result(interactive)
                case signals.EndNow():
                    os._exit(128 + number)  # the engine child dies with us

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive, number)
    return end


async def _drain(replica: Replica, grace: float, delay: float) -> None:
    """Not ready at once; orders are taken for `delay` seconds more; what is in flight has `grace` to finish."""
    jobs = replica.jobs.carried
    log.info(
        "draining, for at most %g s: %s in flight; a second signal ends at once",
        grace,
        "1 job is" if jobs == 1 else f"{jobs or 'no'} jobs are",
        extra={"results": replica.jobs.unfetched, "webhooks": replica.postbox.pending, "delay": delay},
    )
    replica.gate.observe(readiness.DrainStarted())
    with suppress(TimeoutError):
        async with asyncio.timeout(grace):
            await asyncio.sleep(delay)
            replica.gate.close()
            await replica.jobs.idle()
            await replica.jobs.fetched()
            replica.retire()
            await replica.postbox.settle()
    replica.gate.close()
    replica.jobs.give_up()
