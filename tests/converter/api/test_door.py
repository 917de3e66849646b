"""The door, on real sockets: who is let in, what is one's own, how much one may have, and which pages may call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession

from converter.api.door import Keyring
from converter.core import admission
from tests.converter.api.document import Document
from tests.converter.api.exchange import connect, exchange, request
from tests.converter.faults.graphs import passed_through, picture, text
from tests.converter.faults.replica import Caller, Reply, converter, give_up
from tests.fakes.engine import FakeEngine

ALICE, BOB = "alices-secret-is-long", "bobs-secret-is-longer"
KEYS = f"alice:{ALICE},bob:{BOB}"
PAGE = "https://app.example"
PROBES = ("/livez", "/readyz", "/startupz", "/status", "/metrics", "/v2/health/live", "/v2/health/ready")
GUARDED = (
    "/v1/run",
    "/v1/workflows",
    "/v1/workflows/txt2img",
    "/v1/jobs/x",
    "/openapi.json",
    "/page",
    "/livez/",
    "/nothing",
)


def bearer(secret: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", **more}


@asynccontextmanager
async def guarded(engine: FakeEngine, **settings: Any) -> AsyncIterator[Caller]:
    async with converter(engine.url, api_keys=KEYS, **settings) as caller:
        yield caller


# Keys --------------------------------------------------------------------------------------------------------------

NO_KEY = 'Bearer realm="converter"'
WRONG_KEY = f'{NO_KEY}, error="invalid_token"'


async def test_strangers_are_told_how_to_say_who_they_are_and_nothing_else(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        for path in GUARDED:
            for method in ("GET", "POST", "DELETE"):
                answer = await exchange(caller.url, request(method, path, b"{"))
                assert (answer.status, answer.document["code"]) == (401, "unauthorized"), path
                assert answer.headers["www-authenticate"] == NO_KEY
                assert answer.document["retry"] == "never"
                assert answer.headers["x-should-retry"] == "false"
                assert answer.document["request_id"] == answer.headers["x-request-id"]
        assert not caller.tickets


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (f"Bearer {ALICE}x", WRONG_KEY),
        (f"Bearer {ALICE[:-1]}", WRONG_KEY),
        (f"Bearer alice:{ALICE}", WRONG_KEY),
        ("Bearer", WRONG_KEY),
        ("Bearer \xff\xfe", WRONG_KEY),
        (f"Basic {ALICE}", NO_KEY),
        (ALICE, NO_KEY),
        ("", NO_KEY),
    ],
)
async def test_what_is_no_key_opens_nothing(engine: FakeEngine, header: str, challenge: str) -> None:
    async with guarded(engine) as caller:
        answer = await exchange(caller.url, request("GET", "/v1/workflows", None, Authorization=header))
        assert (answer.status, answer.document["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == challenge
        assert header.partition(" ")[2] not in str(answer.document) or not header.partition(" ")[2]


async def test_two_keys_at_once_are_none(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        twice = request("GET", "/v1/workflows", None, Authorization=f"Bearer {ALICE}\r\nAuthorization: Bearer {BOB}")
        assert (await exchange(caller.url, twice)).status == 401


async def test_who_has_a_key_is_served(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        assert (await caller.run(picture(1), bearer(ALICE))).colors == [1]
        assert (await caller.ask("GET", "/nothing", bearer(ALICE))).code == "not_found"
        assert (await caller.ask("DELETE", "/v1/run", bearer(ALICE))).code == "method_not_allowed"
        assert (await caller.ask("GET", "/v1/workflows", {"Authorization": f"bearer  {BOB}"})).status == 200


async def test_a_stranger_with_a_large_body_is_answered_before_it(engine: FakeEngine) -> None:
    async with guarded(engine) as caller, connect(caller.url) as wire:
        await wire.send(
            request(body=None, Content_Type="application/json", Content_Length=str(2**26), Expect="100-continue")
        )
        assert (await wire.receive()).status == 401


async def test_probes_are_open(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        for path in PROBES:
            for method in ("GET", "HEAD"):
                assert (await caller.ask(method, path)).status == 200
                assert (await caller.ask(method, path, bearer("wrong"))).status == 200


async def test_probes_may_have_a_port_of_their_own(engine: FakeEngine) -> None:
    async with guarded(engine, probes_port=0) as caller:
        assert caller.replica.probes != caller.url
        async with ClientSession(caller.replica.probes) as session:
            for path in PROBES:
                async with session.get(path) as response:
                    assert response.status == 200
            for path in GUARDED:
                async with session.get(path, headers=bearer(ALICE)) as response:
                    assert response.status == 404, path
        for path in PROBES:
            assert (await caller.get(path)).code == "unauthorized"
            assert (await caller.ask("GET", path, bearer(ALICE))).code == "not_found"
        paths = (await caller.ask("GET", "/openapi.json", bearer(ALICE))).document["paths"]
        assert paths.keys() & set(PROBES) == set()


async def test_a_port_of_their_own_needs_no_keys(engine: FakeEngine) -> None:
    async with converter(engine.url, probes_port=0) as caller:
        assert (await caller.run(picture(1))).colors == [1]
        assert (await caller.get("/livez")).code == "not_found"
        async with ClientSession(caller.replica.probes) as session, session.get("/readyz") as response:
            assert response.status == 200


# What is one's own -------------------------------------------------------------------------------------------------


async def test_jobs_are_known_to_their_own_key_alone(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        begun = await caller.run(picture(1), bearer(ALICE, Prefer="respond-async"), id="mine")
        assert begun.status == 202
        for path, method in (("", "GET"), ("/events", "GET"), ("/cancel", "POST")):
            for state in ("begun", "succeeded"):
                if state == "succeeded":
                    await caller.until_empty()
                other = await caller.ask(method, f"/v1/jobs/mine{path}", bearer(BOB))
                never = await caller.ask(method, f"/v1/jobs/none{path}", bearer(BOB))
                assert (other.status, other.code) == (404, "not_found")
                assert other.document["detail"] == never.document["detail"].replace("none", "mine")
        own = await caller.ask("GET", "/v1/jobs/mine", bearer(ALICE))
        assert own.colors == [1]


async def test_an_id_of_another_key_is_free(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        for secret, color in ((ALICE, 1), (BOB, 2)):
            assert (await caller.run(picture(color), bearer(secret, Prefer="respond-async"), id="same")).status == 202
        assert (await caller.run(picture(3), bearer(BOB), id="same")).code == "id_in_use"
        await caller.until_empty()
        for secret, color in ((ALICE, 1), (BOB, 2)):
            assert (await caller.ask("GET", "/v1/jobs/same", bearer(secret))).colors == [color]


async def test_an_expired_job_is_expired_for_its_own_key_alone(engine: FakeEngine) -> None:
    async with guarded(engine, keep_bytes=1) as caller:
        kept = text("more than may be kept")
        assert (await caller.run(kept, bearer(ALICE, Prefer="respond-async"), id="mine")).status == 202
        await caller.until_empty()
        assert (await caller.ask("GET", "/v1/jobs/mine", bearer(ALICE))).code == "expired"
        assert (await caller.ask("GET", "/v1/jobs/mine", bearer(BOB))).code == "not_found"


async def test_answers_are_replayed_to_their_own_key_alone(engine: FakeEngine) -> None:
    async with guarded(engine) as caller:
        for secret, color, replayed in ((ALICE, 1, None), (BOB, 2, None), (ALICE, 1, "true"), (BOB, 2, "true")):
            reply = await caller.run(picture(color), bearer(secret, **{"Idempotency-Key": "k"}))
            assert reply.colors == [color]
            assert reply.headers.get("Idempotency-Replayed") == replayed


async def test_who_shares_a_name_shares_its_jobs(engine: FakeEngine) -> None:
    """So that a secret can be replaced while jobs go on."""
    async with converter(engine.url, api_keys=f"alice:{ALICE},alice:{BOB}") as caller:
        assert (await caller.run(picture(1), bearer(ALICE, Prefer="respond-async"), id="mine")).status == 202
        await caller.until_empty()
        assert (await caller.ask("GET", "/v1/jobs/mine", bearer(BOB))).colors == [1]


# How much one may have ---------------------------------------------------------------------------------------------


def check_limited(reply: Reply, most: int = 120) -> None:
    assert (reply.status, reply.code, reply.document["retry"]) == (429, "rate_limited", "later")
    assert reply.document["retry_after"] == int(reply.headers["Retry-After"])
    assert 1 <= int(reply.headers["Retry-After"]) <= most


async def test_of_a_burst_of_one_key_exactly_those_beyond_its_limit_are_refused(engine: FakeEngine) -> None:
    async with guarded(engine, key_concurrency=2) as caller:
        engine.hold()
        burst = [caller.start(picture(number), bearer(ALICE)) for number in range(6)]
        await caller.until(lambda: sum(task.done() for task in burst) == 4)
        refused = [task for task in burst if task.done()]
        for task in refused:
            check_limited(task.result())
        other = caller.start(picture(7), bearer(BOB))
        await caller.until(lambda: caller.tickets == 3)
        engine.release()
        assert (await other).colors == [7]
        served = [await task for task in burst if task not in refused]
        assert [reply.status for reply in served] == [200, 200]
        await caller.until_empty()
        assert (await caller.run(picture(8), bearer(ALICE))).colors == [8]
        text = (await caller.get("/metrics")).body.decode()
        assert 'converter_refusals_total{reason="rate_limited"} 4.0' in text


async def test_a_job_in_the_background_counts_until_it_ends(engine: FakeEngine) -> None:
    async with guarded(engine, key_concurrency=1) as caller:
        engine.hold()
        job = (await caller.run(picture(1), bearer(ALICE, Prefer="respond-async"))).document["id"]
        check_limited(await caller.run(picture(2), bearer(ALICE)))
        looked = await caller.ask("GET", f"/v1/jobs/{job}", bearer(ALICE))
        assert looked.status == 200  # to look and to cancel is not limited
        assert (await caller.ask("POST", f"/v1/jobs/{job}/cancel", bearer(ALICE))).document["status"] == "canceled"
        engine.release()
        assert (await caller.run(picture(3), bearer(ALICE))).colors == [3]


@pytest.mark.parametrize("end", ["refused", "failed", "left", "invalid"])
async def test_whatever_becomes_of_an_order_its_place_is_given_back(engine: FakeEngine, end: str) -> None:
    async with guarded(engine, key_concurrency=1) as caller:
        if end == "refused":
            assert (await caller.run({}, bearer(ALICE))).status == 422
        elif end == "invalid":
            assert (await caller.ask("POST", "/v1/run", bearer(ALICE), data=b"{")).status in (400, 415)
        elif end == "failed":
            raising = passed_through("TestRaise", kind="ValueError")
            assert (await caller.run(raising, bearer(ALICE))).code == "execution_failed"
        else:
            engine.hold()
            task = caller.start(picture(1), bearer(ALICE))
            await engine.until_held()
            await give_up(task)
            engine.release()
            await caller.until_empty()
        assert (await caller.run(picture(2), bearer(ALICE))).colors == [2]


async def test_two_callers_of_one_job_count_it_once_when_it_goes_on_alone(engine: FakeEngine) -> None:
    async with guarded(engine, key_concurrency=2) as caller:
        engine.hold()
        headers = bearer(ALICE, Prefer="respond-async", **{"Idempotency-Key": "k"})
        first, second = [(await caller.run(picture(1), headers)).document["id"] for _ in range(2)]
        assert first == second
        task = caller.start(picture(2), bearer(ALICE))
        await caller.until(lambda: caller.tickets == 2)
        check_limited(await caller.run(picture(3), bearer(ALICE)))
        engine.release()
        assert (await task).colors == [2]


async def test_orders_beyond_a_keys_rate_are_refused_and_cost_it_nothing(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", Clock(asyncio.get_running_loop()))
    async with guarded(engine, key_rate=3) as caller:
        clock: Any = asyncio.get_running_loop().time
        replies = [await caller.run(picture(number), bearer(ALICE)) for number in range(3)]
        assert [reply.status for reply in replies] == [200] * 3
        for _ in range(5):
            check_limited(await caller.run(picture(4), bearer(ALICE)), most=25)
        assert (await caller.run(picture(5), bearer(BOB))).status == 200
        clock.ahead += 20.0  # one of three is free again
        assert (await caller.run(picture(6), bearer(ALICE))).status == 200
        check_limited(await caller.run(picture(7), bearer(ALICE)), most=25)


class Clock:
    """The loop's time, which a test may put forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._time() + self.ahead


