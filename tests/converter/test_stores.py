"""Files come from where they are: behind the engine's routes, or in its shared folder and nowhere else."""

import os
from asyncio import sleep
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from converter.core.order import Selection
from converter.core.outputs import FileRef, Folder, Output
from converter.link.client import EngineClient, Limits
from converter.media.inputs import NotTaken
from converter.media.outputs import Broken, Gone, Item, open_items
from converter.media.spool import hold
from converter.stores import CHUNK, EngineFiles, EngineInputs, SharedFolder
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[EngineClient]:
    async with EngineClient(engine.url, Limits(stall=0.3)) as client:
        yield client


def ref(name: str, subfolder: str = "", kind: Folder = "output") -> FileRef:
    return FileRef(name, subfolder, kind)


async def read(store: EngineFiles | SharedFolder, file: FileRef) -> bytes:
    async with store.open(file) as opened:
        return b"".join([chunk async for chunk in opened.chunks()])


# Behind the routes ---------------------------------------------------------------------------------------------------


async def test_an_output_is_read_as_it_is(engine: FakeEngine, client: EngineClient) -> None:
    content = os.urandom(3 * CHUNK + 1)
    path = engine.folders.locate("größe 1.png", subfolder="a/b")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert await read(EngineFiles(client), ref("größe 1.png", "a/b")) == content


async def test_a_file_that_is_gone(engine: FakeEngine, client: EngineClient) -> None:
    with pytest.raises(Gone):
        await read(EngineFiles(client), ref("nothing.png"))


@pytest.mark.parametrize("fault", ["view_truncated", "view_wrong_length"])
async def test_a_file_that_breaks_off(engine: FakeEngine, client: EngineClient, fault: str) -> None:
    engine.folders.locate("x.png").write_bytes(os.urandom(CHUNK))
    setattr(engine.faults, fault, 1)
    with pytest.raises(Broken):
        await read(EngineFiles(client), ref("x.png"))
    assert len(await read(EngineFiles(client), ref("x.png"))) == CHUNK


async def test_an_engine_that_is_away(engine: FakeEngine, client: EngineClient) -> None:
    await engine.crash()
    with pytest.raises(Broken):
        await read(EngineFiles(client), ref("x.png"))
    with pytest.raises(NotTaken):
        await EngineInputs(client, partial(sleep, 0))("x.png", "converter", hold(b"x"), "image/png")


async def test_an_upload_gives_the_name_for_a_node(engine: FakeEngine, client: EngineClient) -> None:
    name = await EngineInputs(client, partial(sleep, 0))("x.png", "converter", hold(b"bytes"), "image/png")
    assert name == "converter/x.png"
    assert engine.folders.annotated(name).read_bytes() == b"bytes"


