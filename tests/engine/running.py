"""Running one graph from its submission to its history record, as the server does."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping
from typing import Any

from engine.executor import Executor
from engine.graph import validate
from engine.nodes.numbering import Numbering
from engine.nodes.registry import list_nodes
from engine.nodes.spec import Folders
from engine.submission import read_submission
from engine.wire import Message
from tests.engine.graphs import Graph
from tests.engine.waiting import PATIENCE


def run_graph(graph: Graph, folders: Folders, services: Mapping[type, object] | None = None, **fields: Any) -> Any:
    """The history record of a graph that is carried out alone. Raises RefusedError; queue.Empty when it hangs."""
    registry, sent = list_nodes(tests=True), queue.SimpleQueue[Message]()
    submission = read_submission({"prompt": graph, "client_id": "me", **fields})
    valid = validate(submission.graph, registry, folders, submission.targets)
    executor = Executor(
        registry, folders, sent.put, services={Numbering: Numbering(), **(services or {})}, on_end=lambda: None
    )
    with executor:
        prompt_id = executor.submit(submission, valid, executor.take_number(submission)).id
        ended = json.dumps({"node": None, "prompt_id": prompt_id})
        while True:
            payload = sent.get(timeout=PATIENCE).payload
            if isinstance(payload, str) and ended in payload:
                return json.loads(executor.write_history(prompt_id))[prompt_id]
