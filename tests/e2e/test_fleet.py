"""Three replicas behind the load balancers of `deploy/`: restarts, kills, overload, silence, and callers who leave.

Here in short; `make fleet` runs the same tests with the embedded engine, nothing changed in the load balancers' files,
and figures that are judged and shown. Leaves the fleet itself to `tests.e2e.fleet`.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from converter.client import Client
from tests.deploy.balancers import KINDS, NGINX, Kind
from tests.deploy.ladder import ladder
from tests.e2e.fleet import replicas
from tests.e2e.fleet.crowd import Call, Crowd, ask_once, callers_session, crowd, graph
from tests.e2e.fleet.front import Front, opened
from tests.e2e.fleet.replicas import Fleet, Replica
from tests.e2e.fleet.scale import SCALE
from tests.e2e.fleet.waiting import eventually
from tests.e2e.service import PATIENCE, POLL, ask

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

LEAVERS = 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Three replicas with more room than any test needs."""
    async with replicas.running(tmp_path_factory.mktemp("fleet"), "--capacity", "80") as fleet:
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Three replicas that are soon full."""
    capacity = str(SCALE.capacity)
    async with replicas.running(tmp_path_factory.mktemp("small"), "--capacity", capacity) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module", params=KINDS, ids=lambda kind: kind.name)
async def front(request: pytest.FixtureRequest, tmp_path: Path, fleet: Fleet) -> AsyncIterator[Front]:
    """A load balancer in front of the fleet."""
    async with opened(request.param, tmp_path, fleet) as front:
        yield front


@pytest_asyncio.fixture(loop_scope="module")
async def session() -> AsyncIterator[ClientSession]:
    async with callers_session() as session:
        yield session


# Coming and going ----------------------------------------------------------------------------------------------------


async def test_a_rolling_restart_fails_no_request(fleet: Fleet, front: Front) -> None:
    async with crowd(front.url, 6, SCALE.job) as callers:
        for tag, replica in fleet.items():
            front.take_out(tag)
            await callers.hears(6)
            await replica.stop()
            replica.start()
            await replica.ready()
            front.take_out()
            await replica.works()
    assert not callers.failed(), front.log[-3000:]
    _show(front, "rolling restart of three replicas", requests=len(callers.calls), failed=0)


async def test_a_killed_converter_costs_plain_callers_what_was_in_flight_there(
    fleet: Fleet, front: Front, session: ClientSession
) -> None:
    async with _stuck(fleet["a"]):
        ids = [f"plain-{front.kind.name}-{number}" for number in range(9)]
        tasks = {name: asyncio.create_task(_ask(session, front, name)) for name in ids}
        there = await _which_are_at(fleet["a"], tasks)
        await _kill(fleet["a"])
        later = [await ask_once(session, front.url, {"workflow": graph(0.0)}) for _ in range(6)]
        calls = {name: await task for name, task in tasks.items()}
    assert there
    assert {name: call.status for name, call in calls.items() if call.status != 200} == dict.fromkeys(there, 502)
    assert {call.status for call in later} == {200}, "who comes later goes elsewhere"
    for name in there:
        assert {(await fleet[tag].get(f"/v1/jobs/{name}")).status for tag in "bc"} == {404}, "nothing is sent twice"


async def test_a_killed_converter_costs_callers_with_a_good_client_nothing(fleet: Fleet, front: Front) -> None:
    async with _stuck(fleet["a"]), Client(front.url, timeout=2 * PATIENCE) as client:
        ids = [f"good-{front.kind.name}-{number}" for number in range(9)]
        tasks = {name: asyncio.create_task(client.run(graph(SCALE.job), id=name)) for name in ids}
        assert await _which_are_at(fleet["a"], tasks)
        await _kill(fleet["a"])
        results = {name: await task for name, task in tasks.items()}
    assert {name: result.id for name, result in results.items()} == {name: name for name in ids}


class _stuck:  # noqa: N801 - used as a function is
    """A replica whose engine does nothing, so that what it has stays in flight; at the end it is there anew."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def __aenter__(self) -> None:
        (await self._replica.engine()).suspend()

    async def __aexit__(self, *_: object) -> None:
        self._replica.close()
        self._replica.start()
        await self._replica.ready()


async def _ask(session: ClientSession, front: Front, name: str) -> Call:
    return await ask_once(session, front.url, {"workflow": graph(SCALE.job), "id": name})


