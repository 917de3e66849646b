"""Bodies are read within their bounds, said to be wrong in every respect at once, and given up with their callers."""

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from tests.converter.api.conftest import MAX_BODY
from tests.converter.api.exchange import check_refusal, connect, exchange, request
from tests.converter.faults.graphs import picture
from tests.converter.faults.replica import Caller, converter
from tests.fakes.engine import FakeEngine

ORDER = json.dumps({"workflow": picture(1)}).encode()


async def test_every_problem_is_listed_at_once_with_its_pointer(caller: Caller) -> None:
    body = {
        "workflow": 1,
        "first/unknown": 1,
        "second~unknown": 2,
        "id": "-x",
        "timeout": -1,
        "priority": True,
        "outputs": {"nodes": ["1", 2], "format": "gif", "quality": 0, "colour": 1, "delivery": "pigeon"},
        "extra_data": [],
    }
    answer = await exchange(caller.url, request(body=json.dumps(body).encode()))
    check_refusal(answer, 400)
    pointers = {problem["pointer"]: problem["detail"] for problem in answer.document["problems"]}
    outputs = {"/outputs/nodes/1", "/outputs/format", "/outputs/quality", "/outputs/colour", "/outputs/delivery"}
    fields = {"/workflow", "/first~1unknown", "/second~0unknown", "/id", "/timeout", "/priority", "/extra_data"}
    assert pointers.keys() == outputs | fields
    assert pointers["/first~1unknown"] == pointers["/outputs/colour"] == "no such field"


async def test_what_is_wrong_with_a_templates_inputs_is_listed_with_the_rest(caller: Caller) -> None:
    inputs = {"prompt": 7, "steps": "many", "colour/depth": 1}
    body = {"inputs": inputs, "priority": "high", "outputs": {"quality": 0}}
    answer = await exchange(caller.url, request(path="/v1/workflows/txt2img", body=json.dumps(body).encode()))
    check_refusal(answer, 400)
    pointers = [problem["pointer"] for problem in answer.document["problems"]]
    assert pointers == ["/priority", "/outputs/quality", "/inputs/prompt", "/inputs/steps", "/inputs/colour~1depth"]


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ({"1": {"class_type": "EmptyImage", "inputs": {}}}, 'this is a workflow itself: send it as {"workflow": ...}'),
        ({"nodes": [], "links": [], "version": 0.4}, "choose Workflow > Export (API) and send that file"),
    ],
    ids=["api", "editor"],
)
async def test_a_workflow_without_its_wrapping_is_recognised(
    caller: Caller, workflow: dict[str, Any], words: str
) -> None:
    answer = await exchange(caller.url, request(body=json.dumps(workflow).encode()))
    check_refusal(answer, 400)
    [problem] = answer.document["problems"]
    assert problem["pointer"] == ""
    assert words in problem["detail"]


async def test_a_whole_number_may_be_written_with_a_point(caller: Caller) -> None:
    outputs = {"format": "jpeg", "quality": 80.0}
    assert (await caller.run(picture(1), priority=-2.0, outputs=outputs)).status == 200
    refused = await caller.run(picture(1), priority=0.5, outputs={"quality": 80.5})
    assert refused.code == "invalid_request"
    pointers = {problem["pointer"]: problem["detail"] for problem in refused.document["problems"]}
    assert pointers == dict.fromkeys(("/priority", "/outputs/quality"), "must be a whole number")


async def test_a_flood_of_problems_is_cut(caller: Caller) -> None:
    body = {f"field{number}": 1 for number in range(20_000)}
    answer = await exchange(caller.url, request(body=json.dumps(body).encode()))
    check_refusal(answer, 400)
    assert answer.document["problems"][-1]["detail"] == "19901 more problems"
    assert len(answer.body) < 30_000


async def test_one_repeated_name_among_very_many_is_found_at_once(caller: Caller) -> None:
    names = ",".join(f'"{number}":1' for number in range(90_000))
    begun = time.process_time()
    answer = await exchange(caller.url, request(body=f'{{{names},"twice":1,"twice":1}}'.encode()))
    check_refusal(answer, 400)
    assert '"twice"' in answer.document["detail"]
    assert time.process_time() - begun < 5.0


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/json; q=x;;"]
)
async def test_parameters_of_the_content_type_do_no_harm(caller: Caller, content_type: str) -> None:
    answer = await exchange(caller.url, request(body=ORDER, Content_Type=content_type))
    assert answer.status == 200


