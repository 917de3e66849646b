"""The page as people use it, in a real browser: with the embedded engine where pictures are drawn, else with answers
that are put in the service's place.
"""

import asyncio
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from PIL import Image, ImageChops
from playwright.async_api import Browser, Route, expect

from tests.converter.faults.graphs import passed_through
from tests.converter.faults.replica import converter
from tests.e2e.browser import DESKTOP, PATIENCE, PHONE, Visitor, find_browser, open_browser, visit
from tests.e2e.service import POLL, Service, open_session, running
from tests.fakes.engine import FakeEngine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

RED = "a red circle on a white background"
SECRET = "alices-secret-is-long"
PICTURE = Path(__file__).parents[2] / "docs" / "demo-model.png"

LISTEN = """(id) => {
    window.told = [];
    const element = document.getElementById(id);
    const note = () => window.told.push(element.src ?? element.textContent);
    new MutationObserver(note).observe(element, { attributes: true, childList: true });
}"""
"""Note everything that an element says or shows, however short it does."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests, of which each has tabs of its own."""
    program = find_browser()
    if program is None:
        pytest.skip("there is no chromium on this machine")
    async with open_browser(program) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One service with the embedded engine for all tests that draw."""
    with running(tmp_path_factory.mktemp("service")) as service:
        await service.listens()
        await service.ready()
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(browser: Browser, service: Service) -> AsyncIterator[Visitor]:
    """Somebody on the page, who meets no error of ours."""
    async with visit(browser, service.url) as visitor:
        await visitor.open()
        yield visitor
        assert not visitor.complaints


# Drawing -----------------------------------------------------------------------------------------------------------


async def test_a_first_visitor_draws_a_picture_and_sees_how_far_it_is(visitor: Visitor, tmp_path: Path) -> None:
    for element in ("doing", "preview"):
        await visitor.page.evaluate(LISTEN.replace("told", element), element)
    await visitor.draw(RED, steps=20)
    assert await visitor.size() == (128, 128)
    doing = await visitor.page.evaluate("window.doing")
    assert any(re.fullmatch(r"Node \d of 7: KSampler, step \d+ of 20", text) for text in doing), doing
    previews = await visitor.page.evaluate("window.preview")
    assert any(source.startswith("blob:") for source in previews), previews
    async with visitor.page.expect_download() as download:
        await visitor.page.get_by_role("link", name="Download").click()
    saved = await (await download.value).path()
    red, green, blue = Image.open(saved).convert("RGB").getpixel((64, 64))  # type: ignore[misc]
    assert red > 150 > max(green, blue)
    await expect(visitor.page.locator("#summary")).to_contain_text(re.compile(r"Done in .* The seed was \d+\."))
    assert "engine" in await visitor.page.locator("#timings").inner_text()


async def test_what_is_shown_as_curl_and_python_draws_the_same(visitor: Visitor, tmp_path: Path) -> None:
    await visitor.draw("a 'green' heart; \\ on a \"black\" background\nby night 🌙")
    assert await visitor.size() == (128, 128)
    async with visitor.page.expect_download() as download:
        await visitor.page.get_by_role("link", name="Download").click()
    saved = Image.open(await (await download.value).path())
    curl = await visitor.page.locator("#panel-curl").inner_text()
    assert "--fail-with-body -o " in curl
    await visitor.page.get_by_role("tab", name="Python").click()
    python = await visitor.page.locator("#panel-python").inner_text()
    for name, script in (("curl", curl), ("python", f"{shlex.quote(sys.executable)} -c {shlex.quote(python)}")):
        folder = tmp_path / name
        folder.mkdir()
        process = await asyncio.create_subprocess_exec("bash", "-euc", script, cwd=folder)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0, script
        [made] = folder.iterdir()
        assert ImageChops.difference(Image.open(made), saved).getbbox() is None, script


async def count_canceled(service: Service) -> float:
    """Jobs that were canceled so far."""
    async with open_session() as session, session.get(f"{service.url}/metrics") as response:
        found = re.search(r'^converter_jobs_total{outcome="canceled"} (.*)$', await response.text(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def until_canceled(service: Service, count: float) -> None:
    """So many jobs were."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await count_canceled(service) == count:
                return
            await asyncio.sleep(POLL)


