"""TLS by certificate files: served, renewed without a restart, and refused in one line where they can't be used."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, TCPConnector
from cryptography.hazmat.primitives import serialization

from converter import renewal
from converter.api.tls import Certificate
from converter.app import run_replica
from converter.errors import CannotStart
from converter.settings import load
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import PATIENCE, POLL, Caller, converter
from tests.fakes.engine import FakeEngine

CA = trustme.CA()


def issue(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """Files of a certificate for this machine, and of its key; they replace those before at one stroke each."""
    made = CA.issue_cert(name)
    chain, key = folder / "chain.pem", folder / "key.pem"
    for path, blobs in ((key, [made.private_key_pem]), (chain, made.cert_chain_pems)):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
        fresh.replace(path)
    return chain, key


@asynccontextmanager
async def trusting(caller: Caller) -> AsyncIterator[ClientSession]:
    """Somebody who calls over TLS, with a new connection each time."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    async with ClientSession(caller.url, connector=TCPConnector(ssl=context, force_close=True)) as session:
        yield session


async def serial(caller: Caller) -> int:
    """The number of the certificate that a new connection meets."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    port = int(caller.url.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    met = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return int(met, 16)


async def test_callers_are_served_over_tls_and_probes_on_their_port_without(engine: FakeEngine, tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with converter(engine.url, tls_cert=str(chain), tls_key=str(key), probes_port=0) as caller:
        assert caller.url.startswith("https://127.0.0.1:")
        async with trusting(caller) as session, session.post("/v1/run", json={"workflow": picture(1)}) as response:
            assert response.status == 200
        assert caller.replica.probes.startswith("http://")
        async with ClientSession(caller.replica.probes) as session, session.get("/readyz") as response:
            assert response.status == 200


async def test_a_certificate_may_have_its_key_in_one_file_with_it(engine: FakeEngine, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(CA.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    async with (
        converter(engine.url, tls_cert=str(both)) as caller,
        trusting(caller) as session,
        session.get("/livez") as response,
    ):
        assert response.status == 200


async def test_old_versions_and_plain_bytes_are_turned_away_and_no_errors(engine: FakeEngine, tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with converter(engine.url, tls_cert=str(chain), tls_key=str(key)) as caller:
        port = int(caller.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()
        assert (await serial(caller)) > 0


async def test_a_handshake_that_does_not_come_ends(engine: FakeEngine, tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with converter(engine.url, tls_cert=str(chain), tls_key=str(key), header_timeout=0.3) as caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(caller.url.rsplit(":", 1)[1]))
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_a_certificate_that_is_replaced_is_met_by_new_connections(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "PERIOD", 0.01)
    chain, key = issue(tmp_path)
    async with converter(engine.url, tls_cert=str(chain), tls_key=str(key)) as caller, trusting(caller) as session:
        before = await serial(caller)
        issue(tmp_path)
        async with asyncio.timeout(PATIENCE):
            while await serial(caller) == before:  # noqa: ASYNC110 - another connection each time
                await asyncio.sleep(POLL)
        async with session.get("/livez") as response:
            assert response.status == 200


def test_files_that_do_not_belong_together_change_nothing(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    certificate = Certificate(chain, key)
    other = CA.issue_cert("127.0.0.1").cert_chain_pems[0].bytes()
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", other):
        chain.write_bytes(broken)
        with pytest.raises(ssl.SSLError):
            certificate.read()
    assert handshake(certificate.context)


def handshake(server_context: ssl.SSLContext) -> bool:
    """Whether a client that trusts our authority gets through, in memory."""
    client_context = ssl.create_default_context()
    CA.configure_trust(client_context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    return len(done) == 2


def lock(key: bytes) -> bytes:
    """A private key that wants a password, for which nobody must be asked."""
    encryption = serialization.BestAvailableEncryption(b"password")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return serialization.load_pem_private_key(key, None).private_bytes(*form, encryption)


@pytest.mark.parametrize("broken", ["chain", "key", "pair", "locked"])
async def test_a_certificate_that_can_not_be_used_stops_the_start(tmp_path: Path, broken: str) -> None:
    chain, key = issue(tmp_path)
    if broken == "pair":
        chain.write_bytes(CA.issue_cert("127.0.0.1").cert_chain_pems[0].bytes())
    elif broken == "locked":
        key.write_bytes(lock(key.read_bytes()))
    else:
        (chain if broken == "chain" else key).write_text("nothing")
    settings = load({"port": 0, "engine_url": "http://127.0.0.1:1", "tls_cert": str(chain), "tls_key": str(key)}, {})
    with pytest.raises(CannotStart, match=f"^--tls-cert {chain} with --tls-key {key} can't be used: ") as caught:
        async with run_replica(settings, {}):
            raise AssertionError("it started")
    assert "\n" not in str(caught.value)
