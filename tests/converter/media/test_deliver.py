"""Bodies are exactly as long as they say, and any reader finds in them what was put in, however it was cut."""

import asyncio
import base64
import email.policy
import json
from collections.abc import AsyncIterable, AsyncIterator
from email.parser import BytesParser
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from converter.core.outputs import FileRef, Output
from converter.media.deliver import JsonBody, MultipartBody, disposition, enclose
from converter.media.outputs import Item


class Pieces:
    """A file that comes in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.size: int | None = sum(map(len, pieces))

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def item(name: str, pieces: list[bytes], *, held: bool, node_id: str = "1") -> Item:
    data = b"".join(pieces)
    output = Output(node_id, "SaveImage", name, "image", "image/png", file=FileRef(name, "", "output"))
    return Item(output, len(data), data if held else Pieces(pieces))


def text(words: str) -> Item:
    return Item(
        Output("9", None, "text_00001.txt", "text", "text/plain; charset=utf-8", text=words), len(words.encode())
    )


def join(body: AsyncIterable[bytes]) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in body])

    return asyncio.run(collect())


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
PIECES = st.lists(st.binary(max_size=40), max_size=8)
FILES = st.builds(item, NAMES, PIECES, held=st.booleans())
DOCUMENTS = st.fixed_dictionaries(
    {"id": st.text(max_size=8), "outputs": st.just([]), "inputs": st.just({"outputs": [], "x": '"outputs":[]'})}
)


@given(DOCUMENTS, st.lists(FILES | st.builds(text, TEXTS), max_size=4))
def test_json_is_exact_for_all_sizes_and_pieces(document: dict[str, object], items: list[Item]) -> None:
    body = JsonBody(enclose(document), items)
    written = join(body)
    assert len(written) == len(body)
    parsed = json.loads(written)
    outputs = parsed.pop("outputs")
    assert parsed == {name: value for name, value in document.items() if name != "outputs"}
    assert [output["name"] for output in outputs] == [each.output.name for each in items]
    for output, each in zip(outputs, items, strict=True):
        if each.output.text is None:
            assert base64.b64decode(output["data"], validate=True) == content_of(each)
        else:
            assert output["text"] == each.output.text
            assert "data" not in output


def content_of(each: Item) -> bytes:
    return each.content if isinstance(each.content, bytes) else b"".join(getattr(each.content, "pieces", []))


@given(
    st.lists(st.tuples(st.lists(st.binary(max_size=80), max_size=5), st.booleans(), st.text(max_size=10)), min_size=1)
)
def test_multipart_is_read_back_by_a_mail_reader(parts: list[tuple[list[bytes], bool, str]]) -> None:
    """Node ids are what a caller calls them: line ends and half surrogate pairs included."""
    items = [item("a.png", pieces, held=held, node_id=node_id) for pieces, held, node_id in parts]
    body = MultipartBody(items)
    written = join(body)
    assert len(written) == len(body)
    message = BytesParser(policy=email.policy.HTTP).parsebytes(
        f"Content-Type: {body.headers['Content-Type']}\r\n\r\n".encode() + written
    )
    read = list(message.iter_parts())
    assert not message.defects
    assert [part.get_payload(decode=True) for part in read] == [b"".join(pieces) for pieces, _, _ in parts]
    assert [int(str(part["Content-Length"])) for part in read] == [each.size for each in items]
    assert [unquote(str(part["X-Node-Id"] or "")) for part in read] == [
        node_id.encode(errors="replace").decode() for _, _, node_id in parts
    ]


@given(NAMES)
def test_any_name_can_be_said_and_be_read(name: str) -> None:
    header = disposition(name)
    assert header.isascii()
    assert header.isprintable()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(f"Content-Disposition: {header}\r\n\r\n".encode())
    assert message.get_content_disposition() == "inline"
    if "filename*" in header:
        assert unquote(header.split("filename*=UTF-8''")[1], errors="strict") == name
    else:
        assert str(message.get_filename()).strip() == name.strip()  # what a mail reader does to white space


def test_names_that_are_no_plain_words() -> None:
    assert disposition("a b.png") == 'inline; filename="a b.png"'
    assert disposition('a"; filename="b.exe') == (
        "inline; filename=\"a_; filename=_b.exe\"; filename*=UTF-8''a%22%3B%20filename%3D%22b.exe"
    )
    assert disposition("größe\\.png") == "inline; filename=\"gr__e_.png\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%5C.png"
