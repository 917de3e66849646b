"""Declarations: how a setting is declared, read from flags and environment variables, and explained.

For: types with their names and units, `setting`, and `read`, which makes a model of declared settings. Leaves which
settings there are to `settings`, and what one does to whoever uses it.
Invariant: a model that exists is valid in itself and as a whole, or `read` has said everything that is wrong with it at
once, one line each, in the words of the person who starts the program.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    DirectoryPath,
    Field,
    FilePath,
    ValidationError,
)
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from converter.core.origins import parse_origins

PREFIX = "CONVERTER_"

Model = TypeVar("Model", bound=BaseModel)

_KUBERNETES_NAME = re.compile(
    r"_SERVICE_HOST$ | _SERVICE_PORT(_[A-Z0-9_]+)?$ | _PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", re.VERBOSE
)
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class SettingsError(Exception):
    """The settings can't be used; `lines` says why, one line for each thing that is wrong."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Kind:
    """How a type is called: `name` in tables, `phrase` after "must be", `unit` of its plain numbers."""

    name: str
    phrase: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as people see it. `switch`: its flag takes no value. `secret`: its value is never shown."""

    name: str
    variable: str
    flag: str
    type: str
    unit: str
    default: str
    meaning: str
    switch: bool
    secret: bool


def setting(default: Any, meaning: str, *, shown: str = "", secret: bool = False, **limits: Any) -> Any:
    """Declare a setting. `default` may be a function of the settings before it; `shown` then says what it gives.

    A `secret` value is left out of error lines, of tables and of the settings' repr. A validator names other settings
    in braces, such as `{port}`: people are told them as they write them.
    """
    given = {"default_factory": default} if callable(default) else {"default": default}
    extra: JsonDict = {"shown": shown, "secret": secret}
    return Field(**given, **limits, description=meaning, json_schema_extra=extra, repr=not secret)


def _parse_command(value: object) -> object:
    """Split a command as a POSIX shell splits its words; no shell runs it."""
    if not isinstance(value, str):
        return value
    try:
        words = tuple(shlex.split(value))
    except ValueError:
        raise ValueError("must have its quotation marks closed") from None
    if not words:
        raise ValueError("must name a program")
    return words


def _parse_auto(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "auto" else value


def _parse_origins(value: object) -> object:
    return parse_origins(value) if isinstance(value, str) else value


def _parse_names(value: object) -> object:
    """Names separated by commas; `none` is none of them."""
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(each.strip().lower() for each in value.split(",") if each.strip()))
    return () if names == ("none",) else names


def _parse_choice(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


_INTEGER = Kind("integer", "a whole number")
_URL = Kind("URL", "an address such as http://127.0.0.1:8188")
_FOLDER = Kind("folder", "an existing folder")

Text = Annotated[str, Kind("text", "text"), Field(min_length=1)]
Secrets = Annotated[str | None, Kind("secrets", "secrets, separated by commas")]
Tag = Annotated[str | None, Kind("text", "1 to 16 letters and digits"), Field(pattern="^[A-Za-z0-9]{1,16}$")]
Secret = Annotated[str | None, Kind("text", "at least 32 characters"), Field(min_length=32)]
Count = Annotated[int, _INTEGER]
Seconds = Annotated[float, Kind("number", "a number", "seconds"), Field(allow_inf_nan=False)]
Size = Annotated[ByteSize, Kind("size", "a number of bytes, or a size such as 100MiB", "bytes")]
Switch = Annotated[bool, Kind("boolean", "true or false")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], Kind("choice", ""), BeforeValidator(_parse_choice)]
LogFormat = Annotated[Literal["auto", "text", "json"], Kind("choice", ""), BeforeValidator(_parse_choice)]
Depth = Annotated[int | None, _INTEGER, BeforeValidator(_parse_auto)]
Bound = Annotated[int | None, _INTEGER]
Address = Annotated[str | None, _URL]
Origins = Annotated[tuple[str, ...], Kind("origins", "origins"), BeforeValidator(_parse_origins)]
Names = Annotated[tuple[str, ...], Kind("names", "names separated by commas"), BeforeValidator(_parse_names)]
Keys = Annotated[str | None, Kind("keys", "name:secret, ...")]
Command = Annotated[tuple[str, ...] | None, Kind("command", "a command"), BeforeValidator(_parse_command)]
Folder = Annotated[DirectoryPath | None, _FOLDER]
File = Annotated[FilePath | None, Kind("file", "an existing file")]


def describe(model: type[BaseModel]) -> tuple[Declaration, ...]:
    """All settings of `model`, in the order of their declaration."""
    return tuple(_describe(name, field) for name, field in model.model_fields.items())


def read(model: type[Model], flags: Mapping[str, object], environment: Mapping[str, str]) -> Model:
    """Make a model, whose fields are declared by `setting`, from flags (by setting name) and variables; a flag wins.

    An empty variable counts as absent. Variables that Kubernetes injects for Services are ignored. Relative folders
    are taken from the current one. Raises SettingsError with every problem.
    """
    declared = {declaration.name: declaration for declaration in describe(model)}
    own = _own_variables(environment)
    variables = {name: own[d.variable] for name, d in declared.items() if d.variable in own}
    known = [d.variable for d in declared.values()]
    lines = [f"{name}: no such setting; {_suggest(name, known)}" for name in sorted(own.keys() - set(known))]
    try:
        settings = model.model_validate({**variables, **flags})
    except ValidationError as error:
        raise SettingsError((*lines, *_explain(error, model, flags, variables))) from None
    if lines:
        raise SettingsError(tuple(lines))
    return settings


def _suggest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: what may have been meant, or where to look."""
    from converter.core.guesses import guess

    # Without what all of them begin with, which would make any name look close.
    bare = {each.removeprefix(PREFIX).removeprefix("--"): each for each in known}
    close = guess(name.removeprefix(PREFIX).removeprefix("--"), bare, cutoff=0.7)
    return '"converter settings" lists all' if close is None else f"did you mean {bare[close]}?"