async def _which_are_at(replica: Replica, tasks: Mapping[str, asyncio.Task[Any]]) -> set[str]:
    """The jobs that a replica has and does not end, once all others have ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            open_ones = [name for name, task in tasks.items() if not task.done()]
            there = {name for name in open_ones if (await replica.get(f"/v1/jobs/{name}")).status == 200}
            if there == set(open_ones):
                return there
            await asyncio.sleep(POLL)


async def _kill(replica: Replica) -> None:
    replica.service.signal(signal.SIGKILL)
    assert await replica.service.ends() == -signal.SIGKILL


async def test_a_dead_engine_takes_its_replica_out_until_it_is_back(fleet: Fleet, front: Front) -> None:
    replica = fleet["b"]
    async with crowd(front.url, 6, SCALE.job) as callers:
        await replica.works()
        replica.hold.touch()
        try:
            (await replica.engine()).kill()
            died = time.monotonic()
            await replica.until("/readyz", lambda reply: reply.status == 503)
            if front.kind is NGINX:  # which has no probes, and asks again and again
                await callers.hears(20)
            else:
                asked = await _last_asked(replica, callers) - died
                _show(front, "last request to a replica after its engine's death", seconds=asked)
                assert not SCALE.full or asked <= 2 * ladder()["probe"]
            before = await replica.succeeded()
        finally:
            replica.hold.unlink()
            await replica.ready()
        await replica.works(before + 3)
    assert not callers.failed(), front.log[-3000:]


async def _last_asked(replica: Replica, callers: Crowd) -> float:
    """When a replica that refuses was asked for the last time: it isn't while the others give many answers."""
    reasons = ("starting", "engine_down")
    last, refused, heard = time.monotonic(), 0.0, len(callers.calls)
    async with asyncio.timeout(PATIENCE):
        while True:
            now = sum([await replica.metric(f'converter_refusals_total{{reason="{reason}"}}') for reason in reasons])
            if now != refused:
                last, refused, heard = time.monotonic(), now, len(callers.calls)
            elif len(callers.calls) > heard + 40:
                return last
            await asyncio.sleep(POLL)


# Streams and jobs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_silent_stream_is_neither_cut_nor_held_up(
    kind: Kind, fleet: Fleet, tmp_path: Path, session: ClientSession
) -> None:
    """The silence is longer than the load balancer bears, or would bear without the comments in between."""
    body = {"workflow": graph(SCALE.silence), "id": f"silent-{kind.name}"}
    async with opened(kind, tmp_path, fleet, {**SCALE.times, **SCALE.patience}) as front:
        heard: dict[str, float] = {}
        watch: asyncio.Task[dict[str, float]] | None = None
        accept = {"Accept": "text/event-stream"}
        async with session.post(f"{front.url}/v1/run", json=body, headers=accept) as response:
            assert response.status == 200
            async for event, number in _events(response):
                heard[number] = time.monotonic()
                if event == "status" and watch is None:
                    replica = await _find(fleet, str(body["id"]))
                    watch = asyncio.create_task(_watch(session, replica, str(body["id"])))
                    state = (await replica.get(f"/v1/jobs/{body['id']}")).document["status"]
                    assert state not in ("succeeded", "failed"), "the event comes before the end"
        assert event == "result"
        assert watch is not None
        direct = await watch
    lags = [heard[number] - at for number, at in direct.items() if number in heard]
    _show(front, f"stream with {SCALE.silence:g} s of silence, last event behind", seconds=max(lags))
    assert not SCALE.full or max(lags) <= 0.5


async def _watch(session: ClientSession, replica: Replica, name: str) -> dict[str, float]:
    """When each event of a job comes from the replica itself; the first are told again to who comes later."""
    begun = time.monotonic()
    async with session.get(f"{replica.url}/v1/jobs/{name}/events") as response:
        moments = {number: time.monotonic() async for _, number in _events(response)}
    return {number: at for number, at in moments.items() if at > begun + 0.2}


async def _events(response: Any) -> AsyncIterator[tuple[str, str]]:
    """Each event's kind and id."""
    fields: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        fields[name] = value
        if not name and "event" in fields:
            yield fields["event"], fields.get("id", "")
            fields = {}


async def _find(fleet: Fleet, name: str) -> Replica:
    """The replica that has the job."""
    [found] = [one for one in fleet.values() if (await one.get(f"/v1/jobs/{name}")).status == 200]
    return found


async def test_jobs_in_the_background_come_back_to_their_replica(
    fleet: Fleet, front: Front, session: ClientSession
) -> None:
    places = [await _begin(session, front) for _ in range(9)]
    while {_tag(place) for place in places} != set(fleet) and len(places) < 200:
        places.append(await _begin(session, front))
    assert {_tag(place) for place in places} == set(fleet)
    for place in places:
        assert await _status(session, front, place) not in ("failed", "canceled")
        async with session.get(f"{front.url}{place}/events") as response:
            assert [event async for event, _ in _events(response)][-1] == "result"
        assert await _status(session, front, place) == "succeeded"
        canceled = await ask(session, "POST", f"{front.url}{place}/cancel")
        assert canceled.document["status"] == "succeeded", "too late, but at the right place"


async def test_a_job_is_fetched_from_a_replica_that_drains(fleet: Fleet, front: Front, session: ClientSession) -> None:
    place = await _begin(session, front, seconds=1.0)
    replica = fleet[_tag(place)]
    front.take_out(replica.tag)
    replica.service.signal(signal.SIGTERM)
    await replica.until("/readyz", lambda reply: reply.status == 503)
    await eventually(lambda: _has_succeeded(session, front, place))
    assert await replica.service.ends() == 0
    front.take_out()
    replica.start()
    await replica.ready()


