"""The templates that ship for the demo model, on the embedded engine that they ship for."""

import asyncio
import base64
import io
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout
from PIL import Image, ImageDraw, ImageStat

from tests.e2e.service import PATIENCE, POLL, Service, ask, open_session, running

SIZE = 64
STEPS = 4
LONG = 200.0
"""Seconds for one picture: much else may run on this machine."""

DEMO = {"txt2img", "img2img", "inpaint", "upscale"}


def encode(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def whiteness(picture: Image.Image) -> float:
    """The mean of the darkest of its colours, up to 255."""
    return min(ImageStat.Stat(picture).mean)


def list_files(folder: Path, pattern: str) -> list[Path]:
    """What lies in the folder that a replica gives to its engine."""
    return list(folder.glob(f"converter-engine-*/{pattern}"))


async def draw(service: Service, name: str, **inputs: Any) -> Image.Image:
    """The one picture that a template makes."""
    body = {"inputs": {"steps": STEPS, "seed": 3, **inputs}, "timeout": LONG}
    async with open_session() as session:
        url = f"{service.url}/v1/workflows/{name}"
        reply = await ask(session, "POST", url, json=body, timeout=ClientTimeout(total=LONG))
    assert reply.status == 200, reply
    [output] = reply.document["outputs"]
    return Image.open(io.BytesIO(base64.b64decode(output["data"]))).convert("RGB")


async def judge(service: Service) -> dict[str, Any]:
    """All templates by name, once the engine was asked about them."""
    async with asyncio.timeout(PATIENCE), open_session() as session:
        while True:
            listed = (await ask(session, "GET", f"{service.url}/v1/workflows")).document["workflows"]
            if all(template["available"] is not None for template in listed):
                return {template["name"]: template for template in listed}
            await asyncio.sleep(POLL)


async def test_the_embedded_engine_keeps_nothing_of_what_callers_sent_and_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(tmp_path, "--drain-delay", "0", engine="") as service:
        await service.listens()
        await service.ready()
        white = encode(Image.new("RGB", (SIZE, SIZE), "white"))
        drawn = await draw(service, "img2img", image=white, prompt="a red circle", width=SIZE, height=SIZE)
        assert drawn.size == (SIZE, SIZE)
        assert {path.name for path in list_files(tmp_path, "*")} == {"input", "output", "temp"}
        await service.until(lambda: not list_files(tmp_path, "input/**/*.*") + list_files(tmp_path, "output/**/*.*"))
        service.signal(signal.SIGTERM)
        assert await service.ends(PATIENCE) == 0
    assert not list_files(tmp_path, "*")


@pytest.mark.timeout(3 * LONG)
async def test_what_ships_for_the_demo_model_runs_and_what_lacks_a_model_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-delay", "0") as service:
        await service.listens()
        await service.ready()
        templates = await judge(service)
        assert {name for name, template in templates.items() if template["available"]} == DEMO
        assert "v1-5-pruned-emaonly-fp16.safetensors (input model)" in templates["sd15"]["reason"]

        picture = Image.new("RGB", (SIZE, SIZE), "white")
        mask = Image.new("RGB", (SIZE, SIZE), "black")
        ImageDraw.Draw(mask).rectangle((0, 0, SIZE // 2 - 1, SIZE - 1), fill="white")
        given = {"image": encode(picture), "prompt": "a blue square on a red background"}
        painted = await draw(service, "inpaint", **given, mask=encode(mask), width=SIZE, height=SIZE)
        assert painted.size == (SIZE, SIZE)
        drawn, kept = (painted.crop((left, 0, left + SIZE // 4, SIZE)) for left in (0, SIZE * 3 // 4))
        assert whiteness(kept) > 220, "what the mask keeps is still white"
        assert whiteness(drawn) < 180, "what it shows in white is not"

        enlarged = await draw(service, "upscale", image=given["image"], width=2 * SIZE, height=2 * SIZE)
        assert enlarged.size == (2 * SIZE, 2 * SIZE)
        assert whiteness(enlarged) > 200, "it is still the white picture that was given"
