"""A real browser without a window: Debian's Chromium, driven by Playwright, and the page as a person uses it.

For: the tests of the page, and `python -m tests.e2e.screenshots`. Leaves what is expected to them. Invariant: nothing
is downloaded; what a `Visitor` meets that a person would call an error of the page is in its `complaints`.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

PATIENCE = 100.0
"""Seconds after which a wait for anything fails: the machine may be busy, and the engine read its model first."""

DESKTOP = (1280, 900)
PHONE = (390, 844)
"""Widths and heights of windows, in CSS pixels."""


def find_browser() -> str | None:
    """The program, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def open_browser(program: str) -> AsyncIterator[Browser]:
    """A browser for the length of the block."""
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


class Visitor:
    """One tab on the page of a service, with no memory of others."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        """Warnings of the policy among them; that an answer is a fault is no error of the page."""
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    async def open(self, template: str = "") -> None:
        """Go to the page and wait until its form is there."""
        await self.page.goto(f"{self.url}/{template and '#'}{template}")
        await expect(self.field("Template")).not_to_be_empty()
        await expect(self.page.locator("#fields > .field").first).to_be_visible()

    def field(self, label: str) -> Locator:
        """A control by its label."""
        return self.page.get_by_label(label, exact=True)

    def button(self, name: str) -> Locator:
        """A button by its text."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def doing(self) -> Locator:
        """The line that says how far a run is."""
        return self.page.locator("#doing")

    @property
    def picture(self) -> Locator:
        """The picture that a run has made."""
        return self.page.locator("#outputs img")

    async def draw(self, prompt: str, steps: int = 4) -> None:
        """Fill the form and press Run."""
        await self.field("Prompt").fill(prompt)
        await self.set("Steps", str(steps))
        await self.button("Run").click()

    async def set(self, label: str, value: str) -> None:
        """Give one of the options."""
        await self.page.evaluate("document.getElementById('more').open = true")
        await self.field(label).fill(value)

    async def size(self) -> tuple[int, int]:
        """Width and height of the picture that is shown, in its own pixels; (0, 0) for one that is broken."""
        await expect(self.picture).to_be_visible()
        size = await self.picture.evaluate(
            "async (image) => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
        )
        return (size[0], size[1])

    async def overflow(self) -> float:
        """CSS pixels by which the page is wider than its window."""
        found: float = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return found


@asynccontextmanager
async def visit(browser: Browser, url: str, size: tuple[int, int] = DESKTOP, **options: Any) -> AsyncIterator[Visitor]:
    """A tab of its own for the length of the block; `options` are those of Playwright's contexts."""
    window = {"width": size[0], "height": size[1]}
    context = await browser.new_context(viewport=window, reduced_motion="reduce", **options)  # type: ignore[arg-type]
    try:
        yield Visitor(await context.new_page(), url)
    finally:
        await context.close()
