"""A workflow in ComfyUI's API format: checked before it is submitted, and rewritten without touching the original.

For: refusing what an engine would accept and then die of, and the few changes that a graph needs on its way there.
Leaves the engine's own answers to `refusals`, media among the inputs to `media`, and what classes exist to the engine.

Invariant: nothing here changes its argument. What a function returns shares with it all that is unchanged, so neither
may be changed by others.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeGuard

from converter.errors import InvalidWorkflow

Graph = Mapping[str, Mapping[str, Any]]
"""Node id to node, after `check`: each node has `class_type` text and an `inputs` object."""

NodeErrors = dict[str, dict[str, Any]]
"""`{node_id: {"class_type": str | None, "errors": [{"type", "message", "details", "input_name"?}, ...]}}`."""

MAX_DEPTH = 64
"""Levels of nesting in a workflow: far above any real one, far below where a JSON parser gives up."""

MAX_LISTED = 100
"""Nodes that one fault names."""

MAX_SUMMED = 3
"""Errors that its sentence names."""

MAX_ECHO = 200
"""Characters of a caller's own word (an id, a class) that are given back."""

MAX_MESSAGE = 1000
"""Characters of an engine's message that are passed on."""

UI_EXPORT = (
    "This is the file that the editor saves for itself (it has `nodes` and `links` lists). The engine runs the API "
    "format: in ComfyUI choose Workflow > Export (API) and send that file."
)

SENDER = "SaveImageWebsocket"
"""The class of ComfyUI's node that sends its pictures over the websocket and stores nothing."""

_ANSWERS: Mapping[str, Literal["lasting", "temporary"]] = {
    "SaveImage": "lasting",
    "SaveAnimatedPNG": "lasting",
    "SaveAnimatedWEBP": "lasting",
    "SaveLatent": "lasting",
    "SaveAudio": "lasting",
    "SaveAudioMP3": "lasting",
    "SaveAudioOpus": "lasting",
    "SaveVideo": "lasting",
    "SaveWEBM": "lasting",
    "SaveGLB": "lasting",
    "PreviewAny": "lasting",
    SENDER: "lasting",
    "PreviewImage": "temporary",
    "PreviewAudio": "temporary",
    "MaskPreview": "temporary",
}
"""Output nodes of ComfyUI's core that are known to answer with files or text. Others may answer with nothing."""


# Checks ------------------------------------------------------------------------------------------------------------


def check(graph: object) -> Graph:
    """The same graph, known to be one that an engine survives.

    Raises InvalidWorkflow, which names everything that is wrong, node by node.

    `graph` is a parsed JSON value. ComfyUI 0.3.64 accepts some of this with 200 and loses its only worker to it: a node
    without inputs, and a link to a missing node (or one wrapped in `__value__`) where validation does not look.
    """
    if not isinstance(graph, dict) or not graph:
        raise InvalidWorkflow("The workflow is not an object that holds nodes.", node_errors={})
    if isinstance(graph.get("nodes"), list) and isinstance(graph.get("links"), list):
        raise InvalidWorkflow(UI_EXPORT, node_errors={})
    if is_deep(graph):
        raise InvalidWorkflow(f"The workflow is nested more than {MAX_DEPTH} levels deep.", node_errors={})
    found = {}
    for node_id, node in graph.items():
        errors = list(_find_errors(graph, node_id, node))
        if errors:
            class_type = node.get("class_type") if isinstance(node, dict) else None
            found[node_id] = {"class_type": class_type if isinstance(class_type, str) else None, "errors": errors}
    if found:
        raise refuse("The workflow can't be run", found)
    return graph


