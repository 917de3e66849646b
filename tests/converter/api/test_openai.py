"""The dialect `openai`, spoken by OpenAI's own client as it is: pictures from texts and pictures, streams, retries."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
    UnprocessableEntityError,
)
from PIL import Image

from tests.converter.api.templates import copy_templates
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import PATIENCE, Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid

KEY = "a-secret-of-some-length"
SERVED: dict[str, Any] = {"dialects": "openai", "shipped_workflows": False}
SLOW = passed_through("TestSleep", seconds=600.0)

MASKED = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "masked"}},
    "5": {"class_type": "TestText", "inputs": {"text": ""}},
}
MASKED_INPUTS = """
[inputs.prompt]
type = "string"
node = "5.text"
[inputs.image]
type = "image"
node = "1.image"
[inputs.mask]
type = "image"
node = "2.image"
"""
FAILING = passed_through("TestRaise", kind="ValueError") | {"5": MASKED["5"]}
FAILING_INPUTS = """
[inputs.prompt]
type = "string"
node = "5.text"
"""


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Those that ship, and such as lack their checkpoint, answer with their picture and mask, and fail."""
    copy_templates(tmp_path)
    for suffix in ("json", "toml"):
        text = (tmp_path / f"txt2img.{suffix}").read_text()
        (tmp_path / f"absent.{suffix}").write_text(text.replace("sd15-tiny", "absent"))
    for name, graph, inputs in (("masked", MASKED, MASKED_INPUTS), ("failing", FAILING, FAILING_INPUTS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(graph))
        (tmp_path / f"{name}.toml").write_text(inputs)
    return tmp_path


@pytest.fixture
async def caller(engine: FakeEngine, templates: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Caller]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with converter(engine.url, **SERVED, workflows_dir=templates) as caller:
        yield caller


async def until_known(caller: Caller) -> None:
    """The engine has told what it has for the templates."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if (await caller.get("/v1/models")).document["data"]:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def client(caller: Caller) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client, pointed at the converter."""
    async with AsyncOpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=0) as client:
        yield client


def opened(b64: str | None) -> Image.Image:
    assert b64 is not None
    return Image.open(io.BytesIO(base64.b64decode(b64, validate=True)))


def submitted(engine: FakeEngine) -> dict[str, Any]:
    """The workflow that the engine has run last."""
    *_, record = engine.prompts.page(None, 0).values()
    graph: dict[str, Any] = record["prompt"][2]
    return graph


def png(color: int) -> tuple[str, bytes, str]:
    return ("photo.png", encode(solid(color)[0]), "image/png")


# Pictures ------------------------------------------------------------------------------------------------------------


async def test_its_client_draws(caller: Caller) -> None:
    def draw() -> Any:
        with OpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=0) as client:
            return client.images.generate(prompt="a red circle", model="txt2img", size="256x128")

    response = await asyncio.to_thread(draw)
    (picture,) = response.data
    assert (opened(picture.b64_json).format, opened(picture.b64_json).size) == ("PNG", (256, 128))
    assert (response.size, response.output_format, response.background) == ("256x128", "png", "opaque")
    assert response._request_id


async def test_several_pictures_are_different_ones(client: AsyncOpenAI, caller: Caller) -> None:
    response = await client.images.generate(prompt="a red circle", n=3, response_format="b64_json")
    assert response.data is not None
    assert len({opened(picture.b64_json).tobytes() for picture in response.data}) == 3


async def test_parameters_reach_the_template(client: AsyncOpenAI, engine: FakeEngine) -> None:
    response = await client.images.generate(
        prompt="a red circle",
        quality="low",
        output_format="webp",
        output_compression=0,
        background="auto",
        moderation="low",
        user="me",
    )
    assert response.data is not None
    assert opened(response.data[0].b64_json).format == "WEBP"
    assert (response.quality, response.size, response.safety_identifier) == ("low", "128x128", "me")
    graph = submitted(engine)
    assert (graph["6"]["inputs"]["text"], graph["3"]["inputs"]["steps"]) == ("a red circle", 10)


