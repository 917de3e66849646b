"""Pages for people: `/`, on which templates are tried, and `/docs`, which shows the API; files, served as they are.

For: browsers. Leaves what the pages do to their own files (`converter/page/`, `converter/docs/`), which call the native
dialect as everybody does. Invariant: the files hold nothing that a stranger may not know, and none of them lets a
browser run or show what another place or a caller has written into it.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

from aiohttp import ETag, web

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Of the files, by suffix; others are not served."""

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
    )
)
"""What a page may do (W3C Content Security Policy 3): no script and no style but its own files."""

TRUSTED = f"{POLICY}; require-trusted-types-for 'script'"
"""And of text it may make no script, which is asked of our own scripts alone."""

HEADERS = {
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
    """The door of a page. Its files, which lie in a `folder` of the package, are read once, when this is made."""

    def __init__(self, place: str, folder: str, policy: str) -> None:
        self._headers = {**HEADERS, "Content-Security-Policy": policy}
        self._files: dict[str, _File] = {}
        for file in (files("converter") / folder).iterdir():
            content_type = TYPES.get(PurePosixPath(file.name).suffix)
            if content_type is not None:
                body = file.read_bytes()
                path = place if file.name == "index.html" else f"/{folder}/{file.name}"
                self._files[path] = _File(body, content_type, hashlib.sha256(body).hexdigest()[:32])

    def routes(self) -> list[web.RouteDef]:
        """What this door serves: one route for each file."""
        return [web.get(path, self.show) for path in sorted(self._files)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET` of the page or of a file; 304 to those who have it (RFC 9110 section 13.1.2)."""
        file = self._files[request.path]
        if any(tag.value in (file.tag, "*") for tag in request.if_none_match or ()):
            response = web.Response(status=304, headers=self._headers)
        else:
            response = web.Response(
                body=file.body, content_type=file.content_type, charset="utf-8", headers=self._headers
            )
        response.etag = ETag(file.tag)
        return response


def open_pages() -> list[web.RouteDef]:
    """What is served to people."""
    pages = Page("/", "page", TRUSTED), Page("/docs", "docs", POLICY)
    return [route for page in pages for route in page.routes()]