def is_deep(value: object) -> bool:
    """Whether a JSON value is nested more than MAX_DEPTH levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


def _find_errors(graph: Mapping[str, object], node_id: object, node: object) -> Iterator[dict[str, str]]:
    if not isinstance(node_id, str):
        yield explain("invalid_node_id", "A node id is not text")
    if not isinstance(node, dict):
        yield explain("invalid_node", "The node is not an object")
        return
    if "class_type" not in node:
        yield explain("missing_class_type", "The node has no class_type")
    elif not isinstance(node["class_type"], str):
        yield explain("invalid_class_type", "The node's class_type is not text")
    if "inputs" not in node:
        yield explain("missing_inputs", "The node has no inputs object, which may be empty but must be there")
    elif not isinstance(node["inputs"], dict):
        yield explain("invalid_inputs", "The node's inputs are not an object")
    else:
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] not in graph:
                missing = f"{name}: {value[0]!r}"
                yield explain("missing_linked_node", "The input is linked to a node that does not exist", missing, name)
            elif value is not unwrap(value) and is_link(unwrap(value)):
                yield explain("wrapped_link", "The input's __value__ would become a link", name, name)


def is_link(value: object) -> TypeGuard[list[Any]]:
    """Whether the engine takes an input's value for a link when it runs: a list of a node id and a slot number."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def unwrap(value: object) -> object:
    """What the engine makes of an input's value: `{"__value__": v}` is v."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def wanted_outputs(
    graph: Graph, nodes: Collection[str] | None, output_classes: frozenset[str] | None
) -> tuple[str, ...] | None:
    """The ids of the output nodes that will answer, as in the workflow; None when the graph does not show it.

    nodes: the ids that the caller asked for, None for all. output_classes: the classes that the engine calls output
    nodes, None when that is not known. It is shown if the caller named them, or if all output nodes are of classes
    known to answer; nodes that write temporary files count only when there are no others. Raises InvalidWorkflow when
    one of `nodes` does not exist or is known to be no output node.
    """
    if nodes is not None:
        _check_named(graph, nodes, output_classes)
        return tuple(node_id for node_id in graph if node_id in nodes)
    if output_classes is None:
        return None
    outputs = {node_id: node["class_type"] for node_id, node in graph.items() if node["class_type"] in output_classes}
    if not all(class_type in _ANSWERS for class_type in outputs.values()):
        return None
    lasting = [node_id for node_id, class_type in outputs.items() if _ANSWERS[class_type] == "lasting"]
    return tuple(lasting or outputs)


def _check_named(graph: Graph, nodes: Collection[str], output_classes: frozenset[str] | None) -> None:
    found: NodeErrors = {}
    for node_id in nodes:
        if node_id not in graph:
            error = explain("unknown_node", "The workflow has no node of this id, which is asked for as an output")
            found[node_id] = {"class_type": None, "errors": [error]}
        elif output_classes is not None and graph[node_id]["class_type"] not in output_classes:
            error = explain("not_an_output", "The node is asked for as an output and is no output node")
            found[node_id] = {"class_type": graph[node_id]["class_type"], "errors": [error]}
    if found:
        raise refuse("The outputs asked for can't be had", found)


# Changes -----------------------------------------------------------------------------------------------------------


def prepare(graph: Graph, tag: str) -> Graph:
    """The graph as it is submitted; `tag` is a folder name that no other submission uses.

    A stale `is_changed` goes: ComfyUI writes it into the workflow of its PNGs, and takes it for its own answer when it
    comes back. A save prefix whose file name has `%batch_num%` gets the folder `tag`: ComfyUI counts such files from 1
    at each run and would overwrite those of others. A prefix that another node computes is not seen.
    """
    return _rewrite(graph, tag, lambda prefix: "%batch_num%" in posixpath.basename(posixpath.normpath(prefix)))


def freshen(graph: Graph, tag: str) -> Graph:
    """The graph with every save prefix in the folder `tag`, so that no cache answers for its saving nodes."""
    return _rewrite(graph, tag, lambda _: True)


def _rewrite(graph: Graph, tag: str, moves: Callable[[str], bool]) -> Graph:
    changed = dict(graph)
    for node_id, node in graph.items():
        if "is_changed" in node:
            changed[node_id] = {key: value for key, value in node.items() if key != "is_changed"}
    prefixes = ((node_id, unwrap(node["inputs"].get("filename_prefix"))) for node_id, node in graph.items())
    moved = {
        (node_id, "filename_prefix"): _move(prefix, tag)
        for node_id, prefix in prefixes
        if isinstance(prefix, str) and moves(prefix)
    }
    return replace_inputs(changed, moved)


def _move(prefix: str, tag: str) -> str:
    folder, name = posixpath.split(posixpath.normpath(prefix))
    return posixpath.join(folder, tag, name)


def replace_inputs(graph: Graph, values: Mapping[tuple[str, str], object]) -> Graph:
    """The graph with other values at some `(node id, input name)`; the nodes must exist, the inputs need not."""
    changed = dict(graph)
    for (node_id, name), value in values.items():
        node = changed[node_id]
        changed[node_id] = {**node, "inputs": {**node["inputs"], name: value}}
    return changed


def fingerprint(graph: Graph) -> str:
    """SHA-256, in hex, of the whole graph, seeds included; the order of keys makes no difference."""
    return hashlib.sha256(json.dumps(graph, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# What callers are told ---------------------------------------------------------------------------------------------


def explain(kind: str, message: str, details: str = "", input_name: str | None = None) -> dict[str, str]:
    """One entry of a node's `errors`, within bounds."""
    error = {"type": clip(kind, MAX_ECHO), "message": clip(message), "details": clip(details)}
    return error if input_name is None else {**error, "input_name": clip(input_name, MAX_ECHO)}


