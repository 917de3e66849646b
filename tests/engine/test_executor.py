"""The queue, the thread, and what becomes of prompts whose nodes misbehave."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.cache import Cache, weigh
from engine.errors import QueueFullError, RefusedError
from engine.executor import Executor
from engine.graph import validate
from engine.nodes.numbering import Numbering
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Context, Folders, Input, Node, Output
from engine.submission import read_submission
from engine.wire import Message
from tests.engine.graphs import Graph, make_folders, node, picture, through
from tests.engine.waiting import PATIENCE


class Gate:
    """A node that waits until it is told to go on, and tells that it is there."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Semaphore(0), threading.Semaphore(0)
        self.node = Node(
            "Gate",
            self.wait,
            "test",
            {"value": Input("*")},
            {"deaf": Input("BOOLEAN")},
            outputs=(Output("*"),),
            is_changed=self.cannot_tell,
        )

    def wait(self, context: Context, value: object, deaf: bool = False) -> tuple[object]:
        self.entered.release()
        assert self.opened.acquire(timeout=PATIENCE)
        if not deaf:
            context.check()
        return (value,)

    @staticmethod
    def cannot_tell(folders: Folders, constants: object) -> object:
        raise RuntimeError("cannot tell")


class Bench:
    """An executor with everything it needs, and all that it sends."""

    def __init__(
        self, folders: Folders, services: Mapping[type, object] = MappingProxyType({}), **options: Any
    ) -> None:
        self.folders = folders
        self.gate = Gate()
        self.registry = {**list_nodes(tests=True), "Gate": self.gate.node}
        self.sent: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.heard: list[Any] = []
        self.unloaded = 0
        self.ended = threading.Event()
        self.executor = Executor(
            self.registry,
            folders,
            self.sent.put,
            services={Numbering: Numbering(), **services},
            unload=self.unload,
            on_end=self.ended.set,
            **options,
        )

    def unload(self) -> None:
        self.unloaded += 1

    def submit(self, graph: Graph, client: str | None = "me", **fields: Any) -> str:
        """Queues a graph as POST /prompt does; its id."""
        body = {"prompt": graph, **fields} | ({} if client is None else {"client_id": client})
        submission = read_submission(body)
        valid = validate(submission.graph, self.registry, self.folders, submission.targets)
        return self.executor.submit(submission, valid, self.executor.take_number(submission)).id

    def hear(self) -> Any:
        """The next text message."""
        while True:
            message = self.sent.get(timeout=PATIENCE)
            if isinstance(message.payload, str):
                self.heard.append(json.loads(message.payload) | {"to": message.client})
                return self.heard[-1]

    def follow(self, prompt_id: str) -> list[Any]:
        """Everything up to the last message of a prompt."""
        heard = [self.hear()]
        while heard[-1]["data"] != {"node": None, "prompt_id": prompt_id}:
            heard.append(self.hear())
        return heard

    def run(self, graph: Graph, **fields: Any) -> tuple[list[str], Any]:
        """Runs a graph to its end: the types of its messages without progress and status, and its record."""
        prompt_id = self.submit(graph, **fields)
        heard = [m["type"] for m in self.follow(prompt_id)]
        record = self.record(prompt_id)
        return [kind for kind in heard if kind not in ("status", "progress", "progress_state")], record

    def record(self, prompt_id: str) -> Any:
        return json.loads(self.executor.write_history(prompt_id)).get(prompt_id)

    def queue(self) -> tuple[list[str], list[str]]:
        """Ids that run, ids that wait."""
        answer = json.loads(self.executor.write_queue())
        return [item[1] for item in answer["queue_running"]], [item[1] for item in answer["queue_pending"]]

    def hold(self) -> str:
        """A prompt that runs until `gate.opened` is released; its id."""
        prompt_id = self.submit(through("Gate"))
        assert self.gate.entered.acquire(timeout=PATIENCE)
        return prompt_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(make_folders(tmp_path), patience=PATIENCE)
    with bench.executor:
        yield bench
        bench.gate.opened.release(100)
    assert not bench.ended.is_set()


RUN = ["execution_start", "execution_cached", "executing", "executing", "executed", "execution_success", "executing"]


def test_a_run_and_a_cached_run(bench: Bench) -> None:
    kinds, first = bench.run(picture(1))
    assert kinds == RUN
    kinds, second = bench.run(picture(1))
    assert kinds == ["execution_start", "execution_cached", "executed", "execution_success", "executing"]
    assert second["outputs"] == first["outputs"]
    assert second["status"]["messages"][1][1]["nodes"] == ["1", "2"]
    renumbered = {"7": picture(1)["1"], "8": node("SaveImage", images=["7", 0], filename_prefix="test")}
    assert list(bench.run(renumbered)[1]["outputs"]) == ["8"]
    assert len(list(bench.folders.output.iterdir())) == 1


