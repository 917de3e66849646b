"""What is written down in a round: the log from which the verdict follows. Moments are seconds of the wall clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.e2e.chaos.orders import Order
from tests.e2e.chaos.strikes import Strike


@dataclass(slots=True)
class Answer:
    """What became of one request. `status` 0: nothing that is an answer came, and `trouble` says what did.

    `left`: when its caller went. `picture`: the colour of all pixels of the one picture, None if there was no such.
    """

    request_id: str
    order: Order
    asked: float
    answered: float = 0.0
    status: int = 0
    code: str = ""
    retry_after: str | None = None
    picture: int | None = None
    left: float | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Post:
    """A submission that the converter has sent to the engine, as the relay has seen it."""

    at: float
    prompt_id: str
    number: int


@dataclass(slots=True)
class Run:
    """A prompt that an engine process began, from the engine's own log; `ended` says how, if it did."""

    at: float
    pid: int
    prompt_id: str
    ended: str = ""
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that was carried out. `about`: the prompt of a stranger."""

    strike: Strike
    begun: float
    ended: float
    about: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One answer of a probe."""

    asked: float
    answered: float
    path: str
    status: int
    state: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes and open file descriptors of the converter."""

    at: float
    rss: int
    files: int


@dataclass(slots=True)
class Log:
    """All of one round. `lives`: process id of each engine to the moment of its start. `noticed`: request id to the
    moment when the converter's access log says that its caller had left. `errors`: lines of the converter's log that
    say that something was its own mistake. `left`: what was still there when all was over.
    """

    orders: Sequence[Order] = ()
    answers: list[Answer] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    lives: dict[int, float] = field(default_factory=dict)
    struck: list[Struck] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    noticed: Mapping[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