def refuse(opening: str, node_errors: NodeErrors) -> InvalidWorkflow:
    """The fault that carries `node_errors` (the first nodes of very many), summed up in a sentence after `opening`."""
    listed = list(node_errors.items())[:MAX_LISTED]
    sentences = [_describe(node_id, entry, error) for node_id, entry in listed for error in entry["errors"]]
    reasons = "; ".join(sentences[:MAX_SUMMED] + ["and more"] * (len(sentences) > MAX_SUMMED))
    bounded = {
        clip(str(node_id), MAX_ECHO): entry
        | {"class_type": entry["class_type"] and clip(entry["class_type"], MAX_ECHO)}
        for node_id, entry in listed
    }
    stop = "" if reasons.endswith("?") else "."
    return InvalidWorkflow(f"{opening}: {reasons or 'no reason was given'}{stop}", node_errors=bounded)


def _describe(node_id: object, entry: Mapping[str, Any], error: Mapping[str, str]) -> str:
    of_class = f" ({clip(entry['class_type'], MAX_ECHO)})" if entry["class_type"] else ""
    details = f" ({error['details']})" if error["details"] else ""
    return f"node {clip(str(node_id), MAX_ECHO)}{of_class}: {error['message'].rstrip('.')}{details}"


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """One line of at most `limit` printable characters: what does not print becomes space, runs of space one."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


_FOLDER = r"[^\s/\\'\"<>|:;]+"
_FILE = r"[^\s/\\'\"<>|:;,()\[\]{}]+"
_PATH = re.compile(
    rf"""
    (?P<url>\b(?i:https?|wss?|s3|gs|az)://\S*)                               # stays as it is
    | (?P<quote>['"])(?:(?i:file):/+|~?/|[A-Za-z]:[\\/]|\\\\)[^'"]+(?P=quote)  # in quotes a path may hold anything
    | (?:\b(?i:file):/+ | (?<![\w./~])~?/+(?={_FILE}) | (?<!\w)[A-Za-z]:[\\/]+ | (?<![\w\\])\\\\(?={_FILE}))
      (?:{_FOLDER}(?:\ {_FOLDER}){{0,3}}[\\/]+)*(?:{_FILE})?                # folders may have spaces in their names
    """,
    re.VERBOSE,
)


def scrub(text: str) -> str:
    """A message of the engine, fit for callers: one line within MAX_MESSAGE, without the server's folders.

    Of an absolute path (POSIX, Windows, UNC or `file:`) only the file's name stays, and only if it has a suffix;
    ComfyUI's exception texts name such paths freely. URLs and relative paths stay.
    """
    return clip(_PATH.sub(_name_file, clip(text)))


def _name_file(match: re.Match[str]) -> str:
    if match["url"]:
        return match["url"]
    quote = match["quote"] or ""
    parts = re.split(r"[\\/]+", match[0].strip(quote or " "))
    suffixed = re.fullmatch(r"\w[^/\\]*\.\w{1,12}", parts[-1])
    return f"{quote}{parts[-1] if suffixed else '…'}{quote}"
