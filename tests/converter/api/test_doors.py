"""Every answer is one of the contract's, whatever is asked of which door, and each request has its name."""

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from converter import errors
from converter.api.answers import render
from converter.errors import Fault, InvalidRequest
from tests.converter.api.conftest import MAX_BODY
from tests.converter.api.exchange import check_refusal, connect, exchange, request
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

ORDER = json.dumps({"workflow": picture(1)}).encode()
PROBES = ("/livez", "/readyz", "/startupz", "/status", "/metrics", "/v2/health/live", "/v2/health/ready")


def families(kind: type[Fault]) -> Iterator[type[Fault]]:
    for each in kind.__subclasses__():
        yield each
        yield from families(each)


FAULTS = [kind for kind in families(Fault) if kind not in (errors.Refusal, errors.Unavailable)]


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_fault_is_rendered_as_the_contract_says(kind: type[Fault]) -> None:
    after = 7 if kind.retry == "later" else None
    listed = [{"pointer": "/a", "detail": "b"}]
    fault = (
        kind(listed)
        if issubclass(kind, InvalidRequest)
        else kind("why \ud800 \u2028", retry_after=after, extra={"a": 1})
    )
    response = render(fault, "the-id")
    assert response.status == kind.status
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    problem = json.loads(response.body)
    assert problem["type"].endswith(kind.code)
    assert {name: problem[name] for name in ("code", "status", "title", "retry", "request_id")} == {
        "code": kind.code,
        "status": kind.status,
        "title": kind.title,
        "retry": kind.retry,
        "request_id": "the-id",
    }
    assert response.headers.get("x-should-retry") == ("false" if kind.retry == "never" else None)
    assert response.headers.get("Retry-After") == (None if after is None else "7")
    assert ("extra" in problem) != issubclass(kind, InvalidRequest)


def test_codes_are_told_apart() -> None:
    codes = [kind.code for kind in FAULTS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize(
    "path", ["/page", "/v1", "/v1/run/", "/v1/jobs/", "/v1/nothing", "/..%2f..%2fetc/passwd", "/%00"]
)
async def test_unknown_paths(caller: Caller, path: str) -> None:
    check_refusal(await exchange(caller.url, request("GET", path, None)), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/run", "POST"),
        ("PUT", "/v1/run", "POST"),
        ("OPTIONS", "/v1/run", "POST"),
        ("PATCH", "/v1/run", "POST"),
        ("DELETE", "/v1/jobs/x", "GET"),
        ("HEAD", "/v1/jobs/x", "GET"),
        ("GET", "/v1/jobs/x/cancel", "POST"),
        ("POST", "/v1/workflows", "GET, HEAD"),
        ("PUT", "/v1/workflows/txt2img", "GET, HEAD, POST"),
        *(("POST", path, "GET, HEAD") for path in PROBES),
    ],
)
async def test_other_methods_are_told_which_are_allowed(caller: Caller, method: str, path: str, allowed: str) -> None:
    async with caller.session.request(method, f"{caller.url}{path}") as response:
        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert response.headers["X-Request-Id"]
        if method != "HEAD":
            assert (await response.json(content_type=None))["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/jobs/nobody", "/v1/jobs/nobody/events", "/v1/jobs/%ff%00", "/v1/workflows/none"])
async def test_what_is_not_there(caller: Caller, path: str) -> None:
    check_refusal(await exchange(caller.url, request("GET", path, None)), 404)


async def test_a_template_that_is_not_there_is_told_with_those_that_are(caller: Caller) -> None:
    for path in ("/v1/workflows/", "/workflow/"):
        close = await caller.post(f"{path}txt2image", {})
        assert (close.status, "; did you mean txt2img?" in close.body.decode()) == (404, True)
        assert "; there are flux, img2img, " in (await caller.post(f"{path}nope", {})).body.decode()


async def test_a_sane_request_id_comes_back(caller: Caller) -> None:
    for given in ("abc-123", "4bf92f3577b34da6a3ce929d0e0e4736", "a" * 128, "urn:uuid:a.b_c/d@e=f+g"):
        for data in (
            request(body=ORDER, X_Request_Id=given),
            request(body=b"junk", X_Request_Id=given),
            request("GET", "/nothing", None, X_Request_Id=given),
            request("PUT", "/v1/run", None, X_Request_Id=given),
            request("GET", "/readyz", None, X_Request_Id=given),
        ):
            assert (await exchange(caller.url, data)).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "<script>", "a" * 129, "a\\b", "ä", "a;b", "a,b"])
