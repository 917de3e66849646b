"""ComfyUI's own words, for clients that know nothing else: websocket messages, history entries, refusals.

For: the passthrough (`api.comfyui`). Leaves sockets and requests to it. Shapes are those of ComfyUI 0.3.64. Invariant:
a tale begins with `execution_start`, and `executing` without a node is its last message, whatever becomes of the job.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.core.outputs import FileRef, Output
from converter.errors import Canceled, Fault, InvalidInput, InvalidRequest, InvalidWorkflow

Message = dict[str, Any] | bytes
"""What goes over a websocket: an object as text, or a binary frame."""

PREVIEW = 1
"""The type of a binary frame that holds a picture."""

_FORMATS = {"image/jpeg": 1, "image/png": 2}
_LISTS = {"image": "images", "video": "images", "audio": "audio", "latent": "latents"}


@dataclass(frozen=True, slots=True)
class Tale:
    """What a client has been told of one prompt. `node`: that which runs, as far as it was told."""

    prompt_id: str
    begun: bool = False
    node: str | None = None


def say(kind: str, **data: Any) -> dict[str, Any]:
    """A message."""
    return {"type": kind, "data": data}


def greet(sid: str, remaining: int) -> dict[str, Any]:
    """The first message of a socket."""
    return say("status", status={"exec_info": {"queue_remaining": remaining}}, sid=sid)


def count(remaining: int) -> dict[str, Any]:
    """How many prompts of the client have not ended."""
    return say("status", status={"exec_info": {"queue_remaining": remaining}})


def frame(content_type: str, picture: bytes) -> bytes:
    """A picture as a binary frame; what is neither JPEG nor PNG goes as the latter."""
    return struct.pack(">II", PREVIEW, _FORMATS.get(content_type, 2)) + picture


def tell(tale: Tale, event: str, data: Mapping[str, Any], now: int) -> tuple[Tale, list[Message]]:
    """What an entry of a job's journal means for its client; `now` is in milliseconds since the epoch."""
    if event == "status" and data["state"] == "running":
        return _begin(tale, now)
    if event == "progress" and data["node_id"] is not None:
        tale, messages = _begin(tale, now)
        if data["node_id"] != tale.node:
            tale = replace(tale, node=data["node_id"])
            messages.append(_executing(tale, tale.node))
        if data["steps"]:
            step = {"value": data["step"], "max": data["steps"]}
            messages.append(say("progress", **step, prompt_id=tale.prompt_id, node=tale.node))
        return tale, messages
    if event == "preview":
        tale, messages = _begin(tale, now)
        return tale, [*messages, frame(data["content_type"], base64.b64decode(data["data"]))]
    return tale, []


def conclude(tale: Tale, fault: Fault | None, outputs: Sequence[Output], now: int) -> list[Message]:
    """How a prompt ended, and what it made; pictures that no file holds are sent as they are."""
    tale, messages = _begin(tale, now)
    for output in outputs:
        if output.data is not None:
            messages += [_executing(tale, output.node_id), frame(output.content_type, output.data)]
    for node_id, ui in arrange(outputs).items():
        messages.append(say("executed", node=node_id, display_node=node_id, output=ui, prompt_id=tale.prompt_id))
    return [*messages, _end(tale.prompt_id, fault, now), _executing(tale, None)]


def _begin(tale: Tale, now: int) -> tuple[Tale, list[Message]]:
    if tale.begun:
        return tale, []
    about = {"prompt_id": tale.prompt_id, "timestamp": now}
    messages: list[Message] = [say("execution_start", **about), say("execution_cached", nodes=[], **about)]
    return replace(tale, begun=True), messages


def _executing(tale: Tale, node: str | None) -> dict[str, Any]:
    shown = {"node": node} if node is None else {"node": node, "display_node": node}
    return say("executing", **shown, prompt_id=tale.prompt_id)


def _end(prompt_id: str, fault: Fault | None, now: int) -> dict[str, Any]:
    about: dict[str, Any] = {"prompt_id": prompt_id, "timestamp": now}
    if fault is None:
        return say("execution_success", **about)
    about |= {"node_id": fault.extensions.get("node_id"), "node_type": fault.extensions.get("class_type")}
    if isinstance(fault, Canceled):
        return say("execution_interrupted", **about, executed=[])
    what = {"exception_message": f"{fault.detail}\n", "exception_type": fault.code, "traceback": []}
    return say("execution_error", **about, **what, executed=[], current_inputs={}, current_outputs=[])


# What is asked for ---------------------------------------------------------------------------------------------------


def arrange(outputs: Sequence[Output]) -> dict[str, dict[str, list[Any]]]:
    """What nodes gave out, as their `ui`; without pictures that no file holds."""
    found: dict[str, dict[str, list[Any]]] = {}
    for output in outputs:
        if output.file is not None:
            entries = found.setdefault(output.node_id, {}).setdefault(_LISTS.get(output.kind, "files"), [])
            entries.append(show_file(output.file))
        elif output.text is not None:
            found.setdefault(output.node_id, {}).setdefault("text", []).append(output.text)
    return found


def show_file(file: FileRef) -> dict[str, str]:
    """A file, as it is asked for."""
    return {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}


def item(number: int, prompt_id: str, client_id: str, workflow: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
    """A prompt in the queue, or in its history entry."""
    return [number, prompt_id, workflow, {"client_id": client_id}, list(outputs)]


def record(item: list[Any], fault: Fault | None, outputs: Sequence[Output], now: int) -> dict[str, Any]:
    """A history entry; `now` is when the prompt ended."""
    prompt_id = item[1]
    messages = [*_begin(Tale(prompt_id), now)[1], _end(prompt_id, fault, now)]
    told = [[message["type"], message["data"]] for message in messages if not isinstance(message, bytes)]
    status = {"status_str": "success" if fault is None else "error", "completed": fault is None, "messages": told}
    nodes = {output.node_id: output.node_id for output in outputs}
    meta = {node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node} for node in nodes}
    return {"prompt": item, "outputs": arrange(outputs), "status": status, "meta": meta}


def explain(fault: Fault) -> tuple[int, dict[str, Any]]:
    """Status and document of a fault, as `POST /prompt` refuses."""
    node_errors = fault.extensions.get("node_errors", {})
    kind = fault.code
    if isinstance(fault, InvalidWorkflow):
        kind = "prompt_outputs_failed_validation" if node_errors else "invalid_prompt"
    status = 400 if isinstance(fault, InvalidWorkflow | InvalidInput | InvalidRequest) else fault.status
    error = {"type": kind, "message": fault.detail, "details": "", "extra_info": {}}
    shown = {
        node_id: {
            "errors": [_show_error(error) for error in entry["errors"]],
            "dependent_outputs": [],
            "class_type": entry["class_type"],
        }
        for node_id, entry in node_errors.items()
    }
    return status, {"error": error, "node_errors": shown, "code": fault.code}


def _show_error(error: Mapping[str, str]) -> dict[str, Any]:
    about = {"input_name": error["input_name"]} if "input_name" in error else {}
    return {"type": error["type"], "message": error["message"], "details": error["details"], "extra_info": about}
