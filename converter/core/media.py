"""Media among a workflow's inputs: where they are, in which form they were given, and what their text decodes to.

For: finding what must be staged before submission. Leaves the bytes of request parts, and the staging, to others.

Invariant: only inputs that name media are ever looked into: those of ComfyUI's own upload loaders, those that a
template marks, and those whose value is exactly `{"part": NAME}`. A prompt text that looks like a URL stays a text.
"""

import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from converter.core.signatures import SNIFFED, MediaType, sniff
from converter.core.workflow import MAX_ECHO, Graph, clip, unwrap
from converter.errors import InvalidInput

Kind = Literal["part", "data", "base64", "url", "path"]

LOADERS: Mapping[str, str] = {"LoadImage": "image", "LoadImageMask": "image", "LoadAudio": "audio", "LoadVideo": "file"}
"""Classes of ComfyUI's core that load what was uploaded, and the input that names the file."""

MIN_BASE64 = 32
"""Characters from which a text without a suffix may be base64 rather than a file's name."""

MAX_PATH = 4096
"""Characters above which a text can't be the name of a file (PATH_MAX on Linux)."""


@dataclass(frozen=True, slots=True)
class MediaInput:
    """An input whose media have to be staged.

    value: the name of the part where `kind` is "part", else the text as it was given. url and path are kinds that can
    only be refused: a URL of any scheme, and a file name that leaves the engine's input folder.
    """

    node_id: str
    class_type: str
    input_name: str
    kind: Kind
    value: str = field(repr=False)


def media_inputs(graph: Graph, marked: Collection[tuple[str, str]] = frozenset()) -> tuple[MediaInput, ...]:
    """What has to be staged, in the order of the workflow; names of files that the engine has are left out.

    marked: further `(node id, input name)` that name media, as a template declares them.
    """
    return tuple(
        MediaInput(node_id, node["class_type"], name, *found)
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if (found := _recognize(value, LOADERS.get(node["class_type"]) == name or (node_id, name) in marked))
    )


def _recognize(value: object, loads: bool) -> tuple[Kind, str] | None:
    if isinstance(value, dict) and value.keys() == {"part"} and isinstance(value["part"], str):
        return "part", value["part"]
    text = unwrap(value)
    if not loads or not isinstance(text, str):
        return None
    kind = _classify(text)
    return (kind, text) if kind else None


def _classify(text: str) -> Kind | None:
    if text[:5].lower() == "data:":
        return "data"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return "url"
    # Before paths: base64 of a JPEG begins with "/9j/".
    if len(text) > MAX_PATH or _is_base64(text):
        return "base64"
    # ComfyUI joins the name to its input folder, so an absolute one names any file of the server.
    if re.match(r"[/\\]|[A-Za-z]:", text) or ".." in re.split(r"[/\\]", text):
        return "path"
    return None


def _is_base64(text: str) -> bool:
    """Whether the text can't be a file's name: enough characters of the alphabet only, which begin a known format."""
    compact = "".join(text.split())
    if len(compact) < MIN_BASE64 or not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", compact):
        return False
    return sniff(binascii.a2b_base64(compact[: min(len(compact) // 4 * 4, SNIFFED)])) is not None


def decode(media: MediaInput) -> bytes:
    """The bytes that the text of an input stands for.

    Raises InvalidInput, which names node, class and input, for broken base64, for bytes that are nothing or no known
    format, for a URL or a path, and for a part: its bytes are the request's, so what comes here refers to none.
    """
    if media.kind == "part":
        raise refuse(media, f'refers to the part "{clip(media.value, MAX_ECHO)}", which the request does not have')
    if media.kind == "url":
        raise refuse(
            media, "is a URL, which is not supported: send base64, a data: URI, or a part of a multipart request"
        )
    if media.kind == "path":
        raise refuse(media, "is a path outside the engine's input folder")
    data = _decode_uri(media) if media.kind == "data" else _decode_base64(media, media.value)
    identify(media, data)
    return data


def identify(media: MediaInput, data: bytes) -> MediaType:
    """What the bytes are (their first SNIFFED are enough). Raises InvalidInput if they are nothing or unknown."""
    if not data:
        raise refuse(media, "is empty")
    found = sniff(data)
    if found is None:
        raise refuse(media, "is in no known format of pictures, video or audio")
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
            raise refuse(media, "is not valid base64")
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise refuse(media, "is not valid base64") from None


def refuse(media: MediaInput, reason: str) -> InvalidInput:
    """The fault for an input; `reason` goes on from "Input NAME of node ID (CLASS)"."""
    name, node_id, class_type = (clip(text, MAX_ECHO) for text in (media.input_name, media.node_id, media.class_type))
    place: dict[str, Any] = {"node_id": node_id, "class_type": class_type, "input_name": name}
    return InvalidInput(f"Input {name} of node {node_id} ({class_type}) {reason}.", **place)
