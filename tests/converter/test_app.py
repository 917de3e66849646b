"""A replica is put together as its settings say, or says in one line why it can't be."""

import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from converter.app import _drain, run_replica
from converter.core import absence
from converter.errors import CannotStart
from converter.greeting import compose_greeting
from converter.link.client import EngineClient
from converter.link.wire import Features
from converter.settings import load
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


async def cannot_start(**settings: Any) -> str:
    with pytest.raises(CannotStart) as caught:
        async with run_replica(load({"port": 0, **settings}, {}), {}):
            raise AssertionError("it started")
    return str(caught.value)


# What does not start -----------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "converter.cli", "serve", "--engine-url", "http://127.0.0.1:1", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == f"converter serve: can't listen on 127.0.0.1, port {port}: Address already in use (another port: --port N)"
    )
    assert "Traceback" not in done.stderr


async def test_no_engine_is_started_for_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = tmp_path / "started"
        reason = await cannot_start(port=port, engine_command=f"touch {started}")
    assert f"port {port}: Address already in use" in reason
    assert not started.exists()


async def test_an_address_that_there_is_not(engine: FakeEngine) -> None:
    reason = await cannot_start(engine_url=engine.url, host="nowhere.invalid", allow_unguarded=True)
    assert "can't listen on nowhere.invalid, port 0: " in reason
    assert "--port" not in reason


async def test_a_port_for_probes_that_is_taken(engine: FakeEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reason = await cannot_start(engine_url=engine.url, probes_port=port)
    assert reason == (f"can't listen on 127.0.0.1, port {port}: Address already in use (another port: --probes-port N)")


@pytest.mark.parametrize("text", ["", "hunter2", "alice:hunter2,bob:hunter2"])
async def test_a_file_of_keys_that_can_not_be_used(engine: FakeEngine, tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    reason = await cannot_start(engine_url=engine.url, api_keys_file=str(path))
    assert reason.startswith("the API keys can't be used: must ")
    assert "hunter2" not in reason


async def test_an_engine_child_is_told_no_secret(tmp_path: Path) -> None:
    seen = tmp_path / "environment"
    script = f"import os, time; open({str(seen)!r}, 'w').write(repr(dict(os.environ)) + '.'); time.sleep(600)"
    environment = {**os.environ, "CONVERTER_API_KEYS": "alice:hunter2", "CONVERTER_PORT": "0", "OTHER": "told"}
    settings = load({"engine_command": f'{sys.executable} -c "{script}"'}, {"CONVERTER_API_KEYS": "alice:hunter2"})
    async with run_replica(settings.model_copy(update={"port": 0}), environment) as replica, ClientSession() as session:
        await Caller(replica, session).until(lambda: seen.exists() and seen.read_text().endswith("."))
    assert "'OTHER': 'told'" in seen.read_text()
    assert "hunter2" not in seen.read_text()


async def test_without_an_engine_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = await cannot_start()
    assert all(word in reason for word in ("--engine-url", "--engine-command", 'extra "engine"'))
    assert "\n" not in reason


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"'])
async def test_a_warm_up_that_is_no_workflow(engine: FakeEngine, tmp_path: Path, content: str) -> None:
    path = tmp_path / "warmup.json"
    path.write_text(content)
    assert str(path) in await cannot_start(engine_url=engine.url, warmup=str(path))


@asynccontextmanager
async def supervised(command: str, **settings: Any) -> AsyncIterator[Caller]:
    """A replica whose engine is a child of its own."""
    loaded = load({"port": 0, "engine_command": command, **settings}, {})
    async with run_replica(loaded, {}) as replica, ClientSession() as session:
        yield Caller(replica, session)


# Engines -----------------------------------------------------------------------------------------------------------


async def until_reason(caller: Caller, words: str) -> dict[str, Any]:
    """What `/readyz` says, once its reason has these words in it."""
    await caller.until(lambda: words in caller.replica.gate.view().reason)
    document = (await caller.get("/readyz")).document
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("--port {port}", 1),
        ("--port={port}", None),
        ("--listen x:{port}", None),
        ("--port 12345", 1),
        ("--port=12345", None),
    ],
)
async def test_the_engine_is_told_its_port_or_says_it_itself(tmp_path: Path, words: str, place: int | None) -> None:
    seen = tmp_path / "argv"
    script = f"import sys, time; open({str(seen)!r}, 'w').write(' '.join(sys.argv[1:])); time.sleep(600)"
    command = f'{sys.executable} -c "{script}" {words}'
    async with supervised(command) as caller:
        await caller.until(lambda: seen.exists() and seen.read_text())
        port = (await caller.get("/status")).document["engine"]["url"].rsplit(":", 1)[1]
        assert seen.read_text() == words.replace("{port}", port)
        assert "12345" not in words or port == "12345"
        assert place is None or seen.read_text().split()[place] == port


