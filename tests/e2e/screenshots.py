"""Pictures of the page for the documents: `python -m tests.e2e.screenshots`.

Invariant: they show the page as it is, with the demo model; the same seed draws the same picture.
"""

import asyncio
import io
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.async_api import Browser, expect

from tests.e2e.browser import PHONE, Visitor, find_browser, open_browser, visit
from tests.e2e.service import running

DOCS = Path(__file__).parents[2] / "docs"
WINDOW = (1200, 1080)


async def draw_a_picture(visitor: Visitor) -> None:
    """As a first visitor does, but with an engine that has read its model."""
    await visitor.open()
    await visitor.draw("a black square", steps=2)
    await visitor.size()
    await visitor.open()
    await visitor.set("Seed", "12")
    await visitor.page.evaluate("document.getElementById('more').open = false")
    await visitor.field("Prompt").fill("a yellow star and a blue circle on a purple background")
    await visitor.button("Run").click()
    await visitor.size()
    await visitor.page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")


async def draw_from_a_picture(visitor: Visitor) -> None:
    """On a phone, up to the form."""
    await visitor.open("img2img")
    await visitor.field("Image").set_input_files(DOCS / "demo-model.png")
    await visitor.field("Prompt").fill("a green heart on a black background")
    await visitor.page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")


async def save(visitor: Visitor, name: str) -> None:
    """As WebP without loss."""
    path = DOCS / name
    await expect(visitor.page.locator("#light")).to_have_text(re.compile(r"Ready\s*"))
    picture = Image.open(io.BytesIO(await visitor.page.screenshot(animations="disabled")))
    picture.convert("RGB").save(path, lossless=True, quality=100, method=6)
    print(f"{path}: {path.stat().st_size} bytes")


async def take(browser: Browser, url: str) -> None:
    """All pictures."""
    async with visit(browser, url, WINDOW) as visitor:
        await draw_a_picture(visitor)
        await save(visitor, "page.webp")
    async with visit(browser, url, PHONE, device_scale_factor=2, color_scheme="dark") as visitor:
        await draw_from_a_picture(visitor)
        await save(visitor, "page-phone.webp")


async def main() -> None:
    """Start everything, and take them; the port is the default one, since the page shows it."""
    program = find_browser()
    if program is None:
        sys.exit("there is no chromium on this machine (Debian: apt install chromium)")
    with TemporaryDirectory() as folder, running(Path(folder), "--port", "3000") as service:
        await service.listens()
        await service.ready()
        async with open_browser(program) as browser:
            await take(browser, service.url)


if __name__ == "__main__":
    asyncio.run(main())
