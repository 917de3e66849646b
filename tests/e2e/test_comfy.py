"""Comfy API v2 by comfy-sdk, at a converter process that is killed and started again."""

import signal
from pathlib import Path

from tests.converter.api.comfy import comfy
from tests.converter.faults.graphs import picture
from tests.e2e.service import running
from tests.fakes.engine import FakeEngine
from tests.fakes.pictures import color_of, encode, solid


async def test_what_a_state_folder_keeps_outlives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    async with FakeEngine() as engine:
        flags = ("--engine-url", engine.url, "--state-dir", str(tmp_path / "state"))
        with running(tmp_path, *flags) as service:
            await service.listens()
            await service.ready()
            async with comfy(service.url) as client:
                done = await client.run(client.workflows.from_json(picture(0x336699)))
                asset = client.assets.from_bytes(encode(solid(1)[0]))
                await asset.commit()
                engine.hold()
                lost = await client.submit(client.workflows.from_json(picture(2)))
            service.signal(signal.SIGKILL)
            await service.ends()
        engine.release()
        with running(tmp_path, *flags) as service:
            await service.listens()
            async with comfy(service.url) as client:
                again = await client.jobs.get(done.id)
                assert again.status == "succeeded"
                assert color_of(await again.outputs[0].to_bytes()) == 0x336699
                assert (await client.jobs.get(lost.id)).status == "failed"
                assert (await client.assets.get(str(asset.id))).hash == asset.hash
