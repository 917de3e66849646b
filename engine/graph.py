"""Validation of a graph: whether it can run, and in which words it is refused.

For: turning an untrusted graph into a `Valid` one, with the answers of ComfyUI 0.3.64 (error types, messages, details,
extra_info). Leaves the rest of the body to `submission`, queueing and running to others.
Where that version accepts a graph and then loses its only worker, this one refuses: a node without an `inputs` object,
a link to a missing node, a `__value__` that unwraps to a link.
Invariant: pure but for the choices and checks of node declarations; no recursion, so that the depth of a graph cannot
matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.nodes.spec import Folders, Input, Node
from engine.submission import MAX_DEPTH, is_deep, read_number, refuse

_LONG_LIST = 20  # choices that are listed in a complaint

Error = dict[str, Any]
Graph = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Valid:
    """A graph that can run: `graph` as converted, the outputs that passed, and what is wrong with the others."""

    graph: Graph
    targets: tuple[str, ...]
    node_errors: dict[str, Error]


def is_link(value: object) -> bool:
    """Whether a value is a link at run time: [node id, slot]."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def validate(
    graph: object, registry: Mapping[str, Node], folders: Folders, targets: frozenset[str] | None = None
) -> Valid:
    """Check and convert a graph. Raises RefusedError when no output passes, or when running it could not go well.

    `targets` narrows the outputs that are wanted. The graph given is left as it is.
    """
    nodes = _read_nodes(graph, registry)
    outputs = [
        node_id
        for node_id, node in nodes.items()
        if registry[node["class_type"]].output_node and (targets is None or node_id in targets)
    ]
    if not outputs:
        raise refuse("prompt_no_outputs", "Prompt has no outputs")
    check = _Check(nodes, registry, folders)
    for output in outputs:
        check.examine(output)
    good = tuple(output for output in outputs if check.verdicts[output].valid)
    node_errors = check.collect_errors(outputs)
    if not good:
        details = "\n".join(
            f"{error['message']}: {error['details']}" for output in outputs for error in check.verdicts[output].reasons
        )
        message = "Prompt outputs failed validation"
        raise refuse("prompt_outputs_failed_validation", message, details, node_errors)
    for node_id, node in nodes.items():
        if not isinstance(node.get("inputs"), dict):
            message = "Cannot execute because a node has no inputs object."
            raise refuse("invalid_prompt", message, f"Node ID '#{node_id}'", node_errors)
    return Valid(nodes, good, node_errors)


def _read_nodes(graph: object, registry: Mapping[str, Node]) -> Graph:
    """Every node by itself, used or not. A stale `is_changed`, as PNGs of ComfyUI hold it, is left out."""
    if not isinstance(graph, dict):
        raise refuse("invalid_prompt", "The prompt is not an object of nodes.")
    nodes: Graph = {}
    for node_id, node in graph.items():
        where = f"Node ID '#{node_id}'"
        if not isinstance(node, dict):
            raise refuse("invalid_prompt", "Cannot execute because a node is not an object.", where)
        if is_deep(node, MAX_DEPTH):
            raise refuse(
                "invalid_prompt", f"Cannot execute because a node is nested more than {MAX_DEPTH} deep.", where
            )
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            raise refuse("invalid_prompt", message, where)
        name = node["class_type"]
        if not isinstance(name, str) or name not in registry:
            raise refuse("invalid_prompt", f"Cannot execute because node {name} does not exist.", where)
        copied = {key: value for key, value in node.items() if key != "is_changed"}
        if isinstance(node.get("inputs"), dict):
            copied["inputs"] = dict(node["inputs"])
        nodes[node_id] = copied
    return nodes