async def test_a_retry_after_is_from_the_measured_service_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "JITTER", 0.0)
    async with guarded(engine, key_concurrency=1) as caller:
        engine.hold()
        task = caller.start(picture(1), bearer(ALICE))
        await engine.until_held()
        assert (await caller.run(picture(2), bearer(ALICE))).headers["Retry-After"] == str(int(admission.UNMEASURED))
        engine.release()
        await task


# Pages -------------------------------------------------------------------------------------------------------------


async def test_a_page_that_is_named_may_call_with_a_key(engine: FakeEngine) -> None:
    async with guarded(engine, cors_origins=f"{PAGE},http://localhost:5173") as caller:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,prefer"}
        preflight = await caller.ask("OPTIONS", "/v1/run", {"Origin": PAGE, **asked})
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert preflight.headers["Access-Control-Allow-Credentials"] == "true"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}
        assert allowed >= {"authorization", "content-type", "prefer", "idempotency-key", "last-event-id"}
        assert "*" not in str(preflight.headers)
        assert int(preflight.headers["Access-Control-Max-Age"]) > 0
        for reply in (
            await caller.run(picture(1), bearer(ALICE, Origin=PAGE)),
            await caller.run(picture(1), {"Origin": PAGE}),
            await caller.run({}, bearer(ALICE, Origin=PAGE)),
            await caller.run(picture(1), bearer(ALICE, Origin=PAGE, Accept="text/event-stream")),
        ):
            assert reply.headers["Access-Control-Allow-Origin"] == PAGE, reply
            assert "Retry-After" in reply.headers["Access-Control-Expose-Headers"]
            assert reply.headers["Vary"] == "Origin"
        other = await caller.run(picture(1), bearer(ALICE, Origin="https://other.example"))
        assert other.status == 200  # the key is what counts; the browser keeps the answer from the page
        assert "Access-Control-Allow-Origin" not in other.headers
        assert other.headers["Vary"] == "Origin"