async def test_an_engine_that_does_not_say_its_port_has_comfyuis() -> None:
    command = f'{sys.executable} -c "import time; time.sleep(600)"'
    async with supervised(command) as caller:
        assert (await caller.get("/status")).document["engine"]["url"] == "http://127.0.0.1:8188"


@pytest.mark.parametrize("command", ["/no/such/program", "nosuchprogram --port {port}"])
async def test_a_command_whose_program_there_is_not(command: str) -> None:
    reason = await cannot_start(engine_command=command)
    assert reason == f"the engine can't be started: there is no program {command.split()[0]}"


async def test_an_engine_that_ends_at_once_ends_the_hope() -> None:
    async with supervised(f"{sys.executable} -c pass", restart_budget=0) as caller:
        await caller.until(lambda: not caller.replica.gate.view().live)
        assert (await caller.get("/livez")).status == 503
        assert (await caller.get("/readyz")).document["state"] == "FAILED"
        assert (await caller.run(picture(1))).code == "engine_down"


async def test_what_an_engine_wrote_last_is_in_the_log_and_callers_are_sent_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    command = f"{sys.executable} nofile.py --port {{port}}"
    async with supervised(command, restart_budget=1) as caller:
        await until_reason(caller, "the engine exited with status 2 before it was up; see the log")
        await caller.until(lambda: not caller.replica.gate.view().live)
        refused = await caller.run(picture(1))
        assert refused.document["detail"] == "the engine died too often and is not started again; see the log"
        assert int(refused.headers["Retry-After"]) >= 1, "another replica may serve"
    told = [record for record in caplog.records if record.name == "converter.watch"]
    assert [(record.levelname, record.getMessage()) for record in told] == [
        ("WARNING", "the engine exited with status 2"),
        ("WARNING", "the engine exited with status 2"),
        (
            "ERROR",
            "the engine died too often and is not started again: mend what ends it, then restart the service",
        ),
    ]
    assert all("No such file" in vars(record)["last_line"] for record in told)


