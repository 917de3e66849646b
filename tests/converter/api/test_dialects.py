"""What every dialect is promised by the server and the door, shown by the smallest one."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from converter.api.connections import Terms
from converter.api.dialects import SPOKEN
from converter.api.server import Door, listen, make_app
from converter.errors import Fault, QueueFull
from converter.settings import DIALECTS


class Shout:
    """Says whatever goes wrong as loudly as it can."""

    orders = frozenset({("POST", "/shout/run")})

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/shout/run", self.run)]

    def owns(self, path: str) -> bool:
        return path.startswith("/shout/")

    def render(self, fault: Fault, request_id: str) -> web.Response:
        return web.Response(status=fault.status, text=f"{fault.code.upper()} {request_id}")

    async def run(self, request: web.Request) -> web.Response:
        raise QueueFull("no place", retry_after=1)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    dialect = Shout()
    app = make_app(dialect.routes(), lambda: False, dialects=[dialect])
    async with Door("127.0.0.1", 0, Terms(60.0, 10.0, 8192)) as door, listen(app, door) as url:
        yield url


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/shout/run", (429, "QUEUE_FULL mine")),
        ("GET", "/shout/run", (405, "METHOD_NOT_ALLOWED mine")),
        ("GET", "/shout/nothing", (404, "NOT_FOUND mine")),
    ],
)
async def test_whatever_goes_wrong_under_its_paths_is_told_in_its_words(
    url: str, method: str, path: str, answer: tuple[int, str]
) -> None:
    headers = {"X-Request-Id": "mine"}
    async with ClientSession() as session, session.request(method, url + path, headers=headers) as response:
        assert (response.status, await response.text()) == answer


async def test_other_paths_keep_the_native_words(url: str) -> None:
    async with ClientSession() as session, session.get(f"{url}/nothing") as response:
        assert response.content_type == "application/problem+json"


def test_every_dialect_can_be_named_in_the_settings() -> None:
    assert set(DIALECTS) == set(SPOKEN)
