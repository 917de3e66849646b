"""The fault tree: every way in which the service says no, as one exception class each.

A fault carries what an answer needs (status, code, hint for retries, fields that help) and nothing of HTTP
itself: the doors render it. Its detail is written for the caller: no internal text, path or secret gets in.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

Retry = Literal["never", "same", "later"]
"""never: this request can't succeed; same: it may be sent again as it is; later: after `Retry-After`."""


class CannotStart(Exception):
    """The service can't start; the text says why, in one line."""


class Fault(Exception):
    """A typed error of the public contract (RFC 9457 problem details, with a stable `code`).

    `extensions` are further members of the problem (`node_errors`, `queue`, ...); None values are left out.
    `retry_after` is in seconds.
    """

    status: int = 500
    code: str = "internal"
    title: str = "Internal error"
    retry: Retry = "same"

    def __init__(self, detail: str, *, retry_after: int | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        if retry_after is not None:
            self.retry = "later"
        self.extensions = {key: value for key, value in extensions.items() if value is not None}

    def problem(self) -> dict[str, Any]:
        """The members of the problem document that belong to the fault itself (RFC 9457 section 3.1)."""
        document: dict[str, Any] = {
            "type": f"urn:converter:fault:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "retry": self.retry,
        }
        if self.retry_after is not None:
            document["retry_after"] = self.retry_after
        return document | self.extensions

    def passing(self) -> Self:
        """The fault itself, of which is known that the same request may meet no fault another time."""
        self.retry = "same"
        return self

    def lasting(self) -> Self:
        """The fault itself, of which is known that the same request meets it again."""
        self.retry = "never"
        return self

    def detached(self) -> Self:
        """The fault itself, without where it was raised and why: that holds frames, and they hold whatever they saw,
        perhaps the fault. To be taken wherever a fault is kept.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class Internal(Fault):
    """A mistake of ours; the detail never says more than that."""


class InvalidRequest(Fault):
    """The request itself is malformed; `problems` lists all that is wrong, each with a JSON pointer (RFC 6901)."""

    status, code, title, retry = 400, "invalid_request", "Invalid request", "never"

    def __init__(self, problems: Sequence[Mapping[str, str]]) -> None:
        listed = "; ".join(f"{p['pointer'] or 'body'}: {p['detail']}" for p in problems)
        super().__init__(listed, problems=[dict(p) for p in problems])

    @property
    def problems(self) -> Sequence[Mapping[str, str]]:
        """What is wrong, in the order of the request."""
        return cast("Sequence[Mapping[str, str]]", self.extensions.get("problems", ()))


class TooLarge(Fault):
    """The body, or a part of it, is above the server's limit (RFC 9110 section 15.5.14)."""

    status, code, title, retry = 413, "too_large", "Too large", "never"


class UnsupportedMediaType(Fault):
    """The body is neither JSON nor multipart/form-data (RFC 9110 section 15.5.16)."""

    status, code, title, retry = 415, "unsupported_media_type", "Unsupported media type", "never"


class NotAcceptable(Fault):
    """Nothing that the `Accept` header allows can carry the result (RFC 9110 section 15.5.7)."""

    status, code, title, retry = 406, "not_acceptable", "Not acceptable", "never"


class RangeNotSatisfiable(Fault):
    """No byte of the file lies in the range that is asked for (RFC 9110 section 15.5.17)."""

    status, code, title, retry = 416, "range_not_satisfiable", "Range not satisfiable", "never"


class InvalidWorkflow(Fault):
    """The workflow was refused by our own checks or by the engine; `node_errors` says why, node by node."""

    status, code, title, retry = 422, "invalid_workflow", "Invalid workflow", "never"

    def __init__(self, detail: str, *, node_errors: Mapping[str, Any] | None = None, **extensions: Any) -> None:
        super().__init__(detail, node_errors=node_errors or {}, **extensions)


class InvalidInput(Fault):
    """An input could not be decoded or fetched, or is not allowed."""

    status, code, title, retry = 422, "invalid_input", "Invalid input", "never"


class ExecutionFailed(Fault):
    """A node raised. 422, since the workflow is at fault and the replica is not."""

    status, code, title, retry = 422, "execution_failed", "Execution failed", "never"


class IdempotencyMismatch(Fault):
    """The idempotency key was used with another request."""

    status, code, title, retry = 422, "idempotency_mismatch", "Idempotency key reused", "never"


class Unauthorized(Fault):
    """No valid API key was given (RFC 9110 section 15.5.2)."""

    status, code, title, retry = 401, "unauthorized", "Unauthorized", "never"
    given: bool
    """Whether there was a key, which is not valid."""

    def __init__(self, detail: str, *, given: bool = False, **rest: Any) -> None:
        super().__init__(detail, **rest)
        self.given = given


class Forbidden(Fault):
    """A web page asks that may not: its origin is none of those that are allowed to."""

    status, code, title, retry = 403, "forbidden", "Forbidden", "never"


class NotFound(Fault):
    """No such path, job or template."""

    status, code, title, retry = 404, "not_found", "Not found", "never"


class MethodNotAllowed(Fault):
    """The path exists, the method does not (RFC 9110 section 15.5.6)."""

    status, code, title, retry = 405, "method_not_allowed", "Method not allowed", "never"


class RequestTimeout(Fault):
    """The head or the body of the request did not arrive in time (RFC 9110 section 15.5.9)."""

    status, code, title, retry = 408, "request_timeout", "Request timeout", "same"


class Canceled(Fault):
    """The job was canceled by someone else while this caller waited."""

    status, code, title, retry = 409, "canceled", "Canceled", "same"


class IdInUse(Fault):
    """The id names a job that goes on or has succeeded, or whose failure is kept for its caller."""

    status, code, title, retry = 409, "id_in_use", "Id in use", "never"


class Expired(Fault):
    """The job is known to have ended, its result is no longer kept (RFC 9110 section 15.5.11)."""

    status, code, title, retry = 410, "expired", "Expired", "never"


class Refusal(Fault):
    """An order that was not admitted; nothing has been done for it, and `retry_after` is always given."""

    status, retry = 429, "later"


class QueueFull(Refusal):
    """No place (RFC 6585 section 4)."""

    code, title = "queue_full", "Queue full"


class Shed(Refusal):
    """An order of negative priority that had to give way."""

    code, title = "shed", "Shed"


class DeadlineUnmeetable(Refusal):
    """By the measured service time the order could not finish within its timeout."""

    code, title = "deadline_unmeetable", "Deadline can't be met"


class RateLimited(Refusal):
    """The caller's own limit of rate or concurrency is reached."""

    code, title = "rate_limited", "Rate limited"


class EngineFailed(Fault):
    """The engine died or answered nonsense, and the job could not be saved."""

    status, code, title, retry = 502, "engine_failed", "Engine failed", "same"


class DeliveryFailed(Fault):
    """The job has made its outputs, and they could not be put where they were to go."""

    status, code, title = 502, "delivery_failed", "Delivery failed"


class Unavailable(Fault):
    """The replica takes no work at present; `retry_after` is always given (RFC 9110 section 15.6.4)."""

    status, retry = 503, "later"


class Starting(Unavailable):
    """The engine is not up yet, or is warming up."""

    code, title = "starting", "Starting"


class Draining(Unavailable):
    """The replica is shutting down."""

    code, title = "draining", "Draining"


class EngineDown(Unavailable):
    """The engine is down, or up but dead inside."""

    code, title = "engine_down", "Engine down"


class DeadlineExceeded(Fault):
    """The timeout passed; `phase` says which part took the time. The engine's work is canceled."""

    status, code, title, retry = 504, "deadline_exceeded", "Deadline exceeded", "same"


class OutOfMemory(Fault):
    """The engine ran out of accelerator memory; its memory is freed."""

    status, code, title, retry = 507, "out_of_memory", "Out of memory", "same"
