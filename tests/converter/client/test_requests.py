"""What the client sends: one order with every try, as the contract has it."""

import asyncio
import re
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from converter import errors
from converter.api import requests
from converter.client import Client, Outputs, Template, UnexpectedAnswer
from tests.converter.client.conftest import Naps
from tests.converter.client.scripted import OUTPUT, WORKFLOW, Asked, playing, problem, reset, result, serving

DONE = playing(("result", result(OUTPUT)))
SECRET = "s3cret-key"


async def test_a_call_is_an_order_with_a_key_and_a_timeout() -> None:
    async with serving(DONE) as server, Client(server.url + "/", timeout=20.0) as client:
        await client.run(WORKFLOW)
        await client.run(WORKFLOW, timeout=30.0, id="mine", priority=-1, outputs={"nodes": ["9"], "format": "webp"})
        await client.run(WORKFLOW, idempotency_key='my "key"\\1', extra_data={"a": 1})
    first, second, third = server.asked
    assert (first.path, first.headers["Accept"]) == ("/v1/run", "text/event-stream")
    assert first.headers["Content-Type"] == "application/json"
    assert "Authorization" not in first.headers
    assert first.document == {"workflow": WORKFLOW, "timeout": 20.0}
    choice = {"nodes": ["9"], "format": "webp"}
    assert second.document == {
        "workflow": WORKFLOW,
        "timeout": 30.0,
        "id": "mine",
        "priority": -1,
        "outputs": choice,
    }
    assert third.document == {"workflow": WORKFLOW, "timeout": 20.0, "extra_data": {"a": 1}}
    assert re.fullmatch(r'"[0-9a-f]{32}"', server.keys[0])
    assert server.keys[1] != server.keys[0]
    assert server.keys[2] == r'"my \"key\"\\1"'


async def test_a_timeout_may_be_left_to_the_service() -> None:
    async with serving(DONE) as server, Client(server.url, timeout=None, patience=10.0) as client:
        await client.run(WORKFLOW)
        await client.run(WORKFLOW, timeout=5.0)
    assert [asked.document.get("timeout") for asked in server.asked] == [None, 5.0]


async def test_a_template_is_filled_by_name() -> None:
    async with serving(DONE) as server, Client(server.url) as client:
        await client.run(Template("txt2img", {"prompt": "a red circle"}))
        await client.run(Template("a/b c"))
    assert [asked.path for asked in server.asked] == ["/v1/workflows/txt2img", "/v1/workflows/a%2Fb%20c"]
    assert server.asked[0].document["inputs"] == {"prompt": "a red circle"}


async def test_the_address_may_have_a_path() -> None:
    async with serving(DONE, prefix="/pool/a") as server, Client(f"{server.url}/") as client:
        await client.run(WORKFLOW)
    assert server.asked[0].path == "/pool/a/v1/run"


def parts(asked: Asked) -> list[tuple[object, str, object]]:
    """Name, content type and contents of each part of a multipart body."""
    head = f"Content-Type: {asked.headers['Content-Type']}\r\n\r\n".encode()
    message = message_from_bytes(head + asked.body)
    return [
        (part.get_param("name", header="Content-Disposition"), part.get_content_type(), part.get_payload(decode=True))
        for part in message.walk()
        if not part.is_multipart()
    ]


async def test_files_are_parts_which_are_the_same_with_every_try(tmp_path: Path, naps: Naps) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG photo")
    large = bytes(range(256)) * 2**14
    answers = [problem(503, "starting", {"Retry-After": "1"}, retry="later"), reset, DONE]
    async with serving(answers) as server, Client(server.url, sleep=naps) as client:
        await client.run(WORKFLOW, files={"photo": photo, "mask 1": large})
    first, *others = map(parts, server.asked)
    assert [(name, content_type) for name, content_type, _ in first] == [
        ("request", "application/json"),
        ("photo", "image/png"),
        ("mask 1", "application/octet-stream"),
    ]
    assert [data for _, _, data in first[1:]] == [b"\x89PNG photo", large]
    assert others == [first, first]
    assert len(set(server.keys)) == 1


async def test_a_large_workflow_is_sent_whole() -> None:
    workflow = {"9": {"class_type": "X", "inputs": {"image": "x" * 3_000_000}}}
    async with serving(DONE) as server, Client(server.url) as client:
        await client.run(workflow)
    assert server.asked[0].document["workflow"] == workflow


