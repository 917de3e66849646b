"""Assets: outputs of jobs under the references that they carry.

Invariant: what is another key's is not there.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web

from converter.api.answers import KEY_NAME
from converter.api.comfyapi.answers import answer, origin, send_content
from converter.api.comfyapi.outputs import Outputs
from converter.core import comfyapi
from converter.core.comfyapi import MOUNT
from converter.core.order import Part


class Assets:
    """The handlers. `public_url` begins addresses, where it is set."""

    def __init__(self, outputs: Outputs, public_url: str) -> None:
        self._outputs = outputs
        self._public_url = public_url

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get(f"{MOUNT}/assets/{{id}}", self.show, allow_head=False),
            web.get(f"{MOUNT}/assets/{{id}}/content", self.send, allow_head=False),
        ]

    async def resolve(self, workflow: Mapping[str, Any], scope: str) -> Mapping[str, Part]:
        """The contents that references in a workflow stand for, by id; raises InvalidWorkflow naming all others."""
        found, problems = comfyapi.find_references(workflow)
        problems += [f"there is no asset {id[:64]} here" for id in found]
        if problems:
            raise comfyapi.missing_assets(problems)
        return {}

    async def show(self, request: web.Request) -> web.Response:
        """`GET /assets/ID`."""
        named = self._outputs.read(request.match_info["id"], request.get(KEY_NAME, ""))
        return answer(request, comfyapi.show_named(named, request.match_info["id"], origin(request, self._public_url)))

    async def send(self, request: web.Request) -> web.StreamResponse:
        """`GET /assets/ID/content`."""
        named = self._outputs.read(request.match_info["id"], request.get(KEY_NAME, ""))
        async with AsyncExitStack() as stack:
            source = await self._outputs.open(named, stack)
            size = named.size if source.size is None else source.size
            return await send_content(request, source, size, named.content_type, named.name)
