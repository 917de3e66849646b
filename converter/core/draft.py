"""Drafts: a first declaration for a workflow, guessed from its nodes.

For: whoever turns a workflow into a template, and then looks the draft through. Guesses from the names of inputs, the
links between nodes, titles that people gave, and what is known of the engine. Invariant: a draft is a declaration that
`template_toml.parse` takes; what can't be guessed is listed in a comment.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.core.catalog import Catalog, Port
from converter.core.media import LOADERS
from converter.core.template import MEDIA, Place, is_whole
from converter.core.template_toml import TemplateError, parse
from converter.core.workflow import Graph, clip, is_link, unwrap

Table = dict[str, Any]

_NUMBERS: Mapping[str, tuple[str, str, Table]] = {
    "steps": ("steps", "Steps of the sampler: more take longer.", {"minimum": 1}),
    "cfg": ("cfg", "How closely the result follows the prompt.", {"minimum": 0.0}),
    "guidance": ("guidance", "How closely the result follows the prompt.", {"minimum": 0.0}),
    "denoise": ("denoise", "How much of what is given is replaced: 0 keeps it, 1 ignores it.", {"maximum": 1.0}),
    "width": ("width", "Width in pixels.", {"minimum": 16}),
    "height": ("height", "Height in pixels.", {"minimum": 16}),
    "batch_size": ("batch_size", "How many are made at once.", {"minimum": 1}),
    "length": ("length", "Frames.", {"minimum": 1}),
    "fps": ("fps", "Frames a second.", {"minimum": 1}),
}
"""By a node's input: what it is called, what it means, and limits where the engine tells none."""

_MODELS: Mapping[str, tuple[str, str]] = {
    "ckpt_name": ("model", "checkpoints"),
    "unet_name": ("model", "diffusion_models"),
    "vae_name": ("vae", "vae"),
    "clip_name": ("text_encoder", "text_encoders"),
    "clip_name1": ("text_encoder_1", "text_encoders"),
    "clip_name2": ("text_encoder_2", "text_encoders"),
    "clip_name3": ("text_encoder_3", "text_encoders"),
    "lora_name": ("lora", "loras"),
    "control_net_name": ("control_net", "controlnet"),
}
"""By a node's input: what it is called, and the engine's folder of models."""

_LISTED: Mapping[str, str] = {
    "sampler_name": "The method that removes the noise.",
    "scheduler": "How the noise falls from step to step.",
}
_SEEDS = ("seed", "noise_seed")
_TEXTS = ("text", "prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl")
_VALUES = ("value", "int", "float", "string", "boolean", "number")
"""What nodes that only hold a value call it."""


@dataclass(frozen=True, slots=True)
class _Guess:
    """`name` may be taken by another one; `table` has no place yet."""

    name: str
    place: Place
    table: Table


def draft(graph: Graph, catalog: Catalog, title: str) -> str:
    """The text of a declaration in TOML for a checked workflow; `catalog` may be empty."""
    tables: dict[str, Table] = {}
    places: dict[str, list[Place]] = {}
    left: list[str] = []
    negatives = _find_negatives(graph)
    for node_id, node in graph.items():
        for key, value in node["inputs"].items():
            if is_link(value) or key == "filename_prefix":
                continue
            guess = _guess(graph, catalog, (node_id, key), negatives)
            name = guess and _place(guess, tables, places, graph)
            if not name:
                left.append(f"{node_id}.{key}")
    return "\n".join(_write(title, tables, _name_outputs(graph, catalog), left))


def _place(guess: _Guess, tables: dict[str, Table], places: dict[str, list[Place]], graph: Graph) -> str | None:
    """Put a guess among the tables, if it is one that a template can have; the name that it got."""
    shared = guess.table["type"] == "seed" and "seed" in tables
    name = "seed" if shared else _free(guess.name, tables)
    found = [*places.get(name, []), guess.place]
    targets = [".".join(place) for place in found]
    table = {"type": guess.table["type"], "node": targets if shared else targets[0], **guess.table}
    try:
        text = "\n".join(_write_table("inputs", name, table))
        text.encode()
        template = parse("draft", graph, tomllib.loads(text))
    except (TemplateError, ValueError):
        return None
    if template.inputs[0].places != tuple(found):
        return None
    tables[name], places[name] = table, found
    return name


# Guessing ----------------------------------------------------------------------------------------------------------


def _guess(graph: Graph, catalog: Catalog, place: Place, negatives: frozenset[str]) -> _Guess | None:
    """What an input could be to callers; None where it had better stay as it is."""
    node_id, key = place
    node = graph[node_id]
    value, port, title = unwrap(node["inputs"][key]), catalog.port(graph, place), _find_title(node, catalog)
    loads = port.media if port is not None and port.media else _guess_media(node["class_type"], key)
    if loads:
        return _Guess(title or loads, place, {"type": loads, "description": f"The {loads} that goes in."})
    if key in _SEEDS:
        about = "The same seed and inputs give the same result; drawn if left out."
        return _Guess("seed", place, {"type": "seed", "description": about})
    if key in _MODELS:
        name, folder = _MODELS[key]
        about = f"One of the engine's models, from {folder}."
        return _Guess(name, place, _choice(f"models/{folder}", value, about))
    if key in _LISTED:
        return _Guess(key.removesuffix("_name"), place, _choice("engine", value, _LISTED[key]))
    if key in _TEXTS and isinstance(value, str):
        return _Guess(*_guess_text(node_id, value, title, negatives, place))
    if key in _NUMBERS:
        name, about, limits = _NUMBERS[key]
        return _Guess(name, place, _number(value, port, limits) | {"description": about})
    if not title or (key not in _VALUES and not _is_titled_by_hand(node, catalog)):
        return None
    only = sum(not is_link(other) for other in node["inputs"].values()) == 1
    return _Guess(title if only else f"{title}_{_slug(key)}", place, _by_value(value, port))


