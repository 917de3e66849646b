"""How a call is followed: its events typed, each thing said once, and exactly one result, which is the last."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from converter import errors
from converter.client import (
    Client,
    Event,
    Output,
    Preview,
    Progress,
    Result,
    Status,
    UnexpectedAnswer,
    Unreachable,
)
from converter.client import stream as stream_module
from tests.converter.client.conftest import Naps
from tests.converter.client.scripted import (
    OUTPUT,
    PICTURE,
    PROGRESS,
    STATUS,
    WORKFLOW,
    cut,
    document,
    hang,
    playing,
    result,
    serving,
)

DONE = playing(("result", result(OUTPUT)))
ANNOUNCED = {name: value for name, value in OUTPUT.items() if name != "data"}
PREVIEW = {"node_id": "3", "content_type": "image/jpeg", "data": "/9j/"}


async def collect(client: Client) -> list[Event]:
    async with client.stream(WORKFLOW) as events:
        return [event async for event in events]


def at(value: float) -> tuple[str, Any]:
    return "progress", PROGRESS | {"value": value}


async def test_events_come_typed_and_in_order_with_the_result_last() -> None:
    play = playing(
        ("status", STATUS | {"new": 1}),
        ("news", {"of": "a later version"}),
        ("progress", PROGRESS),
        ("preview", PREVIEW),
        ("output", ANNOUNCED),
        ("result", result(OUTPUT, inputs={"seed": 7}, new=[])),
    )
    async with serving(play) as server, Client(server.url) as client:
        status, progress, preview, output, last = await collect(client)
    assert status == Status(state="waiting", position=2, estimated_seconds=12.3)
    assert isinstance(progress, Progress)
    assert (progress.value, progress.class_type, progress.step, progress.steps) == (0.25, "KSampler", 5, 20)
    assert preview == Preview(node_id="3", content_type="image/jpeg", data=b"\xff\xd8\xff")
    assert isinstance(output, Output)
    assert (output.name, output.data) == ("ComfyUI_00001_.png", None)
    assert isinstance(last, Result)
    assert (last.id, last.timings, last.inputs) == ("j1", {"total": 0.1}, {"seed": 7})
    assert [output.content for output in last.outputs] == [PICTURE]


async def test_the_result_can_be_asked_for_at_any_time() -> None:
    async with (
        serving(playing(("status", STATUS), ("result", result(OUTPUT)))) as server,
        Client(server.url) as client,
        client.stream(WORKFLOW) as events,
    ):
        first = await anext(events)
        assert isinstance(first, Status)
        whole = await events.result()
        assert await events.result() is whole
        assert [event async for event in events] == []
    assert len(server.asked) == 1


async def test_outputs_are_bytes_or_text(tmp_path: Any) -> None:
    words = {"node_id": "2", "kind": "text", "content_type": "text/plain", "size": 7, "text": "grüße"}
    async with serving(playing(("result", result(OUTPUT, words)))) as server, Client(server.url) as client:
        picture, text = (await client.run(WORKFLOW)).outputs
    picture.save(tmp_path / "a.png")
    text.save(str(tmp_path / "a.txt"))
    assert (tmp_path / "a.png").read_bytes() == PICTURE
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "grüße"


async def test_outputs_that_are_elsewhere_tell_where(tmp_path: Path) -> None:
    """A link without an address is one of the service that was called, by the way that it was."""
    linked = {"url": "/v1/outputs/abc", "expires_at": "2030-01-02T03:04:05Z", "warning": "no AVIF here"}
    stored = {"destination": "results", "key": "a/1.png"}
    shared = stored | {"url": "https://store.example/a"}
    done = result(*(ANNOUNCED | place for place in (linked, stored, shared, {"put": 2}, {})))
    async with (
        serving(playing(("output", ANNOUNCED | linked), ("result", done)), prefix="/pool") as server,
        Client(server.url) as client,
    ):
        announced, last = await collect(client)
    assert isinstance(last, Result)
    assert announced == last.outputs[0]
    link, key, both, put, nowhere = last.outputs
    assert link.url == f"{server.url}/v1/outputs/abc"
    assert (link.expires_at, link.warning) == (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), "no AVIF here")
    assert (link.destination, link.key, link.put, link.data) == (None, None, None, None)
    assert (key.destination, key.key, key.url, key.warning) == ("results", "a/1.png", None, None)
    assert (both.key, both.url) == ("a/1.png", "https://store.example/a")
    assert put.put == 2
    for output, said in (
        (link, f"contents: they are at {link.url}"),
        (key, "in the destination results, as a/1.png"),
        (both, "at https://store.example/a"),
        (put, "put to URL 2 of outputs.delivery.put"),
        (nowhere, "node 9 came without its contents$"),
    ):
        with pytest.raises(ValueError, match=said):
            output.save(tmp_path / "a.png")


async def test_an_output_that_another_try_puts_elsewhere_is_announced_once(naps: Naps) -> None:
    first = playing(("output", ANNOUNCED | {"url": "/v1/outputs/abc"}))  # which ends without a last event
    second = playing(("output", ANNOUNCED | {"url": "/v1/outputs/def"}), ("result", result(OUTPUT)))
    async with serving([first, second]) as server, Client(server.url, sleep=naps) as client:
        events = await collect(client)
    assert [type(event) for event in events] == [Output, Result]


async def test_a_stream_that_is_cut_goes_on_under_the_same_key_as_if_nothing_had_been(naps: Naps) -> None:
    first = playing(("status", STATUS), at(0.2), at(0.6), ("output", ANNOUNCED), then=cut)
    second = playing(at(0.1), ("output", ANNOUNCED), at(0.7))  # which ends without a last event
    third = playing(at(0.3), ("output", ANNOUNCED | {"name": "b.png"}), ("result", result(OUTPUT)))
    async with serving([first, second, third]) as server, Client(server.url, sleep=naps) as client:
        events = await collect(client)
    values = [event.value for event in events if isinstance(event, Progress)]
    assert values[0] <= 0.6  # what was sent just before a reset may be lost with it
    assert values[-3:] == [max(0.1, *values[:-2]), 0.7, 0.7]
    assert values == sorted(values)
    names = [event.name for event in events if isinstance(event, Output)]
    assert names == ["ComfyUI_00001_.png", "b.png"]
    assert [isinstance(event, Result) for event in events] == [False] * (len(events) - 1) + [True]
    assert len(set(server.keys)) == 1
    assert {asked.body for asked in server.asked} == {server.asked[0].body}
    assert len(naps.seconds) == 2


async def test_nothing_counts_that_comes_after_the_last_event(naps: Naps) -> None:
    refusal = document(429, "shed", retry="later", retry_after=1)
    first = playing(("error", refusal), ("status", STATUS), ("result", result(id="stray")))
    async with serving([first, DONE]) as server, Client(server.url, sleep=naps) as client:
        events = await collect(client)
    assert [event.id for event in events if isinstance(event, Result)] == ["j1"]
    assert len(events) == 1


async def test_half_an_event_is_none(naps: Naps) -> None:
    async def stop_midway(request: Any) -> Any:
        response = await playing(("status", STATUS))(request)
        await response.write(b"event: result\ndata: " + json.dumps(result()).encode())
        return response

    async with serving([stop_midway, DONE]) as server, Client(server.url, sleep=naps) as client:
        events = await collect(client)
    assert [type(event) for event in events] == [Status, Result]
    assert isinstance(events[-1], Result)
    assert events[-1].outputs


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("result", "[]"),
        ("result", "{"),
        ("result", {"id": "j1"}),
        ("result", result(OUTPUT | {"data": "no base64!"})),
        ("progress", PROGRESS | {"value": 1.5}),
        ("progress", '{"value": NaN, "nodes_done": 0, "nodes_total": 1}'),
        ("error", "nonsense"),
    ],
)
async def test_an_event_of_another_shape_ends_the_call(event: str, data: Any) -> None:
    async with serving(playing((event, data))) as server, Client(server.url) as client:
        with pytest.raises(UnexpectedAnswer, match=f"its event {event} has another shape"):
            await collect(client)
    assert len(server.asked) == 1


async def test_an_event_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT", 1000)
    async with serving(playing(("status", "x" * 2000), then=hang)) as server, Client(server.url) as client:
        with pytest.raises(UnexpectedAnswer, match="1000 bytes"):
            await collect(client)


async def test_an_error_event_is_the_fault_that_it_tells_of() -> None:
    error = document(422, "execution_failed", retry="never", node_id="3", class_type="KSampler")
    async with (
        serving(playing(("status", STATUS), ("error", error))) as server,
        Client(server.url) as client,
        client.stream(WORKFLOW) as events,
    ):
        with pytest.raises(errors.ExecutionFailed, match="detail") as raised:
            await events.result()
        with pytest.raises(errors.ExecutionFailed):
            await events.result()
        assert [event async for event in events] == [], "the call has ended"
    assert raised.value.extensions == {"node_id": "3", "class_type": "KSampler", "request_id": "r1"}
    assert len(server.asked) == 1


async def test_a_result_is_not_held_back_for_the_end_of_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "LINGER", 0.01)
    async with serving(playing(("result", result(OUTPUT)), then=hang)) as server, Client(server.url) as client:
        assert (await client.run(WORKFLOW)).id == "j1"
        await server.gone.wait()


# Who leaves ---------------------------------------------------------------------------------------------------------


async def test_who_cancels_a_call_closes_its_connection() -> None:
    async with serving(playing(then=hang)) as server, Client(server.url) as client:
        call = asyncio.create_task(client.run(WORKFLOW))
        await server.came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.gone.wait()
    assert len(server.asked) == 1


async def test_who_leaves_a_stream_closes_its_connection() -> None:
    async with serving(playing(("status", STATUS), then=hang)) as server, Client(server.url) as client:
        async with client.stream(WORKFLOW) as events:
            async for _ in events:
                break
        await server.gone.wait()


async def test_who_leaves_while_it_waits_for_the_next_try_sends_none(naps: Naps) -> None:
    async with serving([playing(then=cut), DONE]) as server, Client(server.url, sleep=naps) as client:
        call = asyncio.create_task(client.run(WORKFLOW))

        async def leave() -> None:
            call.cancel()
            await asyncio.sleep(0)

        naps.then = leave
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(server.asked) == 1


async def test_the_end_of_the_client_ends_its_calls() -> None:
    async with serving(playing(then=hang)) as server:
        async with Client(server.url, patience=0.0) as client:
            call = asyncio.create_task(client.run(WORKFLOW))
            await server.came.wait()
        with pytest.raises((Unreachable, RuntimeError)):
            await call
        await server.gone.wait()


async def test_what_is_shown_of_an_output_leaves_its_contents_out() -> None:
    async with (
        serving(playing(("preview", PREVIEW), ("result", result(OUTPUT)))) as server,
        Client(server.url) as client,
        client.stream(WORKFLOW) as stream,
    ):
        events = [event async for event in stream]
    shown = repr(events)
    assert "size=" in shown
    assert "data=" not in shown