def test_the_record_is_there_before_the_last_event_is_sent(tmp_path: Path) -> None:
    bench = Bench(make_folders(tmp_path))
    records: list[Any] = []

    def send(message: Message) -> None:
        if isinstance(message.payload, str) and (
            '"execution_success"' in message.payload or "_error" in message.payload
        ):
            records.append(json.loads(bench.executor.write_histories(None, -1)))
        bench.sent.put(message)

    bench.executor = Executor(
        bench.registry, bench.folders, send, services={Numbering: Numbering()}, on_end=bench.ended.set
    )
    with bench.executor:
        first = bench.submit(picture())
        bench.follow(first)
        second = bench.submit(through("TestRaise", kind="ValueError"))
        bench.follow(second)
    assert [list(record) for record in records] == [[first], [first, second]]


JUNK = [
    ("none", "engine.errors.JunkError"),
    ("list", "engine.errors.JunkError"),
    ("too few", "engine.errors.JunkError"),
    ("too many", "engine.errors.JunkError"),
    ("NaN picture", "ValueError"),
    ("NaN in ui", "ValueError"),
    ("object in ui", "TypeError"),
    ("number as ui", "engine.errors.JunkError"),
    ("text as ui list", "engine.errors.JunkError"),
    ("endless text", "ValueError"),
]


@pytest.mark.parametrize(("kind", "exception"), JUNK)
def test_junk_fails_its_prompt_alone(bench: Bench, kind: str, exception: str) -> None:
    kinds, record = bench.run(through("TestReturnJunk", kind=kind))
    assert kinds[-2:] == ["execution_error", "executing"]
    assert record["status"]["messages"][-1][1]["exception_type"] == exception
    assert (record["status"]["status_str"], record["status"]["completed"]) == ("error", False)
    assert bench.run(picture(2))[0] == RUN


@pytest.mark.parametrize(("kind", "shown"), [("endless number", "int"), ("shapeless", "Shapeless")])
def test_what_cannot_be_shown_does_not_hide_what_went_wrong(bench: Bench, kind: str, shown: str) -> None:
    graph = through("TestReturnJunk", kind=kind)
    graph["4"] = node("TestRaise", value=["3", 0], kind="Unprintable")
    graph["2"]["inputs"]["images"] = ["4", 0]
    _, record = bench.run(graph)
    event, error = record["status"]["messages"][-1]
    assert (event, error["node_id"], error["exception_message"]) == ("execution_error", "4", "Unprintable\n")
    assert error["current_inputs"]["value"] == [shown]
    assert bench.run(picture(2))[0] == RUN


ERRORS = ["RuntimeError", "ValueError", "OutOfMemoryError"]
ENDS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"]


@pytest.mark.parametrize("kind", ERRORS + ENDS)
def test_whatever_a_node_raises_fails_its_prompt_alone(bench: Bench, kind: str) -> None:
    graph = through("TestRaise", kind=kind, message="é" * 3) | {
        "8": node("EmptyImage", width=8, height=8, batch_size=1, color=9),
        "9": node("PreviewImage", images=["8", 0]),
    }
    _, record = bench.run(graph)
    event, error = record["status"]["messages"][-1]
    assert event == "execution_error"
    assert (error["node_id"], error["node_type"]) == ("3", "TestRaise")
    assert error["exception_message"] == "ééé\n"
    assert error["exception_type"].rpartition(".")[2] == kind
    assert error["current_inputs"] == {"value": ["ndarray[1, 8, 8, 3]"], "kind": [kind], "message": ["ééé"]}
    assert sorted(error["current_outputs"]) == ["1", "2", "3", "8", "9"]
    assert "/" not in "".join(error["traceback"])
    assert set(record["outputs"]) <= {"9"}
    assert set(error["executed"]) <= {"1", "8", "9"}
    assert bench.unloaded == (kind == "OutOfMemoryError")
    assert bench.run(picture(2))[0] == RUN


def test_without_a_client_nobody_is_told_but_of_progress_and_interruption(bench: Bench) -> None:
    quiet = bench.submit(through("TestSleep", seconds=0.01), client=None)
    held = bench.submit(through("Gate", color=5), client=None)
    assert bench.gate.entered.acquire(timeout=PATIENCE)
    bench.executor.interrupt(held)
    bench.gate.opened.release()
    bench.run(picture(3))
    told = {(m["type"], m["to"]) for m in bench.heard if m["data"].get("prompt_id") in (quiet, held)}
    assert told == {("progress_state", None), ("progress", None), ("execution_interrupted", None)}
    assert bench.record(quiet)["status"]["status_str"] == "success"


