"""Secrets that callers and operators give are in no log line, answer or error, whatever goes wrong with them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converter.api.exchange import connect, exchange, request
from tests.converter.faults.graphs import passed_through, picture
from tests.converter.faults.replica import converter
from tests.fakes.engine import FakeEngine

RIGHT, WRONG = "planted-right-secret", "planted-wrong-secret"


def heads() -> dict[str, bytes]:
    """Requests with a secret in them, good and broken; what is no HTTP is what aiohttp would say most of."""
    right = {"Authorization": f"Bearer {RIGHT}"}
    body = b'{"workflow": {"1": {"class_type": "X", "inputs": {}}}, "extra_data": {"key": "%s"}}' % RIGHT.encode()
    return {
        "right": request("GET", "/v1/workflows", None, **right),
        "wrong": request("GET", "/v1/workflows", None, Authorization=f"Bearer {WRONG}"),
        "basic": request("GET", "/v1/workflows", None, Authorization=f"Basic {WRONG}"),
        "twice": request("GET", "/v1/workflows", None, Authorization=f"Bearer {RIGHT}\r\nAuthorization: {WRONG}"),
        "on a probe": request("GET", "/livez", None, **right),
        "of no use": request("GET", "/nothing", None, **right),
        "of no use for a method": request("DELETE", "/v1/run", None, **right),
        "with an order that is refused": request(body=body, **right),
        "with no JSON": request(body=b"{", **right),
        "with a query": request("GET", f"/v1/workflows?access_token={RIGHT}", None),
        "control character": request("GET", "/livez", None, Authorization=f"Bearer {RIGHT}\x01"),
        "no colon": f"GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization Bearer {RIGHT}\r\n\r\n".encode(),
        "folded": f"GET /livez HTTP/1.1\r\nHost: a\r\nAuthorization:\r\n Bearer {RIGHT}\r\n\r\n".encode(),
        "too long": request("GET", "/livez", None, Authorization=f"Bearer {RIGHT * 1000}"),
        "two framings": request(body=b"", Transfer_Encoding="chunked", **right),
        "no HTTP": f"Authorization: Bearer {RIGHT}\r\n\r\n".encode(),
    }


async def test_secrets_of_callers_are_nowhere(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for talkative in ("aiohttp.server", "aiohttp.web", "aiohttp.access"):
        caplog.set_level(logging.DEBUG, logger=talkative)
    answers = []
    async with converter(engine.url, api_keys=f"alice:{RIGHT}", header_timeout=0.2) as caller:
        for data in heads().values():
            answers.append(await exchange(caller.url, data))
        async with connect(caller.url) as wire:
            await wire.send(f"GET /livez HTTP/1.1\r\nAuthorization: Bearer {RIGHT}".encode())
            answers.append(await wire.receive())
            assert answers[-1].status == 408
        key = {"Authorization": f"Bearer {RIGHT}"}
        assert (await caller.run(picture(1), key, extra_data={"api_key_comfy_org": WRONG})).status == 200
        assert (await caller.run(passed_through("TestRaise", kind="ValueError"), key)).status == 422
        for path in ("/status", "/metrics", "/readyz"):
            assert b"planted" not in (await caller.get(path)).body
    assert {answer.status for answer in answers} >= {200, 400, 401, 404, 405, 408, 422}
    assert not [answer for answer in answers if "planted" in repr(answer)]
    assert len(caplog.records) > len(answers)
    for record in caplog.records:
        assert "planted" not in record.getMessage() + repr(vars(record)), record
    told = {vars(record).get("key") for record in caplog.records if record.getMessage() == "request"}
    assert told == {None, "alice"}  # by its name


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("variable", RIGHT),
        ("variable", f"alice:{RIGHT}é"),
        ("file", RIGHT),
        ("file", f"alice:{RIGHT},bob:{RIGHT}"),
        ("flag", f"alice:{RIGHT}"),
        ("flag", f"alice {RIGHT}"),
    ],
)
def test_secrets_of_operators_are_in_nothing_that_the_process_says(tmp_path: Path, way: str, text: str) -> None:
    """The start fails, if not for the keys then for the engine that there is not."""
    path = tmp_path / "keys"
    path.write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
    command = [sys.executable, "-m", "converter.cli", "serve", "--port", "0", "--log-level", "debug"]
    command += ["--engine-command", str(tmp_path / "none")]
    if way == "variable":
        environment["CONVERTER_API_KEYS"] = text
    else:
        command += ["--api-keys", text] if way == "flag" else ["--api-keys-file", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "planted" not in done.stdout + done.stderr