@pytest.mark.parametrize("keys", [KEYS, None])
@pytest.mark.parametrize(
    "origin", ["https://other.example", "null", f"{PAGE}.evil.example", f"{PAGE}:444", "http://app.example"]
)
async def test_a_page_that_is_not_named_may_not(engine: FakeEngine, origin: str, keys: str | None) -> None:
    async with converter(engine.url, api_keys=keys, cors_origins=PAGE) as caller:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = await caller.ask("OPTIONS", "/v1/run", asked)
        assert (preflight.status, preflight.code) == (403, "forbidden")
        assert not [name for name in preflight.headers if name.startswith("Access-Control")]


async def test_without_keys_a_foreign_page_can_not_use_a_browser_to_get_in(engine: FakeEngine) -> None:
    """A form needs no preflight: the engine would work though the page never sees the answer."""
    async with converter(engine.url, public_url="https://own.example/a") as caller:
        for origin, status in {"https://evil.example": 403, caller.url: 200, "https://own.example": 200}.items():
            reply = await caller.run(picture(1), {"Origin": origin})
            assert reply.status == status
        rebound = {"Origin": "http://evil.example:3000", "Host": "evil.example:3000"}
        assert (await caller.run(picture(1), rebound)).code == "forbidden"
        assert (await caller.ask("GET", "/livez", {"Origin": "https://evil.example"})).status == 200
        options = await caller.ask("OPTIONS", "/v1/run")
        assert options.code == "method_not_allowed"