class _BrokenError(Exception):
    """The node cannot be judged at all; `kind` is the exception that ComfyUI meets there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(slots=True)
class _Verdict:
    """What is known of a node: whether it can run, its own errors, and the outputs that fail because of them."""

    valid: bool = True
    reasons: list[Error] = field(default_factory=list)
    broken: _BrokenError | None = None


@dataclass(slots=True)
class _Check:
    """Judges nodes after their ancestors, each once."""

    nodes: Graph
    registry: Mapping[str, Node]
    folders: Folders
    verdicts: dict[str, _Verdict] = field(default_factory=dict)

    def examine(self, output: str) -> None:
        """Judge an output and all its ancestors."""
        path: dict[str, Iterator[str]] = {output: self._ancestors(output)}
        while path:
            node_id, upstream = next(reversed(path.items()))
            for parent in upstream:
                if parent in path:
                    self._blame_cycle([*path][[*path].index(parent) :])
                elif parent not in self.verdicts:
                    path[parent] = self._ancestors(parent)
                    break
            else:
                del path[node_id]
                self._judge(node_id)
        verdict = self.verdicts[output]
        if verdict.broken is not None:
            verdict.reasons.append(
                _describe_exception("exception_during_validation", "Exception when validating node", verdict.broken)
            )
            verdict.broken = None

    def collect_errors(self, outputs: Iterable[str]) -> dict[str, Error]:
        """`node_errors`: every faulty node, with the outputs that need it."""
        errors: dict[str, Error] = {}
        for output in outputs:
            if self.verdicts[output].valid:
                continue
            for node_id in self._reach(output):
                reasons = self.verdicts[node_id].reasons
                if reasons:
                    entry = {
                        "errors": reasons,
                        "dependent_outputs": [],
                        "class_type": self.nodes[node_id]["class_type"],
                    }
                    errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        return errors

    def _reach(self, output: str) -> list[str]:
        """The output and its ancestors, nearest first."""
        reached = {output: None}
        queue = [output]
        for node_id in queue:
            for parent in self._ancestors(node_id):
                # A constant may look like a link to a node that nothing leads to.
                if parent not in reached and parent in self.verdicts:
                    reached[parent] = None
                    queue.append(parent)
        return queue

    def _ancestors(self, node_id: str) -> Iterator[str]:
        """The nodes that exist and are linked to inputs that the class knows."""
        inputs = self.nodes[node_id].get("inputs")
        node = self._declaration(node_id)
        if isinstance(inputs, dict):
            for name, value in inputs.items():
                linked = isinstance(value, list) and len(value) == 2 and node.input(name) is not None
                if linked and isinstance(value[0], str) and value[0] in self.nodes:
                    yield value[0]

    def _declaration(self, node_id: str) -> Node:
        return self.registry[self.nodes[node_id]["class_type"]]

    def _blame_cycle(self, cycle: list[str]) -> None:
        verdict = self.verdicts.setdefault(cycle[-1], _Verdict())
        verdict.valid = False
        verdict.reasons.append(
            {
                "type": "dependency_cycle",
                "message": "Dependency cycle",
                "details": " -> ".join([*cycle, cycle[0]]),
                "extra_info": {"node_ids": cycle},
            }
        )

    def _judge(self, node_id: str) -> None:
        verdict = self.verdicts.setdefault(node_id, _Verdict())
        try:
            inputs = self.nodes[node_id].get("inputs")
            if not isinstance(inputs, dict):
                raise _BrokenError("KeyError", "'inputs'")
            node = self._declaration(node_id)
            for required, declared in ((True, node.required), (False, node.optional)):
                for name, spec in declared.items():
                    self._judge_input(verdict, inputs, name, spec, required)
            for name, value in inputs.items():
                # ComfyUI 0.3.64 follows these at run time, and loses its worker.
                if node.input(name) is None and is_link(value) and value[0] not in self.nodes:
                    raise _BrokenError("KeyError", repr(value[0]))
        except _BrokenError as error:
            verdict.broken = error
        verdict.valid = verdict.valid and not verdict.reasons and verdict.broken is None

    def _judge_input(self, verdict: _Verdict, inputs: dict[str, Any], name: str, spec: Input, required: bool) -> None:
        if name not in inputs:
            if required:
                error = _describe("required_input_missing", "Required input is missing", name, input_name=name)
                verdict.reasons.append(error)
        elif isinstance(inputs[name], list):
            self._judge_link(verdict, name, spec, inputs[name])
        else:
            verdict.reasons.extend(self._judge_value(inputs, name, spec))

    def _judge_link(self, verdict: _Verdict, name: str, spec: Input, link: list[Any]) -> None:
        config = self._config(spec)
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            extra = {"input_name": name, "input_config": config, "received_value": link}
            verdict.reasons.append(_describe("bad_linked_input", message, name, **extra))
            return
        source, slot = link
        received = self._output_type(source, slot)
        if not _types_match(received, spec.type):
            verdict.reasons.append(
                _describe(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({spec.type})",
                    input_name=name,
                    input_config=config,
                    received_type=received,
                    linked_node=link,
                )
            )
            return
        upstream = self.verdicts.setdefault(source, _Verdict(valid=False))
        verdict.valid = verdict.valid and upstream.valid
        if upstream.broken is not None:
            error = _describe_exception(
                "exception_during_inner_validation", "Exception when validating inner node", upstream.broken
            )
            error["extra_info"] |= {
                "input_name": name,
                "input_config": config,
                "exception_message": str(upstream.broken),
                "linked_node": link,
            }
            upstream.reasons.append(error)
            upstream.broken = None

    def _output_type(self, source: object, slot: object) -> str:
        """The type of a linked output. Raises _BrokenError with what Python says to such a look-up."""
        if isinstance(source, dict | list):
            raise _BrokenError("TypeError", f"unhashable type: '{type(source).__name__}'")
        if not isinstance(source, str) or source not in self.nodes:
            raise _BrokenError("KeyError", repr(source))
        if not isinstance(slot, int):
            raise _BrokenError("TypeError", f"tuple indices must be integers or slices, not {type(slot).__name__}")
        outputs = self._declaration(source).outputs
        if not 0 <= slot < len(outputs):
            raise _BrokenError("IndexError", "tuple index out of range")
        return outputs[slot].type

    def _judge_value(self, inputs: dict[str, Any], name: str, spec: Input) -> list[Error]:
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        try:
            value = _convert(value, spec)
        except (ValueError, TypeError, OverflowError) as error:
            extra = {
                "input_name": name,
                "input_config": self._config(spec),
                "received_value": value,
                "exception_message": str(error),
            }
            message = f"Failed to convert an input value to a {spec.type} value"
            return [_describe("invalid_input_type", message, f"{name}, {value}, {error}", **extra)]
        if is_link(value):
            message = "Bad linked input, __value__ must not hold a link"
            extra = {"input_name": name, "input_config": self._config(spec), "received_value": value}
            return [_describe("bad_linked_input", message, name, **extra)]
        inputs[name] = value
        if spec.check is not None:
            return self._judge_by_check(name, spec, value)
        return [*self._judge_range(name, spec, value), *self._judge_choice(name, spec, value)]

    def _judge_by_check(self, name: str, spec: Input, value: object) -> list[Error]:
        complaint = spec.check(self.folders, value) if spec.check is not None else None
        if complaint is None:
            return []
        details = f"{name} - {complaint}" if complaint else name
        message = "Custom validation failed for node"
        return [_describe("custom_validation_failed", message, details, input_name=name)]

    def _judge_range(self, name: str, spec: Input, value: Any) -> list[Error]:
        if spec.type not in ("INT", "FLOAT"):
            return []
        extra = {"input_name": name, "input_config": self._config(spec), "received_value": value}
        least, most = spec.options.get("min"), spec.options.get("max")
        errors = []
        if least is not None and value < least:
            message = f"Value {value} smaller than min of {least}"
            errors.append(_describe("value_smaller_than_min", message, name, **extra))
        if most is not None and value > most:
            message = f"Value {value} bigger than max of {most}"
            errors.append(_describe("value_bigger_than_max", message, name, **extra))
        return errors

    def _judge_choice(self, name: str, spec: Input, value: object) -> list[Error]:
        choices = spec.listed(self.folders)
        if choices is None or value in choices:
            return []
        long = len(choices) > _LONG_LIST
        listed = f"(list of length {len(choices)})" if long else str(choices)
        config = None if long else self._config(spec)
        details = f"{name}: '{value}' not in {listed}"
        extra = {"input_name": name, "input_config": config, "received_value": value}
        return [_describe("value_not_in_list", "Value not in list", details, **extra)]

    def _config(self, spec: Input) -> list[object]:
        return describe_input(spec, self.folders)


def describe_input(spec: Input, folders: Folders) -> list[object]:
    """[type or choices, options], as in /object_info and in complaints."""
    choices = spec.listed(folders)
    return [spec.type if choices is None else choices, dict(spec.options)]


def _convert(value: Any, spec: Input) -> Any:
    """The value as its widget type has it, by Python's own rules. Raises ValueError, TypeError, OverflowError."""
    if spec.choices is not None:
        return value
    match spec.type:
        case "INT":
            return int(value)
        case "FLOAT":
            return read_number(value)
        case "STRING":
            return str(value)
        case "BOOLEAN":
            return bool(value)
        case _:
            return value


def _types_match(received: str, wanted: str) -> bool:
    """Equal, anything on either side, or a common member of comma-separated sets."""
    given = {part.strip() for part in received.split(",")}
    taken = {part.strip() for part in wanted.split(",")}
    return "*" in given or "*" in taken or bool(given & taken)


def _describe(kind: str, message: str, details: str, **extra_info: Any) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _describe_exception(kind: str, message: str, error: _BrokenError) -> Error:
    return _describe(kind, message, str(error), exception_type=error.kind, traceback=[])