async def test_a_picture_is_edited(client: AsyncOpenAI, engine: FakeEngine) -> None:
    response = await client.images.edit(image=png(0x112233), prompt="the same at night", size="64x64", n=2)
    assert response.data is not None
    assert [opened(picture.b64_json).size for picture in response.data] == [(64, 64), (64, 64)]
    assert submitted(engine)["6"]["inputs"]["text"] == "the same at night"
    assert len({upload["name"] for upload in engine.uploads}) == 1


async def test_a_mask_is_white_where_it_was_transparent(client: AsyncOpenAI) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    response = await client.images.edit(
        image=[png(0x112233)], mask=("mask.png", encode(mask), "image/png"), prompt="a hat"
    )
    assert response.data is not None
    picture, shown = (opened(each.b64_json).convert("RGB") for each in response.data)
    assert picture.getpixel((0, 0)) == (0x11, 0x22, 0x33)
    assert (shown.getpixel((0, 0)), shown.getpixel((63, 0))) == ((255, 255, 255), (0, 0, 0))


async def test_a_picture_is_had_by_its_link(client: AsyncOpenAI, caller: Caller) -> None:
    response = await client.images.generate(prompt="x", n=2, response_format="url", output_format="jpeg")
    assert response.data is not None
    for drawn in response.data:
        assert drawn.b64_json is None
        assert (drawn.url or "").startswith(f"{caller.url}/")
        async with caller.session.get(drawn.url or "") as fetched:
            assert (fetched.status, fetched.content_type) == (200, "image/jpeg")


async def test_pictures_of_one_request_do_not_wait_for_each_other(engine: FakeEngine, templates: Path) -> None:
    """With room for the outputs of one job only."""
    for keep_bytes in (0, 2**20):
        settings: dict[str, Any] = {**SERVED, "workflows_dir": templates, "deliveries": 1, "keep_bytes": keep_bytes}
        async with converter(engine.url, **settings) as caller:
            reply = await caller.post("/v1/images/generations", {"prompt": "x", "n": 3})
            assert len(reply.document["data"]) == 3


async def test_a_caller_who_leaves_takes_all_pictures_along(caller: Caller, engine: FakeEngine) -> None:
    engine.hold("KSampler")
    request = asyncio.create_task(caller.post("/v1/images/generations", {"prompt": "x", "n": 3}))
    await caller.until(lambda: caller.tickets == 3)
    request.cancel()
    await caller.until_empty()
    engine.release()


# Streams -------------------------------------------------------------------------------------------------------------


async def test_partial_images_come_before_the_picture(client: AsyncOpenAI, engine: FakeEngine) -> None:
    engine.hold("VAEDecode")  # after the last preview: those before may be passed over by a slow reader
    stream = await client.images.generate(
        prompt="a red circle", stream=True, partial_images=2, output_format="jpeg", output_compression=90
    )
    events: list[Any] = []
    async for event in stream:
        events.append(event)
        engine.release()
    *partial, last = events
    assert [event.type for event in partial] == ["image_generation.partial_image"] * len(partial)
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert len(partial) in (1, 2)
    assert last.type == "image_generation.completed"
    assert [opened(event.b64_json).format for event in events] == ["JPEG"] * len(events)
    assert (last.size, last.quality, last.usage.total_tokens) == ("128x128", "medium", 0)


async def test_no_partial_images_come_unless_they_are_wanted(client: AsyncOpenAI) -> None:
    stream = await client.images.generate(prompt="a red circle", stream=True)
    assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_an_edit_is_streamed_under_its_own_names(client: AsyncOpenAI) -> None:
    stream = await client.images.edit(image=png(1), prompt="a hat", stream=True, partial_images=1)
    kinds = [event.type async for event in stream]
    assert kinds[-1] == "image_edit.completed"
    assert set(kinds[:-1]) <= {"image_edit.partial_image"}