async def test_a_body_without_a_type_is_taken_for_json(caller: Caller) -> None:
    head = f"POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ORDER)}\r\n\r\n".encode()
    assert (await exchange(caller.url, head + ORDER)).status == 200


async def test_a_compressed_body_is_taken(caller: Caller) -> None:
    answer = await exchange(caller.url, request(body=gzip.compress(ORDER), Content_Encoding="gzip"))
    assert answer.status == 200


async def test_half_surrogate_pairs_reach_the_engine_and_come_back_as_json(caller: Caller) -> None:
    """JSON can say them, so they are data: in ids and classes the engine refuses them, elsewhere it does not care."""
    refused = b'{"workflow":{"\\ud800":{"class_type":"\\udfff","inputs":{}}}}'
    check_refusal(await exchange(caller.url, request(body=refused)), 422)
    taken = ORDER[:-1] + b',"extra_data":{"\\ud800":"\\udfff"}}'
    assert (await exchange(caller.url, request(body=taken))).status == 200


async def test_a_chunked_body_is_cut_off_where_it_is_too_large(caller: Caller) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with connect(caller.url) as wire:
        await wire.send(request(body=None, Content_Type="application/json", Transfer_Encoding="chunked"))
        for _ in range(MAX_BODY // 0x10000 + 1):
            await wire.send(chunk)
        answer = await wire.receive()  # the body has not ended
        check_refusal(answer, 413)
        assert answer.headers["connection"] == "close"
        await wire.send(b"0\r\n\r\n")
        assert await wire.ends() == b""
    assert not caller.tickets


async def test_chunks_that_break_midway_end_with_the_time_for_a_body(engine: FakeEngine) -> None:
    """aiohttp keeps to itself that no more of the body can come."""
    async with converter(engine.url, body_timeout=0.3) as caller, connect(caller.url) as wire:
        await wire.send(request(body=None, Content_Type="application/json", Transfer_Encoding="chunked"))
        await wire.send(b"2\r\n{}\r\n")
        await caller.until(lambda: caller.tickets)  # the order's headers were seen, the body is being read
        await wire.send(b"zz\r\n")
        answer = await wire.receive()
        assert answer.status in (400, 408)
        assert not caller.tickets


async def test_a_body_that_does_not_come_is_a_timeout(engine: FakeEngine) -> None:
    async with converter(engine.url, body_timeout=0.2) as caller, connect(caller.url) as wire:
        await wire.send(request(body=None, Content_Type="application/json", Content_Length="1000") + b"{")
        answer = await wire.receive()
        assert answer.status == 408
        assert answer.document["code"] == "request_timeout"
        assert answer.headers["connection"] == "close"
        assert "x-should-retry" not in answer.headers
        assert not caller.tickets


@pytest.mark.parametrize("body", [b"", b'{"work'])
async def test_a_caller_who_leaves_before_the_body_is_whole_leaves_nothing(caller: Caller, body: bytes) -> None:
    async with connect(caller.url) as wire:
        await wire.send(request(body=None, Content_Type="application/json", Content_Length="1000") + body)
        await caller.until(lambda: caller.tickets == 1)
    await caller.until_empty()


async def test_random_bytes_in_the_place_of_a_body(caller: Caller) -> None:
    """Every prefix of an order, and the order with each byte in turn replaced."""
    order = b'{"workflow":{"1":{"class_type":"X","inputs":{}}},"priority":1}'
    bodies = [order[:cut] for cut in range(len(order))]
    bodies += [
        order[:at] + bytes([byte]) + order[at + 1 :] for at in range(0, len(order), 3) for byte in (0, 0x22, 0xFF)
    ]
    async with connect(caller.url) as wire:
        for body in bodies:
            await wire.send(request(body=body))
            answer = await wire.receive()
            assert answer.status in (400, 422), (body, answer)
            check_refusal(answer, answer.status)
    assert not caller.tickets


async def test_many_slow_callers_are_refused_by_their_headers_alone(engine: FakeEngine) -> None:
    """A place is taken by the headers already: with none left, nobody waits with an unread body."""
    unfinished = request(body=None, Content_Type="application/json", Content_Length="9") + b"{"
    async with converter(engine.url, capacity=2) as caller, connect(caller.url) as first, connect(caller.url) as second:
        await asyncio.gather(first.send(unfinished), second.send(unfinished))
        await caller.until(lambda: caller.tickets == 2)
        answer = await exchange(caller.url, unfinished)
        assert (answer.status, answer.document["code"]) == (429, "queue_full")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
