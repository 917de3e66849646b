"""The page at `/` over HTTP: what is served, to whom, under which headers; `tests.e2e.test_page` shows what it does."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from converter.api.page import TYPES
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

FOLDER = Path(__file__).parents[3] / "converter" / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())
PATHS = ["/" if name == "index.html" else f"/page/{name}" for name in FILES]


@pytest.fixture
async def guarded(engine: FakeEngine) -> AsyncIterator[Caller]:
    """A converter that wants keys."""
    async with converter(engine.url, api_keys="alice:alices-secret-is-long") as caller:
        yield caller


async def test_every_file_is_served_under_its_type_and_a_policy_that_lets_nothing_in(caller: Caller) -> None:
    for path, name in zip(PATHS, FILES, strict=True):
        reply = await caller.get(path)
        assert (reply.status, reply.body) == (200, (FOLDER / name).read_bytes()), path
        assert reply.headers["Content-Type"] == f"{TYPES[Path(name).suffix]}; charset=utf-8"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy


async def test_who_has_a_file_is_told_that_it_is_the_same(caller: Caller) -> None:
    first = await caller.get("/page/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await caller.get("/page/app.js", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    other = await caller.get("/", If_None_Match=first.headers["ETag"])
    assert other.status == 200
    assert (await caller.ask("HEAD", "/")).headers["ETag"] == other.headers["ETag"]


async def test_the_page_is_open_and_what_it_asks_for_is_not(guarded: Caller) -> None:
    for path in PATHS:
        assert (await guarded.get(path)).status == 200, path
    for path in ("/v1/workflows", "/v1/workflows/txt2img", "/openapi.json", "/page", "/page/", "/page/nothing.js"):
        assert (await guarded.get(path)).status == 401, path
    assert (await guarded.post("/v1/workflows/txt2img", {"inputs": {"prompt": "x"}})).status == 401


async def test_without_the_setting_there_is_no_page(engine: FakeEngine) -> None:
    async with converter(engine.url, page=False) as caller:
        for path in PATHS:
            assert (await caller.get(path)).status == 404, path


async def test_nothing_but_the_files_is_found_beside_them(caller: Caller) -> None:
    for path in ("/index.html", "/page/index.html", "/page/../api/page.py", "/page/%2e%2e/errors.py", "/page/app.js/"):
        assert (await caller.get(path)).status == 404, path


def test_the_page_holds_no_script_or_style_of_its_own_and_names_files_that_are_there() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    named = {*re.findall(r'(?:src|href)="page/([^"]+)"', html)}
    for path in FOLDER.glob("*.js"):
        named |= {*re.findall(r'from "\./([^"]+)"', path.read_text())}
    named |= {*re.findall(r'url\("([^"]+)"\)', (FOLDER / "style.css").read_text())}
    assert named | {"index.html"} == set(FILES)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_scripts_never_read_a_text_as_html(path: Path) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage", path.read_text()
    )
