"""Inputs are put where the engine can read them: each content once, and nothing is left where it can be removed."""

import asyncio
import base64
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from converter.core.order import Content, Order, Part
from converter.errors import EngineFailed, InvalidInput
from converter.media import inputs
from converter.media.fetch import Fetcher
from converter.media.inputs import ATTEMPTS, SUBFOLDER, Inputs, NotTaken, Upload
from converter.media.spool import hold
from tests.fakes.pictures import encode, solid

RED, BLUE = (encode(solid(color, 8, 8)[0]) for color in (0xFF0000, 0x0000FF))
TEXTS = {
    "base64": base64.b64encode(RED).decode(),
    "base64 in lines": base64.encodebytes(RED).decode(),
    "data URI": f"data:image/png;base64,{base64.b64encode(RED).decode()}",
    "data URI of another type": f"DATA:text/plain;BASE64,{base64.b64encode(RED).decode()}",
}


class Uploads:
    """An engine's input folder; `failures` uploads in a row are not taken."""

    def __init__(self, folder: Path, failures: int = 0) -> None:
        self.folder = folder
        self.failures = failures
        self.tries = 0
        self.types: list[str] = []

    async def __call__(self, name: str, subfolder: str, content: Content, content_type: str) -> str:
        self.tries += 1
        if self.failures:
            self.failures -= 1
            raise NotTaken("on purpose")
        self.types.append(content_type)
        path = self.folder / subfolder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with content.open() as stream:
            path.write_bytes(stream.read())
        return f"{subfolder}/{name}"

    @property
    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    monkeypatch.setattr(inputs, "wait_random_exponential", lambda *_, **__: lambda state: 0.0)
    return Uploads(tmp_path)


def store(upload: Upload, folder: Path | None = None) -> Inputs:
    return Inputs(upload, folder, Fetcher(10.0, 5), instance=lambda: "first")


def order(*images: object, **parts: bytes) -> Order:
    graph: dict[str, Any] = {
        str(number): {"class_type": "LoadImage", "inputs": {"image": image}} for number, image in enumerate(images)
    }
    return Order("id", graph, 10.0, parts={name: Part("image/png", hold(data)) for name, data in parts.items()})


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_text_becomes_a_file_that_the_node_names(uploads: Uploads, text: str) -> None:
    given = order(text)
    staging = store(uploads).stage(given)
    assert staging.needed
    graph = await staging.carry_out()
    assert (uploads.folder / graph["0"]["inputs"]["image"]).read_bytes() == RED
    assert graph["0"]["inputs"]["image"].startswith(f"{SUBFOLDER}/")
    assert uploads.types == ["image/png"]
    assert given.workflow["0"]["inputs"]["image"] == text


async def test_the_same_bytes_are_uploaded_once_however_they_come(uploads: Uploads) -> None:
    graph = await store(uploads).stage(order(*TEXTS.values(), {"part": "a"}, {"part": "b"}, a=RED, b=BLUE)).carry_out()
    names = [graph[str(number)]["inputs"]["image"] for number in range(6)]
    assert len(set(names[:5])) == 1
    assert names[5] != names[0]
    assert uploads.tries == 2
    again = await store(uploads).stage(order(TEXTS["base64"])).carry_out()
    assert again["0"]["inputs"]["image"] == names[0]
    assert len(uploads.files) == 2


async def test_in_a_shared_folder_nothing_is_left_and_nothing_of_others_is_taken(uploads: Uploads) -> None:
    inputs = store(uploads, uploads.folder)
    first, second = inputs.stage(order(TEXTS["base64"])), inputs.stage(order(TEXTS["base64"], {"part": "b"}, b=BLUE))
    mine = (await first.carry_out())["0"]["inputs"]["image"]
    assert (await second.carry_out())["0"]["inputs"]["image"] == mine
    assert len(uploads.files) == 2
    await second.remove()
    assert uploads.files == [uploads.folder / mine]
    await first.remove()
    await first.remove()
    assert uploads.files == []


