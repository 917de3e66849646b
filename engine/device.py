"""The accelerator, owned by one thread.

For: running every piece of work that touches the accelerator (text encoding, denoising, decoding), oldest first, and
answering each with a future. Requests of one key that wait at the same moment share a pass; nobody waits for company.
A course is asked on and on: each answer makes its next request, in time to share the next pass. Leaves what the work is
to `pipelines`, which requests go together to `batching`, when to ask to the nodes.
Invariant: no other thread gives the accelerator work, but for fetching answers; whoever raises or runs out of memory in
company is tried again without it, so that nobody fails for another, and what nobody uses makes room first; a large
pass that nobody waits for is given up on its way; if the accelerator is lost, or the thread ends without having been
told to, the process ends.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

from engine.batching import Bounds, choose
from engine.memory import (
    OutOfMemoryError,
    answers,
    is_out_of_memory,
    may_be_lost,
    read_host_memory,
    read_memory,
    release_memory,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_LOOK = 0.5  # seconds from one look at the memory to the next, while passes go on

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: the program itself failed, so that whoever supervises it starts it again


class DeviceEnded(RuntimeError):
    """The device thread has ended, or the device is closed: nothing that was asked of it will be answered."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where work runs: the torch device, and the number format of the networks that tolerate a short one."""

    device: "torch.device"
    dtype: "torch.dtype"


Answer = TypeVar("Answer")
Given = TypeVar("Given", covariant=True)


class Work(Protocol[Given]):
    """One request. `perform` runs on the device thread.

    Tensors that it takes are on the CPU; those that it gives may be on the device, not yet made.
    """

    def perform(self, place: Place) -> Given: ...


class Shareable(Protocol[Given]):
    """A request that shares passes with others of its `key`.

    `rows` is what it adds to a pass, each of them of the `weight` of `batching.Request`. `perform_all` answers all of
    `works`, its own among them, in passes of at most `limit` rows.
    """

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...

    @property
    def weight(self) -> float: ...

    def perform_all(self, place: Place, works: Sequence[Any], limit: int) -> Sequence[Given]: ...


