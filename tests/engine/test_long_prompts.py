"""A step of a prompt costs what one node costs, however many there are: counted in what is made, not in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.executor import Executor
from engine.graph import validate
from engine.nodes.registry import list_nodes
from engine.sockets import LAGGING, Backlog
from engine.submission import read_submission
from engine.wire import Message, Snapshot
from tests.engine.graphs import Graph, make_folders, node
from tests.engine.waiting import until_blocking


def chain(length: int) -> Graph:
    """A text that passes through many nodes."""
    graph = {"0": node("TestText", text="x")}
    for number in range(1, length):
        graph[str(number)] = node("TestChangeAlways", value=[str(number - 1), 0])
    return graph | {"shown": node("PreviewAny", source=[str(length - 1), 0])}


def carry_out(graph: Graph, folder: Path, send: Callable[[Message], None]) -> None:
    """Run a graph, with `send` for its messages, all of which are sent when this returns."""
    registry, folders = list_nodes(tests=True), make_folders(folder)
    submission = read_submission({"prompt": graph})
    valid = validate(submission.graph, registry, folders)
    with Executor(registry, folders, send, on_end=lambda: None) as executor:
        prompt_id = executor.submit(submission, valid, 0).id
        until_blocking(lambda: executor.remaining == 0)
        assert json.loads(executor.write_history(prompt_id))[prompt_id]["status"]["completed"]


def test_twice_as_many_nodes_make_twice_as_much_to_send(tmp_path: Path) -> None:
    made = []
    for length in (200, 400):
        sent: list[Message] = []
        carry_out(chain(length), tmp_path / str(length), sent.append)
        assert len(sent) >= 2 * length, "every node tells that it begins and that it has finished"
        made.append(sum(message.size for message in sent))
    assert made[1] < 2.2 * made[0]


def test_no_state_is_written_but_those_that_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = Snapshot.write

    def count(snapshot: Snapshot) -> str:
        written.append(snapshot.count)
        return write(snapshot)

    monkeypatch.setattr(Snapshot, "write", count)
    backlog = Backlog()
    carry_out(chain(300), tmp_path, backlog.add)
    assert not written
    sent = [backlog.take().payload for _ in range(len(backlog))]
    assert 0 < len(written) <= LAGGING
    [last] = [json.loads(text) for text in sent if '"progress_state"' in str(text)][-1:]
    assert len(last["data"]["nodes"]) == 301