def test_interrupts_hit_the_named_prompt_or_all_that_run(bench: Bench) -> None:
    held = bench.hold()
    waiting = bench.submit(picture(4))
    bench.executor.interrupt(waiting)
    bench.executor.interrupt("nobody")
    bench.gate.opened.release()
    assert bench.follow(held)[-3]["type"] == "execution_success"
    assert bench.follow(waiting)[-3]["type"] == "execution_success"
    for prompt_id in (None, "itself"):
        held = bench.hold()
        bench.executor.interrupt(prompt_id and held)
        bench.gate.opened.release()
        end = bench.follow(held)[-3]
        assert end["type"] == "execution_interrupted"
        assert end["data"].keys() == {"prompt_id", "node_id", "node_type", "executed", "timestamp"}
        assert (end["data"]["node_id"], end["data"]["node_type"]) == ("3", "Gate")
    bench.executor.interrupt(None)
    assert bench.run(picture(5))[0] == RUN


def test_a_deaf_node_is_interrupted_at_the_next_one(bench: Bench) -> None:
    held = bench.submit(through("Gate", deaf=True))
    assert bench.gate.entered.acquire(timeout=PATIENCE)
    bench.executor.interrupt(held)
    bench.gate.opened.release()
    end = bench.follow(held)[-3]
    assert (end["type"], end["data"]["node_id"], end["data"]["executed"]) == ("execution_interrupted", "2", ["1", "3"])


def test_cancel_finds_a_prompt_wherever_it_is(bench: Bench) -> None:
    held = bench.hold()
    waiting = bench.submit(picture(6))
    assert bench.executor.cancel(waiting)
    assert bench.queue() == ([held], [])
    assert not bench.executor.cancel(waiting)
    assert bench.executor.cancel(held)
    bench.gate.opened.release()
    assert bench.follow(held)[-3]["type"] == "execution_interrupted"
    assert not bench.executor.cancel(held)
    assert bench.record(waiting) is None


def test_the_order_is_by_number_and_then_by_id(bench: Bench) -> None:
    held = bench.hold()
    ids = [str(uuid4()) for _ in range(5)]
    numbers: list[dict[str, Any]] = [{}, {"number": 1}, {"front": True}, {"number": -100}, {}]
    for color, (prompt_id, place) in enumerate(zip(ids, numbers, strict=True)):
        bench.submit(picture(color), prompt_id=prompt_id, **place)
    expected = [ids[3], ids[2], *sorted([ids[0], ids[1]]), ids[4]]
    assert bench.queue() == ([held], expected)
    assert bench.executor.remaining == 6
    bench.gate.opened.release()
    bench.follow(ids[4])
    assert list(json.loads(bench.executor.write_histories(5, -1))) == expected


def test_an_id_in_use_is_refused_and_a_finished_one_is_replaced(bench: Bench) -> None:
    held, waiting = bench.hold(), bench.submit(picture(7))
    for prompt_id in (held, waiting):
        with pytest.raises(RefusedError):
            bench.submit(picture(8), prompt_id=prompt_id)
    bench.gate.opened.release()
    bench.follow(waiting)
    bench.submit(picture(9), prompt_id=waiting)
    bench.follow(waiting)
    assert bench.record(waiting)["prompt"][2]["1"]["inputs"]["color"] == 9


def test_deleting_clearing_and_forgetting(bench: Bench) -> None:
    held = bench.hold()
    first, second, third = (bench.submit(picture(color)) for color in range(3))
    bench.executor.delete([first, held, "nobody"])
    assert bench.queue() == ([held], [second, third])
    bench.executor.clear()
    assert bench.queue() == ([held], [])
    bench.gate.opened.release()
    bench.follow(held)
    other = bench.submit(picture(4))
    bench.follow(other)
    bench.executor.forget([held])
    assert bench.record(held) is None
    assert bench.record(other) is not None
    bench.executor.forget_all()
    assert bench.record(other) is None


def test_freeing_waits_for_what_runs(bench: Bench) -> None:
    bench.run(picture(1))
    held = bench.hold()
    bench.executor.free(models=False, cache=True)
    bench.executor.free(models=True, cache=False)
    assert bench.unloaded == 0
    bench.gate.opened.release()
    bench.follow(held)
    assert bench.run(picture(1))[0] == RUN
    assert bench.unloaded == 1


