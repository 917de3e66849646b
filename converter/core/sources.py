"""Sources: the places of object storage from which an operator lets inputs be read.

Leaves opening a store and reading to `media`. Invariant: a key that is found lies under the place that it is found in,
and has no segment that leads out of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from converter.core.address import Refused

LONGEST = 1024
"""Bytes of a key, as S3 and GCS have them."""

_URL = re.compile(r"(?P<bucket>(?:s3|gs|az)://[^/?#@\s]+)(?P<path>(?:/[^\x00-\x1f\x7f]*)?)", re.IGNORECASE)
_MEMBERS = ("url", "options")
_DOTS = frozenset({"", ".", ".."})


@dataclass(frozen=True, slots=True)
class Source:
    """`url` as `media.storage` takes it, with `options` that may be secret."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse_sources(document: Mapping[str, object]) -> dict[str, Source]:
    """The sources by name; raises ValueError, which names everything that is wrong and no secret."""
    found, problems = {}, []
    for name, table in document.items():
        wrong = _judge(table) if isinstance(table, Mapping) else ["must be a table with a url"]
        problems += [f"{name[:64]}: {problem}" for problem in wrong]
        if not wrong and isinstance(table, Mapping):
            found[name] = Source(**table)
    if problems:
        raise ValueError("; ".join(problems))
    return found


def _judge(table: Mapping[str, object]) -> list[str]:
    wrong = [f"there is no {member}, only {' and '.join(_MEMBERS)}" for member in sorted(table.keys() - set(_MEMBERS))]
    url, options = table.get("url"), table.get("options", {})
    if not isinstance(url, str) or not (match := _URL.fullmatch(url)) or _DOTS & set(_segments(match["path"])):
        wrong.append("url must be text such as s3://bucket/prefix; s3, gs and az are possible")
    if not isinstance(options, Mapping) or not all(isinstance(value, str) for value in options.values()):
        wrong.append("options must be a table of texts")
    return wrong


def _segments(path: str) -> list[str]:
    """Of a path, without the slashes at its ends."""
    bare = path.strip("/")
    return bare.split("/") if bare else []


def find_source(url: str, sources: Sequence[Source]) -> tuple[int, str]:
    """The number of the source under which an object lies, the nearest of several, and its key there.

    Raises Refused.
    """
    if not sources:
        raise Refused(
            "is in object storage, and there is none here that inputs may be read from (CONVERTER_SOURCES_FILE)"
        )
    asked = _URL.fullmatch(url)
    if asked is None or len(url.encode(errors="replace")) > LONGEST:
        raise Refused("has no bucket and key that could be asked for")
    key = asked["path"].removeprefix("/").split("/")
    if _DOTS & set(key):
        raise Refused("has a key with an empty segment, . or ..")
    found = []
    for number, source in enumerate(sources):
        place = _URL.fullmatch(source.url)
        prefix = _segments(place["path"]) if place else []
        same = place is not None and _bucket(place) == _bucket(asked)
        if same and key[: len(prefix)] == prefix and len(key) > len(prefix):
            found.append((len(prefix), number))
    if not found:
        raise Refused("is in none of the places that inputs may be read from")
    length, number = max(found)
    return number, "/".join(key[length:])


def _bucket(url: re.Match[str]) -> tuple[str, str]:
    scheme, _, name = url["bucket"].partition("://")
    return scheme.lower(), name