async def test_a_fault_in_a_stream_is_an_error_of_the_client(client: AsyncOpenAI) -> None:
    stream = await client.images.generate(prompt="x", model="failing", stream=True)
    with pytest.raises(APIError) as caught:
        [event async for event in stream]
    assert caught.value.code == "execution_failed"


async def test_a_silent_stream_is_kept_open(engine: FakeEngine, templates: Path) -> None:
    async with converter(engine.url, **SERVED, workflows_dir=templates, sse_keepalive=0.05) as caller:
        engine.hold("KSampler")
        body = {"prompt": "x", "stream": True}
        async with caller.session.post(f"{caller.url}/v1/images/generations", json=body) as response:
            assert response.content_type == "text/event-stream"
            while await response.content.readline() != b":\n":
                pass
            engine.release()
            assert b"image_generation.completed" in await response.read()


async def test_a_caller_who_leaves_a_stream_takes_the_job_along(caller: Caller, engine: FakeEngine) -> None:
    engine.hold("KSampler")
    body = {"prompt": "x", "stream": True}
    async with caller.session.post(f"{caller.url}/v1/images/generations", json=body) as response:
        assert caller.tickets
        response.close()
    await caller.until_empty()
    engine.release()


# Models --------------------------------------------------------------------------------------------------------------


async def test_models_are_the_templates_that_draw_from_a_text(client: AsyncOpenAI, caller: Caller) -> None:
    await until_known(caller)
    models = [model.id async for model in client.models.list()]
    assert models == ["txt2img", "failing"], "none whose checkpoint the engine has not, and none that needs a picture"
    assert (await client.models.retrieve("failing")).owned_by == "converter"
    with pytest.raises(NotFoundError) as caught:
        await client.models.retrieve("img2img")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_model_that_is_not_there_is_named(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match=r"gpt-image-1 here .* txt2img") as caught:
        await client.images.generate(prompt="x", model="gpt-image-1")
    assert caught.value.code == "model_not_found"
    with pytest.raises(NotFoundError, match="there is img2img, masked"):
        await client.images.edit(prompt="x", image=png(1), model="txt2img")


# Faults --------------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"background": "transparent"}, "background"),
    ({"response_format": "url", "stream": True}, "stream"),
    ({"output_format": "gif"}, "output_format"),
    ({"output_compression": 50}, "output_compression"),
    ({"n": 11}, "n"),
    ({"n": 2, "stream": True}, "stream"),
    ({"partial_images": 1}, "partial_images"),
    ({"quality": "xhigh"}, "quality"),
    ({"model": "failing", "quality": "high"}, "quality"),
    ({"model": "failing", "size": "64x64"}, "size"),
    ({"size": "100x100"}, "size"),
    ({"size": "8x8"}, "size"),
    ({"style": "vivid"}, "style"),
    ({"frame_count": 2}, "frame_count"),
    ({"extra_body": {"seed": 7}}, "seed"),
    ({"prompt": "x" * 20_000}, "prompt"),
]

REFUSED_EDITS: list[tuple[dict[str, Any], str]] = [
    ({"image": [png(1), png(2)]}, "image"),
    ({"mask": png(1)}, "mask"),
    ({"mask": png(1)[1][:20]}, "mask"),
    ({"markup": png(1)}, "markup"),
    ({"input_fidelity": "high"}, "input_fidelity"),
    ({"model": "masked"}, "mask"),
    ({"n": 2, "stream": True}, "stream"),
]


async def test_what_can_not_be_done_is_refused_by_name(client: AsyncOpenAI) -> None:
    for parameters, param in REFUSED:
        with pytest.raises(BadRequestError) as caught:
            await client.images.generate(**{"prompt": "x", **parameters})
        assert (caught.value.param, caught.value.type) == (param, "invalid_request_error"), parameters
        assert caught.value.code == "invalid_request"
        assert caught.value.request_id