def test_who_comes_in_the_middle_finds_the_node(bench: Bench) -> None:
    held = bench.hold()
    assert bench.executor.find_node("me") == "3"
    assert bench.executor.find_node("you") is None
    bench.gate.opened.release()
    bench.follow(held)
    assert bench.executor.find_node("me") is None


def test_what_a_node_is_told(bench: Bench) -> None:
    seen: list[Any] = []

    def look(context: Context, value: object) -> tuple[()]:
        seen.extend([context.node_id, context.prompt_id, context.previews, context.folders, context.extra_pnginfo])
        seen.extend([context.prompt, json.loads(context.prompt_text), context.service(Numbering)])
        with pytest.raises(LookupError):
            context.service(Cache)
        return ()

    bench.registry["Look"] = Node("Look", look, "test", {"value": Input("*")}, output_node=True)
    graph = {"7": node("Look", value=1)}
    prompt_id = bench.submit(graph, extra_data={"extra_pnginfo": {"workflow": 1}, "preview_method": "none"})
    bench.follow(prompt_id)
    assert seen[:7] == ["7", prompt_id, False, bench.folders, {"workflow": 1}, graph, graph]
    bench.run({"7": node("Look", value=2)}, extra_data={"extra_pnginfo": 5, "preview_method": "latent2rgb"})
    assert (seen[10], seen[12]) == (True, None)


def test_an_exception_that_cannot_be_printed(bench: Bench) -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(context: Context, value: object) -> tuple[()]:
        raise BadError

    bench.registry["Bad"] = Node("Bad", fail, "test", {"value": Input("*")}, output_node=True)
    _, record = bench.run({"7": node("Bad", value={"of": "things"})})
    assert record["status"]["messages"][-1][1]["exception_message"] == "BadError\n"
    _, record = bench.run({"7": node("Bad", value="x" * 5000)})
    assert len(record["status"]["messages"][-1][1]["current_inputs"]["value"][0]) < 2100


def test_what_always_changes_is_never_cached(bench: Bench) -> None:
    for _ in range(2):
        kinds, record = bench.run(through("TestChangeAlways"))
        assert kinds.count("executing") >= 3
    assert record["status"]["messages"][1][1]["nodes"] == ["1"]


def test_lists_are_spread_and_shown_together(bench: Bench) -> None:
    graph = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("EmptyImage", width=8, height=8, batch_size=1, color=2),
        "3": node("TestMakeListNode", value1=["1", 0], value2=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="list"),
    }
    kinds, record = bench.run(graph)
    assert kinds.count("executed") == 1
    assert [image["filename"] for image in record["outputs"]["4"]["images"]] == ["list_00001_.png", "list_00002_.png"]


def test_twins_run_once(bench: Bench) -> None:
    graph = {
        "1": node("TestText", text="same"),
        "2": node("TestText", text="same"),
        "3": node("PreviewAny", source=["1", 0]),
        "4": node("PreviewAny", source=["2", 0]),
    }
    prompt_id = bench.submit(graph)
    heard = bench.follow(prompt_id)
    assert len([m for m in heard if m["type"] == "executing"]) == 3
    executed = {m["data"]["node"]: m["data"]["output"] for m in heard if m["type"] == "executed"}
    assert executed == {"2": None, "3": {"text": ["same"]}, "4": {"text": ["same"]}}
    assert sorted(bench.record(prompt_id)["outputs"]) == ["3", "4"]


def test_results_are_not_held_longer_than_needed(tmp_path: Path) -> None:
    bench = Bench(make_folders(tmp_path), cache=Cache(max_entries=1, max_bytes=1000))
    with bench.executor:
        kinds, record = bench.run(through("TestChangeAlways", color=3))
        assert record["status"]["status_str"] == "success"
        assert kinds[-2:] == ["execution_success", "executing"]


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    bench = Bench(make_folders(tmp_path), max_pending=2, patience=PATIENCE)
    with bench.executor:
        bench.hold()
        bench.submit(picture(1))
        bench.submit(picture(2))
        with pytest.raises(QueueFullError):
            bench.submit(picture(3))
        bench.gate.opened.release(1)


def test_secrets_are_nowhere(bench: Bench) -> None:
    held = bench.hold()
    bench.submit(picture(1), extra_data={"api_key_comfy_org": "hidden", "auth_token_comfy_org": "hidden", "a": 1})
    assert "hidden" not in bench.executor.write_queue()
    bench.gate.opened.release()
    bench.follow(held)


