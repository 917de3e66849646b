"""What comes back: kinds of outputs, their choice, their shapes, and the order of events."""

import base64
import email
from email.message import Message
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from tests.converter.faults.graphs import LARGE, Graph, passed_through, picture, text, two_pictures
from tests.converter.faults.replica import Reply, colors, converter
from tests.fakes.catalog import CLASSES
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of


def parts(reply: Reply) -> list[Message]:
    """The parts of a multipart answer."""
    head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + reply.body)
    payload: Any = message.get_payload()
    assert isinstance(payload, list)
    return payload


def bytes_of(part: Message) -> bytes:
    """A part's content; the parser takes a text's last line break away."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


async def test_texts_come_back(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        [output] = (await caller.run(text("zwölf Boxkämpfer"))).document["outputs"]
        assert (output["kind"], output["text"], "data" in output) == ("text", "zwölf Boxkämpfer", False)
        assert output["size"] == len("zwölf Boxkämpfer".encode())


@pytest.mark.parametrize("also", ["text/plain, ", ""])
async def test_a_text_may_be_asked_for_as_it_is(engine: FakeEngine, also: str) -> None:
    async with converter(engine.url) as caller:
        accept = f"{also}application/octet-stream"
        reply = await caller.run(text("zwölf Boxkämpfer"), {"Accept": accept})
        assert (reply.status, reply.body.decode()) == (200, "zwölf Boxkämpfer")
        assert reply.headers["Content-Type"].startswith("text/plain" if also else "application/octet-stream")


async def test_texts_and_pictures_come_together_in_the_order_of_the_workflow(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = {
            "7": {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}},
            "8": {"class_type": "TestText", "inputs": {"text": "seven"}},
            **picture(0x123456),
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
            "4": {"class_type": "TestText", "inputs": {"text": "three"}},
        }
        outputs = (await caller.run(graph)).document["outputs"]
        assert [(output["node_id"], output.get("text")) for output in outputs] == [
            ("7", "seven"),
            ("2", None),
            ("3", "three"),
        ]
        assert len({output["name"] for output in outputs}) == 3


async def test_a_batch_comes_back_whole_and_in_order(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        outputs = (await caller.run(picture(0x123456, batch=3))).document["outputs"]
        assert [output["name"] for output in outputs] == [f"faults_0000{number}_.png" for number in (1, 2, 3)]


@pytest.mark.parametrize("accept", ["image/png", "image/*", "application/octet-stream", "video/*"])
async def test_two_outputs_do_not_fit_one_picture_which_is_said_before_anything_is_done(
    engine: FakeEngine, accept: str
) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(two_pictures(1, 2), {"Accept": accept})
        assert (reply.status, reply.code) == (406, "not_acceptable")
        assert reply.document["nodes"] == ["2", "4"]
        assert "outputs.nodes" in reply.document["detail"]
        assert len(engine.posted_prompts) == 1
        chosen = await caller.run(two_pictures(1, 2), {"Accept": "image/png"}, outputs={"nodes": ["4"]})
        assert color_of(chosen.body) == 2


@pytest.mark.parametrize("extra_data", [{}, LARGE])
async def test_two_outputs_that_only_the_run_shows_stay_where_the_406_says(
    engine: FakeEngine, extra_data: dict[str, Any]
) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(7, batch=2), {"Accept": "image/png"}, extra_data=extra_data)
        assert (reply.status, reply.code) == (406, "not_acceptable")
        assert reply.document["location"] == reply.headers["Location"]
        kept = await caller.get(reply.headers["Location"])
        assert kept.colors == [7, 7]
        again = await caller.get(reply.headers["Location"], Accept="multipart/mixed")
        assert [color_of(bytes_of(part)) for part in parts(again)] == [7, 7]
        assert len(engine.executed_prompts) == 2


async def test_several_outputs_in_one_multipart_answer(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = {**two_pictures(1, 2), "5": {"class_type": "PreviewAny", "inputs": {"source": "five"}}}
        reply = await caller.run(graph, {"Accept": "multipart/mixed"})
        assert reply.status == 200
        assert int(reply.headers["Content-Length"]) == len(reply.body)
        first, second, third = parts(reply)
        assert [part["X-Node-Id"] for part in (first, second, third)] == ["2", "4", "5"]
        assert [color_of(bytes_of(part)) for part in (first, second)] == [1, 2]
        assert bytes_of(third) == b"five"
        assert int(first["Content-Length"]) == len(bytes_of(first))


async def test_a_picture_that_is_no_video_is_refused_after_the_run_and_kept(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(0x123456), {"Accept": "video/*"})
        assert (reply.status, reply.code) == (406, "not_acceptable")
        kept = await caller.get(reply.headers["Location"], Accept="image/png")
        assert color_of(kept.body) == 0x123456


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_pictures_are_converted(engine: FakeEngine, form: str) -> None:
    async with converter(engine.url) as caller:
        asked = await caller.run(picture(0xFF0000, size=64), outputs={"format": form, "quality": 90})
        [output] = asked.document["outputs"]
        assert output["content_type"] == f"image/{form}"
        data = base64.b64decode(output["data"])
        assert len(data) == output["size"]
        assert Image.open(BytesIO(data)).format == form.upper()
        accepted = await caller.run(picture(0xFF0000, size=64), {"Accept": f"image/{form}"})
        assert accepted.headers["Content-Type"] == f"image/{form}"
        assert Image.open(BytesIO(accepted.body)).format == form.upper()
        assert accepted.headers["Content-Disposition"].endswith(f'.{form}"')


async def test_only_the_nodes_asked_for_run(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(two_pictures(1, 2), outputs={"nodes": ["4"]})
        assert reply.colors == [2]
        assert [output["node_id"] for output in reply.document["outputs"]] == ["4"]
        assert list(engine.prompts.history[reply.prompt_id]["outputs"]) == ["4"]


@pytest.mark.parametrize("node", ["1", "99"])
async def test_nodes_without_output_are_refused_before_anything_is_done(engine: FakeEngine, node: str) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(1), outputs={"nodes": ["2", node]})
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert list(reply.document["node_errors"]) == [node]
        assert len(engine.posted_prompts) == 1


async def test_temporary_files_are_answered_if_named_or_if_there_is_nothing_else(engine: FakeEngine) -> None:
    both = {**picture(1), "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    async with converter(engine.url) as caller:

        async def nodes(graph: Graph, **fields: Any) -> list[str]:
            return [output["node_id"] for output in (await caller.run(graph, **fields)).document["outputs"]]

        assert await nodes(both) == ["2"]
        assert await nodes(both, outputs={"nodes": ["3"]}) == ["3"]
        assert await nodes(both, outputs={"nodes": ["2", "3"]}) == ["2", "3"]
        assert await nodes(picture(2, save="PreviewImage")) == ["2"]
        raw = await caller.run(both, {"Accept": "image/png"})
        assert color_of(raw.body) == 1


async def test_a_prefix_with_a_batch_number_gets_a_folder_of_its_own(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for color in (1, 2):
            graph = picture(color, prefix="sheets/page_%batch_num%", batch=2)
            reply = await caller.run(graph)
            assert reply.colors == [color, color]
            sent = engine.asked("POST", "/prompt")[-1].body["prompt"]["2"]["inputs"]["filename_prefix"]
            assert sent.split("/") == ["sheets", reply.prompt_id, "page_%batch_num%"]
        plain = await caller.run(picture(3, prefix="sheets/page"))
        assert plain.colors == [3]
        assert engine.asked("POST", "/prompt")[-1].body["prompt"]["2"]["inputs"]["filename_prefix"] == "sheets/page"


async def test_never_number_or_front_and_a_fresh_id_each_time(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        for _ in range(2):
            await caller.run(picture(1))
        bodies = [asked.body for asked in engine.asked("POST", "/prompt")]
        assert not any({"number", "front"} & set(body) for body in bodies)
        assert len({body["prompt_id"] for body in bodies}) == 3


async def test_a_run_without_outputs_is_no_success(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLASSES, "ShowsAndSavesNothing", CLASSES["SaveImageWebsocket"])
    async with converter(engine.url) as caller:
        reply = await caller.run(picture(1, save="ShowsAndSavesNothing"))
        assert (reply.status, reply.code) == (422, "execution_failed")


async def test_the_events_of_a_run_come_in_order(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        async with caller.events(passed_through("TestPreview", 0x123456, steps=4)) as stream:
            assert stream.response.headers["X-Accel-Buffering"] == "no"
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            last = await stream.last()
        names = [event.name for event in stream.heard]
        assert names[0] == "status"
        assert (names[-1], names.count("result"), names.count("error")) == ("result", 1, 0)
        assert [event.id for event in stream.heard] == sorted({event.id for event in stream.heard})
        assert names.index("output") > max(n for n, name in enumerate(names) if name == "progress")
        values = [data["value"] for data in stream.all("progress")]
        assert values == sorted(values)
        assert all(0 <= value <= 1 for value in values)
        [output] = stream.all("output")
        assert "data" not in output
        assert colors(last.data) == [0x123456]
        whole = {**last.data["outputs"][0]}
        del whole["data"]
        assert whole == output


async def test_progress_and_previews_are_shown_as_they_happen(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        engine.hold("SaveImage")
        async with caller.events(passed_through("TestPreview", 0x123456, steps=4)) as stream:
            await engine.until_held()
            preview = await stream.until("preview")
            assert preview.data["content_type"] == "image/jpeg"
            assert color_of(base64.b64decode(preview.data["data"])) >> 16 > 0
            progress = await stream.until("progress", node_id="2")
            assert (progress.data["class_type"], progress.data["nodes_done"]) == ("SaveImage", 2)
            assert progress.data["value"] < 1
            engine.release()
            assert (await stream.last()).name == "result"


async def test_a_silent_stream_says_that_it_lives(engine: FakeEngine) -> None:
    async with converter(engine.url, sse_keepalive=0.05) as caller:
        engine.hold()
        async with caller.events(picture(1)) as stream:
            await stream.until("status", state="running")
            await stream.until_comments(3)
            engine.release()
            assert (await stream.last()).name == "result"


async def test_a_fault_ends_the_stream_with_the_problem(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        graph = passed_through("TestRaise", kind="ValueError", message="no such luck")
        async with caller.events(graph) as stream:
            last = await stream.last()
        plain = await caller.run(graph)
        assert last.name == "error"
        assert {**last.data, "request_id": ""} == {**plain.document, "request_id": ""}
        assert last.data["request_id"] == stream.response.headers["X-Request-Id"]


async def test_refusals_of_a_stream_are_statuses(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.run({"1": {"class_type": "EmptyImage"}}, {"Accept": "text/event-stream"})
        assert (reply.status, reply.code) == (422, "invalid_workflow")
        assert reply.headers["Content-Type"].startswith("application/problem+json")
