"""The door: who may come in, by the key that a request carries, and the web page that it comes from.

Leaves to others: what keys and origins are (`core.keys`, `core.origins`), and what a key may have at once
(`allowance`). Invariant: beside the open paths nothing is answered to a stranger once there are keys; what a key is,
is told to nobody.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from aiohttp import hdrs, web

from converter.api.allowance import Allowance
from converter.api.answers import KEY_NAME
from converter.api.cors import Cors
from converter.api.server import Handler
from converter.core.keys import Key, find_name, parse_keys, read_token
from converter.errors import Unauthorized

log = logging.getLogger(__name__)


class Keyring:
    """The keys of a text, and those of a file (`renewal.Source`). Raises OSError and ValueError, as `read` does."""

    def __init__(self, text: str | None, file: Path | None) -> None:
        self.paths = () if file is None else (file,)
        self._text = text or ""
        self._keys: tuple[Key, ...] = ()
        self.read()

    def read(self) -> None:
        """Take the file's keys as they are; raises OSError and ValueError, and then all stays as it was."""
        self._keys = parse_keys("\n".join([self._text, *(path.read_text("utf-8") for path in self.paths)]))
        for name in sorted({key.name for key in self._keys if key.short}):
            log.warning("the secret of an API key is short enough to be guessed", extra={"key": name})

    def identify(self, request: web.Request) -> str:
        """The name of the key that the request carries; raises Unauthorized."""
        token = read_token(request.headers.getall(hdrs.AUTHORIZATION, []))
        if token is None:
            raise Unauthorized("an API key is needed, as Authorization: Bearer SECRET")
        name = find_name(self._keys, token)
        if name is None:
            raise Unauthorized("the API key is not valid", given=True)
        return name


class Doorkeeper:
    """The door as a middleware. `opened`: routes that need no key. `orders`: method and route of what is limited."""

    def __init__(
        self,
        keyring: Keyring | None,
        cors: Cors,
        allowance: Allowance,
        opened: Collection[str],
        orders: Collection[tuple[str, str]],
    ) -> None:
        self._keyring = keyring
        self._cors = cors
        self._allowance = allowance
        self._opened = opened
        self._orders = orders

    def guard(self, app: web.Application) -> None:
        """Stand before all routes of an application that is not served yet."""
        app.middlewares.append(self._check)
        app.on_response_prepare.append(self._cors.sign)

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        opened = request.path in self._opened or (resource is not None and resource.canonical in self._opened)
        preflight = self._cors.check(request, guarded=opened or self._keyring is not None)
        if preflight is not None:
            return preflight
        if opened or self._keyring is None:
            return await handler(request)
        name = request[KEY_NAME] = self._keyring.identify(request)
        if resource is None or (request.method, resource.canonical) not in self._orders:
            return await handler(request)
        async with self._allowance.order(request, name):
            return await handler(request)
