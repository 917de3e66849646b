"""The README is true: its scripts run, in their order, against a converter with its embedded engine, and answer as
shown; what it tells to type exists; its tables are those of the code.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.settings import declarations
from engine.nodes.registry import list_nodes
from tests import docs

ROOT = docs.README.parent
TEXT = docs.README.read_text()
SNIPPETS = docs.snippets(TEXT)
COMMANDS = docs.commands(TEXT)
SHOWN_AT = "http://127.0.0.1:3000"
VARYING = {"id", "instance", "prompt_id", "request_id", "position", "estimated_seconds"}
"""Members whose values are another each time, or each moment."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A converter that is ready, started as a person would, with its engine's folders in a place of their own."""
    folder = tmp_path_factory.mktemp("engine")
    engine = shlex.join([sys.executable, "-m", "engine", "--port", "{port}", "--base-dir", str(folder)])
    command = [sys.executable, "-m", "converter.cli", "serve", "--port", "0", "--drain-delay", "0"]
    command += ["--engine-command", engine]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            try:
                assert process.stdout is not None
                greeted = (re.search(r"ready at (http://[^ ]+)\. Try", line) for line in process.stdout)
                found = next((found[1] for found in greeted if found), None)
                assert found, _read(log)
                yield found
            finally:
                process.terminate()
        assert process.returncode == 0, _read(log)


def _read(log: Any) -> str:
    log.seek(0)
    return str(log.read().decode())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader types: what one script leaves there, the next ones find."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "workflows").symlink_to(ROOT / "workflows")
    return folder


def resembles(shown: Any, real: Any, name: str = "") -> bool:
    """Whether an answer is like the one shown: the same members and texts; numbers may differ, and `…` is anything."""
    if name in VARYING and not isinstance(shown, dict):
        return True
    if isinstance(shown, dict):
        same = isinstance(real, dict) and list(shown) == list(real)
        return same and all(resembles(value, real[key], key) for key, value in shown.items())
    if isinstance(shown, list):
        same = isinstance(real, list) and len(shown) == len(real)
        return same and all(resembles(*pair) for pair in zip(shown, real, strict=True))
    if isinstance(shown, str):
        return isinstance(real, str) and _reads_as(shown, real)
    if isinstance(shown, bool) or shown is None:
        return shown is real
    return isinstance(real, int | float) and not isinstance(real, bool)


def _reads_as(shown: str, real: str) -> bool:
    """The same text but for its numbers and for what is cut."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(shown)).replace("…", ".*")
    return re.fullmatch(pattern, real, re.DOTALL) is not None


def events(stream: str) -> list[tuple[str, str]]:
    """Event names and data of server-sent events."""
    return re.findall(r"^event: (\w+)\nid: \d+\ndata: (.*)$", stream, re.MULTILINE)


def members(data: str) -> list[str]:
    """The names in a JSON object, up to where it is cut."""
    return re.findall(r'"(\w+)":', data)


def check_json(shown: str, real: str) -> None:
    assert resembles(json.loads(shown), json.loads(real)), real


def check_http(shown: str, real: str) -> None:
    head, body = shown.split("\n\n", 1)
    real_head, real_body = real.split("\n\n", 1)
    assert set(head.splitlines()) <= set(real_head.splitlines())
    check_json(body, real_body)


def check_text(shown: str, real: str) -> None:
    if not shown.startswith("event:"):
        assert _reads_as(shown, real), real
        return
    real_events = events(real)
    assert [name for name, _ in real_events].count("result") == 1
    assert real_events[-1][0] == "result"
    left = iter(real_events)
    for name, data in events(shown):
        following = next((real_data for real_name, real_data in left if real_name == name), None)
        assert following is not None, f"no {name} event, or not in this order: {real}"
        assert members(following)[: len(members(data))] == members(data)


CHECKS = {"json": check_json, "http": check_http, "text": check_text}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.title for snippet in SNIPPETS])
def test_scripts_answer_as_shown(snippet: docs.Snippet, address: str, desk: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
    script = snippet.script.replace(SHOWN_AT, address)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=desk, env=environment, capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    if snippet.kind:
        CHECKS[snippet.kind](snippet.answer, done.stdout.decode().replace("\r\n", "\n"))


def test_pictures_of_the_scripts_are_pictures(desk: Path) -> None:
    """After the scripts have run: the tests of one file stay together and in order."""
    heads = {name: (desk / name).read_bytes()[:12] for name in ("picture.png", "heart.png", "blue.webp")}
    assert heads["picture.png"][:8] == heads["heart.png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert heads["blue.webp"][8:] == b"WEBP"
    assert events((desk / "events.txt").read_text())[-1][0] == "result"


def test_a_fault_that_goes_into_a_file_makes_curl_fail() -> None:
    calls = [call for snippet in SNIPPETS for call in snippet.script.split("curl ")[1:] if " -o " in call]
    assert len(calls) == 5
    assert all("--fail-with-body -o " in call for call in calls)


def test_every_kind_of_request_has_a_script() -> None:
    scripts = " ".join(snippet.script for snippet in SNIPPETS)
    for kind in ("/v1/run", "image/png", "text/event-stream", "respond-async", "/cancel", "/v1/workflows/", "-F "):
        assert kind in scripts
    assert len(SNIPPETS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert words[:2] == ["converter", "serve"]
        flags = {declaration.flag for declaration in declarations()}
        assert {word for word in words if word.startswith("--")} <= flags


@pytest.mark.parametrize("page", list(docs.pages()), ids=lambda page: page.name)
def test_tables_are_current(page: Path) -> None:
    assert docs.pages()[page] == page.read_text(), "run `make docs`"


def test_every_node_is_described_in_one_sentence() -> None:
    for node in list_nodes().values():
        assert re.fullmatch(r"[A-Z][^|\n]{8,118}\.", node.description), node.class_type


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    ("shown", "real", "same"),
    [
        ({"a": "x…", "b": 1}, {"a": "xyz", "b": 2.5}, True),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {"a": 1}, False),
        ({"code": "canceled"}, {"code": "expired"}, False),
        ({"id": "a"}, {"id": "b"}, True),
        ([{"name": "red_1.png"}], [{"name": "red_23.png"}], True),
        ([1], [1, 2], False),
    ],
)
def test_likeness_is_judged_strictly(shown: Any, real: Any, same: bool) -> None:
    assert resembles(shown, real) is same
