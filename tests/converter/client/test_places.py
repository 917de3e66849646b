"""How many calls are in flight: as many as were taken before, fewer after refusals, in the order of asking."""

import asyncio

import pytest
from aiohttp import web

from converter import errors
from converter.client import Client
from tests.converter.client.conftest import Naps
from tests.converter.client.scripted import OUTPUT, WORKFLOW, hang, playing, problem, result, serving

PATIENCE = 60.0
"""Seconds after which a wait for anything fails."""

POLL = 0.005
"""Seconds between two looks at what tells nobody that it has changed."""

DONE = playing(("result", result(OUTPUT)))


class Crowd:
    """A service with so many places, which works when it is told to. `most` were there at once, `served` in order."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.inside = self.most = 0
        self.served: list[str] = []
        self.open = asyncio.Event()
        self.changed = asyncio.Condition()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.inside >= self.places:
            return await problem(429, "queue_full", {"Retry-After": "1"}, retry="later")(request)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self._ring()
            await self.open.wait()
            self.served.append(request.headers["Idempotency-Key"])
            return await DONE(request)
        finally:
            self.inside -= 1

    async def _ring(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, inside: int) -> None:
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: self.inside >= inside)


async def test_no_more_are_in_flight_than_the_limit_and_who_asks_first_comes_first() -> None:
    crowd = Crowd(100)
    async with serving(crowd.answer) as server, Client(server.url, limit=3) as client, asyncio.TaskGroup() as group:
        for number in range(9):
            group.create_task(client.run(WORKFLOW, idempotency_key=str(number)))
        await crowd.until(inside=3)
        crowd.open.set()
    assert crowd.most == 3
    assert len(server.asked) == 9
    assert {key.strip('"') for key in server.keys[:3]} == {"0", "1", "2"}


async def test_refusals_make_the_window_smaller_and_successes_larger() -> None:
    crowd, naps, refused, told = Crowd(5), Naps(), asyncio.Event(), asyncio.Event()

    async def nap() -> None:
        if len(naps.seconds) == 3:
            refused.set()
        await told.wait()

    naps.then = nap
    async with serving(crowd.answer) as server, Client(server.url, limit=8, sleep=naps) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(client.run(WORKFLOW))
            await crowd.until(inside=5)
            await refused.wait()
            assert client.room == 4, "three refusals of one burst halve it once"
            assert len(server.asked) == 8
            crowd.open.set()
            told.set()
        assert len(set(server.keys)) == 12
        before, crowd.places = client.room, 100
        for _ in range(4):
            async with asyncio.TaskGroup() as group:
                for _ in range(client.room):
                    group.create_task(client.run(WORKFLOW))
        assert client.room > before


async def test_every_refusal_of_a_later_try_counts_again(naps: Naps) -> None:
    refusal = problem(503, "engine_down", {"Retry-After": "1"}, retry="later")
    async with serving([refusal] * 3 + [DONE]) as server, Client(server.url, limit=16, sleep=naps) as client:
        await client.run(WORKFLOW)
        assert client.room == 2


async def test_who_finds_the_smaller_window_full_waits(naps: Naps) -> None:
    refusal = problem(429, "queue_full", {"Retry-After": "1"}, retry="later")
    async with serving([refusal] * 3 + [DONE, playing(then=hang)]) as server, Client(server.url, sleep=naps) as client:
        await client.run(WORKFLOW)
        calls = [asyncio.create_task(client.run(WORKFLOW)) for _ in range(5)]
        async with asyncio.timeout(PATIENCE):
            while True:
                if client._require()[1]._limiter.statistics().tasks_waiting == 3:
                    break
                await asyncio.sleep(POLL)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert len(server.asked) <= 6


async def test_many_calls_to_a_small_service_all_come_to_their_end(naps: Naps) -> None:
    """A nap is as long as it takes others to be served."""
    crowd = Crowd(4)
    crowd.open.set()

    async def yield_often() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    naps.then = yield_often
    async with serving(crowd.answer) as server, Client(server.url, sleep=naps) as client, asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(client.run(WORKFLOW, idempotency_key=str(number)))
    assert len(crowd.served) == len(set(crowd.served)) == 60
    assert crowd.most <= 4


async def test_a_call_that_finds_no_place_in_its_time_says_so() -> None:
    async with serving([playing(then=hang), DONE]) as server, Client(server.url, limit=1) as client:
        first = asyncio.create_task(client.run(WORKFLOW))
        await server.came.wait()
        with pytest.raises(errors.DeadlineExceeded, match="other calls of this client"):
            await client.run(WORKFLOW, timeout=0.05)
        assert len(server.asked) == 1
        first.cancel()
        await asyncio.wait([first])
        assert (await client.run(WORKFLOW)).id == "j1", "its place was given back"


async def test_who_leaves_while_waiting_for_a_place_takes_none() -> None:
    async with serving([playing(then=hang), DONE]) as server, Client(server.url, limit=1) as client:
        calls = [asyncio.create_task(client.run(WORKFLOW)) for _ in range(3)]
        await server.came.wait()
        calls[1].cancel()
        await asyncio.wait([calls[1]])
        calls[0].cancel()
        assert (await calls[2]).id == "j1"
        await asyncio.wait(calls)
    assert len(server.asked) == 2
