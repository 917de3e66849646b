"""What a prompt left, as a list of outputs in an order that does not change from run to run.

For: reading the `outputs` of a history record, or the same collected from `executed` messages. Leaves fetching,
conversion and delivery to others.

Invariant: any JSON value makes a list. What can't be an output is passed over: values that are no lists, entries that
are neither text nor name a file, and names that lead out of the engine's folders. Whoever needs an output where none
is left has to say so.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from converter.core.events import Picture
from converter.core.workflow import SENDER, Graph

Kind = Literal["image", "video", "audio", "text", "file", "latent"]
Folder = Literal["output", "temp", "input"]

MAX_NAME = 255
"""Characters of a file's name (NAME_MAX)."""

MAX_FOLDER = 4096
"""Characters of a folder's path (PATH_MAX)."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file as `/view` is asked for it; `type` is the engine's folder."""

    filename: str
    subfolder: str
    type: Folder


@dataclass(frozen=True, slots=True)
class Output:
    """One thing that a node gave out: exactly one of `file`, `text` and `data` is there.

    node_id, class_type: the visible node; class_type is None where the workflow has no such node. name: the file's
    name, for a text one that no other text has. label: the name that the template has for the node.
    """

    node_id: str
    class_type: str | None
    name: str
    kind: Kind
    content_type: str
    file: FileRef | None = None
    text: str | None = None
    data: bytes | None = field(default=None, repr=False)
    label: str | None = None


_TYPES: Mapping[str, tuple[Kind, str]] = {
    ".png": ("image", "image/png"),
    ".apng": ("image", "image/apng"),
    ".jpg": ("image", "image/jpeg"),
    ".jpeg": ("image", "image/jpeg"),
    ".webp": ("image", "image/webp"),
    ".gif": ("image", "image/gif"),
    ".bmp": ("image", "image/bmp"),
    ".tif": ("image", "image/tiff"),
    ".tiff": ("image", "image/tiff"),
    ".avif": ("image", "image/avif"),
    ".heic": ("image", "image/heic"),
    ".jxl": ("image", "image/jxl"),
    ".exr": ("image", "image/x-exr"),
    ".svg": ("image", "image/svg+xml"),
    ".mp4": ("video", "video/mp4"),
    ".m4v": ("video", "video/mp4"),
    ".webm": ("video", "video/webm"),
    ".mkv": ("video", "video/x-matroska"),
    ".mov": ("video", "video/quicktime"),
    ".avi": ("video", "video/x-msvideo"),
    ".wav": ("audio", "audio/wav"),
    ".mp3": ("audio", "audio/mpeg"),
    ".flac": ("audio", "audio/flac"),
    ".ogg": ("audio", "audio/ogg"),
    ".opus": ("audio", "audio/ogg"),
    ".m4a": ("audio", "audio/mp4"),
    ".aac": ("audio", "audio/aac"),
    ".txt": ("text", "text/plain; charset=utf-8"),
    ".md": ("text", "text/markdown; charset=utf-8"),
    ".csv": ("text", "text/csv; charset=utf-8"),
    ".srt": ("text", "application/x-subrip"),
    ".json": ("text", "application/json"),
    ".glb": ("file", "model/gltf-binary"),
    ".gltf": ("file", "model/gltf+json"),
    ".obj": ("file", "model/obj"),
    ".stl": ("file", "model/stl"),
    ".zip": ("file", "application/zip"),
    ".pdf": ("file", "application/pdf"),
    ".latent": ("latent", "application/octet-stream"),
}
"""Kind and media type by a file's suffix: a table of our own, since the system's differ from machine to machine."""

_AUDIO_ALSO: Mapping[str, str] = {".mp4": "audio/mp4", ".webm": "audio/webm"}
"""Containers that hold audio only where ComfyUI lists them under `audio`."""

_FOLDERS: Mapping[str, Folder] = {"output": "output", "temp": "temp", "input": "input"}

_UNSAYABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that no URL could carry to a file's name."""

_HALF = re.compile(r"[\ud800-\udfff]")
"""Half a character, which JSON can say and UTF-8 can't."""

_KINDS: Mapping[str, Kind] = {
    "images": "image",
    "gifs": "video",
    "video": "video",
    "audio": "audio",
    "latents": "latent",
}
"""Kind by the key of the ui dict, where the suffix tells nothing; "gifs" is VideoHelperSuite's, for videos."""


