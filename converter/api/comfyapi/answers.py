"""Answers of this dialect: JSON, and content in whole or in part.

Invariant: every answer names its request, in the header that the API has for that.
"""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from converter.api.answers import REQUEST_ID
from converter.api.files import Source, send_file


def answer(request: web.Request, document: Mapping[str, Any], status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.json_response(document, status=status, headers=_sign(request))


def origin(request: web.Request, public_url: str) -> str:
    """What addresses of ours begin with, as this caller sees them."""
    return public_url or f"{request.scheme}://{request.host}"


async def send_content(
    request: web.Request, source: Source, size: int, content_type: str, name: str
) -> web.StreamResponse:
    """Content, or the range of it that is asked for; `size` in bytes. Raises what `send_file` does."""
    return await send_file(request, source, size, content_type, name, _sign(request))


def _sign(request: web.Request) -> dict[str, str]:
    return {"X-Comfy-Request-Id": request[REQUEST_ID]}
