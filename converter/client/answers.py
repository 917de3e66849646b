"""What a converter answers, typed: the events of a call, of which the result is the last.

Fields and events that later versions add are passed over. Invariant: what is given out has the shape that it says, or
`read` has raised.
"""

import base64
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from converter.client.failures import UnexpectedAnswer
from converter.core import sse
from converter.core.problems import read_problem
from converter.core.retries import IN_VAIN


def _decode(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Base64 = Annotated[bytes, BeforeValidator(_decode)]


def _complete(url: str, info: ValidationInfo) -> str:
    return f"{info.context or ''}{url}" if url.startswith("/") else url


Link = Annotated[str, AfterValidator(_complete)]
"""A URL; the service may leave its own address out, which is the context of the validation."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Status(_Answer):
    """What state the job is in. `position` in the queue, from 0; `estimated_seconds` up to its end, where known."""

    state: str
    position: int | None = None
    estimated_seconds: float | None = None


class Progress(_Answer):
    """How far the job is: `value` from 0 to 1 never goes back. The others tell of the node that runs."""

    value: Annotated[float, Field(ge=0, le=1)]
    nodes_done: int
    nodes_total: int
    node_id: str | None = None
    class_type: str | None = None
    step: int | None = None
    steps: int | None = None


class Preview(_Answer):
    """A picture of what is being made; `data` are the bytes of its file."""

    node_id: str | None = None
    content_type: str
    data: Base64 = Field(repr=False)


class Output(_Answer):
    """Something that the workflow made. `kind`: image, video, audio, text, file or latent; `size` in bytes.

    `label` is the name that a template has for its node; `warning` says what is not as it was asked for, and why.

    In a result it has its contents, as `data` or `text`, or tells where they are: at `url` until `expires_at`; in
    object storage, as `key` of `destination`, which may have a `url` beside it; at the URL of one's own whose place,
    from 1, is `put`.
    As an event of its own it has no contents.
    """

    node_id: str
    class_type: str | None = None
    name: str | None = None
    kind: str
    content_type: str
    size: int
    label: str | None = None
    data: Base64 | None = Field(default=None, repr=False)
    text: str | None = None
    url: Link | None = None
    expires_at: AwareDatetime | None = None
    destination: str | None = None
    key: str | None = None
    put: int | None = None
    warning: str | None = None

    @property
    def content(self) -> bytes:
        """The bytes of its file; raises ValueError where the output came without, which says where they are."""
        if self.data is not None:
            return self.data
        if self.text is not None:
            return self.text.encode()
        raise ValueError(f"the output of node {self.node_id} came without its contents{self._tell_place()}")

    def save(self, path: str | Path) -> None:
        """Write the contents to a file, which is replaced if it exists; raises OSError, and ValueError as `content`."""
        Path(path).write_bytes(self.content)

    def without_place(self) -> Self:
        """What it is, wherever it is: another try may put the same somewhere else."""
        return self.model_copy(update=dict.fromkeys(("url", "expires_at", "destination", "key", "put")))

    def _tell_place(self) -> str:
        if self.url is not None:
            return f": they are at {self.url}"
        if self.key is not None:
            return f": they are in the destination {self.destination}, as {self.key}"
        return "" if self.put is None else f": they were put to URL {self.put} of outputs.delivery.put"


class Result(_Answer):
    """How the job ended. `timings` in seconds; `inputs` of a template, those included that were drawn."""

    id: str
    outputs: tuple[Output, ...]
    timings: dict[str, float] = {}
    engine: dict[str, Any] = {}
    inputs: dict[str, Any] | None = None


Event = Status | Progress | Preview | Output | Result

_OBJECT = TypeAdapter(dict[str, Any])

_KINDS: dict[str, type[Event]] = {
    "status": Status,
    "progress": Progress,
    "preview": Preview,
    "output": Output,
    "result": Result,
}


def read(event: sse.Event, address: str) -> Event | None:
    """The event; None where this client does not know its kind. `address`: the service's, for links without one.

    Raises the fault that an `error` event tells of, and UnexpectedAnswer for one of another shape.
    """
    try:
        if event.name == "error":
            raise read_problem(_OBJECT.validate_json(event.data))
        kind = _KINDS.get(event.name)
        return None if kind is None else kind.model_validate_json(event.data, context=address)
    except ValidationError:
        detail = f"the service does not answer as a converter does: its event {event.name} has another shape"
        raise UnexpectedAnswer(detail, IN_VAIN, HTTPStatus.OK) from None
