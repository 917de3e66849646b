"""The passthrough: ComfyUI's own API, for clients that are moved one at a time.

Stateful as the original: websockets, uploads and history are this replica's. Leaves to `dialect` the requests, to
`prompts` which prompts there are, to `ears` the websockets, and to `core.comfyui` the words.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from converter.api.comfyui.dialect import Passthrough
from converter.api.comfyui.ears import Ears
from converter.api.comfyui.prompts import Prompts
from converter.api.dialects import Hall


@asynccontextmanager
async def open_passthrough(hall: Hall, *, root: bool) -> AsyncIterator[Passthrough]:
    """The dialect, with the tasks that follow its prompts. `root`: its paths are there without a prefix, too."""
    ears = Ears()
    async with Prompts(hall.jobs, ears) as prompts:
        yield Passthrough(hall, prompts, ears, root=root)
