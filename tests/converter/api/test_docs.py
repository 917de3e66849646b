"""`/docs` over HTTP: the viewer of the API is served whole from here; `tests.e2e.test_api_page` shows what it does."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

FOLDER = Path(__file__).parents[3] / "converter" / "docs"
SERVED = ("start.js", "style.css", "swagger-ui-bundle.js", "swagger-ui.css")
OWN = ("index.html", "start.js", "style.css")


@pytest.fixture
async def guarded(engine: FakeEngine) -> AsyncIterator[Caller]:
    async with converter(engine.url, api_keys="alice:alices-secret-is-long") as caller:
        yield caller


async def test_the_viewer_is_open_and_what_it_shows_is_not(guarded: Caller) -> None:
    for path, name in (("/docs", "index.html"), *((f"/docs/{name}", name) for name in SERVED)):
        reply = await guarded.get(path)
        assert (reply.status, reply.body) == (200, (FOLDER / name).read_bytes()), path
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
        assert "unsafe" not in policy
        again = await guarded.get(path, If_None_Match=reply.headers["ETag"])
        assert (again.status, again.body) == (304, b"")
    for path in ("/openapi.json", "/docs/LICENSE", "/docs/", "/docs/index.html", "/docs/../api/page.py"):
        assert (await guarded.get(path)).status == 401, path


async def test_without_the_setting_there_is_no_viewer(engine: FakeEngine) -> None:
    async with converter(engine.url, page=False) as caller:
        for path in ("/docs", *(f"/docs/{name}" for name in SERVED)):
            assert (await caller.get(path)).status == 404, path


def test_it_names_no_outside_address_and_has_no_inline_script() -> None:
    html, script = ((FOLDER / name).read_text() for name in ("index.html", "start.js"))
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    assert set(re.findall(r'(?:src|href)="docs/([^"]+)"', html)) == set(SERVED)
    assert not any("://" in (FOLDER / name).read_text() for name in OWN)
    style = (FOLDER / "swagger-ui.css").read_text()
    assert set(re.findall(r"url\(\"?(.{5})", style)) == {"data:"}
    assert "@import" not in style
    assert "validatorUrl: null" in script, "the viewer would ask somebody else what they think of the document"


def test_its_licence_is_beside_it() -> None:
    assert "Apache License" in (FOLDER / "LICENSE").read_text()
    assert "SmartBear" in (FOLDER / "NOTICE").read_text()
    assert (FOLDER / "swagger-ui-bundle.js.LICENSE.txt").is_file()