def _own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables meant for us: with our prefix, not empty, and not of a Kubernetes Service.

    Kubernetes gives every container variables named after each Service of its namespace, in the form of Docker links
    (NAME_SERVICE_HOST, NAME_SERVICE_PORT, NAME_PORT=tcp://..., NAME_PORT_3000_TCP_ADDR, ...); a Service called
    `converter` or `converter-canary` therefore makes some that look like ours.
    """
    own = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
    return {name: value for name, value in own.items() if not _is_of_kubernetes(name, value)}


def _is_of_kubernetes(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _KUBERNETES_ADDRESS.match(value):
        return True
    return _KUBERNETES_NAME.search(name) is not None


def _explain(
    error: ValidationError, model: type[BaseModel], flags: Mapping[str, object], variables: Mapping[str, str]
) -> tuple[str, ...]:
    """One line for each setting that is wrong, beginning with the flag or variable that gave it."""
    declared = {declaration.name: declaration for declaration in describe(model)}
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0])
        if problem["type"] == "default_factory_not_called":
            continue  # the setting that its default follows is wrong itself, and has a line of its own
        if name not in declared:
            flag = _flag(name)
            lines.append(f"{flag}: no such flag; {_suggest(flag, (d.flag for d in declared.values()))}")
            continue
        declaration = declared[name]
        source = declaration.flag if name in flags else declaration.variable
        if name not in flags and name not in variables:
            source += " (by default)"
        sentence = _say(problem["type"], problem.get("ctx", {}), _kind(model.model_fields[name]))
        for other in declared.values():
            sentence = sentence.replace(f"{{{other.name}}}", _speak_of(other, name in flags, flags, variables))
        # Elsewhere it is not the value that is wrong.
        quoted = _quote(problem["input"], declaration) if sentence.startswith("must ") else ""
        lines.append(f"{source}: {sentence}{quoted}")
    return tuple(dict.fromkeys(lines))


def _speak_of(other: Declaration, as_flag: bool, flags: Mapping[str, object], variables: Mapping[str, str]) -> str:
    """Another setting by its flag or variable: as it was given, else as the one at fault was."""
    return other.flag if other.name in flags or (as_flag and other.name not in variables) else other.variable


def _say(problem: str, context: Mapping[str, Any], kind: Kind) -> str:
    limits = {
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than_equal": "must be at most {le}",
        "value_error": "{error}",
    }
    if problem in limits:
        return limits[problem].format_map({key: show(value) for key, value in context.items()})
    return f"must be {kind.phrase}"


def _quote(value: object, declaration: Declaration) -> str:
    """The wrong value, unless it is secret or (an `@` in an address) may contain a password."""
    if declaration.secret or (declaration.type == "URL" and "@" in str(value)):
        return ""
    return f", not {value[:80]!r}" if isinstance(value, str) else f", not {show(value)}"


def _describe(name: str, field: FieldInfo) -> Declaration:
    kind = _kind(field)
    extra = cast("JsonDict", field.json_schema_extra)  # as `setting` made it
    secret = bool(extra["secret"])
    default = str(extra["shown"]) or ("" if secret else show(field.default, size=kind.name == "size"))
    return Declaration(
        name=name,
        variable=PREFIX + name.upper(),
        flag=_flag(name),
        type=" | ".join(get_args(field.annotation)) if kind.name == "choice" else kind.name,
        unit=kind.unit,
        default=default,
        meaning=field.description or "",
        switch=field.annotation is bool,
        secret=secret,
    )


def _kind(field: FieldInfo) -> Kind:
    kind = next(mark for mark in field.metadata if isinstance(mark, Kind))
    choices = get_args(field.annotation)
    return kind if kind.phrase else Kind(kind.name, " or ".join((", ".join(choices[:-1]), choices[-1])), kind.unit)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def show(value: object, size: bool = False) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and size and value % 2**20 == 0:
        return f"{value // 2**20}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
