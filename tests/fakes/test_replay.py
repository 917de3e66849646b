"""Plays what a recorded client did to a real ComfyUI against the fake, and compares what comes back.

A request is sent once every websocket message that was recorded before it has come, so recordings are scripts and
nothing sleeps. Compared are statuses, content types, shapes of JSON, and the order of messages. Progress is left
out of the order (its number depends on time), and so are the positions of `status` where several prompts were
posted at once.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.fakes.catalog import CLASSES
from tests.fakes.engine import FakeEngine
from tests.fakes.recordings import Row, load

ONE_AFTER_ANOTHER = ["01", "02", "03", "04", "05", "06", "09", "15", "14-worker-survives", "19-bad-ui-nan"]
SEVERAL_AT_ONCE = ["07", "08"]
DEADLY = [
    "14-worker-death-bad-node-in-unused-part",
    "14-worker-death-extra-data-null",
    "14-worker-death-link-to-missing-node-under-unknown-input",
    "14-worker-death-same-number-same-id",
    "14-worker-death-value-looks-like-link",
]


def label(message: Any) -> str | None:
    """What counts in the order: type, and whether an `executing` is the end; None for progress."""
    if not isinstance(message, dict):
        return f"binary {message}"
    if message["type"] in ("progress", "progress_state"):
        return None
    if message["type"] == "executing":
        return "executing" if message["data"]["node"] else "executing null"
    return str(message["type"])


def parse(raw: str) -> Any:
    """A raw frame; the recording cut the long ones, which are all `progress_state`."""
    try:
        return json.loads(raw)
    except ValueError:
        return {"type": "progress_state", "data": {}}


def prompt_of(message: Any) -> str:
    return str(message["data"].get("prompt_id", "")) if isinstance(message, dict) else ""


@dataclass
class Ear:
    """Everything that one websocket heard, in order."""

    messages: list[Any] = field(default_factory=list)

    def labels(self) -> list[str]:
        """The order; previews in a row count once, since their number depends on time."""
        labels = [text for message in self.messages if (text := label(message))]
        return [
            text
            for text, before in zip(labels, [None, *labels], strict=False)
            if text != before or "binary" not in text
        ]

    def by_prompt(self) -> dict[str, list[str]]:
        heard: dict[str, list[str]] = {}
        for message in self.messages:
            text = label(message)
            if text and text != "status":
                heard.setdefault(prompt_of(message), []).append(text)
        return heard


@dataclass
class Replay:
    """One recording against one fake; `said` is what was recorded, `heard` what came."""

    engine: FakeEngine
    session: aiohttp.ClientSession
    said: dict[str, Ear] = field(default_factory=dict)
    heard: dict[str, Ear] = field(default_factory=dict)
    sockets: dict[str, aiohttp.ClientWebSocketResponse] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """Recorded prompt ids, and what the fake called them."""
    flagged: set[str] = field(default_factory=set)

    async def play(self, rows: list[Row]) -> None:
        for index, row in enumerate(rows):
            who = row.get("who", "A")
            if row["kind"] == "ws_connect":
                await self._catch_up()
                self.flagged.discard(who)
                self.sockets[who] = await self.session.ws_connect(self.engine.url + row["url"], max_msg_size=0)
                self.said.setdefault(who, Ear())
                self.heard.setdefault(who, Ear())
            elif row["kind"] == "ws_send":
                self.flagged.add(who)
                await self.sockets[who].send_json(row["msg"])
            elif row["kind"] in ("ws_text", "ws_raw"):
                if row.get("msg", {}).get("type") == "feature_flags" and who not in self.flagged:
                    await self._send_junk_and_flags(who)  # the recording leaves out what was sent among junk
                self.said[who].messages.append(row["msg"] if "msg" in row else parse(row["data"]))
            elif row["kind"] == "ws_binary":
                self.said[who].messages.append(row["event_type"])
            elif row["kind"] == "ws_closed":
                await self._catch_up()
                await self.sockets.pop(who).close()
            elif row["kind"] == "http_request":
                await self._catch_up()
                answer = next(later for later in rows[index:] if later["kind"] == "http_response")
                await self._ask(row, answer)
        await self._catch_up()

    async def _send_junk_and_flags(self, who: str) -> None:
        socket = self.sockets[who]
        await socket.send_str("{not json")
        await socket.send_str("[1, 2]")
        await socket.send_bytes(b"\x00\x01")
        await socket.send_json({"type": "feature_flags", "data": {}})

    async def _catch_up(self) -> None:
        """Receives, on each open socket, as many messages as the recording has by here."""
        for who, socket in self.sockets.items():
            while len(self.heard[who].labels()) < len(self.said[who].labels()):
                message = await socket.receive(timeout=20)
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.heard[who].messages.append(int.from_bytes(message.data[:4]))
                else:
                    self.heard[who].messages.append(json.loads(message.data))

    async def _ask(self, request: Row, expected: Row) -> None:
        path = request["path"]
        for recorded, ours in self.ids.items():
            path = path.replace(recorded, ours)
        body = request["body"]
        data = json.dumps(body) if body is not None else None
        if isinstance(body, dict) and "raw" in body:
            data = body["raw"][2:-1].replace('\\"', '"')
        if data is not None:
            for recorded, ours in self.ids.items():
                data = data.replace(recorded, ours)
        if path.startswith("/history/") and expected["body"]:  # the recorded client slept before it asked
            await self.engine.until(lambda: path.removeprefix("/history/") in self.engine.prompts.history)
        async with self.session.request(request["method"], self.engine.url + path, data=data) as answer:
            raw = await answer.read()
            about = f"{request['method']} {path} {data}"
            assert answer.status == expected["status"], about
            if expected["content_type"]:
                assert answer.content_type == expected["content_type"].partition(";")[0], about
        if (
            expected["status"] in (200, 400)
            and isinstance(expected["body"], dict | list)
            and "raw" not in expected["body"]
        ):
            self._compare(path, json.loads(raw), expected["body"], about)

    def _compare(self, path: str, ours: Any, recorded: Any, about: str) -> None:
        if path == "/prompt" and "prompt_id" in recorded:
            self.ids[recorded["prompt_id"]] = ours["prompt_id"]
        if path.startswith("/history/") and recorded:
            [ours], [recorded] = ours.values(), recorded.values()
            if not isinstance(recorded, dict):
                assert ours["status"]["status_str"] == recorded, about
                return
            if recorded.get("status", {}).get("messages"):
                assert [event for event, _ in ours["status"]["messages"]] == [
                    event for event, _ in recorded["status"]["messages"]
                ], about
                assert ours["status"]["status_str"] == recorded["status"]["status_str"], about
            assert ours["outputs"].keys() == recorded["outputs"].keys(), about
            ours, recorded = ours["outputs"], recorded["outputs"]
        if path == "/queue" and recorded:
            assert {name: len(items) for name, items in ours.items()} == {
                name: len(items) for name, items in recorded.items()
            }
        elif path.startswith("/history?") or path == "/history":
            return  # numbers of entries depend on the recordings before this one
        elif "node_errors" in recorded:
            assert errors(ours) == errors(recorded), about
        else:
            assert shape(ours) == shape(recorded), about


def errors(answer: Any) -> Any:
    """The answer to a post without what differs from run to run: ids, numbers, tracebacks, tooltips, and
    `dependent_outputs`, to which ComfyUI adds outputs in the order of a set."""
    nodes = {}
    for node, entry in answer["node_errors"].items():
        found = []
        for error in entry["errors"]:
            extra = {
                key: value for key, value in error["extra_info"].items() if key not in ("traceback", "input_config")
            }
            found.append((error["type"], error["message"], error["details"], json.dumps(extra, sort_keys=True)))
        nodes[node] = (sorted(found), entry["class_type"])
    return answer.get("error"), nodes


def shape(value: Any) -> Any:
    """Keys and types, without values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(item), sort_keys=True) for item in value})
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def known(rows: list[Row]) -> list[Row]:
    """The rows up to the first prompt with a node class that the fake does not have."""
    for index, row in enumerate(rows):
        body = row.get("body")
        prompt = body.get("prompt") if row["kind"] == "http_request" and isinstance(body, dict) else None
        nodes = [node for node in prompt.values() if isinstance(node, dict)] if isinstance(prompt, dict) else []
        if {node.get("class_type", "NoSuchNode") for node in nodes} - CLASSES.keys() - {"NoSuchNode"}:
            return rows[:index]
    return rows