async def test_a_run_is_canceled_by_its_button_and_by_closing_the_tab(visitor: Visitor, service: Service) -> None:
    before = await count_canceled(service)
    await visitor.draw(RED, steps=200)
    await expect(visitor.doing).to_contain_text("KSampler, step")
    await visitor.button("Cancel").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Canceled")
    await expect(visitor.button("Run")).to_be_focused()
    await until_canceled(service, before + 1)
    await visitor.draw(RED, steps=200)
    await expect(visitor.doing).to_contain_text("KSampler, step")
    await visitor.page.close()
    await until_canceled(service, before + 2)


async def test_what_is_wrong_is_said_beside_its_field(visitor: Visitor) -> None:
    await visitor.draw("", steps=500)
    await expect(visitor.page.locator("#input-prompt-problem")).to_have_text("Prompt is required.")
    await expect(visitor.page.locator("#input-steps-problem")).to_have_text("Steps must be at most 200.")
    await expect(visitor.field("Prompt")).to_be_focused()
    await expect(visitor.field("Prompt")).to_have_attribute("aria-invalid", "true")
    await expect(visitor.page.locator("#fault")).to_be_empty()
    await visitor.field("Prompt").fill(RED)
    await expect(visitor.page.locator("#input-prompt-problem")).to_be_empty()
    await visitor.page.evaluate("document.getElementById('more').open = false")
    await visitor.button("Run").click()
    await expect(visitor.field("Steps")).to_be_focused()