async def test_edits_are_refused_by_name(client: AsyncOpenAI) -> None:
    for parameters, param in REFUSED_EDITS:
        with pytest.raises(BadRequestError) as caught:
            await client.images.edit(**{"prompt": "x", "image": png(1), **parameters})
        assert caught.value.param == param, parameters


async def test_a_mask_that_a_model_does_not_take_is_refused(client: AsyncOpenAI) -> None:
    mask = ("mask.png", encode(Image.new("RGBA", (64, 64))), "image/png")
    with pytest.raises(BadRequestError, match="img2img takes none") as caught:
        await client.images.edit(prompt="x", image=png(1), mask=mask, model="img2img")
    assert caught.value.param == "mask"


async def test_a_mask_of_too_many_pixels_is_refused_before_it_is_decoded(engine: FakeEngine, templates: Path) -> None:
    form = {"prompt": "x", "image": png(1)[1], "mask": encode(Image.new("RGBA", (65, 64))), "model": "masked"}
    async with converter(engine.url, **SERVED, workflows_dir=templates, max_pixels=64 * 64) as caller:
        reply = await caller.ask("POST", "/v1/images/edits", data=_form(form))
    assert (reply.status, reply.document["error"]["param"]) == (400, "mask")
    assert "at most 4096 pixels" in reply.document["error"]["message"]


async def test_variations_are_refused_by_name(caller: Caller) -> None:
    """Its client warns of them itself."""
    reply = await caller.ask("POST", "/v1/images/variations", data=_form({"image": b"x"}))
    assert (reply.status, reply.document["error"]["code"]) == (404, "not_found")
    assert "variations" in reply.document["error"]["message"]


async def test_all_that_is_wrong_is_told_at_once(caller: Caller) -> None:
    reply = await caller.post("/v1/images/generations", {"n": "two", "size": "big", "stream": 1, "user": None})
    assert reply.status == 400
    for name in ("/prompt", "/n", "/size", "/stream"):
        assert name in reply.document["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
async def test_bodies_of_another_kind_are_refused_in_its_words(caller: Caller, path: str) -> None:
    reply = await caller.ask("POST", path, {"Content-Type": "text/plain"}, data=b"x")
    assert (reply.status, reply.document["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": b"\xff", "image": b"x"},
        {"prompt": "x"},
        {"image": b"x"},
    ],
)
async def test_forms_that_lack_something_are_refused(caller: Caller, fields: dict[str, Any]) -> None:
    reply = await caller.ask("POST", "/v1/images/edits", data=_form(fields))
    assert (reply.status, reply.document["error"]["code"]) == (400, "invalid_request")


async def test_a_field_that_comes_twice_is_refused(caller: Caller) -> None:
    reply = await caller.ask("POST", "/v1/images/edits", data=_form([("prompt", "a"), ("prompt", "b")]))
    assert (reply.status, reply.document["error"]["param"]) == (400, "prompt")


def _form(fields: Any) -> Any:
    form = FormData(default_to_multipart=True)
    for name, value in fields.items() if isinstance(fields, dict) else fields:
        form.add_field(name, value, filename="x" if isinstance(value, bytes) else None)
    return form


async def test_a_job_that_fails_is_not_tried_again(caller: Caller, engine: FakeEngine) -> None:
    before = len(engine.posted_prompts)
    async with AsyncOpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=2) as client:
        with pytest.raises(UnprocessableEntityError) as caught:
            await client.images.generate(prompt="x", model="failing")
    assert caught.value.code == "execution_failed"
    assert len(engine.posted_prompts) == before + 1


