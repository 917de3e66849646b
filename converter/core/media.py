"""Media among a workflow's inputs: where they are, in which form they were given, and what their text decodes to.

For: finding what must be staged before submission. Leaves the bytes of request parts, and the staging, to others.

Invariant: only inputs that name media are ever looked into: those that ComfyUI or VideoHelperSuite upload for, those
that the engine declares as uploads, those that a template marks, and those whose value is exactly `{"part": NAME}`. A
prompt text that looks like a URL stays a text.
"""

import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from converter.core.signatures import SNIFFED, MediaType, sniff
from converter.core.workflow import MAX_ECHO, Graph, clip, is_link, unwrap
from converter.errors import InvalidInput

Kind = Literal["part", "data", "base64", "url", "object", "scheme", "path", "name", "excess"]

Place = tuple[str, str]
"""Class of a node and name of its input."""

LOADERS: frozenset[Place] = frozenset(
    {
        ("LoadImage", "image"),
        ("LoadImageMask", "image"),
        ("LoadImageOutput", "image"),
        ("LoadAudio", "audio"),
        ("LoadVideo", "file"),
        ("VHS_LoadVideo", "video"),
        ("VHS_LoadVideoFFmpeg", "video"),
        ("VHS_LoadAudioUpload", "audio"),
    }
)
"""Inputs that name a file of the engine's input folder, whether or not the engine says so."""

FOLDERS: frozenset[Place] = frozenset(
    {
        ("VHS_LoadImages", "directory"),
        ("LoadImageDataSetFromFolder", "folder"),
        ("LoadImageSetFromFolderNode", "folder"),
    }
)
"""Inputs that name a folder of pictures within the engine's input folder."""

MAX_LIST = 256
"""Pictures in the list of one input."""

MIN_BASE64 = 32
"""Characters from which a text without a suffix may be base64 rather than a file's name."""

MAX_PATH = 4096
"""Characters above which a text can't be the name of a file (PATH_MAX on Linux)."""

MAX_NAME = 255
"""Bytes above which the name of a file or folder can't be one (NAME_MAX on Linux)."""

_STORES = ("s3", "gs", "az")


@dataclass(frozen=True, slots=True)
class MediaInput:
    """One file that has to be staged.

    value: the name of the part where `kind` is "part", else the text as it was given. url is http(s), object is in an
    object storage. The others can only be refused: scheme, a URL of any other scheme; path, a file name that leaves the
    engine's input folder; in a list, name is what is no media, and excess what is more than MAX_LIST.
    position: that of a picture in the list that becomes a folder; None for an input that names a file. nested: the part
    stands somewhere within the input's value, perhaps beside others.
    """

    node_id: str
    class_type: str
    input_name: str
    kind: Kind
    value: str = field(repr=False)
    position: int | None = None
    nested: bool = False


def media_inputs(
    graph: Graph,
    marked: Collection[tuple[str, str]] = frozenset(),
    declared: Collection[Place] = frozenset(),
    parts: Collection[str] = frozenset(),
) -> tuple[MediaInput, ...]:
    """What has to be staged, in the order of the workflow; names of files that the engine has are left out.

    marked: further `(node id, input name)` that name media, as a template declares them; declared: further places, as
    the engine does. parts: those of the request, which may also stand within the value of an input.
    """
    found = []
    for node_id, node in graph.items():
        class_type = node["class_type"]
        for name, value in node["inputs"].items():
            place = (class_type, name)
            if place in FOLDERS:
                found += [
                    MediaInput(node_id, class_type, name, kind, text, position)
                    for position, (kind, text) in enumerate(_recognize_list(value))
                ]
            else:
                loads = place in LOADERS or place in declared or (node_id, name) in marked
                recognized = _recognize(value, loads)
                if recognized:
                    found.append(MediaInput(node_id, class_type, name, *recognized))
                else:
                    within = dict.fromkeys(_find_parts(value, parts))
                    found += [MediaInput(node_id, class_type, name, "part", part, nested=True) for part in within]
    return tuple(found)


def fill_parts(value: object, names: Mapping[str, str]) -> object:
    """The value of an input with names in the place of parts, wherever they stand in it."""
    if isinstance(value, dict):
        part = _part(value)
        return names[part] if part in names else {key: fill_parts(each, names) for key, each in value.items()}
    return [fill_parts(each, names) for each in value] if isinstance(value, list) else value


def _find_parts(value: object, parts: Collection[str]) -> Iterator[str]:
    if isinstance(value, dict):
        part = _part(value)
        if part in parts:
            yield part
            return
    if parts and isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _find_parts(each, parts)


def _part(value: Mapping[str, object]) -> str:
    """The part that an object stands for; "" where it stands for none: parts have names."""
    part = value.get("part")
    return part if value.keys() == {"part"} and isinstance(part, str) else ""


def _recognize(value: object, loads: bool) -> tuple[Kind, str] | None:
    if isinstance(value, dict) and value.keys() == {"part"} and isinstance(value["part"], str):
        return "part", value["part"]
    text = unwrap(value)
    if not loads or not isinstance(text, str):
        return None
    kind = _classify(text)
    return (kind, text) if kind else None