# The document ------------------------------------------------------------------------------------------------------


async def test_a_guarded_service_describes_its_door(engine: FakeEngine) -> None:
    async with guarded(engine, key_concurrency=1) as caller:
        document = Document((await caller.ask("GET", "/openapi.json", bearer(ALICE))).document)
        scheme = document.document["components"]["securitySchemes"]["key"]
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        assert document.document["security"] == [{"key": []}]
        for method, path, operation in document.operations():
            opened = path in (*PROBES, "/v1/outputs/{reference}")
            assert operation.get("security", None) == ([] if opened else None)
            assert ("401" in operation["responses"]) is not opened
            if not opened:
                document.judge(method, path, await caller.ask(method, path.format(id="x", name="x")))
        engine.hold()
        task = caller.start(picture(1), bearer(ALICE))
        await engine.until_held()
        limited = await caller.run(picture(2), bearer(ALICE))
        check_limited(limited)
        document.judge("POST", "/v1/run", limited)
        engine.release()
        await task


async def test_an_open_service_describes_what_it_refuses(caller: Caller) -> None:
    document = Document((await caller.get("/openapi.json")).document)
    assert "security" not in document.document
    assert "securitySchemes" not in document.document["components"]
    reply = await caller.run(picture(1), {"Origin": "https://evil.example"})
    assert reply.code == "forbidden"
    document.judge("POST", "/v1/run", reply)


def test_keys_show_nothing_of_themselves() -> None:
    ring = Keyring(KEYS, None)
    assert ALICE not in repr(ring) + repr(ring._keys)