Request: TypeAlias = Work[Answer] | Shareable[Answer]
Course: TypeAlias = Generator[Any, Any, Answer]  # yields requests, is sent their answers, returns what it was all for
Hear: TypeAlias = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A request with the future that its answer, or the end of its course, is for. Without a key it goes alone."""

    work: Any
    future: Future[Any]
    course: Course[Any] | None
    hear: Hear | None
    key: Hashable | None = None
    rows: int = 1
    weight: float = 1.0


def _make_turn(work: Any, future: Future[Any], course: Course[Any] | None = None, hear: Hear | None = None) -> _Turn:
    if hasattr(type(work), "perform_all"):
        return _Turn(work, future, course, hear, work.key, work.rows, work.weight)
    return _Turn(work, future, course, hear)


def end_process() -> None:
    """End the whole process at once: a server whose device thread is gone answers HTTP and never finishes anything."""
    os._exit(EXIT_CODE)


class Device:
    """A thread that owns the accelerator `kind` ("cpu", "cuda", "cuda:1", "mps"); a context manager.

    `dtype` names the number format of networks that tolerate a short one ("float16", "bfloat16", "float32"); by default
    float32 on CPUs, which compute others slowly, and float16 elsewhere. A pass has at most `max_rows` rows, fewer
    where each takes more memory than usual. At most `backlog` requests wait; further callers are held in `submit`.
    `on_end` is called on the device thread when it ends without having been closed. The first request imports torch, so
    that a server starts without it.
    """

    def __init__(
        self,
        kind: str = "cpu",
        *,
        dtype: str | None = None,
        max_rows: int = 32,
        backlog: int = 64,
        on_end: Callable[[], None] = end_process,
    ) -> None:
        self.kind = kind
        self._dtype = dtype
        self._bounds = Bounds(max_rows)
        self._backlog = backlog
        self._on_end = on_end
        # Called on the device thread when memory has run out for what cannot be split: lets go of something that nobody
        # uses, and says whether there was anything.
        self.make_room: Callable[[], bool] = lambda: False
        self._waiting: deque[_Turn] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._memory: Mapping[str, Any] = read_host_memory()
        self._looks_at = 0.0
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, work: Request[Answer]) -> "Future[Answer]":
        """Queue `work`; the future holds its answer, or OutOfMemoryError, or whatever `perform` raised.

        A future that is cancelled before its turn costs nothing. Raises DeviceEnded.
        """
        future: Future[Answer] = Future()
        self._put(_make_turn(work, future))
        return future

    def follow(self, course: Course[Answer], hear: Hear) -> "Future[Answer]":
        """Answer what `course` asks, one request after the other; the future holds what it returns or raises.

        Its first request is made here, the others on the device thread, where `hear` is then called with each request
        and its answer: it must return at once. A future that is cancelled ends the course before its next request.
        Raises DeviceEnded, and what the course raises before its first request.
        """
        future: Future[Answer] = Future()
        try:
            first = next(course)
        except StopIteration as end:
            future.set_result(end.value)
        else:
            self._put(_make_turn(first, future, course, hear))
        return future

    def doubt(self) -> None:
        """Have the device thread look whether the accelerator still answers, and end the process if it does not."""
        with suppress(DeviceEnded):
            self.submit(_Wait())

    def _put(self, turn: _Turn) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._backlog)
            if self._closed:
                raise DeviceEnded("the device thread has ended")
            self._waiting.append(turn)
            self._changed.notify_all()

    def describe(self) -> dict[str, Any]:
        """The entry of this device in ComfyUI's /system_stats; memory in bytes, as last seen by the device thread."""
        return {"name": self.kind, "type": self.kind.partition(":")[0], **self._memory}

    def _serve(self) -> None:
        try:
            while turns := self._take():
                self._answer(turns)
                turns = []  # nothing is held while nothing is asked
        finally:
            with self._changed:
                asked, self._closed = self._closed, True
                abandoned = list(self._waiting)
                self._waiting.clear()
                self._changed.notify_all()
            for turn in abandoned:
                _fail(turn, DeviceEnded("the device thread has ended"))
            if not asked:
                _log.critical("the device thread has ended", exc_info=True)
                self._on_end()

    def _take(self) -> list[_Turn]:
        """The turns that go next, nothing when closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return []
                living = [turn for turn in self._waiting if not turn.future.cancelled()]
                chosen = choose(living, self._bounds.bound)
                self._waiting = deque(turn for place, turn in enumerate(living) if place not in chosen)
                self._changed.notify_all()
                if chosen:
                    return [living[place] for place in chosen]

    def _answer(self, turns: list[_Turn]) -> None:
        """Answer every turn: together, and where that fails in smaller company, at last alone."""
        groups = [turns]
        while groups:
            group = groups.pop(0)
            try:
                given = self._perform(group)
            # The boundary between one caller's request and the thread that serves all: whatever the request raises is
            # its caller's. What is no Exception (SystemExit, say) is answered too, but ends the thread.
            except Exception as error:
                if self._is_lost(error):
                    self._fail_all([group, *groups], error)
                    raise
                parts = self._part(group, error)
                groups = parts + groups
                if not parts:
                    _fail(group[0], self._explain(error))
            except BaseException as error:
                self._fail_all([group, *groups], error)
                raise
            else:
                self._advance_all(group, given, groups)

    def _advance_all(self, group: list[_Turn], given: Sequence[Any], others: list[list[_Turn]]) -> None:
        for place, (turn, answer) in enumerate(zip(group, given, strict=True), start=1):
            try:
                self._advance(turn, answer)
            except BaseException as error:
                self._fail_all([group[place:], *others], error)
                raise

    @staticmethod
    def _fail_all(groups: list[list[_Turn]], error: BaseException) -> None:
        for group in groups:
            for turn in group:
                _fail(turn, error)

    def _perform(self, group: list[_Turn]) -> Sequence[Any]:
        import torch

        first, rows = group[0], sum(turn.rows for turn in group)
        place = _find_place(self.kind, self._dtype)
        with torch.no_grad():
            if first.key is None:
                given: Sequence[Any] = [first.work.perform(place)]
            else:
                with _heed(group, place):
                    given = first.work.perform_all(place, [turn.work for turn in group], self._bounds.bound(first))
                if len(given) != len(group):
                    raise RuntimeError(f"{len(given)} answers to {len(group)} requests")
                self._bounds.confirm(first, rows)
        # Asking takes a good part of a millisecond, in which nothing else is asked of the device. What goes alone is
        # rare, and may take much memory or give it back.
        if first.key is None or time.monotonic() >= self._looks_at:
            self._memory = read_memory(place.device)
            self._looks_at = time.monotonic() + _LOOK
        return given

    def _part(self, group: list[_Turn], error: Exception) -> list[list[_Turn]]:
        """The groups to try in place of one that failed, none if there is nothing left to try, or nobody waits."""
        if _is_unwanted(group):
            return []
        first, rows = group[0], sum(turn.rows for turn in group)
        tried = min(rows, self._bounds.bound(first))
        if is_out_of_memory(error) and tried > 1:
            self._bounds.shrink(first, tried)
            error.__traceback__ = None
            release_memory()
            half = (len(group) + 1) // 2
            return [part for part in (group[:half], group[half:]) if part]
        if len(group) > 1:
            return [[turn] for turn in group]
        if is_out_of_memory(error):
            error.__traceback__ = None  # its frames hold the tensors that filled the memory
            if self.make_room():
                release_memory()
                return [group]
        return []

    def _advance(self, turn: _Turn, answer: Any) -> None:
        """Hand an answer to its caller, or to its course, which then asks again or ends."""
        if turn.course is None or turn.hear is None:
            _finish(turn, answer)
            return
        try:
            turn.hear(turn.work, answer)
            following = _make_turn(turn.course.send(answer), turn.future, turn.course, turn.hear)
        except StopIteration as end:
            _finish(turn, end.value)
        # A course is one caller's, as a request is. What is asked of an accelerator may fail long after it was asked.
        except Exception as error:
            _fail(turn, self._explain(error))
            if self._is_lost(error):
                raise
        except BaseException as error:
            _fail(turn, error)
            raise
        else:
            with self._changed:
                self._waiting.append(following)

    def _is_lost(self, error: Exception) -> bool:
        return may_be_lost(error) and not answers(_find_place(self.kind, self._dtype).device)

    def _explain(self, error: Exception) -> Exception:
        if not is_out_of_memory(error):
            return error
        # A new error without the old one's traceback, whose frames hold the tensors that filled the memory.
        explained = OutOfMemoryError(
            f"{self.kind} ran out of memory: {str(error).splitlines()[0] if str(error) else ''}"
        )
        error.__traceback__ = None
        release_memory()
        return explained


def _is_unwanted(group: list[_Turn]) -> bool:
    return all(turn.future.cancelled() for turn in group)


def _heed(group: list[_Turn], place: Place) -> AbstractContextManager[None]:
    """Give the group's pass up as soon as nobody waits for it. Small ones are over sooner than it is worth to look, and
    accelerators are only asked.
    """
    if place.device.type != "cpu" or group[0].weight <= 1:
        return nullcontext()
    from engine.passes import abandoned_if

    return abandoned_if(lambda: _is_unwanted(group))


def _finish(turn: _Turn, answer: Any) -> None:
    if turn.future.set_running_or_notify_cancel():
        turn.future.set_result(answer)


def _fail(turn: _Turn, error: BaseException) -> None:
    if turn.future.set_running_or_notify_cancel():
        turn.future.set_exception(error)


def _find_place(kind: str, dtype: str | None) -> Place:
    import torch

    device = torch.device(kind)
    # CPUs compute float16 slowly or not at all; accelerators have half of the memory to move with it.
    named: torch.dtype = getattr(torch, dtype or ("float32" if device.type == "cpu" else "float16"))
    return Place(device, named)


class _Wait:
    """Wait for all that the accelerator was asked for."""

    def perform(self, place: Place) -> None:
        import torch

        if place.device.type == "cuda":
            torch.cuda.synchronize(place.device)
