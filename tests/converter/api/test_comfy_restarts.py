"""What a state folder keeps of Comfy API v2 over a restart of the converter, and what there is without one."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from comfy_sdk import IdempotencyKeyReuse, NotFound

from converter.errors import CannotStart
from tests.converter.api.comfy import comfy
from tests.converter.faults.graphs import loaded, picture, text
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid


async def test_jobs_outputs_assets_and_keys_outlive_a_restart(engine: FakeEngine, tmp_path: Path) -> None:
    async with converter(engine.url, state_dir=tmp_path) as caller, comfy(caller.url) as client:
        workflow = client.workflows.from_json(picture(0x445566))
        job = await (await client.submit(workflow, idempotency_key="mine", metadata={"a": "b"})).result()
        words = await client.run(client.workflows.from_json(text("words")))
        asset = client.assets.from_bytes(encode(solid(0x0000FF)[0]), filename="blue.png")
        await asset.commit()
    async with converter(engine.url, state_dir=tmp_path) as caller, comfy(caller.url) as client:
        again = await client.jobs.get(job.id)
        assert (again.status, again.metadata) == ("succeeded", {"a": "b"})
        assert color_of(await again.outputs[0].to_bytes()) == 0x445566
        assert [each.id for each in again.outputs] == [each.id for each in job.outputs]
        assert await (await client.jobs.get(words.id)).outputs[0].to_bytes() == b"words"
        assert (await again.get_workflow()).graph == picture(0x445566)
        assert [type(event).__name__ async for event in again.events()] == ["OutputReady", "StatusChange"]
        assert [each.id async for each in client.list_jobs()] == [words.id, job.id]
        with pytest.raises(IdempotencyKeyReuse):
            await client.submit(client.workflows.from_json(picture(1)), idempotency_key="mine")
        workflow = client.workflows.from_json(loaded(""))
        workflow.set_input("1", "image", await client.assets.get(str(asset.id)))
        [inverted] = (await client.run(workflow)).outputs
        assert color_of(await inverted.to_bytes()) == 0xFFFF00


async def test_a_job_under_way_when_the_service_ends_has_failed(engine: FakeEngine, tmp_path: Path) -> None:
    with suppress(LookupError):
        async with converter(engine.url, state_dir=tmp_path) as caller, comfy(caller.url) as client:
            engine.hold()
            job = await client.submit(client.workflows.from_json(picture(1)))
            raise LookupError("as if by a signal")
    async with converter(engine.url, state_dir=tmp_path, wait=False) as caller, comfy(caller.url) as client:
        again = await client.jobs.get(job.id)
        assert again.status == "failed"
        assert again.error is not None
        assert again.error.code == "engine_failed"


async def test_without_a_folder_nothing_is_known_after_a_restart(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller, comfy(caller.url) as client:
        job = await client.run(client.workflows.from_json(picture(1)))
        [output] = job.outputs
    async with converter(engine.url) as caller, comfy(caller.url) as client:
        with pytest.raises(NotFound):
            await client.jobs.get(job.id)
        assert (await caller.get(f"/api/v2/assets/{output.id}/content")).status == 404


async def test_a_secret_of_the_operators_lets_ids_of_outputs_outlive_a_restart_without_a_folder(
    engine: FakeEngine,
) -> None:
    settings: dict[str, Any] = {"url_secret": "a secret of the operator's, long enough", "replica_tag": "r1"}
    async with converter(engine.url, **settings) as caller, comfy(caller.url) as client:
        [output] = (await client.run(client.workflows.from_json(picture(0x112233)))).outputs
    async with converter(engine.url, **settings) as caller:
        assert color_of((await caller.get(f"/api/v2/assets/{output.id}/content")).body) == 0x112233


async def test_an_output_of_another_replica_is_no_file_of_this_one(engine: FakeEngine) -> None:
    secret = "a secret of the operator's, long enough"
    async with (
        FakeEngine() as other,
        converter(engine.url, url_secret=secret, replica_tag="r1") as caller,
        converter(other.url, url_secret=secret, replica_tag="r2") as stranger,
    ):
        await stranger.run(picture(0x445566))
        async with comfy(caller.url) as client:
            [output] = (await client.run(client.workflows.from_json(picture(0x112233)))).outputs
        path = f"/api/v2/assets/{output.id}/content"
        assert color_of((await caller.get(path)).body) == 0x112233
        assert (await stranger.get(path)).status == 404, "a file of the same name is somebody else's"


async def test_a_folder_is_of_one_replica(engine: FakeEngine, tmp_path: Path) -> None:
    async with converter(engine.url, state_dir=tmp_path):
        with pytest.raises(CannotStart, match=r"comfyapi\.sqlite can't be used: database is locked"):
            async with converter(engine.url, state_dir=tmp_path):
                pass


async def test_what_is_no_database_is_said_at_the_start(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "comfyapi.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(CannotStart, match="file is not a database"):
        async with converter(engine.url, state_dir=tmp_path):
            pass


async def test_files_that_were_lost_are_assets_that_are_gone(engine: FakeEngine, tmp_path: Path) -> None:
    async with converter(engine.url, state_dir=tmp_path) as caller, comfy(caller.url) as client:
        lost, kept = (client.assets.from_bytes(data) for data in (b"one", b"two"))
        await lost.commit()
        await kept.commit()
    (tmp_path / "assets" / lost.hash.removeprefix("blake3:")).unlink()
    (tmp_path / "assets" / "half.part").write_bytes(b"half")
    async with converter(engine.url, state_dir=tmp_path) as caller, comfy(caller.url) as client:
        assert (await caller.get(f"/api/v2/assets/{kept.id}/content")).body == b"two"
        with pytest.raises(NotFound):
            await client.assets.get(str(lost.id))
        assert [path.name for path in (tmp_path / "assets").iterdir()] == [kept.hash.removeprefix("blake3:")]
