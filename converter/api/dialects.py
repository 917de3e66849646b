"""What a dialect is: a public API of somebody else's, beside the native one, spoken to orders, jobs and faults.

For: the one thing that the server, the door and the composition root have to know about every dialect (`Dialect`), and
what each works with (`Hall`). Leaves each API to a file of its own. Invariant: no dialect knows the engine, and what
goes wrong under its paths, refusals at the door and mistakes of ours included, is told in its own words.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias, cast, runtime_checkable

from aiohttp import web

from converter.api.bodies import Bounds
from converter.api.notices import Notices
from converter.core.offers import Offer
from converter.core.template import Template
from converter.errors import Fault
from converter.gate import Gate
from converter.jobs import Jobs


@dataclass(frozen=True, slots=True)
class Hall:
    """What every dialect works with. Times in seconds; `silence`: how long an event stream may say nothing;
    `max_pixels`: of one picture that comes in; `public_url` makes links absolute, and is empty where they are relative;
    `notices` tells receivers of jobs' ends; `models` gives the names of the engine's models, by kind, or raises
    EngineFailed, as `describe` does, which gives status and JSON of what the engine tells of itself under a path;
    `keep_jobs`: how long jobs that have ended are known; `state_dir`: the folder for what a restart keeps;
    `keep_assets`, `asset_bytes`: for how long, and in how many bytes, uploads are kept; `url_secret`: what links are
    signed with, None where that is made up. `templates` are those of the moment, and `offers` gives them with what the
    engine has for them.
    """

    gate: Gate
    jobs: Jobs
    templates: Mapping[str, Template]
    offers: Callable[[], Mapping[str, Offer]]
    bounds: Bounds
    timeout: float
    max_timeout: float
    silence: float
    max_pixels: int
    public_url: str
    notices: Notices
    models: Callable[[], Awaitable[Mapping[str, Sequence[str]]]]
    describe: Callable[[str], Awaitable[tuple[int, bytes]]]
    keep_jobs: float = 0.0
    state_dir: Path | None = None
    keep_assets: float = 0.0
    asset_bytes: int = 0
    url_secret: bytes | None = field(default=None, repr=False)


class Dialect(Protocol):
    """One public API beside the native one."""

    @property
    def orders(self) -> Collection[tuple[str, str]]:
        """Method and path, as in `routes`, of what begins work, which the limits of API keys are about."""

    def routes(self) -> Sequence[web.RouteDef]:
        """What it serves."""

    def owns(self, path: str) -> bool:
        """Whether callers of a path expect its words, be there a route or not."""

    def render(self, fault: Fault, request_id: str) -> web.Response:
        """A fault in its own words; every fault has some."""


@runtime_checkable
class Probed(Protocol):
    """A dialect that has probes of its own."""

    @property
    def opened(self) -> Collection[str]:
        """Paths that need no API key."""


Opener: TypeAlias = Callable[[Hall], AbstractAsyncContextManager[Dialect]]
"""Makes a dialect with whatever it keeps, which lasts as long as the context is entered."""


def _open_in(module: str) -> Opener:
    """The `open_dialect` of a module, which is imported by the first who wants the dialect: starts stay quick."""
    return lambda hall: cast("Opener", import_module(module).open_dialect)(hall)


SPOKEN: Mapping[str, Opener] = {
    "comfyapi": _open_in("converter.api.comfyapi"),
    "comfyui-api": _open_in("converter.api.comfyui_api"),
    "openai": _open_in("converter.api.openai"),
    "runpod": _open_in("converter.api.runpod"),
}
"""Every dialect, by the name that the setting `dialects` has for it. Opening one asks nothing of its hall."""


@asynccontextmanager
async def open_dialects(names: Sequence[str], hall: Hall) -> AsyncIterator[Sequence[Dialect]]:
    """The dialects of these names."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(SPOKEN[name](hall)) for name in names]
