"""The engine's HTTP interface: one method a route, no policy and no retries.

What to do about an outcome is the runner's business, what bodies say is in `answers.py`, the websocket is in
`session.py`. Invariant: a call ends in its value, in one of the exceptions below, or in CancelledError; and
`Unreachable` is raised only if the engine surely has not seen the request.
"""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import IO, Any, Literal, ParamSpec, Self, TypeVar
from urllib.parse import quote

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    FormData,
    IOBasePayload,
    TCPConnector,
    TraceConfig,
    TraceRequestStartParams,
)
from yarl import URL

from converter.core.catalog import Kind
from converter.core.events import QueueView, Record
from converter.link import answers
from converter.link.answers import Nodes, Submission, Unreadable
from converter.link.wire import Features

P = ParamSpec("P")
T = TypeVar("T")
Method = Literal["GET", "POST"]

_JSON = {"Content-Type": "application/json"}
# aiohttp warns of bytes above this size, since one write of them may hold up the loop; a file object goes in pieces.
_ONE_WRITE = 2**20


class LinkError(Exception):
    """Trouble with the engine's HTTP interface. The text is for logs, not for callers."""


class Unreachable(LinkError):
    """No connection could be made (in time): the request was surely not delivered."""


class Unanswered(LinkError):
    """The request may have been delivered, and no usable answer came: whether it took effect is unknown.

    Time limits, broken connections, bodies that cannot be read, and statuses that the route does not have.
    """


class Unexpected(Unanswered):
    """An answer with a status that the route does not have. `by_converter`: it is a fault of a service such as ours."""

    def __init__(self, status: int, path: str, body: bytes) -> None:
        super().__init__(f"{path}: status {status}")
        self.status = status
        self.path = path
        self.by_converter = answers.is_problem_of_converter(body)


class Truncated(Unanswered):
    """A file's body broke off or stalled; what was read of it is not the whole."""


class Missing(LinkError):
    """There is no such file."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the client; seconds and bytes.

    `connect`: for a connection, waiting for a free one of the pool included. `answer`: for a whole call, unless it says
    otherwise; ComfyUI stops everything for 0.36 s every 10 s, so below a second healthy engines fail. `stall`: between
    two pieces of a file. `body`: of any answer but a file.
    """

    connections: int = 256
    connect: float = 5.0
    answer: float = 30.0
    stall: float = 60.0
    body: int = 256 * 2**20


DEFAULT_LIMITS = Limits()


