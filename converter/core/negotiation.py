"""What kind of answer a caller wants: the `Accept` and `Prefer` headers, read as the standards say.

RFC 9110 section 12.5.1 (quality values, most specific range wins) and RFC 7240 (preferences are a list, names are
case-insensitive, unknown ones are ignored). Invariant: no header value raises; what can't be read is not there.
"""

from dataclasses import dataclass
from enum import Enum

from converter.core.order import Format


class Shape(Enum):
    """The three shapes of an answer."""

    JSON = "application/json"
    RAW = "the bytes of the output"
    STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Range:
    """A media range of `Accept`, lower case, with its quality (0 to 1)."""

    type: str
    subtype: str
    quality: float

    def matches(self, content_type: str) -> bool:
        """Whether a content type (without parameters) falls into the range."""
        kind, _, subtype = content_type.partition("/")
        return self.type in ("*", kind) and self.subtype in ("*", subtype)


@dataclass(frozen=True, slots=True)
class Wish:
    """The shape that is wanted most, and what else the caller can take."""

    shape: Shape
    ranges: tuple[Range, ...]

    def takes(self, content_type: str) -> bool:
        """Whether an answer of this content type is acceptable; the most specific matching range decides."""
        matching = [r for r in self.ranges if r.matches(content_type)]
        best = max(matching, key=lambda r: (r.type != "*") + (r.subtype != "*"), default=None)
        return best is not None and best.quality > 0

    @property
    def multipart(self) -> bool:
        """Whether several outputs may be answered as multipart/mixed: only if that is named."""
        return any(r.type == "multipart" and r.subtype in ("mixed", "*") and r.quality > 0 for r in self.ranges)

    @property
    def format(self) -> Format | None:
        """The one picture format that is acceptable, if there is just one."""
        formats: tuple[Format, ...] = ("png", "jpeg", "webp")
        taken: list[Format] = [f for f in formats if self.takes(f"image/{f}")]
        return taken[0] if len(taken) == 1 else None


_RAW_TYPES = frozenset(("image", "video", "audio", "multipart"))


def read_accept(header: str | None) -> Wish | None:
    """The wish that an `Accept` header states; None if nothing that this service makes is acceptable."""
    ranges = _ranges(header) if header and header.strip() else (Range("*", "*", 1.0),)
    offers: list[tuple[float, int, Shape]] = []
    for accepted in ranges:
        shape = _shape(accepted)
        if shape is not None and accepted.quality > 0:
            preference = {Shape.STREAM: 1, Shape.RAW: 0}.get(shape, 2)
            offers.append((accepted.quality, preference, shape))
    return Wish(max(offers, key=lambda offer: offer[:2])[2], ranges) if offers else None


def _shape(accepted: Range) -> Shape | None:
    if accepted.matches("application/json"):
        return Shape.JSON
    if (accepted.type, accepted.subtype) == ("text", "event-stream"):
        return Shape.STREAM
    if accepted.type in _RAW_TYPES or (accepted.type, accepted.subtype) == ("application", "octet-stream"):
        return Shape.RAW
    return None


def _ranges(header: str) -> tuple[Range, ...]:
    found = []
    for item in header.split(",")[:64]:
        media, *parameters = (piece.strip().lower() for piece in item.split(";"))
        kind, slash, subtype = media.partition("/")
        if slash and kind and subtype and " " not in media:
            found.append(Range(kind, subtype, _quality(parameters)))
    return tuple(found)


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value.strip()), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


@dataclass(frozen=True, slots=True)
class Preference:
    """What `Prefer` asks for; `wait` in seconds. Both None and False: an ordinary synchronous answer."""

    respond_async: bool = False
    wait: float | None = None

    @property
    def applied(self) -> str:
        """The value of `Preference-Applied`."""
        wait = None if self.wait is None else f"wait={self.wait:.0f}"
        return ", ".join(filter(None, ("respond-async" if self.respond_async else None, wait)))


def read_prefer(headers: list[str]) -> Preference:
    """The preferences of all `Prefer` headers together; of a repeated one the first counts (RFC 7240 section 2)."""
    respond_async, wait = False, None
    for item in ",".join(headers).split(",")[:64]:
        name, _, value = item.split(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and value.isascii() and value.isdigit() and len(value) < 10:
            wait = float(value)
    return Preference(respond_async, wait)
