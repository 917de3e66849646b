"""Inputs are put where the engine can read them: each content once, and nothing is left where it can be removed."""

import asyncio
import base64
import io
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from converter.core.order import Content, Order, Part
from converter.errors import EngineFailed, Internal, InvalidInput
from converter.media import inputs
from converter.media.fetch import Fetcher
from converter.media.inputs import ATTEMPTS, SUBFOLDER, TRANSFERS, Inputs, Limits, NotTaken, Upload
from converter.media.spool import hold
from converter.media.stored import Stores
from tests.fakes.origin import Origin
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


@dataclass
class Engine:
    instance: str | None = "first"
    uploads: frozenset[tuple[str, str]] = frozenset({("Custom", "clip")})
    max_upload_size: int | None = None


def store(upload: Upload, folder: Path | None = None, engine: Engine | None = None, **limits: int) -> Inputs:
    return Inputs(upload, engine or Engine(), folder, Fetcher(10.0, 5), Stores({}, 10.0), Limits(**limits))


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


async def test_what_others_need_stays_when_the_job_that_uploaded_it_has_ended(uploads: Uploads) -> None:
    inputs = store(uploads, uploads.folder)
    first, second = (inputs.stage(order(TEXTS["base64"])) for _ in range(2))
    await first.carry_out()
    await second.carry_out()
    await first.remove()
    assert len(uploads.files) == 1
    await second.remove()
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


# Limits --------------------------------------------------------------------------------------------------------------


async def test_an_input_has_bounds_of_bytes_alone_and_with_the_others(uploads: Uploads) -> None:
    given = order({"part": "a"}, TEXTS["base64"], a=BLUE)
    total = len(RED) + len(BLUE)
    assert store(uploads, each=len(BLUE), together=total).stage(given).needed
    with pytest.raises(InvalidInput, match=f"has more than the {len(BLUE) - 1} bytes"):
        store(uploads, each=len(BLUE) - 1).stage(given)
    with pytest.raises(InvalidInput, match=r"Input image of node 1 .* left for the inputs of one request"):
        store(uploads, together=total - 1).stage(given)


async def test_what_the_engine_would_not_take_is_not_sent(uploads: Uploads) -> None:
    with pytest.raises(InvalidInput, match=f"has {len(RED)} bytes, and the engine takes uploads of up to 1000"):
        await store(uploads, engine=Engine(max_upload_size=1000)).stage(order(TEXTS["base64"])).carry_out()
    await store(uploads, engine=Engine(max_upload_size=10_000)).stage(order(TEXTS["base64"])).carry_out()
    assert uploads.tries == 1