def test_previews_go_by_layout_and_order(bench: Bench) -> None:
    prompt_id = bench.submit(through("TestPreview", steps=2))
    kinds: list[tuple[str, bool | None]] = []
    while not kinds or kinds[-1][0] != "executing null":
        message = bench.sent.get(timeout=PATIENCE)
        if isinstance(message.payload, bytes):
            kinds.append((f"binary {message.payload[3]}", message.flagged))
            assert message.key == ("preview", prompt_id)
        elif '"progress"' in message.payload:
            kinds.append(("progress", message.flagged))
        elif '"node": null' in message.payload:
            kinds.append(("executing null", None))
    assert kinds[:-1] == [("binary 4", True), ("progress", None), ("binary 1", False)] * 2


def test_the_process_is_told_when_the_thread_ends(tmp_path: Path) -> None:
    bench = Bench(make_folders(tmp_path))

    def send(message: Message) -> None:
        if isinstance(message.payload, str) and '"node": null' in message.payload:
            raise KeyboardInterrupt
        bench.sent.put(message)

    executor = Executor(bench.registry, bench.folders, send, on_end=bench.ended.set)
    bench.executor = executor
    with executor:
        bench.submit(picture())
        assert bench.ended.wait(PATIENCE)


CLASSES = ["EmptyImage", "ImageInvert", "ImageScale", "ImageBatch", "LoadImage", "TestMakeListNode", "TestReturnJunk"]
OUTPUTS = ["SaveImage", "PreviewImage", "PreviewAny", "SaveImageWebsocket"]
NAMES = ["image", "images", "image1", "image2", "value", "value1", "source", "filename_prefix", "kind", "crop"]
SIZES = st.fixed_dictionaries(
    {"width": st.integers(-1, 9), "height": st.integers(-1, 9), "batch_size": st.integers(0, 3)}
)
LINKS: st.SearchStrategy[Any] = st.tuples(st.integers(0, 6).map(str), st.integers(0, 1)).map(list)
CONSTANTS = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | LINKS
CHOICES = st.sampled_from(["none", "too many", "NaN in ui", "bilinear", "lanczos", "area", "disabled", "center"])
NODES = st.builds(
    lambda kind, sizes, links, others: node(kind, **sizes, **(links | others)),
    st.sampled_from(CLASSES + OUTPUTS),
    SIZES | st.just({}),
    st.dictionaries(st.sampled_from(NAMES[:7]), LINKS, min_size=3),
    st.dictionaries(st.sampled_from([*NAMES, "upscale_method", "color"]), CHOICES | CONSTANTS, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(graph=st.dictionaries(st.integers(0, 6).map(str), NODES, min_size=2), kind=st.sampled_from(OUTPUTS))
def test_any_graph_is_refused_or_comes_to_an_end(bench: Bench, graph: Graph, kind: str) -> None:
    graph["0"] = node("EmptyImage", width=4, height=4, batch_size=1, color=1)
    graph["7"] = node(kind, images=["1", 0], source=["1", 0], filename_prefix="fuzz")
    try:
        prompt_id = bench.submit(graph)
    except RefusedError as error:
        json.dumps(error.body, allow_nan=False)
        return
    bench.follow(prompt_id)
    assert bench.record(prompt_id)["status"]["status_str"] in ("success", "error")


def test_what_runs_can_be_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    good, bad = bench.submit(picture(1)), bench.submit(through("TestRaise", kind="ValueError"))
    bench.follow(bad)
    lines = [record.getMessage() for record in caplog.records if "failed at" not in record.getMessage()]
    assert lines == [
        f"prompt {good} begins",
        f"prompt {good} ended: execution_success",
        f"prompt {bad} begins",
        f"prompt {bad} ended: execution_error",
    ]


def test_a_part_of_a_picture_does_not_keep_the_whole_in_memory(tmp_path: Path) -> None:
    seen: list[object] = []

    def look(context: Context, value: object) -> tuple[object]:
        seen.append(value)
        return (value,)

    bench = Bench(make_folders(tmp_path))
    bench.registry["Look"] = Node("Look", look, "test", {"value": Input("*")}, outputs=(Output("*"),))
    cut = {"upscale_method": "area", "width": 4, "height": 4, "crop": "center"}
    graph = picture(width=4, height=4000) | {
        "3": node("ImageScale", image=["1", 0], **cut),
        "4": node("Look", value=["3", 0]),
        "5": node("PreviewAny", source=["4", 0]),
    }
    with bench.executor:
        assert bench.run(graph)[1]["status"]["completed"]
    assert weigh(seen) < 1000
