"""The page at `/`, on which people try the templates: files of this package, served as they are.

For: browsers. Leaves what the page does to its own files (`converter/page/`), which call the native dialect as
everybody does. Invariant: the files hold nothing that a stranger may not know, and none of them lets a browser run or
show what another place or a caller has written into it.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

from aiohttp import ETag, web

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Of the page's files, by suffix; others are not served."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""What the page may do (W3C Content Security Policy 3): no script and no style but its own files."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, and asked for by its tag each time: a new version is there at once
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    tag: str


class Page:
    """The door of the page. Its files are read once, when this is made."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for file in (files("converter") / "page").iterdir():
            content_type = TYPES.get(PurePosixPath(file.name).suffix)
            if content_type is not None:
                body = file.read_bytes()
                path = "/" if file.name == "index.html" else f"/page/{file.name}"
                self._files[path] = _File(body, content_type, hashlib.sha256(body).hexdigest()[:32])

    def routes(self) -> list[web.RouteDef]:
        """What this door serves: one route for each file."""
        return [web.get(path, self.show) for path in sorted(self._files)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /` and `GET /page/FILE`; 304 to those who have the file (RFC 9110 section 13.1.2)."""
        file = self._files[request.path]
        if any(tag.value in (file.tag, "*") for tag in request.if_none_match or ()):
            response = web.Response(status=304, headers=HEADERS)
        else:
            response = web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=HEADERS)
        response.etag = ETag(file.tag)
        return response
