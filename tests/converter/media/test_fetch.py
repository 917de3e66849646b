"""Downloads arrive whole or not at all, and go nowhere but where a caller may lead them."""

import asyncio
import gc
import re
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trustme

from converter.core.address import Refused
from converter.media import fetch, vetted
from converter.media.fetch import Allowance, Fetcher, Unfetched
from converter.media.spool import SMALL, Spool
from tests.converter.core.hostile import HOSTILE
from tests.fakes.origin import Origin

DATA = bytes(range(256)) * 40
LARGE = DATA * 200
PLENTY = 2**30


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as origin:
        origin.files |= {"/a.png": DATA, "/large.png": LARGE}
        yield origin


@asynccontextmanager
async def fetcher(*trusted: str, timeout: float = 30.0, redirects: int = 3, **rest: object) -> AsyncIterator[Fetcher]:
    async with Fetcher(timeout, redirects, trusted, **rest) as fetcher:  # type: ignore[arg-type]
        yield fetcher


async def take(fetcher: Fetcher, url: str, each: int = PLENTY, together: int = PLENTY) -> bytes:
    with Spool() as spool:
        content = await fetcher.fetch(url, spool, Allowance(each, together))
        with content.open() as stream:
            return stream.read()


@pytest.mark.parametrize("path", ["/a.png", "/large.png", "/chunked/large.png", "/a.png?q=%2F#part"])
async def test_a_file_arrives_as_it_is(origin: Origin, path: str) -> None:
    async with fetcher(origin.url) as it:
        assert await take(it, origin.url + path) == (LARGE if "large" in path else DATA)
    assert len(LARGE) > SMALL