def _recognize_list(value: object) -> Iterator[tuple[Kind, str]]:
    """A folder's pictures: each of a list, or a single one; the name of a folder that the engine has is none."""
    value = unwrap(value)
    if isinstance(value, list) and not is_link(value):
        for each in value[:MAX_LIST]:
            yield _recognize(each, True) or ("name", "")
        if len(value) > MAX_LIST:
            yield "excess", ""
    else:
        recognized = _recognize(value, True)
        if recognized:
            yield recognized


def _classify(text: str) -> Kind | None:
    if text[:5].lower() == "data:":
        return "data"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme:
        name = scheme[1].lower()
        return "url" if name in ("http", "https") else "object" if name in _STORES else "scheme"
    # Before paths: base64 of a JPEG begins with "/9j/".
    if len(text) > MAX_PATH or _has_long_name(text) or _is_base64(text):
        return "base64"
    # ComfyUI joins the name to its input folder, so an absolute one names any file of the server.
    if re.match(r"[/\\]|[A-Za-z]:", text) or ".." in re.split(r"[/\\]", text):
        return "path"
    return None


def _has_long_name(text: str) -> bool:
    return any(len(name.encode(errors="replace")) > MAX_NAME for name in re.split(r"[/\\]", text))


def _is_base64(text: str) -> bool:
    """Whether the text can't be a file's name: enough characters of the alphabet only, which begin a known format."""
    compact = "".join(text.split())
    if len(compact) < MIN_BASE64 or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", compact):
        return False
    return sniff(binascii.a2b_base64(compact[: min(len(compact) // 4 * 4, SNIFFED)])) is not None


_REASONS: Mapping[str, str] = {
    "url": "is a URL, whose bytes are not in the request",
    "object": "is a URL, whose bytes are not in the request",
    "scheme": "is a URL of a scheme that is not supported: it may be http, https, s3, gs or az",
    "path": "is a path outside the engine's input folder",
    "name": "is no media: each must be base64, a data: URI, a URL or a part",
    "excess": f"is more than the {MAX_LIST} that a list may have",
}


def decode(media: MediaInput) -> bytes:
    """The bytes that the text of an input stands for.

    Raises InvalidInput, which names node, class and input, for broken base64, for bytes that are nothing or no known
    format, and for every kind whose bytes are not in its text.
    """
    if media.kind == "part":
        raise refuse(media, f'refers to the part "{clip(media.value, MAX_ECHO)}", which the request does not have')
    if media.kind in _REASONS:
        raise refuse(media, _REASONS[media.kind])
    data = _decode_uri(media) if media.kind == "data" else _decode_base64(media, media.value)
    identify(media, data)
    return data


def identify(media: MediaInput, head: bytes) -> MediaType:
    """What some bytes are, of which the first SNIFFED are enough. Raises InvalidInput if they are nothing or unknown,
    or no picture where there must be one.
    """
    if not head:
        raise refuse(media, "is empty")
    found = sniff(head)
    if found is None:
        raise refuse(media, "is in no known format of pictures, video or audio")
    if media.position is not None and not found.content_type.startswith("image/"):
        raise refuse(media, f"must have pictures only, and has {found.content_type}")
    return found


def _decode_uri(media: MediaInput) -> bytes:
    """RFC 2397; as in the Fetch standard (section 6) the body is percent-decoded first, base64 or not."""
    header, comma, body = media.value.partition(",")
    if not comma:
        raise refuse(media, "is a data: URI without the comma before its data")
    data = unquote_to_bytes(body.encode(errors="replace"))
    return _decode_base64(media, data) if re.search(r";\s*base64\s*$", header, re.IGNORECASE) else data


def _decode_base64(media: MediaInput, encoded: str | bytes) -> bytes:
    """Forgiving decode of the WHATWG Infra standard: white space is dropped, padding may be left out, no more."""
    try:
        data = b"".join((encoded.encode("ascii") if isinstance(encoded, str) else encoded).split())
        if len(data) % 4 == 0:
            data = data[:-2] + data[-2:].rstrip(b"=")
        if b"=" in data:
            raise binascii.Error
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise refuse(media, "is not valid base64 (of the alphabet with + and /)") from None


def refuse(media: MediaInput, reason: str) -> InvalidInput:
    """The fault for an input; `reason` goes on from "Input NAME of node ID (CLASS)"."""
    name, node_id, class_type = (clip(text, MAX_ECHO) for text in (media.input_name, media.node_id, media.class_type))
    place: dict[str, Any] = {"node_id": node_id, "class_type": class_type, "input_name": name}
    if media.position is None:
        return InvalidInput(f"Input {name} of node {node_id} ({class_type}) {reason}.", **place)
    number = media.position + 1
    return InvalidInput(f"Picture {number} of input {name} of node {node_id} ({class_type}) {reason}.", **place)
