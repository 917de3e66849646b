"""Outputs in a shared folder are removed once nobody needs them, and not before; nothing else in it is touched."""

import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from converter.errors import CannotStart
from tests.converter.faults.graphs import LARGE, picture, two_pictures
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of

ASYNC = {"Prefer": "respond-async"}


def listed(engine: FakeEngine) -> list[str]:
    """Everything in the output folder; what is removed meanwhile may be left out, and is no error."""
    root = engine.folders.root / "output"
    found = [Path(folder, name) for folder, *names in os.walk(root) for name in chain(*names)]
    return sorted(path.relative_to(root).as_posix() for path in found)


@pytest.fixture
def shared(engine: FakeEngine) -> dict[str, Any]:
    """Settings; and files of others, which stay."""
    root = engine.folders.root / "output"
    (root / "album").mkdir(parents=True, exist_ok=True)
    (root / "album" / "page_00001_.png").write_bytes(b"of others")
    return {"output_dir": str(root)}


STAYS = ["album", "album/page_00001_.png"]


async def until_bare(caller: Caller, engine: FakeEngine) -> None:
    await caller.until_empty()
    await caller.until(lambda: listed(engine) == STAYS)


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/event-stream", "application/zip"])
@pytest.mark.parametrize("large", [False, True])
async def test_what_was_delivered_is_removed(
    engine: FakeEngine, shared: dict[str, Any], accept: str, large: bool
) -> None:
    async with converter(engine.url, **shared) as caller:
        extra = LARGE if large else {}
        reply = await caller.run(picture(0x123456, prefix="album/page"), {"Accept": accept}, extra_data=extra)
        assert reply.status == 200
        await until_bare(caller, engine)


async def test_the_same_again_is_made_anew_in_one_run(engine: FakeEngine, shared: dict[str, Any]) -> None:
    async with converter(engine.url, **shared) as caller:
        for count in (2, 3, 4):  # the warm-up's is the first
            assert (await caller.run(picture(0x123456))).colors == [0x123456]
            assert len(engine.posted_prompts) == count
        await until_bare(caller, engine)


async def test_one_callers_file_never_takes_the_place_of_anothers(engine: FakeEngine, shared: dict[str, Any]) -> None:
    """ComfyUI gives a free name to the next prompt, and answers the one before from its cache."""
    async with converter(engine.url, **shared) as caller:
        for color in (1, 2, 1, 2, 2, 1):
            assert (await caller.run(picture(color, prefix="same"))).colors == [color]


async def test_a_kept_job_keeps_its_files_for_its_time(engine: FakeEngine, shared: dict[str, Any]) -> None:
    async with converter(engine.url, keep_jobs=1.0, **shared) as caller:
        await caller.run(two_pictures(1, 2), ASYNC, id="kept")
        document = await caller.until_job("kept", "succeeded")
        assert len(document["outputs"]) == 2
        before = set(listed(engine))
        assert len([name for name in before if name.endswith(".png")]) >= 3
        await caller.until(lambda: set(listed(engine)) < before)


async def test_a_link_keeps_its_file_for_its_time(engine: FakeEngine, shared: dict[str, Any]) -> None:
    async with converter(engine.url, url_expiry=2.0, **shared) as caller:
        [described] = (await caller.run(picture(3), outputs={"delivery": "url"})).document["outputs"]
        await caller.until_empty()
        assert color_of((await caller.get(described["url"])).body) == 3
        await until_bare(caller, engine)
        assert (await caller.get(described["url"])).status == 410


async def test_what_is_uploaded_is_removed(engine: FakeEngine, shared: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "destinations.toml"
    file.write_text(f'[folder]\nurl = "{(tmp_path / "store").as_uri()}"')
    async with converter(engine.url, destinations_file=str(file), **shared) as caller:
        reply = await caller.run(picture(3), outputs={"delivery": {"storage": "folder"}})
        assert reply.status == 200
        await until_bare(caller, engine)


async def test_outputs_stay_where_the_operator_wants_them(engine: FakeEngine, shared: dict[str, Any]) -> None:
    async with converter(engine.url, keep_outputs=True, **shared) as caller:
        await caller.run(picture(3, prefix="album/page"))
        await caller.until_empty()
        assert listed(engine) == [*STAYS, "album/page_00002_.png"]


async def test_a_folder_that_can_not_be_removed_harms_no_answer(
    engine: FakeEngine, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("converter.media.removal.shutil.rmtree", refuse)
    async with converter(engine.url, **shared) as caller:
        assert (await caller.run(picture(3))).status == 200
        await caller.until(lambda: "outputs were not removed: Permission denied" in caplog.text)


async def test_a_folder_that_can_not_be_written_stops_the_start(
    engine: FakeEngine, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.fitting.os.access", lambda *_: False)  # whoever runs the tests may write everywhere
    with pytest.raises(CannotStart, match="is not writable: make it so, or set keep_outputs"):
        async with converter(engine.url, **shared):
            pass
    async with converter(engine.url, keep_outputs=True, **shared) as caller:
        assert caller.ready