async def test_a_decompression_bomb_is_refused_by_its_header(uploads: Uploads) -> None:
    """Of a picture that claims 20 gigapixels no pixel is decoded; frames count together."""
    claimed = RED[:16] + (200_000).to_bytes(4, "big") + (100_000).to_bytes(4, "big")
    bomb = claimed + RED[24:29] + zlib.crc32(claimed[12:] + RED[24:29]).to_bytes(4, "big") + RED[33:]
    frames = [Image.new("RGB", (10, 10), (50 * number, 0, 0)) for number in range(5)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    for data, pixels in ((bomb, 100_000_000), (RED, 63), (buffer.getvalue(), 499)):
        with pytest.raises(InvalidInput, match=f"more than the {pixels} pixels"):
            await store(uploads, pixels=pixels).stage(order({"part": "a"}, a=data)).carry_out()
    assert uploads.tries == 0
    await store(uploads, pixels=500).stage(order({"part": "a"}, a=buffer.getvalue())).carry_out()
    await store(uploads, pixels=64).stage(order({"part": "a"}, a=RED)).carry_out()
    assert uploads.tries == 2


async def test_a_picture_whose_header_is_broken_is_left_to_the_engine(uploads: Uploads) -> None:
    await store(uploads).stage(order({"part": "a"}, a=RED[:20])).carry_out()
    assert uploads.tries == 1


# Folders -------------------------------------------------------------------------------------------------------------


def folder_of(*pictures: object, **parts: bytes) -> Order:
    graph = {"0": {"class_type": "VHS_LoadImages", "inputs": {"directory": list(pictures)}}}
    return Order("id", graph, 10.0, parts={name: Part("image/png", hold(data)) for name, data in parts.items()})


async def test_pictures_of_a_list_get_a_folder_of_their_own_in_their_order(uploads: Uploads) -> None:
    inputs = store(uploads, uploads.folder)
    pictures = ({"part": "b"}, TEXTS["base64"], {"part": "b"})
    first, second = (inputs.stage(folder_of(*pictures, b=BLUE)) for _ in range(2))
    name, other = [(await staging.carry_out())["0"]["inputs"]["directory"] for staging in (first, second)]
    assert name != other
    files = sorted((uploads.folder / name).iterdir())
    assert [path.read_bytes() for path in files] == [BLUE, RED, BLUE]
    await first.remove()
    assert not (uploads.folder / name).exists()
    assert len(uploads.files) == 3
    await second.remove()
    assert uploads.files == []


async def test_a_picture_of_a_list_that_can_not_be_used_is_named_with_its_number(uploads: Uploads) -> None:
    with pytest.raises(InvalidInput) as caught:
        store(uploads).stage(folder_of(TEXTS["base64"], "mine.png", {"part": "sound"}, sound=b"fLaC"))
    assert "Picture 2 of input directory of node 0 (VHS_LoadImages) is no media" in caught.value.detail
    assert "Picture 3 of input directory of node 0 (VHS_LoadImages) must have pictures only" in caught.value.detail


# Sharing -------------------------------------------------------------------------------------------------------------


async def test_what_the_engine_declares_is_staged(uploads: Uploads) -> None:
    graph = {"0": {"class_type": "Custom", "inputs": {"clip": TEXTS["base64"], "text": TEXTS["base64"]}}}
    staged = await store(uploads).stage(Order("id", graph, 10.0)).carry_out()
    assert staged["0"]["inputs"]["clip"].startswith(SUBFOLDER)
    assert staged["0"]["inputs"]["text"] == TEXTS["base64"]


async def test_an_engine_that_has_restarted_gets_its_inputs_again(uploads: Uploads) -> None:
    engine = Engine()
    inputs = store(uploads, engine=engine)
    for instance, tries in (("first", 1), ("first", 1), ("second", 2), (None, 3), (None, 4)):
        engine.instance = instance
        await inputs.stage(order(TEXTS["base64"])).carry_out()
        assert uploads.tries == tries


async def test_who_waits_for_an_upload_that_is_given_up_uploads_itself(uploads: Uploads) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def stay(name: str, subfolder: str, content: Content, content_type: str) -> str:
        if not begun.is_set():
            begun.set()
            await never.wait()
        return await uploads(name, subfolder, content, content_type)

    inputs = store(stay)
    first = asyncio.create_task(inputs.stage(order(TEXTS["base64"])).carry_out())
    await begun.wait()
    second = asyncio.create_task(inputs.stage(order(TEXTS["data URI"])).carry_out())
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await second
    assert uploads.tries == 1


async def test_many_go_at_once_within_a_bound(uploads: Uploads) -> None:
    under_way, most, full = 0, 0, asyncio.Event()

    async def stay(name: str, subfolder: str, content: Content, content_type: str) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == TRANSFERS:
            full.set()
        await full.wait()
        under_way -= 1
        return name

    pictures = {f"p{number}": encode(solid(number, 8, 8)[0]) for number in range(2 * TRANSFERS)}
    await store(stay).stage(order(*({"part": name} for name in pictures), **pictures)).carry_out()
    assert most == TRANSFERS


async def test_a_disk_without_room_is_no_fault_of_the_input(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Origin() as origin:
        origin.files["/large.png"] = RED + bytes(2**20)
        monkeypatch.setattr(tempfile, "tempdir", str(uploads.folder / "gone"))
        inputs = Inputs(uploads, Engine(), None, Fetcher(10.0, 5, [origin.url]), Stores({}, 10.0))
        with pytest.raises(Internal, match="no room"):
            await inputs.stage(order(f"{origin.url}/large.png")).carry_out()
