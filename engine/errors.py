"""What can go wrong inside the engine, as types.

Messages are for the caller who sent the prompt. How a fault looks on the wire is `wire`'s and `server`'s business.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every fault that the engine raises on purpose."""


class InterruptError(EngineError):
    """The running prompt was asked to stop. Raised by `Context.progress` and `Context.check`; nodes let it pass."""


class RefusedError(EngineError):
    """A prompt that is not taken; answered with 400.

    `body` is the JSON answer: {"error": {type, message, details, extra_info}, "node_errors": {id: ...}}.
    """

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__("prompt refused")
        self.body = body


class JunkError(EngineError):
    """A node returned something that its declaration does not allow."""


class TooLargeError(EngineError):
    """A node would make more than a prompt may hold at once."""


class ForbiddenPathError(EngineError):
    """A path given by a caller leaves the folder it must stay in."""


class QueueFullError(EngineError):
    """As many prompts are pending as the engine keeps."""


class ModelError(EngineError):
    """A checkpoint is missing, broken, or of a family that this engine does not run. The text names which and why."""