def _guess_media(class_type: str, key: str) -> str:
    """What a well-known loader loads, "" where it is none."""
    if (class_type, key) not in LOADERS:
        return ""
    return next((kind for kind in MEDIA if kind in class_type.lower()), "image")


def _guess_text(
    node_id: str, value: str, title: str, negatives: frozenset[str], place: Place
) -> tuple[str, Place, Table]:
    if node_id in negatives or "negative" in title:
        return "negative", place, {"type": "string", "default": value, "description": "What should not be there."}
    return "prompt", place, {"type": "string", "description": "What should be there."}


def _choice(source: str, value: object, about: str) -> Table:
    return {"type": "choice", "choices": source, "default": value, "description": about}


def _number(value: object, port: Port | None, limits: Table) -> Table:
    kind = "integer" if isinstance(value, int) and (port is None or port.type == "INT") else "number"
    told = {"minimum": port.minimum, "maximum": port.maximum} if port is not None else {}
    known = {key: limit for key, limit in told.items() if limit is not None}
    table = {"type": kind, "default": value, **limits, **known}
    if kind == "integer" and port is not None and _counts_by(port.step, table):
        table["step"] = port.step
    return table


def _counts_by(step: float | None, table: Table) -> bool:
    """Whether value and minimum are multiples of the engine's step; others count from elsewhere, such as 4 n + 1."""
    if step is None or not is_whole(step) or step <= 1:
        return False
    return not any(table[key] % step for key in ("default", "minimum") if key in table)


def _by_value(value: object, port: Port | None) -> Table:
    """A table for an input of which only the value, and perhaps the port, is known."""
    if port is not None and port.choices is not None:
        return _choice("engine", value, "")
    if isinstance(value, bool):
        return {"type": "boolean", "default": value}
    if isinstance(value, int | float):
        return _number(value, port, {})
    return {"type": "string", "default": value}


def _find_negatives(graph: Graph) -> frozenset[str]:
    """Nodes from which only the `negative` of other nodes comes."""
    ends: dict[str, set[str]] = {"positive": set(), "negative": set()}
    for node in graph.values():
        for key, reached in ends.items():
            link = node["inputs"].get(key)
            if is_link(link):
                reached |= _climb(graph, link[0])
    return frozenset(ends["negative"] - ends["positive"])


def _climb(graph: Graph, node_id: str) -> set[str]:
    """A node and all that it depends on."""
    seen: set[str] = set()
    waiting = [node_id]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += [value[0] for value in graph[current]["inputs"].values() if is_link(value)]
    return seen


# Names -------------------------------------------------------------------------------------------------------------


def _slug(text: str) -> str:
    """A name for an input or output, "" if the text has none."""
    words = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return re.sub(r"^[0-9_]+", "", words)[:40].rstrip("_")


def _find_title(node: Mapping[str, Any], catalog: Catalog) -> str:
    """A node's title as a name, "" where it has only that of its class."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    kind = catalog.kinds.get(node["class_type"])
    given = isinstance(title, str) and title not in (node["class_type"], kind.title if kind else None)
    name = _slug(str(title)) if given else ""
    return "" if name in ("", "load_image", "load_video", "load_audio") else name


def _is_titled_by_hand(node: Mapping[str, Any], catalog: Catalog) -> bool:
    """Whether it is known that somebody gave the title."""
    return catalog.kinds.get(node["class_type"]) is not None and _find_title(node, catalog) != ""


def _free(name: str, taken: Iterable[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _name_outputs(graph: Graph, catalog: Catalog) -> dict[str, Table]:
    """Names for the nodes that save something, where there are several."""
    found: dict[str, Table] = {}
    for node_id, node in graph.items():
        kind = catalog.kinds.get(node["class_type"])
        saves = node["class_type"].startswith("Save") if kind is None else kind.is_output
        if saves and not node["class_type"].startswith("Preview") and node_id.isprintable():
            name = _free(_find_title(node, catalog) or _slug(node["class_type"]) or "output", [*found, *graph])
            found[name] = {"node": node_id}
    return found if len(found) > 1 else {}


# Writing -----------------------------------------------------------------------------------------------------------


def _write(title: str, inputs: Mapping[str, Table], outputs: Mapping[str, Table], left: list[str]) -> Iterator[str]:
    yield "# A draft. Look through names, limits and descriptions, and remove what callers need not change."
    if left:
        listed = ", ".join(clip(place, 60) for place in left)
        yield f"# Inputs of nodes that stay as they are in the workflow: {clip(listed)}"
    yield f"title = {_toml(clip(title, 100))}"
    yield 'description = ""'
    for kind, tables in (("inputs", inputs), ("outputs", outputs)):
        # What callers have to give comes first.
        for name, table in sorted(tables.items(), key=lambda each: not _is_required(each[1])):
            yield ""
            yield from _write_table(kind, name, table)
    yield ""


def _is_required(table: Table) -> bool:
    return table.get("type") != "seed" and "default" not in table


def _write_table(kind: str, name: str, table: Table) -> Iterator[str]:
    yield f"[{kind}.{name}]"
    yield from (f"{key} = {_toml(value)}" for key, value in table.items() if value != "" or key == "default")


def _toml(value: Any) -> str:
    """A value in TOML; JSON is the same for all that a declaration may have, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
