"""Previews in a terminal: shown where it says that it can, small, and never as anything but a picture."""

import asyncio
import base64
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from converter.caller.thumbnails import SIZE, shrink
from tests.converter.client.scripted import OUTPUT, playing, result, serving
from tests.converter.terminal import open_terminal

ROOT = Path(__file__).parents[3]


def encode(format: str, size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, "red").save(buffer, format)
    return buffer.getvalue()


def preview(data: bytes) -> tuple[str, dict[str, Any]]:
    return "preview", {"node_id": "3", "content_type": "image/jpeg", "data": base64.b64encode(data).decode()}


async def watch(tmp_path: Path, *events: tuple[str, Any], **environment: str) -> str:
    """Everything that a terminal is told while the events come."""
    arguments = (sys.executable, "-m", "converter.cli", "run", "-", "-o", str(tmp_path / "picture.png"), "--url")
    hidden = {"TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL"}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    with open_terminal() as terminal:
        async with serving(playing(*events, ("result", result(OUTPUT)))) as server:
            child = await asyncio.create_subprocess_exec(
                *arguments,
                server.url,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=terminal.screen,
                cwd=ROOT,
                env=inherited | {"COLUMNS": "100", **environment},
            )
            async with asyncio.timeout(60):
                await child.communicate(b"{}")
        shown = terminal.read_all()
    assert child.returncode == 0, shown
    return shown


def pictures(shown: str) -> list[Image.Image]:
    """The pictures that kitty was sent."""
    found = re.findall(r"\x1b_Ga=T[^;]*;[^\x1b]*\x1b\\(?:\x1b_Gm=[^;]*;[^\x1b]*\x1b\\)*", shown)
    data = ["".join(re.findall(r";([^\x1b]*)\x1b", words)) for words in found]
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in data]


async def test_a_terminal_that_can_shows_previews_and_the_others_do_not(tmp_path: Path) -> None:
    events = [preview(encode("JPEG", (800, 400))), preview(b"\x1b[2J no picture"), preview(encode("JPEG", (64, 64)))]
    shown = await watch(tmp_path, *events, TERM="xterm-kitty")
    assert [(picture.format, picture.size) for picture in pictures(shown)] == [("PNG", (384, 192)), ("PNG", (64, 64))]
    assert "no picture" not in shown
    assert "\x1b]1337;File=inline=1" in await watch(tmp_path, events[0], TERM="xterm", TERM_PROGRAM="iTerm.app")
    plain = await watch(tmp_path, *events, TERM="xterm")
    assert "\x1b_G" not in plain
    assert "1337" not in plain


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_picture_is_made_small(mode: str) -> None:
    small = shrink(encode("PNG", (1000, 500), mode) if mode != "RGB" else encode("JPEG", (1000, 500)))
    assert small is not None
    assert Image.open(io.BytesIO(small)).size == (SIZE, SIZE // 2)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", encode("PNG", (9, 9))[:50]])
def test_what_is_no_picture_is_not_shown(data: bytes) -> None:
    assert shrink(data) is None


def test_a_picture_that_would_fill_the_memory_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode("PNG", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    assert shrink(data) is None
