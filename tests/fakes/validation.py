"""Judges a posted prompt as ComfyUI 0.3.64 does, message for message, its oddities included.

`judge` returns the outputs to run and the node errors, or raises `Refused` with the 400 body. What makes ComfyUI
answer 500 raises the same kind of exception here (TypeError, KeyError, AttributeError). Values are converted in
place, as there.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.fakes.catalog import CLASSES
from tests.fakes.declarations import InputConfig
from tests.fakes.folders import Folders

Prompt = dict[str, Any]


class Refused(Exception):
    """`body` is the JSON of the 400."""

    def __init__(self, kind: str, message: str, details: str = "", node_errors: Any = None, **extra_info: Any) -> None:
        super().__init__(kind)
        error = {"type": kind, "message": message, "details": details, "extra_info": extra_info}
        self.body: dict[str, Any] = {"error": error, "node_errors": node_errors or {}}


def judge(
    prompt: Prompt, targets: list[str] | None, folders: Folders, *, recent: bool
) -> tuple[list[str], dict[str, Any]]:
    """The output nodes that will run, and the errors of those that will not; `recent` speaks as the versions of 2026
    do.
    """
    outputs = [
        node for node in prompt if is_output(node, prompt, recent=recent) and (targets is None or node in targets)
    ]
    outputs.reverse()  # ComfyUI's order is that of a set; this one agrees with the recordings
    if not outputs:
        raise Refused("prompt_no_outputs", "Prompt has no outputs")
    inspection = Inspection(prompt, folders)
    good: list[str] = []
    lines: list[str] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        if inspection.accepts(output, ()):
            good.append(output)
            continue
        lines += [f"{reason['message']}: {reason['details']}" for reason in inspection.reasons[output]]
        for node, reasons in inspection.reasons.items():
            if reasons:
                entry = {"errors": reasons, "dependent_outputs": [], "class_type": prompt[node]["class_type"]}
                node_errors.setdefault(node, entry)["dependent_outputs"].append(output)
    if not good:
        details = "\n".join(lines)
        raise Refused("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, node_errors)
    return good, node_errors


def is_output(node: str, prompt: Prompt, *, recent: bool) -> bool:
    """Whether the node is an output; raises Refused for a class that is missing or unknown, used or not."""
    name = prompt[node].get("class_type") if "class_type" not in prompt[node] else prompt[node]["class_type"]
    details = f"Node ID '#{node}'"
    if name in CLASSES:
        return CLASSES[name].output
    if recent:
        message = f"Node '{name}' not found. The custom node may not be installed."
        raise Refused("missing_node_type", message, details, node_id=node, class_type=name, node_title=name)
    if "class_type" not in prompt[node]:
        raise Refused("invalid_prompt", "Cannot execute because a node is missing the class_type property.", details)
    raise Refused("invalid_prompt", f"Cannot execute because node {name} does not exist.", details)


@dataclass
class Inspection:
    """The walk over the ancestors of outputs; `reasons` holds what was found for each node seen, valid ones too."""

    prompt: Prompt
    folders: Folders
    reasons: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    valid: dict[str, bool] = field(default_factory=dict)

    def accepts(self, node: str, path: tuple[str, ...]) -> bool:
        """Whether the node and all its ancestors are valid; `path` leads here, to find cycles."""
        if node in path:
            return False  # ComfyUI runs into its recursion limit here and swallows that error
        if node not in self.valid:
            found: list[dict[str, Any]] = []
            try:
                self.valid[node] = self._inspect(node, path, found) and not found
            except (KeyError, IndexError) as error:
                found[:] = [raised(error, inner=bool(path))]
                self.valid[node] = False
            self.reasons[node] = found
        return self.valid[node]

    def _inspect(self, node: str, path: tuple[str, ...], found: list[dict[str, Any]]) -> bool:
        declared = CLASSES[self.prompt[node]["class_type"]]
        inputs = self.prompt[node]["inputs"]
        valid = True
        for name, config in {**declared.required, **declared.optional}.items():
            if name not in inputs:
                if name in declared.required:
                    found.append(reason("required_input_missing", "Required input is missing", name, name))
            elif isinstance(inputs[name], list):
                valid &= self._inspect_link(name, config, inputs[name], (*path, node), found)
            else:
                self._inspect_value(name, config, inputs, found, limits=name not in declared.checks)
        if not found and declared.reject:
            for name, message in declared.reject(inputs, self.folders).items():
                details = f"{name} - {message}"
                found.append(reason("custom_validation_failed", "Custom validation failed for node", details, name))
        return valid

    def _inspect_link(
        self, name: str, config: InputConfig, link: list[Any], path: tuple[str, ...], found: list[dict[str, Any]]
    ) -> bool:
        shown = {"input_config": list(config)}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            found.append(reason("bad_linked_input", message, name, name, **shown, received_value=link))
            return True
        source, slot = link
        received = CLASSES[self.prompt[source]["class_type"]].returns[slot]
        if received != config[0] and "*" not in (received, config[0]):
            details = f"{name}, received_type({received}) mismatch input_type({config[0]})"
            message = "Return type mismatch between linked nodes"
            extra = {**shown, "received_type": received, "linked_node": link}
            found.append(reason("return_type_mismatch", message, details, name, **extra))
            return True
        return self.accepts(source, path)

    def _inspect_value(
        self, name: str, config: InputConfig, inputs: dict[str, Any], found: list[dict[str, Any]], *, limits: bool
    ) -> None:
        kind, options = config
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        shown = {"input_config": list(config), "received_value": value}
        if isinstance(kind, str) and kind in CONVERSIONS:
            try:
                value = inputs[name] = CONVERSIONS[kind](value)
            except (ValueError, TypeError) as error:
                message, details = f"Failed to convert an input value to a {kind} value", f"{name}, {value}, {error}"
                found.append(
                    reason("invalid_input_type", message, details, name, **shown, exception_message=str(error))
                )
                return
        shown["received_value"] = value
        if limits and "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            found.append(reason("value_smaller_than_min", message, name, name, **shown))
        elif limits and "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            found.append(reason("value_bigger_than_max", message, name, name, **shown))
        elif limits and isinstance(kind, list) and value not in kind:
            long = len(kind) > 20
            listed = f"(list of length {len(kind)})" if long else str(kind)
            shown["input_config"] = None if long else list(config)
            found.append(
                reason("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", name, **shown)
            )


CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def reason(kind: str, message: str, details: str, input_name: str, **extra: Any) -> dict[str, Any]:
    extra_info = {"input_name": input_name, **extra}
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def raised(error: Exception, *, inner: bool) -> dict[str, Any]:
    """What stands for an exception in validation; `inner` in a node upstream of the output."""
    kind, message = ("inner_validation", "inner node") if inner else ("validation", "node")
    return {
        "type": f"exception_during_{kind}",
        "message": f"Exception when validating {message}",
        "details": str(error),
        "extra_info": {
            "exception_type": type(error).__name__,
            "traceback": ['  File "/comfyui/execution.py", line 1\n'],
        },
    }
