"""Junk is answered: a clear 4xx in the one shape of all faults, nothing in the log, no place taken."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.converter.api.conftest import MAX_BODY
from tests.converter.api.exchange import check_refusal, exchange, field, multipart, request
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Caller]:
    """One converter for all of them: what one leaves behind, the next would meet."""
    async with FakeEngine() as engine, converter(engine.url, max_body=MAX_BODY) as caller:
        yield caller


FORM = "multipart/form-data; boundary=b"
ORDER = json.dumps({"workflow": picture(1)}).encode()
UI_EXPORT = {"workflow": {"nodes": [{"id": 1}], "links": [[1, 1, 0, 2, 0, "IMAGE"]], "version": 0.4}}


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    return request(body=multipart(*parts, end=end), Content_Type=FORM)


def dump(**fields: Any) -> bytes:
    return request(body=json.dumps({"workflow": picture(1), **fields}).encode())


def nest(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


JUNK: dict[str, tuple[bytes, int, str]] = {
    # bodies
    "empty": (request(body=b""), 400, "the body is empty"),
    "white space": (request(body=b" \r\n\t"), 400, "the body is empty"),
    "no body announced": (request(body=None), 400, "the body is empty"),
    "not JSON": (request(body=b"{'workflow': {}}"), 400, "not JSON: Expecting property name"),
    "cut off": (request(body=b'{"workflow":'), 400, "not JSON"),
    "two documents": (request(body=b"{}{}"), 400, "not JSON: Extra data"),
    "not UTF-8": (request(body='{"workflow":{}}'.encode("utf-16")), 400, "not UTF-8"),
    "half a character": (request(body=b'{"workflow": "\xc3"}'), 400, "not UTF-8"),
    "byte order mark": (request(body=b"\xef\xbb\xbf{}"), 400, "not JSON"),
    "NUL": (request(body=b"\0"), 400, "not JSON"),
    "NaN": (request(body=b'{"workflow":{},"timeout":NaN}'), 400, "NaN is not JSON"),
    "infinity": (request(body=b'{"workflow":{},"timeout":-Infinity}'), 400, "-Infinity is not JSON"),
    "a number beyond all": (request(body=b'{"workflow":{},"timeout":1e999}'), 400, "/timeout: "),
    "repeated name": (request(body=b'{"workflow":{},"workflow":{}}'), 400, '"workflow" is there twice'),
    "repeated name inside": (request(body=b'{"workflow":{"1":{},"1":{}}}'), 400, '"1" is there twice'),
    "endless nesting": (request(body=b"[" * 200_000), 400, "nested too deeply"),
    "endless array": (request(body=b"[" + b"1," * 520_000 + b"1]"), 413, "more than 500000 values"),
    "deep workflow": (request(body=b'{"workflow":' + nest(300) + b"}"), 422, "nested more than"),
    "deep extra data": (dump(extra_data=json.loads(nest(300))), 400, "/extra_data: nested more than"),
    "number of 5000 digits": (request(body=b'{"priority":' + b"9" * 5000 + b"}"), 400, "number that is too long"),
    "number of 400 digits": (dump(priority=10**400), 400, "/priority: "),
    "seconds of 400 digits": (dump(timeout=10**400), 400, "/timeout: "),
    "array": (request(body=b"[]"), 400, "must be a JSON object"),
    "text": (request(body=b'"workflow"'), 400, "must be a JSON object"),
    "null": (request(body=b"null"), 400, "must be a JSON object"),
    "no workflow": (request(body=b"{}"), 400, "/workflow: is required"),
    "workflow is null": (request(body=b'{"workflow":null}'), 400, "/workflow: "),
    "half a surrogate pair as name": (request(body=b'{"workflow":{},"\\ud800":1}'), 400, "unicode"),
    "half a surrogate pair as id": (request(body=b'{"workflow":{},"id":"\\ud800"}'), 400, "/id: "),
    "UI export": (request(body=json.dumps(UI_EXPORT).encode()), 422, "Export (API)"),
    "empty workflow": (request(body=b'{"workflow":{}}'), 422, "not an object that holds nodes"),
    # encodings
    "another type": (request(body=b"{}", Content_Type="text/plain"), 415, "application/json"),
    "no type at all": (request(body=b"{}", Content_Type="///"), 415, "application/json"),
    "unknown encoding": (request(body=b"{}", Content_Encoding="rot13"), 415, "gzip"),
    "encoding that it is not": (request(body=b"{}", Content_Encoding="gzip"), 400, "Content-Encoding is broken"),
    "gzip of nothing much": (request(body=gzip.compress(b"[]"), Content_Encoding="gzip"), 400, "must be a JSON object"),
    "gzip bomb": (request(body=gzip.compress(b" " * (64 * MAX_BODY)), Content_Encoding="gzip"), 413, "larger"),
    "deflate bomb": (request(body=zlib.compress(b" " * (64 * MAX_BODY)), Content_Encoding="deflate"), 413, "larger"),
    # multipart
    "form without boundary": (request(body=b"x", Content_Type="multipart/form-data"), 400, "multipart body"),
    "no part": (request(body=b"", Content_Type=FORM), 400, "multipart body"),
    "form of nothing": (form(), 400, "first part must be"),
    "garbage as form": (request(body=b"garbage", Content_Type=FORM), 400, "multipart body"),
    "first part is another": (form((field("picture"), b"x"), (field("request"), ORDER)), 400, "first part must be"),
    "first part is null": (form((field("request"), b"null"), (field("request"), ORDER)), 400, "must be a JSON object"),
    "part without a name": (form((field("request"), ORDER), ("X-Y: z", b"x")), 400, "every part needs a name"),
    "part of parts": (
        form((f"{field('request')}\r\nContent-Type: multipart/mixed; boundary=c", b"--c--")),
        400,
        "multipart",
    ),
    "two parts of a name": (form((field("request"), ORDER), (field("a"), b""), (field("a"), b"")), 400, 'named "a"'),
    "too many parts": (form((field("request"), ORDER), *((field(f"p{i}"), b"") for i in range(65))), 413, "64 parts"),
    "part breaks off": (form((field("request"), ORDER), (field("a"), b"x"), end=False), 400, "multipart body"),
    "broken header of a part": (form((f"{field('request')}\r\nno\0header", ORDER)), 400, "multipart body"),
    "endless header of a part": (form((f"{field('request')}\r\nX: {'x' * 20_000}", ORDER)), 400, "multipart body"),
    "too many headers of a part": (form((field("request") + "\r\nX: y" * 300, ORDER)), 400, "multipart body"),
    "charset part": (form((field("_charset_"), b"x" * 50)), 400, "multipart body"),
    # sizes and framing
    "too large as announced": (request(body=None, Content_Length=str(MAX_BODY + 1)), 413, f"{MAX_BODY} bytes"),
    "too large in parts": (form((field("request"), ORDER), (field("a"), b"x" * (MAX_BODY - len(ORDER) + 1))), 413, ""),
    "negative length": (request(body=None, Content_Length="-1"), 400, "not valid HTTP"),
    "two framings": (request(body=b"", Transfer_Encoding="chunked"), 400, "not valid HTTP"),
    "bad chunk": (request(body=None, Transfer_Encoding="chunked") + b"zz\r\n{}\r\n", 400, "not valid HTTP"),
    "no HTTP": (b"EHLO example.org\r\n\r\n", 400, "not valid HTTP"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not valid HTTP"),
    "HTTP of the future": (b"GET /livez HTTP/9.9\r\n\r\n", 400, "not valid HTTP"),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", 400, "not valid HTTP"),
    "endless line": (request("GET", "/" + "x" * 20_000, None), 400, "not valid HTTP"),
    "endless header": (request("GET", "/livez", None, X="x" * 20_000), 400, "not valid HTTP"),
}


@pytest.mark.parametrize("case", JUNK)
async def test_junk_is_refused_clearly_and_leaves_nothing(shared: Caller, case: str) -> None:
    data, status, words = JUNK[case]
    answer = await exchange(shared.url, data)
    check_refusal(answer, status)
    assert words in answer.document["detail"]
    assert not shared.tickets
    assert (await shared.run(picture(2))).colors == [2]
