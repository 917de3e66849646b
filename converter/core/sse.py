"""Server-sent events as bytes: written for a stream's readers, and read piece by piece as they arrive.

The format is that of the WHATWG HTML standard, section 9.2 "Server-sent events". Which events there are, and when
one is sent, is left to others; so is reconnecting, hence `retry` fields are ignored. Invariants: what `encode` writes
is parsed to the same event however the bytes are cut on their way, with line ends in data becoming LF; a parser holds
no more than its bound and one chunk.
"""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")
_UNFIT = re.compile(r"[\r\n\0]")
_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """An event, a comment or a line without an end is above the parser's bound."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is dispatched. `id` is the last event id of the stream so far, "" before there was any."""

    name: str
    data: str
    id: str


def encode(event: str, data: str, id: str | None = None) -> bytes:
    """One event. Raises ValueError if its name or id can't be written: empty, or with a line end or NUL in it."""
    for text in (event, id):
        if text is not None and (not text or _UNFIT.search(text)):
            raise ValueError(f"{text!r} can't be the name or the id of an event")
    head = f"event: {event}\n" if id is None else f"event: {event}\nid: {id}\n"
    if "\r" in data:
        data = data.replace("\r\n", "\n").replace("\r", "\n")
    return b"".join((head.encode(), b"data: ", data.replace("\n", "\ndata: ").encode(), b"\n\n"))


def comment() -> bytes:
    """An empty comment, which keeps a silent connection open."""
    return b":\n\n"


class Parser:
    """Makes events of bytes that come in any pieces. `bound`: the most bytes of one event, or of one line."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._line = bytearray()  # of a line whose end has not come
        self._after_cr = False  # the next byte may be the second half of a CRLF
        self._first = True  # the line is the stream's first, and may begin with a byte order mark
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with this chunk. Raises TooLong; the parser is of no more use then."""
        events: list[Event] = []
        if not chunk:
            return events
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        start = 0
        for end in _LINE_END.finditer(chunk):
            self._append(chunk[start : end.start()])
            start = end.end()
            if event := self._end_line():
                events.append(event)
        self._append(chunk[start:])
        self._after_cr = chunk.endswith(b"\r")
        return events

    def _append(self, piece: bytes) -> None:
        if self._size + len(self._line) + len(piece) > self._bound:
            raise TooLong(f"an event of more than {self._bound} bytes")
        self._line += piece

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._name = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        return Event(name, b"\n".join(data).decode(errors="replace"), self._id)
