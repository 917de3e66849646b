"""`/docs` in a real browser: the whole API is shown, tried and guarded, and nothing is fetched from elsewhere."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.converter.faults.replica import converter
from tests.e2e.browser import Visitor, find_browser, open_browser, visit
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "alices-secret-is-long"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("there is no chromium on this machine")
    async with open_browser(program) as browser:
        yield browser


def note_requests(visitor: Visitor) -> list[str]:
    """Every address that the tab asks for, from here on."""
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    return asked


async def test_the_whole_api_is_shown_to_who_has_a_key_and_can_be_tried(browser: Browser) -> None:
    async with (
        FakeEngine() as engine,
        converter(engine.url, api_keys=f"alice:{SECRET}") as caller,
        visit(browser, caller.url) as visitor,
    ):
        described = (await caller.get("/openapi.json", Authorization=f"Bearer {SECRET}")).document
        asked = note_requests(visitor)
        await visitor.page.goto(f"{caller.url}/docs")
        for key, said in (("wrong-and-also-long", "This key is not valid."), (SECRET, "")):
            await visitor.field("This converter wants an API key.").fill(key)
            await visitor.button("Show the API").click()
            await expect(visitor.page.locator("#problem")).to_have_text(said)
        places = [*described["paths"].values(), *described.get("webhooks", {}).values()]
        count = sum(len(operations) for operations in places)
        await expect(visitor.page.locator(".opblock")).to_have_count(count)
        await visitor.page.locator("#operations-workflows-list_templates .opblock-summary").click()
        await visitor.button("Try it out").click()
        await visitor.button("Execute").click()
        answer = visitor.page.locator(".live-responses-table tbody")
        await expect(answer.locator(".response-col_status").first).to_contain_text("200")
        await expect(answer).to_contain_text("txt2img")
        assert {url for url in asked if not url.startswith((caller.url, "data:", "blob:"))} == set()
        assert not visitor.complaints
        await visitor.page.reload()
        await expect(visitor.page.locator(".opblock").first).to_be_visible()  # the key is still known to the tab
