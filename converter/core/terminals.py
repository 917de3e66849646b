"""Pictures in terminals: which protocol a terminal says that it speaks, and a picture's words in it.

For: a command line. Leaves the screen to others. Invariant: a terminal that says nothing gets nothing; what is written
leaves the cursor where it was.

Sources: kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol), iTerm2's inline images
(iterm2.com/documentation-images.html).
"""

import base64
from collections.abc import Mapping
from typing import Literal

Protocol = Literal["kitty", "iterm"]

CHUNK = 4096
"""Characters of base64 that kitty takes in one escape sequence."""


def find_protocol(environment: Mapping[str, str]) -> Protocol | None:
    """What the terminal says of itself in variables; None where something between hides it (tmux, screen)."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")):
        return None
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty" or "KITTY_WINDOW_ID" in environment:
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return None


def draw(protocol: Protocol, png: bytes, rows: int) -> str:
    """What shows a PNG in the `rows` lines above the cursor, in place of what the last call has shown there."""
    data = base64.b64encode(png).decode()
    words = _kitty(data, rows) if protocol == "kitty" else _iterm(data, len(png), rows)
    return f"\x1b7\x1b[{rows}A\r{words}\x1b8"


def _kitty(data: str, rows: int) -> str:
    """Image and placement have fixed numbers, so that the next one replaces it; `C=1`: the cursor stays; `q=2`: no
    answer, which nobody would read.
    """
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    about = f"a=T,f=100,i=1,p=1,q=2,C=1,r={rows},"
    last = len(chunks) - 1
    return "".join(
        f"\x1b_G{about if number == 0 else ''}m={int(number < last)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def _iterm(data: str, size: int, rows: int) -> str:
    return f"\x1b]1337;File=inline=1;size={size};height={rows};preserveAspectRatio=1:{data}\x07"