async def test_another_request_id_is_replaced(caller: Caller, given: str) -> None:
    answer = await exchange(caller.url, request(body=b"junk", X_Request_Id=given))
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.document["request_id"] == answer.headers["x-request-id"]


async def test_what_is_no_request_has_an_id_too(caller: Caller) -> None:
    answer = await exchange(caller.url, b"junk\r\n\r\n")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


# Connections -------------------------------------------------------------------------------------------------------


async def test_one_connection_serves_many_requests_after_refusals(caller: Caller) -> None:
    async with connect(caller.url) as wire:
        for _ in range(3):
            await wire.send(request(body=b"junk"))
            check_refusal(await wire.receive(), 400)
            await wire.send(request(body=b"x", Content_Type="text/plain"))  # the body is never read
            check_refusal(await wire.receive(), 415)
            await wire.send(request(body=ORDER))
            assert (await wire.receive()).status == 200


async def test_requests_that_come_at_once_are_answered_in_order(caller: Caller) -> None:
    async with connect(caller.url) as wire:
        await wire.send(
            request(body=ORDER, X_Request_Id="1")
            + request("GET", "/readyz", None, X_Request_Id="2")
            + request(body=b"junk", X_Request_Id="3")
            + request(body=ORDER, X_Request_Id="4")
        )
        answers = [await wire.receive() for _ in range(4)]
    assert [answer.headers["x-request-id"] for answer in answers] == ["1", "2", "3", "4"]
    assert [answer.status for answer in answers] == [200, 200, 400, 200]


async def test_leaving_with_requests_in_line_leaves_nothing(engine: FakeEngine, caller: Caller) -> None:
    engine.hold()
    async with connect(caller.url) as wire:
        await wire.send(request(body=ORDER) * 3)
        await engine.until_held()
    await caller.until_empty()
    engine.release()
    assert len(engine.posted_prompts) == 2  # the warm-up's and one: the others were never looked at


async def test_the_connection_ends_where_the_body_was_too_large(caller: Caller) -> None:
    """Whoever sends on what was refused is not answered by pieces of it."""
    smuggled = request("GET", "/livez", None)
    async with connect(caller.url) as wire:
        await wire.send(request(body=None, Content_Type="application/json", Content_Length=str(MAX_BODY + 1)))
        await wire.send(smuggled)
        check_refusal(await wire.receive(), 413)
        await wire.send(b" " * (MAX_BODY + 1 - len(smuggled)))
        assert await wire.ends() == b""


async def test_a_body_is_invited_where_it_is_wanted(caller: Caller) -> None:
    head = request(body=None, Content_Type="application/json", Content_Length=str(len(ORDER)), Expect="100-continue")
    async with connect(caller.url) as wire:
        await wire.send(head)
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(ORDER)
        assert (await wire.receive()).status == 200
        await wire.send(request("GET", "/readyz", None))
        assert (await wire.receive()).status == 200


async def test_a_body_is_not_invited_where_the_headers_are_refused(engine: FakeEngine) -> None:
    async with converter(engine.url, capacity=1, max_body=1000) as caller:
        for headers, status in (({"Content_Length": "1001"}, 413), ({"Content_Type": "text/plain"}, 415)):
            given = {"Content_Type": "application/json", "Content_Length": "10", "Expect": "100-continue", **headers}
            check_refusal(await exchange(caller.url, request(body=None, **given)), status)
        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        answer = await exchange(caller.url, request(body=None, Content_Length="10", Expect="100-continue"))
        assert (answer.status, answer.document["code"]) == (429, "queue_full")
        engine.release()
        assert (await running).status == 200


async def test_other_expectations_are_passed_over(caller: Caller) -> None:
    assert (await exchange(caller.url, request(body=ORDER, Expect="miracles"))).status == 200


async def test_old_callers_are_served(caller: Caller) -> None:
    head = f"POST /v1/run HTTP/1.0\r\nContent-Length: {len(ORDER)}\r\nExpect: 100-continue\r\n\r\n".encode()
    async with connect(caller.url) as wire:
        await wire.send(head + ORDER)
        assert (await wire.receive()).status == 200
        assert await wire.ends() == b""


