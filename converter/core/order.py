"""An order: what a caller wants done, in no dialect and with nothing of the engine in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

from converter.core.template import Input
from converter.core.template_faults import name_inputs
from converter.errors import Fault

Format = Literal["png", "jpeg", "webp", "avif"]
Metadata = Literal["keep", "strip"]


class Content(Protocol):
    """Bytes that are whole, wherever they are kept."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def digest(self) -> bytes:
        """SHA-256."""

    @property
    def head(self) -> bytes:
        """The first bytes, as many as tell what kind of media it is."""

    def open(self) -> IO[bytes]:
        """A stream of its own, to be closed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart request that an input refers to by `{"part": NAME}`; `filename` is its sender's."""

    content_type: str
    content: Content = field(repr=False)
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """Outputs go to object storage: to a destination of the operator's, by its name."""

    destination: str


@dataclass(frozen=True, slots=True)
class Put:
    """Outputs are put to URLs of the caller's, one each, with these headers; what can be read there is a secret."""

    urls: tuple[str, ...] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


Delivery = Literal["inline", "url"] | Upload | Put
"""Where the bytes of outputs go: into the answer, to callers who follow a link, to a store of the operator's or the
caller's.
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which outputs are answered, and how.

    nodes: only these output nodes are run and answered; None is all. format, quality (1 to 100): pictures are
    converted to it; None leaves them as the engine made them. metadata: whether what pictures tell of how they were
    made stays in them.
    """

    nodes: tuple[str, ...] | None = None
    format: Format | None = None
    quality: int | None = None
    metadata: Metadata = "keep"
    delivery: Delivery = "inline"


@dataclass(frozen=True, slots=True)
class Order:
    """One wish, valid in itself. `timeout` is in seconds, for the whole request, queueing included.

    `scope` is whose it is, by the name of an API key; "" where callers are not told apart.
    `request` is the id of the request that it came with.
    `foreseen` are the output nodes that will answer, as far as the workflow shows it.
    `inputs` are those that a template was filled with, drawn seeds included; they are answered with the result.
    `labels` are the names that a template has for outputs, by node id.
    `holes` are the inputs of the template that it was made from, by which faults are told.
    `media` are inputs, as (node id, input name), that name media though their node is no known loader.
    `extra_data` may hold the caller's secrets: it is handed to the engine and kept out of every representation.
    """

    id: str
    workflow: Mapping[str, Any] = field(repr=False)
    timeout: float
    priority: int = 0
    selection: Selection = Selection()
    extra_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    foreseen: tuple[str, ...] = ()
    media: frozenset[tuple[str, str]] = frozenset()
    parts: Mapping[str, Part] = field(default_factory=dict, repr=False)
    inputs: Mapping[str, Any] | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    holes: tuple[Input, ...] = ()
    scope: str = ""
    request: str = ""

    def tell(self, fault: Fault) -> Fault:
        """The fault in words that whoever gave the order knows: inputs of a template by their names."""
        return name_inputs(fault, self.holes)

    @property
    def about(self) -> dict[str, str]:
        """What every log line about its job says: the ids of job and request, and the name of the API key."""
        known = {"request": self.request, "key": self.scope}
        return {"job": self.id} | {name: value for name, value in known.items() if value}