async def test_an_engine_that_dies_once_nobody_needs_it_stays_dead(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    script = f"import os, time; open({str(lives)!r}, 'a').write(str(os.getpid()) + ' '); time.sleep(600)"
    async with supervised(f'{sys.executable} -c "{script}"') as caller:
        await caller.until(lambda: lives.exists() and lives.read_text().endswith(" "))
        await _drain(caller.replica, grace=30.0, delay=0.0)
        os.kill(int(lives.read_text()), signal.SIGKILL)
        reason = "the engine was killed by SIGKILL"
        await caller.until(lambda: caller.replica.gate._readiness.down == reason)
        metrics = (await caller.get("/metrics")).body.decode()
        assert "converter_engine_restarts_total 0.0" in metrics, "none is counted, since none is begun"


async def test_nothing_there_is_starting_until_its_time_is_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with converter(url, wait=False, engine_start_timeout=2.0) as caller:
        assert (await caller.get("/readyz")).document["state"] == "STARTING"
        await caller.until(lambda: caller.state == "FAILED")
        assert (await caller.get("/readyz")).status == 503


@pytest.mark.parametrize("answer", ["<html>", "{}", '{"queue_running": 1}', "[[[[", ""])
async def test_something_that_is_no_engine_never_becomes_ready(answer: str) -> None:
    async def say(request: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", say)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with converter(url, wait=False, engine_start_timeout=0.5) as caller:
            await caller.until(lambda: caller.state == "FAILED")
            assert (await caller.run(picture(1))).status == 503
    finally:
        await runner.cleanup()


async def test_an_address_where_nothing_listens_is_named_and_no_alarm_is_raised_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with converter(url, wait=False) as caller:
        reason = "the engine is not up yet: nothing listens at the engine's address"
        assert (await until_reason(caller, "nothing listens"))["reason"] == reason
        assert (await caller.get("/status")).document["reason"] == reason
        refused = await caller.run(picture(1))
        assert (refused.code, refused.document["detail"]) == ("starting", reason)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        caller.replica.watch._absence = absence.Absence(patience=0.0)  # the time has come
        await caller.until(lambda: "the engine is not up: nothing listens at the engine's address" in caplog.messages)
        assert [record.__dict__["address"] for record in caplog.records if record.levelno >= logging.WARNING] == [url]


async def test_something_that_is_no_engine_is_warned_of_at_once_and_once(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "converter.watch")
    async with converter(engine.url) as other, converter(other.url, wait=False) as caller:
        document = await until_reason(caller, "is a converter, and no ComfyUI")
        words = "what answers at the engine's address is a converter, and no ComfyUI (status 404 to /queue)"
        assert (document["state"], document["reason"]) == ("STARTING", f"the engine is not up yet: {words}")
        missed = "the engine's queue was not read: /queue: status 404"
        await caller.until(lambda: caplog.messages.count(missed) > 2)
        assert caplog.messages.count(f"the engine is not up: {words}") == 1


async def test_why_a_warm_up_fails_can_be_seen(engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "warmup.json"
    path.write_text(json.dumps({"1": {"class_type": "NotInstalled", "inputs": {}}}))
    async with converter(engine.url, wait=False, warmup=str(path)) as caller:
        document = await until_reason(caller, "the warm-up failed")
        assert "NotInstalled" in document["reason"]
        assert (await caller.get("/startupz")).status == 503


async def test_a_warm_up_of_the_operator_is_what_is_run(engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "warmup.json"
    path.write_text(json.dumps(picture(0x123456, prefix="warm")))
    async with converter(engine.url, warmup=str(path)) as caller:
        assert engine.asked("POST", "/prompt")[0].body["prompt"]["1"]["inputs"]["color"] == 0x123456
        metrics = (await caller.get("/metrics")).body.decode()
        assert 'converter_jobs_total{outcome="succeeded"} 0.0' in metrics


@pytest.mark.parametrize(("setting", "announced", "depth"), [("auto", 1, 2), ("auto", 4, 5), ("3", 4, 3)])
async def test_prompts_at_the_engine_are_as_many_as_it_runs_and_one_more(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, setting: str, announced: int, depth: int
) -> None:
    async def features(client: EngineClient, *, timeout: float) -> Features:
        return Features(concurrent_prompts=announced)

    monkeypatch.setattr(EngineClient, "features", features)
    async with converter(engine.url, engine_depth=setting) as caller:
        assert (await caller.get("/status")).document["engine_depth"] == depth
        engine.hold()
        for color in range(1, 8):
            caller.start(picture(color))
        await engine.until(lambda: len(engine.posted_prompts) == 1 + depth)
        assert caller.replica.gate.queue()["running"] == depth
        engine.release()


async def test_nothing_is_given_to_an_engine_that_is_not_heard(engine: FakeEngine) -> None:
    engine.faults.held_path = "/ws"
    async with converter(engine.url, wait=False) as caller:
        await engine.until(lambda: len(engine.asked("GET", "/queue")) > 4)
        assert not engine.asked("POST", "/prompt")
        assert caller.state == "STARTING"
        engine.faults.held_path = ""
        engine.release()
        await caller.until_ready()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {"input": "SCRATCH/input", "output": "SCRATCH/output"}),
        ({"keep_outputs": True}, {"input": "SCRATCH/input"}),
        ({"url_secret": "s" * 32, "replica_tag": "a"}, {"input": "SCRATCH/input"}),
        ({"state_dir": "/tmp"}, {"input": "SCRATCH/input"}),
        ({"input_dir": "/usr", "output_dir": "/tmp"}, {"input": "/usr", "output": "/tmp"}),
        ({"output_dir": "/tmp", "keep_outputs": True}, {"input": "SCRATCH/input", "output": "/tmp"}),
    ],
)
async def test_the_embedded_engine_has_folders_of_its_own_which_its_guard_knows(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: dict[str, str]
) -> None:
    started: list[tuple[tuple[str, ...], str]] = []

    class Stop(Exception):
        pass

    def start(command: tuple[str, ...], *rest: object, scratch: str) -> None:
        started.append((command, scratch))
        raise Stop

    monkeypatch.setattr("converter.app.Supervisor", start)
    with pytest.raises(Stop):
        async with run_replica(load({"port": 0} | given, {}), {}):
            raise AssertionError("it started")
    [(command, scratch)] = started
    assert Path(scratch).name.startswith("converter-engine-")
    folders = {word[2:-4]: value for word, value in pairwise(command) if word.endswith("-dir")}
    assert folders == {"temp": scratch} | {name: folder.replace("SCRATCH", scratch) for name, folder in told.items()}


# Templates ---------------------------------------------------------------------------------------------------------


async def test_what_is_wrong_with_the_inputs_of_a_template_is_told(engine: FakeEngine) -> None:
    async with converter(engine.url) as caller:
        reply = await caller.post("/v1/workflows/txt2img", {"inputs": {"prompt": 1, "steps": "x", "no": 1}, "z": 1})
        assert reply.status == 400
        reply = await caller.post("/v1/workflows/txt2img", {"inputs": {"prompt": 1, "steps": "x", "no": 1}})
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert len(reply.document["problems"]) == 3
        assert not caller.tickets


# The greeting ------------------------------------------------------------------------------------------------------


async def test_what_the_greeting_shows_of_an_unknown_engine_works(engine: FakeEngine) -> None:
    settings = load({"engine_url": engine.url}, {})
    greeting = compose_greeting(settings, "http://127.0.0.1:3000", "http://127.0.0.1:3000")
    bodies = re.findall(r" -d '(.*?)'", greeting, re.DOTALL)
    assert len(bodies) == greeting.count(" -d ") == 1
    assert greeting.count("--fail-with-body -o ") == greeting.count(" -o ") == 1
    assert "Ctrl-C stops the converter; the engine goes on." in greeting
    async with converter(engine.url) as caller:
        reply = await caller.post("/v1/run", json.loads(bodies[0]))
        assert (reply.status, reply.colors) == (200, [0xFF0000])


def test_the_greeting_shows_templates_where_it_knows_that_they_work() -> None:
    at = "http://127.0.0.1:3000"
    assert "/v1/workflows/txt2img" in compose_greeting(load({}, {}), at, at)
    assert "--fail-with-body -o picture.png" in compose_greeting(load({}, {}), at, at)
    assert "/v1/workflows/" not in compose_greeting(load({"shipped_workflows": False}, {}), at, at)
    assert "/v1/workflows/" not in compose_greeting(load({"engine_command": "x"}, {}), at, at)
    assert at not in compose_greeting(load({"public_url": "http://outside"}, {}), at, at)


def test_the_greeting_tells_of_the_page_where_there_is_one() -> None:
    at = "http://127.0.0.1:3000"
    assert f"ready at {at}. Try it in a browser, or in another terminal:" in compose_greeting(load({}, {}), at, at)
    assert f"ready at {at}. Try, in another terminal:" in compose_greeting(load({"page": "false"}, {}), at, at)


def test_the_greeting_says_that_a_key_is_needed_and_where_the_probes_are() -> None:
    at, probes = "http://127.0.0.1:3000", "http://127.0.0.1:3001"
    assert "Authorization" not in compose_greeting(load({}, {}), at, at)
    greeting = compose_greeting(load({"api_keys": "alice:hunter2"}, {}), at, probes)
    assert "All but the last need an API key: -H 'Authorization: Bearer SECRET'." in greeting
    assert f"curl -s {probes}/status" in greeting
    assert "hunter2" not in greeting