async def test_nothing_of_ours_or_of_the_caller_goes_along(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with Origin() as other, fetcher(origin.url, other.url) as it:
        other.files["/b.png"] = DATA
        origin.places["/moved"] = (302, f"{other.url}/b.png")
        assert await take(it, f"{origin.url}/moved?token=1") == DATA
    for request in (*origin.requests, *other.requests):
        _, *lines = request.strip().split("\r\n")
        names = {line.partition(":")[0].lower() for line in lines}
        assert names == {"host", "user-agent", "accept", "accept-encoding"} | (names & {"connection"})


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
async def test_a_hostile_url_is_refused_without_a_packet(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(*_: object, **__: object) -> None:
        pytest.fail("a packet would have been sent")

    monkeypatch.setattr(vetted, "ClientSession", send)
    async with fetcher(resolve=send) as it:
        with pytest.raises(Refused):
            await take(it, url)


# Names ---------------------------------------------------------------------------------------------------------------


def resolve_to(*addresses: str) -> tuple[vetted.Resolve, list[str]]:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return addresses

    return resolve, asked


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%1", "::ffff:127.0.0.1"]
)
async def test_a_public_name_that_leads_inside_is_refused(origin: Origin, address: str) -> None:
    resolve, asked = resolve_to(address)
    async with fetcher(resolve=resolve) as it:
        with pytest.raises(Unfetched, match="not public"):
            await take(it, f"http://files.example.com:{origin.port}/a.png")
    assert asked == ["files.example.com."]  # no search list of the machine is tried
    assert origin.connections == 0


async def test_only_what_was_vetted_is_connected_to(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mixed answer the private half is dropped, and the name is not asked for again."""
    resolve, asked = resolve_to("10.0.0.1", "127.0.0.1")
    monkeypatch.setattr(vetted, "is_public", lambda address: address == "127.0.0.1")
    async with fetcher(resolve=resolve) as it:
        assert await take(it, f"http://files.example.com:{origin.port}/a.png") == DATA
    assert len(asked) == 1
    assert f"Host: files.example.com:{origin.port}" in origin.requests[0]


async def test_the_name_stays_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("files.example.com").configure_cert(server)
    authority.configure_trust(client)
    monkeypatch.setattr(vetted, "is_public", lambda _: True)
    resolve, _ = resolve_to("127.0.0.1")
    async with Origin(server) as origin, fetcher(resolve=resolve, tls=client) as it:
        origin.files["/a.png"] = DATA
        assert await take(it, f"https://files.example.com:{origin.port}/a.png") == DATA
        with pytest.raises(Unfetched, match="certificate"):
            await take(it, f"https://other.example.com:{origin.port}/a.png")
    async with Origin(server) as origin, fetcher(resolve=resolve) as it:
        with pytest.raises(Unfetched, match="certificate"):
            await take(it, f"https://files.example.com:{origin.port}/a.png")


async def test_a_name_of_another_script_is_asked_for_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetted, "is_public", lambda address: True)
    resolve, asked = resolve_to("127.0.0.1")
    async with Origin() as origin, fetcher(resolve=resolve) as it:
        origin.files["/a.png"] = DATA
        assert await take(it, f"http://xn--bcher-kva.example.com:{origin.port}/a.png") == DATA
    assert asked == ["xn--bcher-kva.example.com."]


async def test_a_trusted_name_is_looked_up_as_the_machine_does(origin: Origin) -> None:
    url = f"http://localhost:{origin.port}"
    async with fetcher(url) as it:
        assert await take(it, f"{url}/a.png") == DATA


async def test_a_name_that_nobody_knows() -> None:
    reason = 0

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(reason, "no such host")

    async with fetcher(resolve=resolve) as it:
        for number, passing in ((socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)):
            reason = number
            with pytest.raises(Unfetched, match="not known") as raised:
                await take(it, "http://files.example.com/a.png")
            assert raised.value.passing is passing


# Redirects -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(origin: Origin, status: int) -> None:
    origin.places |= {"/one": (status, "/two"), "/two": (status, f"//127.0.0.1:{origin.port}/a.png#x")}
    async with fetcher(origin.url) as it:
        assert await take(it, f"{origin.url}/one") == DATA
    assert origin.connections == 3


PLACES = [
    url for url in HOSTILE if url.isascii() and url.isprintable() and url == url.strip() and re.search(r"://[^/]", url)
]


@pytest.mark.parametrize("url", [url for url in PLACES if len(url) < 4096][::9], ids=ascii)
async def test_every_redirect_is_vetted(origin: Origin, url: str) -> None:
    origin.places["/moved"] = (302, url)
    async with fetcher(origin.url) as it:
        with pytest.raises(Unfetched, match="redirected to one that"):
            await take(it, f"{origin.url}/moved")
    assert origin.connections == 1


async def test_a_redirect_to_a_name_that_leads_inside_is_refused(origin: Origin) -> None:
    resolve, asked = resolve_to("192.168.0.1")
    origin.places["/moved"] = (302, "http://inside.example.com/")
    async with fetcher(origin.url, resolve=resolve) as it:
        with pytest.raises(Unfetched, match="not public"):
            await take(it, f"{origin.url}/moved")
    assert asked == ["inside.example.com."]


async def test_a_place_that_is_no_text_is_refused(origin: Origin) -> None:
    origin.places["/moved"] = (302, "http://[")
    async with fetcher(origin.url) as it:
        with pytest.raises(Unfetched, match="redirected to one that"):
            await take(it, f"{origin.url}/moved")


async def test_redirects_are_counted_and_lead_somewhere(origin: Origin) -> None:
    origin.places |= {"/round": (302, "/round"), "/nowhere": (302, "")}
    async with fetcher(origin.url, redirects=2) as it:
        with pytest.raises(Unfetched, match="more than 2 times"):
            await take(it, f"{origin.url}/round")
        assert origin.connections == 3
        with pytest.raises(Unfetched, match="leads nowhere"):
            await take(it, f"{origin.url}/nowhere")


async def test_https_is_not_given_up_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with Origin() as plain, Origin(server) as origin, fetcher(origin.url, plain.url, tls=client) as it:
        origin.places["/moved"] = (301, f"{plain.url}/a.png")
        with pytest.raises(Unfetched, match="from https to http"):
            await take(it, f"{origin.url}/moved")
        assert plain.connections == 0


# Bad servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/short/a.png", "broke off"),
        ("/short/large.png", "broke off"),
        ("/broken-chunks/a.png", "broke off"),
        ("/encoded/a.png", "encoding that was not asked for"),
        ("/garbage", "failed or broke off"),
        ("/endless-head", "failed or broke off"),
        ("/endless/a.png", "more than the 20000000 bytes"),
        ("/404", "status 404"),
        ("/204", "status 204"),
        ("/206", "status 206"),
        ("/503", "status 503"),
        ("/nothing", "status 404"),
    ],
)
async def test_what_is_no_whole_file_is_refused(origin: Origin, path: str, said: str) -> None:
    async with fetcher(origin.url) as it:
        with pytest.raises(Unfetched, match=said) as raised:
            await take(it, origin.url + path, each=20_000_000)
        assert raised.value.passing is (said in ("broke off", "failed or broke off", "status 503"))
        assert await take(it, f"{origin.url}/a.png") == DATA


@pytest.mark.parametrize("path", ["/silent", "/stalling/large.png"])
async def test_a_server_that_does_not_go_on_is_given_up(
    origin: Origin, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fetcher(origin.url, timeout=0.3) as it:
        with pytest.raises(Unfetched, match=r"within 0\.3 s"):
            await take(it, origin.url + path)
    monkeypatch.setattr(fetch, "STALL", 0.2)
    async with fetcher(origin.url) as it:
        with pytest.raises(Unfetched, match="stalls"):
            await take(it, origin.url + path)


async def test_a_server_that_is_not_there(origin: Origin) -> None:
    async with Origin() as gone:
        pass
    async with fetcher(gone.url) as it:
        with pytest.raises(Unfetched, match="refuses connections"):
            await take(it, f"{gone.url}/a.png")


@pytest.mark.parametrize("path", ["/a.png", "/chunked/a.png"])
async def test_bytes_are_counted_for_each_and_for_all(origin: Origin, path: str) -> None:
    url, size = origin.url + path, len(DATA)
    async with fetcher(origin.url) as it:
        assert await take(it, url, each=size, together=size) == DATA
        with pytest.raises(Unfetched, match=f"more than the {size - 1} bytes"):
            await take(it, url, each=size - 1)
        with pytest.raises(Unfetched, match="left for the inputs of one request"):
            await take(it, url, together=size - 1)


async def test_what_is_announced_to_be_too_large_is_not_waited_for(origin: Origin) -> None:
    async with fetcher(origin.url) as it:
        with pytest.raises(Unfetched, match=f"more than the {len(LARGE) - 1} bytes"):
            await take(it, f"{origin.url}/stalling/large.png", each=len(LARGE) - 1)


async def test_who_gives_up_leaves_nothing_open(origin: Origin) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with fetcher(origin.url) as it:
            task = asyncio.create_task(take(it, f"{origin.url}/stalling/large.png"))
            await origin.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gc.collect()