async def _begin(session: ClientSession, front: Front, seconds: float = 0.0) -> str:
    """Where a job in the background is found."""
    body = {"workflow": graph(seconds)}
    async with session.post(f"{front.url}/v1/run", json=body, headers={"Prefer": "respond-async"}) as response:
        assert response.status == 202, await response.text()
        return response.headers["Location"]


def _tag(place: str) -> str:
    """The replica's, which a job's id begins with."""
    return place.rpartition("/")[2].partition("-")[0]


async def _has_succeeded(session: ClientSession, front: Front, place: str) -> bool:
    return await _status(session, front, place) == "succeeded"


async def _status(session: ClientSession, front: Front, place: str) -> str:
    reply = await ask(session, "GET", f"{front.url}{place}")
    assert reply.status == 200, (place, reply, front.log[-2000:])
    assert reply.document["id"] == place.rpartition("/")[2]
    return str(reply.document["status"])


# Too many ------------------------------------------------------------------------------------------------------------


async def test_of_a_crowd_that_leaves_at_once_nothing_is_left(
    fleet: Fleet, front: Front, session: ClientSession
) -> None:
    before = await _total(fleet)
    bodies = [{"workflow": graph(4 * SCALE.job, "TestSleep"), "timeout": 600} for _ in range(LEAVERS)]
    tasks = [asyncio.create_task(ask_once(session, front.url, body)) for body in bodies]

    async def all_are_in() -> bool:
        return await _held(fleet) + await _total(fleet) - before >= LEAVERS

    async def all_are_out() -> bool:
        return not await _held(fleet)

    await eventually(all_are_in)
    assert not any(task.done() and task.result().status != 200 for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    ran, left = await _total(fleet), time.monotonic()
    await eventually(all_are_out)
    took = time.monotonic() - left
    _show(front, f"{LEAVERS} callers left, engines idle after", seconds=took)
    assert await _total(fleet) - ran <= 2 * len(fleet), "what was at the engines, at most"
    assert not SCALE.full or took <= 4 * SCALE.job


async def _total(fleet: Fleet) -> float:
    return sum([await replica.succeeded() for replica in fleet.values()])


async def _held(fleet: Fleet) -> int:
    """Orders that the replicas have, strangers in the engines' queues included."""
    queues = [await replica.queue() for replica in fleet.values()]
    return sum(queue["running"] + queue["waiting"] + queue["strangers"] for queue in queues)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_three_times_too_many_are_refused_at_once_and_the_others_served(
    kind: Kind, small_fleet: Fleet, tmp_path: Path, session: ClientSession
) -> None:
    fastest = len(small_fleet) / SCALE.job  # jobs a second
    async with opened(kind, tmp_path, small_fleet) as front:
        async with crowd(front.url, 9, SCALE.job) as callers:
            await asyncio.sleep(SCALE.load / 4)
        best = len(callers.calls) / (SCALE.load / 4)
        past = {tag: len(replica.changes()) for tag, replica in small_fleet.items()}
        calls = await _flood(session, front, 3 * fastest)
        for replica in small_fleet.values():
            await replica.ready()
        changes = {tag: replica.changes()[past[tag] :] for tag, replica in small_fleet.items()}
    served, refused = ([call for call in calls if call.status == status] for status in (200, 429))
    assert len(served) + len(refused) == len(calls), {call.status for call in calls}
    assert served
    assert refused
    assert all(call.retry_after and 1 <= int(call.retry_after) <= 120 for call in refused)
    assert all(states[-1] == "READY" and "BUSY" in states for states in changes.values()), changes
    _judge(front, best, served, refused, changes.values())


async def _flood(session: ClientSession, front: Front, rate: float) -> list[Call]:
    """So many a second, whatever becomes of those before."""
    begun, tasks = time.monotonic(), []
    for number in range(int(SCALE.load * rate)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(ask_once(session, front.url, {"workflow": graph(SCALE.job)})))
    return list(await asyncio.gather(*tasks))


def _judge(front: Front, best: float, served: list[Call], refused: list[Call], changes: Iterable[list[str]]) -> None:
    """Show the figures of an overload and, in full, judge them."""
    begun = min(call.begun for call in served)
    goodput = sum(call.begun + call.seconds <= begun + SCALE.load for call in served) / SCALE.load / best
    slowest = max(call.seconds for call in served)
    refusal = sorted(call.seconds for call in refused)[int(0.99 * len(refused))]
    flaps = max(len(states) for states in changes) / SCALE.load
    bound = SCALE.capacity * (SCALE.job + 0.05)
    _show(
        front,
        f"overload, three times, for {SCALE.load:g} s",
        goodput_of_best=goodput,
        slowest_seconds=slowest,
        bound_seconds=bound,
        refusal_seconds_p99=refusal,
        changes_a_second=flaps,
        served=len(served),
        refused=len(refused),
    )
    if SCALE.full:
        assert goodput >= 0.9
        assert slowest <= bound
        assert refusal <= 0.1
        assert flaps < 0.5


def _show(front: Front, what: str, **figures: float) -> None:
    """A line for people, and, in full, for docs/fleet.md."""
    print(json.dumps({"front": front.kind.name, "what": what} | {k: round(v, 3) for k, v in figures.items()}))