class EngineClient:
    """HTTP client of one engine at `url` (which may have a path). An async context manager, to be entered once.

    `inject` adds headers to every request. `timeout` is in seconds, for the whole call; None means `limits.answer`.
    Every call may raise `Unreachable` and `Unanswered`, the latter as `Unexpected` where a status says it.
    """

    def __init__(
        self,
        url: str,
        limits: Limits = DEFAULT_LIMITS,
        *,
        clock: Callable[[], float] = time.monotonic,
        inject: Callable[[MutableMapping[str, str]], None] | None = None,
    ) -> None:
        self.url = str(URL(url)).rstrip("/")
        self._clock = clock
        self.limits = limits
        self._streaming = ClientTimeout(
            total=None, connect=limits.connect, sock_connect=limits.connect, sock_read=limits.stall
        )
        self._observers = [] if inject is None else [_observe(inject)]
        self._prompt = self._at("/prompt")
        self._queue = self._at("/queue")

    async def __aenter__(self) -> Self:
        limits = self.limits
        self._session = ClientSession(
            connector=TCPConnector(limit=limits.connections),
            # The whole call has a time limit of its own (in `_call`), which must not end files that take long.
            timeout=ClientTimeout(total=None, connect=limits.connect, sock_connect=limits.connect),
            headers={"Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent", "Accept"),
            trace_configs=self._observers,
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def submit(self, body: bytes, *, timeout: float | None = None) -> Submission:
        """`POST /prompt` with a body of `answers.prompt_body`."""
        return _read(answers.parse_submission, *await self._call("POST", self._prompt, body, timeout))

    async def queue(self, *, timeout: float | None = None) -> QueueView:
        """`GET /queue`; its `asked_at` is what the clock says just before."""
        asked_at = self._clock()
        return _read(answers.parse_queue, await self._ask("GET", self._queue, None, timeout), asked_at)

    async def history(self, prompt_id: str, *, timeout: float | None = None) -> Record | None:
        """`GET /history/{prompt_id}`; raises `EngineFailed` too, if there is a record without an outcome."""
        url = self._at(f"/history/{_quote(prompt_id)}")
        return _read(answers.parse_history, await self._ask("GET", url, None, timeout), prompt_id)

    def view(self, filename: str, subfolder: str = "", folder: str = "output") -> "View":
        """`GET /view` of a file that the engine named; `folder` is the `type` in its words. See `View`."""
        query = f"filename={_quote(filename)}&subfolder={_quote(subfolder)}&type={_quote(folder)}"
        return View(self._session, self._at(f"/view?{query}"), self._streaming, self.limits.answer)

    async def upload(
        self,
        name: str,
        subfolder: str,
        data: bytes | IO[bytes],
        content_type: str,
        *,
        overwrite: bool = False,
        timeout: float | None = None,
    ) -> str:
        """`POST /upload/image` into the input folder; the value that a LoadImage node takes as `image`.

        Without `overwrite` a name that is taken by other bytes gets a number, so use the answer and not `name`. A file
        object is read to its end and closed.
        """
        form = FormData()
        form.add_field("type", "input")
        form.add_field("subfolder", subfolder)
        form.add_field("overwrite", "true" if overwrite else "false")
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        form.add_field("image", _Stream(stream, content_type=content_type), filename=name)
        return _read(answers.parse_upload, await self._ask("POST", self._at("/upload/image"), form, timeout))

    async def interrupt(self, prompt_id: str, *, timeout: float | None = None) -> None:
        """`POST /interrupt`: stops the prompt if it is running. Nothing says whether it was."""
        await self._ask("POST", self._at("/interrupt"), _json({"prompt_id": prompt_id}), timeout)

    async def delete(self, prompt_id: str, *, timeout: float | None = None) -> None:
        """`POST /queue`: withdraws the prompt if it is pending. Nothing says whether it was."""
        await self._ask("POST", self._queue, _json({"delete": [prompt_id]}), timeout)

    async def cancel(self, prompt_id: str, *, timeout: float | None = None) -> bool | None:
        """`POST /api/jobs/{id}/cancel`: whether this stopped the prompt, pending or running, in one step.

        None: the engine has no such route (ComfyUI before 0.26), which it says without JSON.
        """
        url = self._at(f"/api/jobs/{_quote(prompt_id)}/cancel")
        status, answer = await self._call("POST", url, None, timeout)
        if status in (404, 405):
            return False if answer.startswith(b"{") else None
        return _read(answers.parse_cancel, _expect(status, url, answer))

    async def free(self, *, timeout: float | None = None) -> None:
        """`POST /free`: unloads the models and empties the cache, once the running prompt is done."""
        await self._ask("POST", self._at("/free"), _json({"unload_models": True, "free_memory": True}), timeout)

    async def features(self, *, timeout: float | None = None) -> Features:
        """`GET /features`; an engine without the route has none."""
        url = self._at("/features")
        status, answer = await self._call("GET", url, None, timeout)
        return Features() if status == 404 else _read(answers.parse_feature_answer, _expect(status, url, answer))

    async def version(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """`GET /system_stats`: the engine's version; empty where it tells none, or none that can be compared."""
        return _read(answers.parse_version, await self._ask("GET", self._at("/system_stats"), None, timeout))

    async def object_info(self, *, timeout: float | None = None) -> Nodes:
        """`GET /object_info`. Slow where there are many models: it reads their directories."""
        return _read(answers.parse_nodes, await self._ask("GET", self._at("/object_info"), None, timeout))

    async def node_kind(self, class_type: str) -> Kind | None:
        """`GET /object_info/{class}`: what the class takes; None where the engine has none of that name."""
        url = self._at(f"/object_info/{_quote(class_type)}")
        return _read(answers.parse_kind, await self._ask("GET", url, None, None), class_type)

    async def models(self, folder: str) -> tuple[str, ...] | None:
        """`GET /models/{folder}`: the files in it; None where the engine has no such folder."""
        url = self._at(f"/models/{_quote(folder)}")
        status, answer = await self._call("GET", url, None, None)
        return None if status == 404 else _read(answers.parse_models, _expect(status, url, answer))

    async def describe(self, path: str) -> tuple[int, bytes]:
        """`GET` of a path, which is quoted: status and body, whatever they are."""
        return await self._call("GET", self._at(path), None, None)

    async def model_folders(self) -> tuple[str, ...]:
        """`GET /models`: the names of the folders that `models` has."""
        return _read(answers.parse_models, await self._ask("GET", self._at("/models"), None, None))

    async def _ask(self, method: Method, url: URL, data: bytes | FormData | None, timeout: float | None) -> bytes:
        """The body of a 200."""
        status, answer = await self._call(method, url, data, timeout)
        return _expect(status, url, answer)

    async def _call(
        self, method: Method, url: URL, data: bytes | FormData | None, timeout: float | None
    ) -> tuple[int, bytes]:
        """Status and body of the answer, whatever the status is."""
        headers, payload = (_JSON, _body(data)) if isinstance(data, bytes) else (None, data)
        try:
            async with (
                asyncio.timeout(self.limits.answer if timeout is None else timeout),
                self._session.request(method, url, data=payload, headers=headers, allow_redirects=False) as response,
            ):
                return response.status, await self._read_all(response)
        except (ClientError, OSError) as error:
            raise _trouble(url, error) from error

    async def _read_all(self, response: ClientResponse) -> bytes:
        size, bound = response.content_length, self.limits.body
        if size is None:
            pieces, size = [], 0
            async for piece in response.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > bound:
                    break
            else:
                return b"".join(pieces)
        if size > bound:
            raise Unanswered(f"{response.url.path}: more than {bound} bytes")
        return await response.read()

    def _at(self, path: str) -> URL:
        return URL(self.url + path, encoded=True)


class View:
    """A file of the engine, open while this is entered: `async with client.view(...) as file`.

    Entering raises `Missing` if there is no such file, and `Unreachable` or `Unanswered`. `size` is in bytes, None if
    the engine does not say. A reader who is slow slows the engine down: at most some 128 KiB wait here.
    """

    size: int | None
    content_type: str

    def __init__(self, session: ClientSession, url: URL, timeout: ClientTimeout, answer: float) -> None:
        self._session = session
        self._url = url
        self._timeout = timeout
        self._answer = answer

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._answer):
                response = await self._session.get(self._url, timeout=self._timeout, allow_redirects=False)
        except (ClientError, OSError) as error:
            raise _trouble(self._url, error) from error
        if response.status != 200 or response.headers.get("Content-Encoding"):
            response.close()
            if response.status == 404:
                raise Missing(self._url.path)
            raise Unanswered(f"{self._url.path}: status {response.status}, or an encoded file")
        self._response = response
        self.size = response.content_length
        self.content_type = response.content_type
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A connection whose file was read to its end is already back in the pool; otherwise it is closed here.
        self._response.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file in pieces as they arrive, once; raises `Truncated` if it breaks off or stalls."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (ClientError, OSError) as error:
            raise Truncated(f"{self._url.path}: {error!r}") from error


def _observe(inject: Callable[[MutableMapping[str, str]], None]) -> TraceConfig:
    async def begin(session: ClientSession, context: SimpleNamespace, started: TraceRequestStartParams) -> None:
        inject(started.headers)

    observer = TraceConfig()
    observer.on_request_start.append(begin)
    return observer


def _trouble(url: URL, error: Exception) -> LinkError:
    """What an exception of aiohttp says about the delivery of the request."""
    kind = Unreachable if isinstance(error, ClientConnectorError | ConnectionTimeoutError) else Unanswered
    return kind(f"{url.path}: {str(error) or type(error).__name__}")


def _expect(status: int, url: URL, answer: bytes) -> bytes:
    if status != 200:
        raise Unexpected(status, url.path, answer)
    return answer


def _read(parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return parse(*args, **kwargs)
    except Unreadable as error:
        raise Unanswered(str(error)) from error


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


class _Stream(IOBasePayload):
    """A stream whose size is found by seeking: it may be part of a file."""

    @property
    def size(self) -> int:
        here = self._value.tell()
        end = self._value.seek(0, io.SEEK_END)
        self._value.seek(here)
        return end


def _body(data: bytes | IO[bytes]) -> bytes | IO[bytes]:
    return io.BytesIO(data) if isinstance(data, bytes) and len(data) > _ONE_WRITE else data


def _quote(text: str) -> str:
    """For a path or query; half a surrogate pair, which no file name that the engine can find has, becomes "?"."""
    return quote(text, safe="", errors="replace")