def collect(
    graph: Graph,
    outputs: object,
    nodes: Collection[str] | None = None,
    pictures: Sequence[Picture] = (),
    labels: Mapping[str, str] | None = None,
) -> tuple[Output, ...]:
    """The outputs of a prompt, by node as in the workflow, then as the engine lists them.

    outputs: `{node id: {key: [entry, ...]}}`. An entry is a file (`filename`, `subfolder`, `type`) under any key, or
    text under "text"; markers such as "animated" are neither. nodes: only these nodes' outputs, None for all. A
    node that another put in at run time ("4.0.0.1") stands in the place of the one in the workflow ("4"). Files that
    do not last (ComfyUI's temp and input folders) are in it only if `nodes` names their node or if there is nothing
    else. pictures: what nodes have sent in place of storing it. labels: names of nodes.
    """
    places = {node_id: place for place, node_id in enumerate(graph)}
    sent = [_name(picture, number) for number, picture in enumerate(pictures, 1)]
    found = sorted([*_read(graph, outputs), *sent], key=lambda output: places.get(output.node_id, len(places)))
    if labels:
        found = [replace(output, label=labels.get(output.node_id)) for output in found]
    if nodes is not None:
        return tuple(output for output in found if output.node_id in nodes)
    return tuple([output for output in found if _lasts(output)] or found)


def _lasts(output: Output) -> bool:
    return output.file is None or output.file.type == "output"


def _name(picture: Picture, number: int) -> Output:
    name = f"picture_{number:05}.{picture.content_type.removeprefix('image/')}"
    return Output(picture.node_id or "", SENDER, name, "image", picture.content_type, data=picture.data)


def _read(graph: Graph, outputs: object) -> Iterator[Output]:
    if not isinstance(outputs, Mapping):
        return
    places = {node_id: place for place, node_id in enumerate(graph)}
    seen = sorted(
        (
            (places.get(visible, len(places)), _split(inner), visible, ui)
            for visible, inner, ui in _resolve(graph, outputs)
        ),
        key=lambda item: item[:3],
    )
    texts = 0
    for _, _, node_id, ui in seen:
        class_type = graph[node_id]["class_type"] if node_id in graph else None
        for key, entry in _list_entries(ui):
            if (file := _read_file(entry)) is not None:
                kind, content_type = _classify(file.filename, key)
                yield Output(node_id, class_type, file.filename, kind, content_type, file=file)
            elif key == "text" and isinstance(entry, str | int | float):
                texts += 1
                name, content_type = f"text_{texts:05}.txt", _TYPES[".txt"][1]
                text = _HALF.sub("\N{REPLACEMENT CHARACTER}", str(entry))
                yield Output(node_id, class_type, name, "text", content_type, text=text)


def _resolve(graph: Graph, outputs: Mapping[Any, object]) -> Iterator[tuple[str, str, object]]:
    """The visible node, the rest of the engine's id, and the ui of each: "4.0.0.1" is "4" and "0.0.1"."""
    for node_id, ui in outputs.items():
        cuts = [len(node_id), *(dot.start() for dot in reversed(list(re.finditer(r"\.", node_id))))]
        cut = next((cut for cut in cuts if node_id[:cut] in graph), len(node_id))
        yield node_id[:cut], node_id[cut + 1 :], ui


def _split(inner: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts "0.0.10" after "0.0.2"."""
    return tuple((len(part), part) for part in inner.split("."))


def _list_entries(ui: object) -> Iterator[tuple[str, object]]:
    if isinstance(ui, Mapping):
        for key, entries in ui.items():
            if isinstance(entries, list):
                yield from ((key, entry) for entry in entries)


def _read_file(entry: object) -> FileRef | None:
    """The file that an entry names, if it can; the further fields that custom nodes add are ignored."""
    if not isinstance(entry, Mapping):
        return None
    filename, subfolder, folder = entry.get("filename"), entry.get("subfolder") or "", entry.get("type") or "output"
    if not isinstance(filename, str) or not isinstance(subfolder, str) or not isinstance(folder, str):
        return None
    if not 0 < len(filename) <= MAX_NAME or len(subfolder) > MAX_FOLDER or _UNSAYABLE.search(filename + subfolder):
        return None
    if filename in (".", "..") or re.search(r"[/\\]", filename):
        return None
    # A subfolder may be written in Windows' way.
    if folder not in _FOLDERS or re.match(r"[/\\]|[A-Za-z]:", subfolder) or ".." in re.split(r"[/\\]", subfolder):
        return None
    return FileRef(filename, subfolder, _FOLDERS[folder])


def _classify(filename: str, key: str) -> tuple[Kind, str]:
    suffix = re.search(r"\.\w+$", filename)
    extension = suffix[0].lower() if suffix else ""
    if key == "audio" and extension in _AUDIO_ALSO:
        return "audio", _AUDIO_ALSO[extension]
    return _TYPES.get(extension) or (_KINDS.get(key, "file"), "application/octet-stream")


def name_entries(outputs: Sequence[Output]) -> list[str]:
    """A name for each output by which it is found among the others: its own, numbered where that is taken."""
    names: dict[str, None] = {}
    for output in outputs:
        stem, suffix = re.fullmatch(r"(.+?)(\.\w+)?", output.name, re.DOTALL).groups("")  # type: ignore[union-attr]
        numbered = (f"{stem}_{number}{suffix}" for number in itertools.count(2))
        names[next(name for name in itertools.chain([output.name], numbered) if name not in names)] = None
    return list(names)
