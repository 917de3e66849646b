"""Results written as bodies, piece by piece, so that no body is ever held as a whole.

JSON with base64 inside, and multipart/mixed. Invariant: every generator yields exactly as many bytes as its length
function says, so that a body which breaks midway can't pass for a whole one.
"""

import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from converter.media.outputs import Item

_ATTRIBUTE = "!#$&+-.^_`|~"
"""What an extended parameter has as it is, beside letters and digits (RFC 8187 section 3.2.1)."""

_VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
"""What a field value has as it is (RFC 9110 section 5.5); the percent sign stands for what is encoded."""


def describe(item: Item) -> dict[str, Any]:
    """An output without its bytes."""
    output = item.output
    document: dict[str, Any] = {
        "node_id": output.node_id,
        "class_type": output.class_type,
        "name": output.name,
        "kind": output.kind,
        "content_type": output.content_type,
        "size": item.size,
    }
    if output.label is not None:
        document["label"] = output.label
    document |= item.link
    if item.warning is not None:
        document["warning"] = item.warning
    if output.text is not None:
        document["text"] = output.text
    return document


def enclose(document: Mapping[str, Any]) -> Callable[[str], Mapping[str, Any]]:
    """A result document whose items are its `outputs`, for `JsonBody`."""
    return lambda place: {**document, "outputs": place}


class JsonBody:
    """A document with a list of items in it, each with its bytes in base64 as its last member, `data`."""

    def __init__(
        self,
        compose: Callable[[str], Mapping[str, Any]],
        items: Sequence[Item],
        describe: Callable[[Item], Mapping[str, Any]] = describe,
        data: str | None = "data",
    ) -> None:
        """`compose`: the document, with the text that it is given in place of the list. `describe`: all other members
        of an item. Without `data` an item is its base64 alone.
        """
        place = uuid.uuid4().hex
        head, tail = json.dumps(compose(place), separators=(",", ":")).split(f'"{place}"')
        self._head, self._tail = f"{head}[".encode(), f"]{tail}".encode()
        self._items = items
        self._describe = describe
        self._data = None if data is None else json.dumps(data)
        self._closing = b'"' if data is None else b'"}'
        self._openings = [self._open(number, item) for number, item in enumerate(items)]

    def __len__(self) -> int:
        """Bytes of the whole body."""
        data = sum((item.size + 2) // 3 * 4 + len(self._closing) for item in self._items if item.content is not None)
        return len(self._head) + sum(map(len, self._openings)) + data + len(self._tail)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces."""
        held = self._head
        for opening, item in zip(self._openings, self._items, strict=True):
            held += opening
            if item.content is None:
                continue
            async for piece in encode(item):
                yield held + piece
                held = b""
            held += self._closing
        yield held + self._tail

    def _open(self, number: int, item: Item) -> bytes:
        before = "," if number else ""
        if self._data is None:
            return f'{before}"'.encode()
        text = json.dumps(self._describe(item), separators=(",", ":"))
        if item.content is None:
            return f"{before}{text}".encode()
        comma = "" if text == "{}" else ","
        return f'{before}{text[:-1]}{comma}{self._data}:"'.encode()


async def encode(item: Item) -> AsyncIterator[bytes]:
    """base64 (RFC 4648 section 4) of a stream: three bytes make four, so what does not divide waits."""
    rest = b""
    async for chunk in item.chunks():
        whole = rest + chunk if rest else chunk
        cut = len(whole) - len(whole) % 3
        rest = whole[cut:]
        if cut:
            yield base64.b64encode(memoryview(whole)[:cut])
    if rest:
        yield base64.b64encode(rest)


class MultipartBody:
    """All items as one multipart/mixed body (RFC 2046 section 5.1.3), each as raw bytes."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._boundary = uuid.uuid4().hex
        self.headers = {"Content-Type": f"multipart/mixed; boundary={self._boundary}"}
        self._items = items
        self._heads = [self._head(item) for item in items]
        self._tail = f"--{self._boundary}--\r\n".encode()

    def __len__(self) -> int:
        """Bytes of the whole body."""
        return sum(len(head) + item.size + 2 for head, item in zip(self._heads, self._items, strict=True)) + len(
            self._tail
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces."""
        for head, item in zip(self._heads, self._items, strict=True):
            yield head
            async for chunk in item.chunks():
                yield chunk
            yield b"\r\n"
        yield self._tail

    def _head(self, item: Item) -> bytes:
        output = item.output
        lines = (
            f"--{self._boundary}",
            f"Content-Type: {output.content_type}",
            f"Content-Length: {item.size}",
            f"Content-Disposition: {disposition(output.name)}",
            f"X-Node-Id: {quote(output.node_id, safe=_VISIBLE, errors='replace')}",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def disposition(name: str) -> str:
    """`Content-Disposition` for a file name: a plain one for all readers, the true one where it differs (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    if plain == name:
        return f'inline; filename="{plain}"'
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE, errors='replace')}"