# In the shared folder ------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(client: EngineClient, tmp_path: Path) -> SharedFolder:
    """An output folder, with a secret beside it."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "output-too").mkdir()
    (tmp_path / "output-too" / "x.png").write_bytes(b"secret")
    folder = tmp_path / "output"
    (folder / "sub").mkdir(parents=True)
    return SharedFolder(folder, EngineFiles(client))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
async def test_a_file_is_read_whole(shared: SharedFolder, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "output" / "sub" / "x.png").write_bytes(content)
    async with shared.open(ref("x.png", "sub")) as opened:
        assert opened.size == size
        assert b"".join([chunk async for chunk in opened.chunks()]) == content


@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        ("secret.png", ".."),
        ("x.png", "../output-too"),
        ("secret.png", "sub/../.."),
        ("passwd", "/etc"),
        ("..", "sub/.."),
    ],
)
async def test_no_name_leads_out(shared: SharedFolder, name: str, subfolder: str) -> None:
    with pytest.raises(Gone):
        await read(shared, ref(name, subfolder))


@pytest.mark.parametrize("target", ["../secret.png", "../output-too/x.png", "/etc/passwd"])
async def test_no_link_leads_out(shared: SharedFolder, tmp_path: Path, target: str) -> None:
    (tmp_path / "output" / "link.png").symlink_to(target)
    (tmp_path / "output" / "folder").symlink_to("..")
    with pytest.raises(Gone):
        await read(shared, ref("link.png"))
    with pytest.raises(Gone):
        await read(shared, ref("secret.png", "folder"))


async def test_links_inside_and_a_folder_that_is_a_link_are_fine(client: EngineClient, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.png").write_bytes(b"a")
    (real / "b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to(real)
    assert await read(SharedFolder(tmp_path / "link", EngineFiles(client)), ref("b.png")) == b"a"


@pytest.mark.parametrize("name", ["nothing.png", "sub", "x" * 300])
async def test_what_is_no_file_is_gone(shared: SharedFolder, name: str) -> None:
    with pytest.raises(Gone):
        await read(shared, ref(name))


async def test_what_is_not_to_be_read_is_not_waited_for(shared: SharedFolder, tmp_path: Path) -> None:
    """A pipe would hold up whoever opens it until somebody writes."""
    os.mkfifo(tmp_path / "output" / "pipe.png")
    with pytest.raises(Gone):
        await read(shared, ref("pipe.png"))


async def test_a_file_that_becomes_shorter_is_broken(shared: SharedFolder, tmp_path: Path) -> None:
    path = tmp_path / "output" / "x.png"
    path.write_bytes(os.urandom(3 * CHUNK))
    async with shared.open(ref("x.png")) as opened:
        os.truncate(path, CHUNK + 1)
        with pytest.raises(Broken):
            async for _ in opened.chunks():
                pass


async def test_a_file_that_becomes_longer_is_read_as_long_as_it_was(shared: SharedFolder, tmp_path: Path) -> None:
    path = tmp_path / "output" / "x.png"
    path.write_bytes(b"a" * (CHUNK + 10))
    async with shared.open(ref("x.png")) as opened:
        with path.open("ab") as more:
            more.write(b"b" * CHUNK)
        assert b"".join([chunk async for chunk in opened.chunks()]) == b"a" * (CHUNK + 10)


async def test_a_file_that_is_removed_while_it_is_read_is_read_whole(shared: SharedFolder, tmp_path: Path) -> None:
    path = tmp_path / "output" / "x.png"
    path.write_bytes(b"a" * 3 * CHUNK)
    async with shared.open(ref("x.png")) as opened:
        path.unlink()
        assert len(b"".join([chunk async for chunk in opened.chunks()])) == 3 * CHUNK


async def test_temporary_files_are_read_from_the_engine(shared: SharedFolder, engine: FakeEngine) -> None:
    engine.folders.locate("preview.png", kind="temp").write_bytes(b"preview")
    assert await read(shared, ref("preview.png", kind="temp")) == b"preview"


# Made ready ----------------------------------------------------------------------------------------------------------


def output(name: str) -> Output:
    return Output("1", "SaveImage", name, "image", "image/png", file=ref(name))


async def test_outputs_are_held_as_long_as_there_is_room(shared: SharedFolder, tmp_path: Path) -> None:
    for number, size in enumerate((100, 200, 100)):
        (tmp_path / "output" / f"{number}.png").write_bytes(bytes(size))
    async with AsyncExitStack() as stack:
        outputs = [output(f"{number}.png") for number in range(3)]
        items = await open_items(shared, outputs, Selection(), stack, hold=250)
        assert [isinstance(item.content, bytes) for item in items] == [True, False, True]
        assert [item.size for item in items] == [100, 200, 100]
        assert [len(await content(item)) for item in items] == [100, 200, 100]


async def content(item: Item) -> bytes:
    return b"".join([chunk async for chunk in item.chunks()])


async def test_a_converted_output_has_a_name_and_type_of_its_own(shared: SharedFolder, tmp_path: Path) -> None:
    (tmp_path / "output" / "a.b.png").write_bytes(encode(solid(0xFF0000, 8, 8)[0]))
    (tmp_path / "output" / "junk.png").write_bytes(b"junk")
    async with AsyncExitStack() as stack:
        outputs = [output("a.b.png"), output("junk.png")]
        good, junk = await open_items(shared, outputs, Selection(format="webp", quality=100), stack, hold=0)
        assert (good.output.name, good.output.content_type) == ("a.b.webp", "image/webp")
        assert color_of(await content(good)) >> 16 > 0xF0
        assert good.size == len(await content(good))
        assert (junk.output.name, junk.output.content_type) == ("junk.png", "image/png")
        assert await content(junk) == b"junk"
        assert junk.warning is not None