async def test_where_the_folder_is_not_shared_files_stay(uploads: Uploads) -> None:
    staging = store(uploads).stage(order(TEXTS["base64"]))
    await staging.carry_out()
    await staging.remove()
    assert len(uploads.files) == 1


async def test_an_order_without_media_needs_nothing(uploads: Uploads) -> None:
    given = order("example.png", ["1", 0])
    staging = store(uploads).stage(given)
    assert not staging.needed
    assert await staging.carry_out() == given.workflow
    assert not staging.emptied().needed


@pytest.mark.parametrize("failures", range(ATTEMPTS))
async def test_an_engine_that_is_back_soon_gets_its_inputs(uploads: Uploads, failures: int) -> None:
    uploads.failures = failures
    await store(uploads).stage(order(TEXTS["base64"])).carry_out()
    assert uploads.tries == failures + 1


async def test_an_engine_that_takes_nothing_has_failed_and_what_it_took_is_removed(uploads: Uploads) -> None:
    staging = store(uploads, uploads.folder).stage(order(TEXTS["base64"], {"part": "b"}, b=BLUE))
    taken = uploads.__call__

    class Second:
        async def __call__(self, name: str, subfolder: str, content: Content, content_type: str) -> str:
            uploads.failures = ATTEMPTS if content.digest == hold(BLUE).digest else 0
            return await taken(name, subfolder, content, content_type)

    staging._inputs.upload = Second()
    with pytest.raises(EngineFailed):
        await staging.carry_out()
    assert len(uploads.files) == 1
    await staging.remove()
    assert uploads.files == []


async def test_everything_that_can_not_be_staged_is_named_at_once(uploads: Uploads) -> None:
    bad = ["http://localhost/x.png", "data:image/png;base64,????", "../../etc/passwd", {"part": "nowhere"}]
    with pytest.raises(InvalidInput) as caught:
        store(uploads).stage(order(*bad, TEXTS["base64"], {"part": "junk"}, {"part": "empty"}, junk=b"x", empty=b""))
    named = [place["node_id"] for place in caught.value.extensions["inputs"]]
    assert named == ["0", "1", "2", "3", "5", "6"]
    assert uploads.tries == 0


async def test_one_thing_that_is_wrong_is_the_fault_itself(uploads: Uploads) -> None:
    with pytest.raises(InvalidInput) as caught:
        store(uploads).stage(order({"part": "nowhere"}))
    assert caught.value.extensions == {"node_id": "0", "class_type": "LoadImage", "input_name": "image"}


async def test_an_upload_that_is_given_up_after_it_took_effect_leaves_nothing(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ENDING", 0.01)
    written, ended = asyncio.Event(), asyncio.Event()

    async def write_and_stay(name: str, subfolder: str, content: Content, content_type: str) -> str:
        await uploads(name, subfolder, content, content_type)
        written.set()
        try:
            return await asyncio.Future()  # it is never answered
        finally:
            ended.set()

    staging = store(write_and_stay, uploads.folder).stage(order(TEXTS["base64"]))
    task = asyncio.create_task(staging.carry_out())
    await written.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert len(uploads.files) == 1
    await staging.remove()
    assert uploads.files == []
    await ended.wait()


async def test_what_is_written_after_its_job_has_ended_is_removed_too(uploads: Uploads) -> None:
    begun, answered = asyncio.Event(), asyncio.Event()

    async def write_late(name: str, subfolder: str, content: Content, content_type: str) -> str:
        begun.set()
        await answered.wait()
        return await uploads(name, subfolder, content, content_type)

    staging = store(write_late, uploads.folder).stage(order(TEXTS["base64"]))
    task = asyncio.create_task(staging.carry_out())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    removing = asyncio.create_task(staging.remove())
    await asyncio.wait([removing], timeout=0.1)
    answered.set()
    await removing
    assert uploads.tries == 1
    assert uploads.files == []