def prepare(engine: FakeEngine) -> None:
    """The files that recorded prompts name."""
    folder = engine.folders.root / "input"
    (folder / "broken.png").write_bytes(b"not a picture")
    for name in ("example.png", "noise.png"):
        Image.new("RGB", (96, 64), "teal").save(folder / name)


async def play(name: str) -> Replay:
    async with FakeEngine() as engine, aiohttp.ClientSession() as session:
        prepare(engine)
        replay = Replay(engine, session)
        await replay.play([row for row in known(load(name)) if "/internal/" not in row.get("path", "")])
    return replay


@pytest.mark.parametrize("name", ONE_AFTER_ANOTHER)
async def test_prompts_one_after_another_give_the_recorded_messages_in_the_recorded_order(name: str) -> None:
    replay = await play(name)
    for who, said in replay.said.items():
        assert replay.heard[who].labels() == said.labels()


@pytest.mark.parametrize("name", SEVERAL_AT_ONCE)
async def test_prompts_posted_at_once_give_each_its_recorded_messages(name: str) -> None:
    replay = await play(name)
    for who, said in replay.said.items():
        recorded = {replay.ids.get(key, key): labels for key, labels in said.by_prompt().items()}
        assert replay.heard[who].by_prompt() == recorded
        assert Counter(replay.heard[who].labels()) == Counter(said.labels())


@pytest.mark.parametrize("name", DEADLY)
async def test_prompts_that_kill_the_worker_leave_http_alive_and_nothing_running(name: str) -> None:
    replay = await play(name)
    for who, said in replay.said.items():
        assert replay.heard[who].by_prompt() == {replay.ids.get(k, k): labels for k, labels in said.by_prompt().items()}