async def test_its_client_comes_back_when_it_was_told_to(
    engine: FakeEngine, templates: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with (
        converter(engine.url, **SERVED, workflows_dir=templates, capacity=1) as caller,
        AsyncOpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=8) as client,
    ):
        for color in (1, 2):  # the first pays for what it loads, the second shows how long a picture takes
            await caller.run(picture(color))
        await caller.until(lambda: caller.replica.gate.service)
        first = caller.start(SLOW)
        await caller.until(lambda: caller.tickets)
        with pytest.raises(RateLimitError) as caught:
            await client.with_options(max_retries=0).images.generate(prompt="x")
        assert (caught.value.code, caught.value.type) == ("queue_full", "rate_limit_error")
        refused = sum(getattr(record, "status", 0) == 429 for record in caplog.records)
        second = asyncio.create_task(client.images.generate(prompt="x"))
        await caller.until(lambda: sum(getattr(r, "status", 0) == 429 for r in caplog.records) > refused)
        first.cancel()
        assert (await second).data


async def test_either_all_pictures_are_admitted_or_none(
    engine: FakeEngine, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with (
        converter(engine.url, **SERVED, workflows_dir=templates, capacity=3) as caller,
        AsyncOpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=0) as client,
    ):
        with pytest.raises(BadRequestError, match="at most 3") as wrong:
            await client.images.generate(prompt="x", n=4)
        assert wrong.value.param == "n"
        caller.start(SLOW)
        await caller.until(lambda: caller.tickets)
        with pytest.raises(RateLimitError):
            await client.images.generate(prompt="x", n=3)
        assert caller.tickets == 1
        await caller.leave()


async def test_when_one_picture_fails_the_others_are_given_up(
    client: AsyncOpenAI, caller: Caller, engine: FakeEngine
) -> None:
    engine.faults.out_of_memory = 1
    engine.hold("KSampler")  # where the others stay
    with pytest.raises(InternalServerError) as caught:
        await client.images.generate(prompt="x", n=3)
    assert (caught.value.status_code, caught.value.code) == (507, "out_of_memory")
    await caller.until_empty()
    engine.release()


async def test_keys_are_shown_as_its_client_shows_them(
    engine: FakeEngine, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    settings = {**SERVED, "workflows_dir": templates, "api_keys": f"me:{KEY}", "key_rate": 1}
    async with (
        converter(engine.url, **settings) as caller,
        AsyncOpenAI(api_key=KEY, base_url=f"{caller.url}/v1", max_retries=0) as client,
    ):
        with pytest.raises(AuthenticationError) as stranger:
            await client.with_options(api_key="wrong").images.generate(prompt="x")
        assert stranger.value.code == "invalid_api_key"
        assert (await client.images.generate(prompt="x")).data
        with pytest.raises(RateLimitError) as limited:
            await client.images.generate(prompt="x")
        assert limited.value.code == "rate_limit_exceeded"
        assert (await client.models.list()).object == "list"


async def test_every_picture_counts_as_an_order_of_its_key(engine: FakeEngine, templates: Path) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    settings: dict[str, Any] = {**SERVED, "workflows_dir": templates, "api_keys": f"me:{KEY}"}
    limits: list[tuple[dict[str, Any], int]] = [({"key_concurrency": 2}, 200), ({"key_rate": 3}, 429)]
    for limit, second in limits:
        async with converter(engine.url, **settings, **limit) as caller:
            for count, status in ((2, 200), (4, 429), (2, second)):
                body = {"prompt": "x", "n": count}
                reply = await caller.ask("POST", "/v1/images/generations", headers, json=body)
                assert reply.status == status, (limit, count, reply.body[:200])


async def test_a_request_is_known_by_its_id(caller: Caller) -> None:
    reply = await caller.post("/v1/images/generations", {"prompt": "x", "model": None}, X_Request_Id="mine")
    assert (reply.status, reply.headers["x-request-id"]) == (200, "mine")
    assert color_of(base64.b64decode(reply.document["data"][0]["b64_json"])) >= 0
