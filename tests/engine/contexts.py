"""What tests hand to nodes and to the engine: a context that remembers what it was told, and ComfyUI's workflow."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from engine.errors import InterruptError
from engine.nodes.spec import Folders, Preview

S = TypeVar("S")

_WORKFLOWS = Path(__file__).parent.parent / "workflows"


def read_default_workflow() -> dict[str, Any]:
    """ComfyUI's default workflow, for the tiny checkpoint and in its size."""
    return read_workflow("txt2img_tiny")


def read_workflow(name: str) -> dict[str, Any]:
    """A workflow as ComfyUI exports it."""
    workflow: dict[str, Any] = json.loads((_WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    return workflow


class RecordingContext:
    """A `Context` with the given services, whose prompt is interrupted when its progress reaches `interrupt_at`."""

    node_id = "1"
    prompt_id = "prompt"
    prompt: ClassVar[Mapping[str, object]] = {}
    prompt_text = "{}"
    previews = True
    extra_pnginfo = None

    def __init__(self, *services: object, interrupt_at: float | None = None) -> None:
        self._services = services
        self._interrupt_at = interrupt_at
        self.claimed = 0
        self.reports: list[tuple[float, float, Preview | None]] = []
        self.folders = Folders(*(Path("unused"),) * 4)

    def service(self, kind: type[S]) -> S:
        for service in self._services:
            if isinstance(service, kind):
                return service
        raise LookupError(kind)

    def progress(self, value: float, maximum: float, preview: Preview | None = None) -> None:
        self.reports.append((value, maximum, preview))
        self.check()

    def claim(self, size: int) -> None:
        self.claimed += size

    @contextmanager
    def interruptible(self, future: Future[Any]) -> Iterator[None]:
        try:
            self.check()
            yield
        except BaseException:
            future.cancel()
            raise

    def check(self) -> None:
        if self._interrupt_at is not None and self.reports and self.reports[-1][0] >= self._interrupt_at:
            raise InterruptError