# Probes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROBES)
async def test_head_is_get_without_a_body(caller: Caller, path: str) -> None:
    async with caller.session.head(f"{caller.url}{path}") as response:
        assert response.status == 200
        assert response.headers["X-Request-Id"]
        assert await response.read() == b""


async def statuses(caller: Caller) -> dict[str, int]:
    return {path: (await caller.get(path)).status for path in PROBES if path != "/metrics"}


def expected(*, live: int = 200, ready: int, started: int = 200) -> dict[str, int]:
    probes = {"/livez": live, "/readyz": ready, "/startupz": started, "/status": 200}
    return {**probes, "/v2/health/live": live, "/v2/health/ready": ready}


async def test_probes_in_every_state_of_an_engine(engine: FakeEngine) -> None:
    engine.hold()
    async with converter(engine.url, wait=False, capacity=2, busy_at=1, ready_at=0) as caller:
        await engine.until_held()
        assert caller.state == "STARTING"
        assert await statuses(caller) == expected(ready=503, started=503)
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (503, "starting")
        assert 1 <= int(refused.headers["Retry-After"]) <= 120
        engine.release()
        await caller.until_ready()
        assert await statuses(caller) == expected(ready=200)

        engine.hold()
        running = caller.start(picture(1))
        await engine.until_held()
        assert caller.state == "BUSY"
        assert await statuses(caller) == expected(ready=503)
        body = (await caller.get("/readyz")).document
        assert body["queue"] == {"running": 1, "waiting": 0, "strangers": 0, "capacity": 2}
        engine.release()
        assert (await running).status == 200
        await caller.until_ready()

        await engine.crash()
        await caller.until(lambda: caller.state == "FAILED")
        assert await statuses(caller) == expected(ready=503)
        refused = await caller.run(picture(1))
        assert (refused.status, refused.code) == (503, "engine_down")
        await engine.restart()
        await caller.until_ready()
        assert await statuses(caller) == expected(ready=200)


async def test_probes_say_what_they_know(caller: Caller) -> None:
    body = (await caller.get("/readyz")).document
    assert body.keys() == {"state", "reason", "queue", "engine"}
    assert body["queue"].keys() >= {"running", "waiting", "capacity"}
    more = (await caller.get("/status")).document
    assert more.keys() > body.keys()
    assert (await caller.get("/readyz")).headers["Cache-Control"] == "no-store"


async def test_probes_are_quick_whatever_the_engine_does(engine: FakeEngine, caller: Caller) -> None:
    """From memory: the engine hangs, the replica is full, and a hundred probes take no time."""
    engine.hold()
    running = [caller.start(picture(number)) for number in range(16)]
    await caller.until(lambda: caller.tickets == 16)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(100):
        await caller.get("/readyz")
    assert (loop.time() - begun) / 100 < 0.05
    engine.release()
    assert {(await job).status for job in running} == {200}


SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="[^"\\\n]*",?)*\})? (-?[0-9.e+-]+|[+-]Inf|NaN)')


async def test_metrics_are_valid_and_complete_from_the_start(engine: FakeEngine) -> None:
    engine.hold()
    async with converter(engine.url, wait=False) as caller:
        before = (await caller.get("/metrics")).body.decode()
        engine.release()
        await caller.until_ready()
        await caller.run(picture(1))
        await caller.run({"1": {"class_type": "Nothing", "inputs": {}}})
        after = (await caller.get("/metrics")).body.decode()
    assert series(before) == series(after)
    assert 'converter_jobs_total{outcome="succeeded"} 1.0' in after
    assert 'converter_jobs_total{outcome="invalid_workflow"} 1.0' in after
    assert 'converter_state{state="READY"} 1.0' in after


def series(text: str) -> set[str]:
    """The names of all series; each line of the text is checked (Prometheus' exposition format 0.0.4)."""
    assert text.endswith("\n")
    names, typed = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name = line.rsplit(" ", 1)[0]
            names.add(name)
            family = name.split("{")[0]
            assert {family, re.sub("_(bucket|sum|count|total)$", "", family)} & typed, line
    assert len(names) == sum(not line.startswith("#") for line in text.splitlines())
    return names