async def test_a_file_that_is_not_there_is_said_and_nothing_sent(tmp_path: Path) -> None:
    async with serving(DONE) as server, Client(server.url, limit=1) as client:
        for _ in range(2):  # nothing is held on to
            with pytest.raises(FileNotFoundError):
                await client.run(WORKFLOW, files={"photo": tmp_path / "photo.png"})
        await client.run(WORKFLOW)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("work", "options", "said"),
    [
        (Path("wf.json"), {}, r"the workflow as a dict, .* or Template\(name, inputs\), not PosixPath"),
        ("txt2img", {}, r"or Template\(name, inputs\), not text"),
        (None, {}, "not NoneType"),
        (WORKFLOW, {"files": {"p": "/tmp/blue.png"}}, r"files\['p'\] must be bytes, or a pathlib\.Path .*, not text"),
        (WORKFLOW, {"files": {"a": b"a", "p": bytearray(b"p")}}, r"files\['p'\] .*, not bytearray"),
        (WORKFLOW, {"files": [b"a"]}, "files are given as a dict, by name, not as list"),
    ],
)
async def test_what_is_of_another_type_is_said_and_nothing_sent(work: Any, options: Any, said: str) -> None:
    async with serving(DONE) as server, Client(server.url) as client:
        with pytest.raises(TypeError, match=said):
            await client.run(work, **options)
    assert server.asked == []


@pytest.mark.parametrize("form", ["raw", "multipart", "zip"])
async def test_a_delivery_that_is_no_stream_is_refused_before_it_is_sent(form: Any) -> None:
    async with serving(DONE) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match=f'can\'t be "{form}" here.*choose "inline", "url", {{"storage": NAME}}'):
            await client.run(WORKFLOW, outputs={"delivery": form})
    assert server.asked == []


async def test_outputs_are_asked_for_as_the_contract_has_it() -> None:
    everything: Outputs = {"nodes": ["9"], "format": "avif", "quality": 50, "metadata": "strip", "delivery": "inline"}
    put: Outputs = {"delivery": {"put": ["https://store.example/a"], "headers": {"Cache-Control": "no-store"}}}
    wanted: list[Outputs] = [everything, {"delivery": "url"}, {"delivery": {"storage": "results"}}, put]
    async with serving(DONE) as server, Client(server.url) as client:
        for outputs in wanted:
            await client.run(WORKFLOW, outputs=outputs)
    assert [asked.document["outputs"] for asked in server.asked] == wanted
    assert everything.keys() == requests.Outputs.model_fields.keys()
    for outputs in wanted:
        requests.Outputs.model_validate(outputs)


async def test_who_has_not_entered_the_client_is_told_so() -> None:
    client = Client("http://127.0.0.1:9")
    for _ in range(2):
        for call in (client.run(WORKFLOW), client.describe("a")):
            with pytest.raises(RuntimeError, match=r"use it in `async with Client\(\.\.\.\) as client:`"):
                await call
        with pytest.raises(RuntimeError, match="async with"):
            client.stream(WORKFLOW)
        with pytest.raises(RuntimeError, match="async with"):
            client.room  # noqa: B018
        async with client:
            pass  # and who has left it, too


async def test_the_key_is_sent_and_said_nowhere() -> None:
    async with (
        serving(problem(401, "unauthorized", retry="never")) as server,
        Client(server.url, api_key=SECRET) as client,
    ):
        with pytest.raises(errors.Unauthorized, match="detail") as raised:
            await client.run(WORKFLOW)
        shown = repr(client) + repr(vars(client)["_terms"]) + repr(raised.value)
    assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in shown


async def test_a_redirect_takes_no_key_along() -> None:
    async with serving(DONE) as other:

        async def redirect(request: object) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{other.url}/v1/run"})

        async with serving(redirect) as server, Client(server.url, api_key=SECRET) as client:
            with pytest.raises(UnexpectedAnswer, match="307"):
                await client.run(WORKFLOW)
        assert other.asked == []


async def test_connections_are_used_again() -> None:
    """Also where the end of an answer comes some time after its last event."""
    peers, known = [], asyncio.Event()

    async def note(request: web.Request) -> None:
        assert request.transport
        peers.append(request.transport.get_extra_info("peername"))
        await known.wait()

    late = playing(("result", result(OUTPUT)), then=note)
    async with (
        serving([late, problem(429, "queue_full", {"Retry-After": "1"}), late]) as server,
        Client(server.url, sleep=Naps()) as client,
    ):
        for _ in range(2):
            known.clear()
            async with client.stream(WORKFLOW) as events:
                await events.result()
                known.set()
    assert len(peers) == 2
    assert peers[0] == peers[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "nonsense"}, "url must be an address such as http://127.0.0.1:3000"),
        ({"url": "http://me:s3cret@host"}, "url must not contain credentials"),
        ({"api_key": "a\nb"}, "an API key is printable"),
        ({"timeout": 0.0}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"patience": -1.0}, "patience must be"),
        ({"timeout": None}, "without a timeout needs a patience"),
        ({"limit": 0}, "room for one call"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        Client(**arguments)  # type: ignore[arg-type]
    assert "s3cret" not in str(raised.value)


async def test_an_idempotency_key_that_can_not_be_sent_is_refused() -> None:
    async with Client("http://127.0.0.1:9") as client:
        for key in ("", "ä", "a\n", "x" * 256):
            with pytest.raises(ValueError, match="idempotency key"):
                await client.run(WORKFLOW, idempotency_key=key)
