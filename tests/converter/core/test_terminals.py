"""A terminal is sent pictures only if it says that it shows them, and its cursor stays."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.core.terminals import CHUNK, draw, find_protocol


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
    ],
)
def test_a_terminal_is_known_by_what_it_says(environment: dict[str, str], protocol: str | None) -> None:
    assert find_protocol(environment) == protocol


@given(st.binary(min_size=1, max_size=3 * CHUNK))
def test_kitty_gets_chunks_of_which_the_last_one_says_so(png: bytes) -> None:
    words = draw("kitty", png, 9)
    assert words.startswith("\x1b7\x1b[9A\r\x1b_Ga=T,f=100,i=1,p=1,q=2,C=1,r=9,m=")
    assert words.endswith("\x1b\\\x1b8")
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", words)
    assert [about[-1] for about, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert all(len(data) <= CHUNK for _, data in chunks)
    assert base64.b64decode("".join(data for _, data in chunks)) == png


@given(st.binary(max_size=CHUNK))
def test_iterm_gets_one_sequence(png: bytes) -> None:
    words = draw("iterm", png, 9)
    found = re.fullmatch(
        r"\x1b7\x1b\[9A\r\x1b\]1337;File=inline=1;size=(\d+);height=9;[^:]*:([^\x07]*)\x07\x1b8", words
    )
    assert found
    assert (int(found[1]), base64.b64decode(found[2])) == (len(png), png)