DROP = """async (zone) => {
    const picture = await new Promise((done) => document.createElement("canvas").toBlob(done));
    const data = new DataTransfer();
    data.items.add(new File([picture], "drawn.png", { type: "image/png" }));
    for (const kind of ["dragover", "drop"])
        zone.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


async def test_a_picture_goes_in_by_choice_and_by_drop(visitor: Visitor) -> None:
    await visitor.field("Template").select_option("img2img")
    await visitor.field("Image").set_input_files(PICTURE)
    zone = visitor.page.locator(".drop")
    await expect(zone).to_contain_text(re.compile(r"demo-model\.png, \d+ kB"))
    await visitor.draw("a green heart")
    assert await visitor.size() == (128, 128)
    assert '"image": {"part": "image"}' in await visitor.page.locator("#panel-curl").inner_text()
    await zone.evaluate(DROP)
    await expect(zone).to_contain_text("drawn.png")
    assert await zone.locator("img").evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")
    await visitor.button("Remove").click()
    await visitor.button("Run").click()
    await expect(visitor.page.locator("#input-image-problem")).to_have_text("Image is required.")


async def test_a_mask_is_painted_over_the_picture_just_made(visitor: Visitor) -> None:
    await visitor.draw(RED, steps=20)
    assert await visitor.size() == (128, 128)
    await visitor.field("Template").select_option("inpaint")
    await visitor.button("Use the picture just made").click()
    canvas = visitor.page.get_by_role("img", name="The picture, to paint on")
    await canvas.scroll_into_view_if_needed()
    box = await canvas.bounding_box()
    assert box is not None
    mouse, middle = visitor.page.mouse, box["y"] + box["height"] / 2
    await mouse.move(box["x"] + 5, middle)
    await mouse.down()
    await mouse.move(box["x"] + box["width"] - 5, middle)
    await mouse.up()
    async with visitor.page.expect_download() as download:
        await visitor.button("Save the mask").click()
    mask = Image.open(await (await download.value).path()).convert("L")
    assert mask.size == (128, 128)
    assert [mask.getpixel(place) for place in ((64, 64), (20, 64), (64, 20), (64, 110))] == [255, 255, 0, 0]
    await visitor.draw("a green square on a white background", steps=2)
    await expect(visitor.page.locator("#panel-curl")).to_contain_text('"mask": {"part": "mask"}')
    await visitor.button("Clear").click()
    await visitor.button("Run").click()
    await expect(visitor.page.locator("#input-mask-problem")).to_have_text("Mask is required.")


async def test_a_program_that_knows_the_rules_of_accessibility_finds_nothing(visitor: Visitor) -> None:
    await visitor.draw("", steps=500)
    await expect(visitor.field("Prompt")).to_be_focused()
    await visitor.draw(RED, steps=2)
    assert await visitor.size() == (128, 128)
    await visitor.field("Template").select_option("inpaint")
    await visitor.button("Use the picture just made").click()
    for scheme in ("light", "dark"):
        await visitor.page.emulate_media(color_scheme=scheme)
        found = await Axe().run(visitor.page)
        assert not found.response["violations"]


async def test_a_keyboard_is_enough(visitor: Visitor) -> None:
    keyboard = visitor.page.keyboard
    focused = "document.activeElement.id || document.activeElement.textContent"

    async def tab_to(name: str) -> None:
        for _ in range(30):
            await keyboard.press("Tab")
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert await visitor.page.evaluate(outline) != "none", await visitor.page.evaluate(focused)
            if await visitor.page.evaluate(focused) == name:
                return
        raise AssertionError(f"no way to {name}")

    await tab_to("template")
    await tab_to("input-prompt")
    await keyboard.type(RED)
    await tab_to("More options")
    await keyboard.press("Enter")
    await tab_to("input-steps")
    await keyboard.press("ControlOrMeta+a")
    await keyboard.type("200")
    await tab_to("run")
    await keyboard.press("Enter")
    await expect(visitor.doing).to_contain_text("KSampler, step")
    await tab_to("cancel")
    await keyboard.press("Enter")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Canceled")
    await visitor.field("Steps").focus()
    await keyboard.press("ControlOrMeta+a")
    await keyboard.type("2")
    await keyboard.press("Enter")
    assert await visitor.size() == (128, 128)
    await tab_to("Download")
    await tab_to("tab-curl")
    await keyboard.press("ArrowRight")
    await expect(visitor.page.locator("#panel-python")).to_be_visible()


async def test_progress_is_said_to_those_who_do_not_see_it(visitor: Visitor) -> None:
    await visitor.page.evaluate(LISTEN, "said")
    await visitor.draw(RED, steps=20)
    assert await visitor.size() == (128, 128)
    await expect(visitor.page.get_by_role("status")).to_have_text("Done: one output")
    told = await visitor.page.evaluate("window.told")
    assert any(re.fullmatch(r"KSampler, \d+ percent", text) for text in told), told
    assert len(told) < 30, "not every step"


async def test_it_fits_phones_and_the_dark(visitor: Visitor) -> None:
    await visitor.field("Template").select_option("img2img")
    await visitor.field("Image").set_input_files(PICTURE)
    for width, height in (PHONE, (320, 640), DESKTOP):
        await visitor.page.set_viewport_size({"width": width, "height": height})
        await visitor.draw("a-word-that-is-longer-than-any-phone-is-wide-" * 4, steps=2)
        assert await visitor.size() == (128, 128)
        await expect(visitor.picture).to_be_in_viewport()
        for scheme, bright in (("light", True), ("dark", False)):
            await visitor.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert await visitor.overflow() == 0, width
            ground = await visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground))) > 3 * 128) == bright


# Answers in the service's place ------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "style": {"type": "string", "enum": ["a", "b c"]},
        "loud": {"type": "boolean", "default": True},
        "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
        "sound": {"x-type": "audio", "anyOf": [{"type": "string"}, {"properties": {"part": {"type": "string"}}}]},
        "left": {"type": "integer", "multipleOf": 4, "x-node": ["7.left", "8.x.y"]},
    },
    "required": ["text", "style"],
}
TEMPLATE = {"name": "odd", "title": "Odd", "description": "", "available": False, "reason": "the model x is missing"}


@asynccontextmanager
async def acting(
    browser: Browser, url: str, answer: str, status: int = 200, kind: str = "text/event-stream"
) -> AsyncIterator[tuple[Visitor, list[str]]]:
    """A visitor of a service with one template of all kinds, which answers as told; and the bodies that it was sent."""
    bodies: list[str] = []

    async def act(route: Route) -> None:
        if route.request.method == "POST":
            bodies.append(route.request.post_data or "")
            await route.fulfill(status=status, body=answer, content_type=kind)
        elif route.request.url.endswith("/odd"):
            await route.fulfill(json={**TEMPLATE, "inputs": SCHEMA})
        else:
            await route.fulfill(json={"workflows": [TEMPLATE]})

    async with visit(browser, url) as visitor:
        await visitor.page.route("**/v1/workflows*", act)
        await visitor.page.route("**/v1/workflows/*", act)
        await visitor.open()
        yield visitor, bodies
        assert not visitor.complaints


def events(**data: Mapping[str, Any]) -> str:
    """A stream of one event each."""
    return "".join(f"event: {name}\nid: 1\ndata: {json.dumps(document)}\n\n" for name, document in data.items())


OUTPUTS = [
    {
        "node_id": "1",
        "name": "note.txt",
        "kind": "text",
        "content_type": "text/plain",
        "size": 2,
        "text": "<b>hi</b>",
        "label": "said",
    },
    {"node_id": "2", "name": "s.wav", "kind": "audio", "content_type": "audio/wav", "size": 3, "data": "AAAA"},
    {"node_id": "3", "name": "m.glb", "kind": "3d", "content_type": "model/gltf-binary", "size": 3, "data": "AAAA"},
]
RESULT = {"id": "x", "status": "succeeded", "outputs": OUTPUTS, "timings": {"total": 1.5}, "inputs": {"seed": 7}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page_of_a_fake(browser: Browser) -> AsyncIterator[str]:
    """The address of a converter for what needs no pictures."""
    async with FakeEngine() as engine, converter(engine.url) as caller:
        yield caller.url


async def test_any_kind_of_input_and_output_has_its_place(browser: Browser, page_of_a_fake: str) -> None:
    async with acting(browser, page_of_a_fake, events(result=RESULT)) as (visitor, bodies):
        await expect(visitor.page.locator("#about")).to_have_text("The model x is missing.")
        lacking = visitor.field("Template").locator("optgroup[label='Not on this engine'] option")
        await expect(lacking).to_have_text("Odd")
        await visitor.field("Text").fill("</script>")
        await visitor.field("Style").select_option("b c")
        await visitor.page.get_by_text("More options").click()
        await visitor.field("Loud").uncheck()
        await visitor.set("Share", "0.25")
        await visitor.set("Seed", str(2**64 - 1))
        await visitor.button("Run").click()
        await expect(visitor.page.locator("figure")).to_have_count(3)
        assert json.loads(bodies[0]) == {
            "inputs": {"text": "</script>", "style": "b c", "loud": False, "share": 0.25, "seed": 2**64 - 1}
        }
        await expect(visitor.page.locator("figure pre")).to_have_text("<b>hi</b>")
        await expect(visitor.page.locator("figcaption").first).to_have_text("said: note.txt")
        await expect(visitor.page.locator("figure audio")).to_be_visible()
        await expect(visitor.page.get_by_role("link", name="Download")).to_have_count(2)
        assert '"loud": False' in (await visitor.page.locator("#panel-python").text_content() or "")
        await visitor.page.evaluate(f"sessionStorage.setItem('converter.key', '{SECRET}')")
        await visitor.field("Seed").fill("")
        await visitor.button("Draw a seed").click()
        await visitor.button("Run").click()
        await expect(visitor.page.locator("figure")).to_have_count(3)
        await expect(visitor.page.locator("#panel-curl")).to_contain_text("Bearer $CONVERTER_API_KEY")
        await expect(visitor.page.locator("#panel-python")).to_contain_text('os.environ["CONVERTER_API_KEY"]')
        assert SECRET not in await visitor.page.content()
        assert 0 <= json.loads(bodies[1])["inputs"]["seed"] < 2**32


PROBLEM = {"title": "Queue full", "detail": "there is no place", "status": 429, "retry_after": 3}


@pytest.mark.parametrize(
    ("answer", "status", "kind", "words"),
    [
        (events(status={"state": "running"}), 200, "text/event-stream", "The connection was lost before the end."),
        (json.dumps(PROBLEM), 429, "application/problem+json", "There is no place. Try again in"),
        (events(error=PROBLEM), 200, "text/event-stream", "There is no place. Try again in"),
        ("<h1>Bad gateway</h1>", 502, "text/html", "Something that is no converter has answered 502."),
    ],
)
async def test_every_end_is_told(
    browser: Browser, page_of_a_fake: str, answer: str, status: int, kind: str, words: str
) -> None:
    async with acting(browser, page_of_a_fake, answer, status, kind) as (visitor, _):
        await visitor.button("Run").click()
        fault = visitor.page.get_by_role("alert")
        await expect(fault).not_to_be_empty()
        assert words in " ".join((await fault.inner_text()).split())
        await expect(visitor.button("Run")).not_to_have_attribute("aria-disabled", "true")


async def test_when_one_may_try_again_is_counted_down_and_said_once(browser: Browser, page_of_a_fake: str) -> None:
    async with acting(browser, page_of_a_fake, json.dumps(PROBLEM), 429, "application/problem+json") as (visitor, _):
        page = visitor.page
        await page.clock.install(time=0)
        await visitor.open()
        await page.clock.pause_at(3600)  # seconds: from here on no time passes but by `run_for`
        await page.evaluate(LISTEN, "said")
        await visitor.button("Run").click()
        wait = page.get_by_role("alert").get_by_role("timer")
        for text in ("Try again in 3 s.", "Try again in 2 s.", "Try again in 1 s.", "You may try again now."):
            await expect(wait).to_have_text(text)
            await expect(wait).to_have_attribute("aria-live", "off")
            await page.clock.run_for(1000)
        assert await page.evaluate("window.told") == ["Sending", "You may try again now."]
        await visitor.button("Run").click()
        await expect(wait).to_have_text("Try again in 3 s.")
        await page.route("**/v1/workflows/odd", lambda route: None)  # never answered
        await visitor.button("Run").click()
        await expect(visitor.doing).to_have_text("Sending")
        await page.clock.run_for(10_000)
        await expect(page.locator("#said")).to_have_text("Sending")
        await visitor.button("Cancel").click()
        await expect(page.get_by_role("alert")).to_contain_text("Canceled")


async def test_a_number_goes_by_the_step_of_its_input(browser: Browser, page_of_a_fake: str) -> None:
    async with acting(browser, page_of_a_fake, "") as (visitor, _):
        for name, step in {"left": "4", "share": "0.05"}.items():
            await expect(visitor.page.locator(f"#input-{name}")).to_have_attribute("step", step)


NODES: dict[str, Any] = {
    "8": {"errors": [{"message": "Value is too big", "details": "9 > 8", "input_name": "x.y"}]},
    "9": {"errors": [{"message": "Node is odd", "details": ""}]},
}


@pytest.mark.parametrize(
    ("problem", "beside", "elsewhere"),
    [
        (
            {"node_id": "7", "input_name": "left", "detail": "/inputs/left: Input left of node 7 (X) is odd."},
            "Left is odd.",
            "",
        ),
        (
            {
                "inputs": [{"node_id": "9", "input_name": "x"}, {"node_id": "7", "input_name": "left"}],
                "detail": "/inputs/left: Input x of node 9 (X) is even. Input left of node 7 (X) is odd.",
            },
            "Left is odd.",
            "/inputs/left: Input x of node 9 (X) is even. Input left of node 7 (X) is odd.",
        ),
        (
            {"node_id": "7", "input_name": "left", "detail": "/inputs/left: it broke"},
            "Left can't be used: it broke.",
            "",
        ),
        (
            {"node_id": "5", "input_name": "y", "template_input": "left", "detail": "it broke"},
            "Left can't be used: it broke.",
            "",
        ),
        ({"node_errors": {"8": NODES["8"]}}, "Left can't be used: Value is too big (9 > 8).", ""),
        ({"node_errors": NODES, "detail": "much"}, "Left can't be used: Value is too big (9 > 8).", "Much."),
        ({"node_errors": {}, "detail": "this one kills"}, "", "This one kills."),
        ({"problems": [{"pointer": "/timeout", "detail": "is odd"}], "detail": "no"}, "", "/timeout is odd."),
    ],
)
async def test_a_fault_is_shown_beside_the_field_that_feeds_the_node_that_it_names(
    browser: Browser, page_of_a_fake: str, problem: dict[str, Any], beside: str, elsewhere: str
) -> None:
    told = json.dumps({"title": "Bad", "status": 422, **problem})
    async with acting(browser, page_of_a_fake, told, 422, "application/problem+json") as (visitor, _):
        await visitor.button("Run").click()
        await expect(visitor.button("Run")).not_to_have_attribute("aria-disabled", "true")
        await expect(visitor.page.locator("#input-left-problem")).to_have_text(beside)
        await expect(visitor.page.locator("#fault p, #fault li")).to_have_text([elsewhere] if elsewhere else [])


TINT = """
[inputs.tint]
type = "integer"
node = "1.color"
"""


@asynccontextmanager
async def using(
    browser: Browser, folder: Path, class_type: str, **inputs: Any
) -> AsyncIterator[tuple[FakeEngine, Visitor]]:
    """A visitor of a service with one template, whose picture goes through one node; and the engine that is behind."""
    (folder / "mine.json").write_text(json.dumps(passed_through(class_type, **inputs)))
    (folder / "mine.toml").write_text(TINT)
    async with (
        FakeEngine() as engine,
        converter(engine.url, workflows_dir=folder, shipped_workflows=False) as caller,
        visit(browser, caller.url) as visitor,
    ):
        await visitor.open()
        await visitor.field("Tint").fill("5")
        yield engine, visitor
        assert not visitor.complaints


async def test_the_node_that_fails_is_named(browser: Browser, tmp_path: Path) -> None:
    async with using(browser, tmp_path, "TestRaise", kind="ValueError") as (_, visitor):
        await visitor.button("Run").click()
        fault = visitor.page.locator("#fault p:not(.help)")
        await expect(fault).to_have_text(["Raised on purpose.", "At node 9 (TestRaise)."])


async def test_a_run_that_has_lost_its_engine_begins_again(browser: Browser, tmp_path: Path) -> None:
    async with using(browser, tmp_path, "TestPreview", steps=4) as (engine, visitor):
        again, bar, preview = (visitor.page.locator(f"#{name}") for name in ("again", "progress", "preview"))
        await visitor.page.evaluate(LISTEN, "said")
        engine.hold("SaveImage")
        await visitor.button("Run").click()
        await expect(visitor.doing).to_have_text("Node 3 of 3: SaveImage")
        await expect(preview).to_be_visible()
        await engine.crash()
        engine.hold("TestPreview")
        await engine.restart()
        await expect(again).to_have_text("The engine was lost: the run begins again.")
        await expect(visitor.doing).to_have_text("Node 2 of 3: TestPreview")
        assert await bar.evaluate("(bar) => Math.round(bar.value * 3)") == 1
        await expect(preview).to_be_hidden()
        assert (await visitor.page.evaluate("window.told"))[-1] == "TestPreview, 25 percent"
        engine.release()
        assert await visitor.size() == (16, 16)
        engine.hold("SaveImage")
        await visitor.field("Tint").fill("6")
        await visitor.button("Run").click()
        await expect(visitor.doing).to_have_text("Node 3 of 3: SaveImage")
        await expect(again).to_be_empty()
        engine.release()
        await expect(visitor.picture).to_be_visible()


# Keys and the light ------------------------------------------------------------------------------------------------


async def test_a_key_is_asked_for_and_kept_for_this_tab_alone(browser: Browser) -> None:
    async with (
        FakeEngine() as engine,
        converter(engine.url, api_keys=f"alice:{SECRET}") as caller,
        visit(browser, caller.url) as visitor,
    ):
        await visitor.page.goto(caller.url)
        await visitor.field("API key").fill("not-the-secret")
        await visitor.button("Continue").click()
        await expect(visitor.page.get_by_text("This key is not valid.")).to_be_visible()
        await visitor.field("API key").fill(SECRET)
        await visitor.page.keyboard.press("Enter")
        await expect(visitor.field("Prompt")).to_be_visible()
        assert await visitor.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        await visitor.open()
        await expect(visitor.page.get_by_role("dialog")).to_be_hidden()
        other = await visitor.page.context.new_page()
        await other.goto(caller.url)
        await expect(other.get_by_role("dialog")).to_be_visible()
        await other.get_by_role("button", name="Not now").click()
        await expect(other.get_by_role("alert").first).to_contain_text("An API key is needed")
        await visitor.button("Forget key").click()
        assert await visitor.page.evaluate("sessionStorage.length") == 0
        assert not visitor.complaints


async def test_where_the_status_is_not_to_be_had_there_is_no_light(browser: Browser) -> None:
    async with (
        FakeEngine() as engine,
        converter(engine.url, probes_port=0) as caller,
        visit(browser, caller.url) as visitor,
    ):
        async with visitor.page.expect_response("**/status") as answer:
            await visitor.open()
        assert (await answer.value).status == 404
        await expect(visitor.page.locator("#light")).to_be_hidden()


async def test_under_a_foreign_name_the_page_says_why_it_can_run_nothing(browser: Browser, page_of_a_fake: str) -> None:
    url = page_of_a_fake.replace("127.0.0.1", "page.localhost")  # which browsers take to be the loopback
    async with visit(browser, url) as visitor:
        await visitor.open()
        await visitor.field("Prompt").fill(RED)
        await visitor.button("Run").click()
        await expect(visitor.page.get_by_role("alert")).to_contain_text(
            "the setting cors_origins names those that may."
        )


async def test_templates_are_looked_at_again_when_the_engine_is_there(browser: Browser) -> None:
    async with FakeEngine() as engine, visit(browser, "") as visitor:
        await engine.crash()
        await visitor.page.clock.install()
        async with converter(engine.url, wait=False) as caller:
            visitor.url = caller.url
            await visitor.open("flux")
            await visitor.field("Prompt").fill(RED)
            groups = visitor.field("Template").locator("optgroup")
            await expect(groups).to_have_count(0)
            await engine.restart()
            await caller.until_ready()
            async with asyncio.timeout(PATIENCE):
                while not await groups.count():
                    await visitor.page.clock.run_for(3000)
            await expect(groups.locator("option[value=flux]")).to_have_count(1)
            await expect(visitor.page.locator("#about")).to_contain_text("The engine")
            await expect(visitor.field("Prompt")).to_have_value(RED)
            await expect(visitor.field("Prompt")).to_be_focused()


FULL = {"state": "BUSY", "ready": False, "queue": {"running": 2, "waiting": 5}, "engine": {"instance": "x"}}


async def test_the_light_follows_the_replica(browser: Browser) -> None:
    async with FakeEngine() as engine, visit(browser, "") as visitor:
        await visitor.page.clock.install()
        async with converter(engine.url) as caller:
            await visitor.page.goto(caller.url)
            light = visitor.page.locator("#light")
            await expect(light).to_have_text(re.compile(r"Ready\s*"))
            await visitor.page.route("**/status", lambda route: route.fulfill(json=FULL))
            await visitor.page.clock.run_for(5000)
            await expect(light).to_have_text("Busy 2 running, 5 waiting")
            await visitor.page.unroute("**/status")
        await visitor.page.clock.run_for(5000)
        await expect(light).to_contain_text("Not reached")
