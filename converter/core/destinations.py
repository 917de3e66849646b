"""Destinations: the places of object storage to which an operator lets outputs be uploaded, and the keys they get.

Leaves opening a store to `media.storage`. Invariant: a template that is taken gives each output of each job a key of
its own, and no key has a segment that leads out of the place.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_KEY = "{job}/{random}/{name}"

EXPIRY = 3600.0
"""Seconds for which a signed URL is good, unless the destination says otherwise."""

LONGEST = 7 * 24 * 3600.0
"""Seconds: what S3's signatures allow at most."""

FIELDS = ("date", "job", "caller", "node", "number", "random", "name")
"""What a key's template may name: the day, as 2030-12-31; the job's id; the name of the API key; the node's id; the
output's place among those of the job; 32 digits drawn by chance; the file's name.
"""

_MEMBERS = ("url", "key", "expiry", "options")


@dataclass(frozen=True, slots=True)
class Destination:
    """`url` as `media.storage` takes it, with `options` that may be secret. `expiry` in seconds, 0 for no URLs."""

    url: str
    key: str = DEFAULT_KEY
    expiry: float = EXPIRY
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse_destinations(document: Mapping[str, object]) -> dict[str, Destination]:
    """The destinations by name; raises ValueError, which names everything that is wrong and no secret."""
    found, problems = {}, []
    for name, table in document.items():
        wrong = [] if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) else ["a name has 1 to 64 letters, digits, _ and -"]
        if isinstance(table, Mapping):
            wrong += _judge(table)
        else:
            wrong.append("must be a table with a url")
        problems += [f"{name[:64]}: {problem}" for problem in wrong]
        if not wrong and isinstance(table, Mapping):
            found[name] = Destination(**table)
    if problems:
        raise ValueError("; ".join(problems))
    return found


def _judge(table: Mapping[str, object]) -> list[str]:
    wrong = [f"there is no {member}, only {', '.join(_MEMBERS)}" for member in table.keys() - set(_MEMBERS)]
    if not isinstance(table.get("url"), str):
        wrong.append("url must be text such as s3://bucket/prefix")
    key, expiry, options = table.get("key", DEFAULT_KEY), table.get("expiry", EXPIRY), table.get("options", {})
    wrong += _judge_key(key) if isinstance(key, str) else ["key must be text"]
    if not isinstance(expiry, int | float) or isinstance(expiry, bool) or not 0 <= expiry <= LONGEST:
        wrong.append(f"expiry must be a number of seconds from 0 to {LONGEST:.0f}")
    if not isinstance(options, Mapping) or not all(isinstance(value, str) for value in options.values()):
        wrong.append("options must be a table of texts")
    return wrong


def _judge_key(template: str) -> list[str]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        return [f"key can't be read: {error}"]
    names = {name for _, name, *_ in pieces if name is not None}
    if unknown := sorted(names - set(FIELDS)):
        return [f"key names {', '.join(unknown)}, where there are only {', '.join(FIELDS)}"]
    if any(form or conversion for _, _, form, conversion in pieces):
        return ["key may have no conversions and formats"]
    if "random" not in names and not names >= {"job", "number"}:
        return ["key must have {random}, or {job} and {number}: else outputs would replace each other"]
    if {"", ".", ".."} & set(template.split("/")):
        return ["key must have no empty segment, . or .."]
    return []


def render_key(template: str, fields: Mapping[str, str]) -> str:
    """The key of one output: `fields` by their names in FIELDS, each made fit to be a part of one segment."""
    return template.format_map({name: _fit(fields[name]) for name in FIELDS})


def _fit(value: str) -> str:
    """Letters, digits and a few marks as they are; a value that would be empty or begin with a dot gets a mark."""
    fitting = re.sub(r"[^\w.+=@-]", "_", value[:255])
    return re.sub(r"^(\.|$)", "_", fitting)
