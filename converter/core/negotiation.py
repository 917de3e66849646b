"""What kind of answer a caller wants: the `Accept` and `Prefer` headers, read as the standards say.

RFC 9110 section 12.5.1 (quality values, most specific range wins) and RFC 7240 (preferences are a list, names are
case-insensitive, unknown ones are ignored). Invariant: no header value raises; what can't be read is not there.
"""

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from converter.core.order import Format

Form = Literal["raw", "multipart", "zip"]
"""How the bytes of outputs make a body."""


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
        """Whether an answer of this content type is acceptable."""
        return _weigh(self.ranges, content_type) > 0

    @property
    def several(self) -> Literal["multipart", "zip"] | None:
        """The form in which several outputs may be answered as bytes: only one that is named."""
        named = {"multipart": ("multipart/mixed", "multipart/*"), "zip": ("application/zip",)}
        weights = {
            form: max((r.quality for r in self.ranges if f"{r.type}/{r.subtype}" in types), default=0.0)
            for form, types in named.items()
        }
        if not any(weights.values()):
            return None
        return "zip" if weights["zip"] > weights["multipart"] else "multipart"

    def narrowed(self, form: Form) -> "Wish | None":
        """The wish of a caller who asks for this form beside the header; None if the header rules it out."""
        if form == "raw":
            ranges = tuple(r for r in self.ranges if _shape(r, json=False) is Shape.RAW)
        else:
            kind, subtype = ("multipart", "mixed") if form == "multipart" else ("application", "zip")
            ranges = (Range(kind, subtype, _weigh(self.ranges, f"{kind}/{subtype}")),)
        return Wish(Shape.RAW, ranges) if any(r.quality > 0 for r in ranges) else None

    def excludes(self, format: Format) -> bool:
        """Whether nothing but pictures is acceptable, and none of this format."""
        pictures = all(r.type == "image" for r in self.ranges if r.quality > 0)
        return pictures and not self.takes(f"image/{format}")

    @property
    def format(self) -> Format | None:
        """The one picture format that is acceptable, if there is just one."""
        formats: tuple[Format, ...] = ("png", "jpeg", "webp", "avif")
        taken: list[Format] = [f for f in formats if self.takes(f"image/{f}")]
        return taken[0] if len(taken) == 1 else None


_RAW_TYPES = frozenset(("image", "video", "audio", "multipart", "*"))
_RAW_KINDS = frozenset(("application/octet-stream", "application/zip"))


def read_accept(header: str | None) -> Wish | None:
    """The wish that an `Accept` header states; None if nothing that this service makes is acceptable."""
    ranges = _ranges(header or "") or (Range("*", "*", 1.0),)
    json = _weigh(ranges, "application/json")
    offers: list[tuple[float, int, Shape]] = []
    for accepted in ranges:
        shape = _shape(accepted, json=json > 0)
        quality = json if shape is Shape.JSON else accepted.quality
        if shape is not None and quality > 0:
            preference = {Shape.STREAM: 1, Shape.RAW: 0}.get(shape, 2)
            offers.append((quality, preference, shape))
    return Wish(max(offers, key=lambda offer: offer[:2])[2], ranges) if offers else None


def _weigh(ranges: tuple[Range, ...], content_type: str) -> float:
    """The quality of a content type: that of the most specific range that it falls into, 0 if there is none."""
    matching = [r for r in ranges if r.matches(content_type)]
    best = max(matching, key=lambda r: (r.type != "*") + (r.subtype != "*"), default=None)
    return 0.0 if best is None else best.quality


def _shape(accepted: Range, *, json: bool) -> Shape | None:
    """The shape that a range asks for. A wildcard means JSON, or the bytes if JSON is ruled out elsewhere (`json`)."""
    if json and accepted.matches("application/json"):
        return Shape.JSON
    if (accepted.type, accepted.subtype) == ("text", "event-stream"):
        return Shape.STREAM
    if accepted.type in _RAW_TYPES or f"{accepted.type}/{accepted.subtype}" in _RAW_KINDS:
        return Shape.RAW
    return None


def _ranges(header: str) -> tuple[Range, ...]:
    found = []
    for item in _split(header, ","):
        media, *parameters = (piece.strip().lower() for piece in _split(item, ";") or ("",))
        kind, slash, subtype = media.partition("/")
        quality = _quality(parameters)
        if slash and kind and subtype and " " not in media and quality is not None:
            found.append(Range(kind, subtype, quality))
    return tuple(found)


def _split(text: str, mark: str) -> list[str]:
    """The pieces of a list, at most 64; a mark within a quoted string separates nothing (RFC 9110 section 5.6)."""
    return re.findall(rf"""(?:[^{mark}"]|"(?:[^"\\]|\\.?)*"?)+""", text)[:64]


def _quality(parameters: list[str]) -> float | None:
    """The weight among a range's parameters (RFC 9110 section 12.4.2), None if it can't be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value.strip())
            except ValueError:
                return None
            return None if math.isnan(quality) else min(max(quality, 0.0), 1.0)
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
    for item in _split(",".join(headers), ","):
        name, _, value = item.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and value.isascii() and value.isdigit() and len(value) < 10:
            wait = float(value)
    return Preference(respond_async, wait)
