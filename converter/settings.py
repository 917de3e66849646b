"""Every setting of the converter, declared once: type, unit, default, limits and meaning.

Flags, environment variables, help texts and the README's table all come from this declaration. What a setting does
is left to whoever uses it. Invariant: a `Settings` that exists is valid in itself and as a whole, or `load` has
said everything that is wrong with it at once, one line each, in the words of the person who starts the program.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast, get_args
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    DirectoryPath,
    Field,
    FilePath,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

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

    A `secret` value is left out of error lines and of the settings' repr.
    """
    given = {"default_factory": default} if callable(default) else {"default": default}
    extra: JsonDict = {"shown": shown, "secret": secret}
    return Field(**given, **limits, description=meaning, json_schema_extra=extra, repr=not secret)


def _parse_url(value: str) -> str:
    """An http(s) address without credentials, query and fragment, and without a slash at its end."""
    if not value.isprintable() or " " in value:
        raise ValueError("must not contain spaces or control characters")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://127.0.0.1:8188")
    if "@" in parts.netloc:
        raise ValueError("must not contain credentials")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("must have a port from 0 to 65535, or none") from None
    return value.rstrip("/")


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


def _parse_choice(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


_INTEGER = Kind("integer", "a whole number")
_URL = Kind("URL", "an address such as http://127.0.0.1:8188")
_FOLDER = Kind("folder", "an existing folder")

Text = Annotated[str, Kind("text", "text"), Field(min_length=1)]
Count = Annotated[int, _INTEGER]
Seconds = Annotated[float, Kind("number", "a number", "seconds"), Field(allow_inf_nan=False)]
Size = Annotated[ByteSize, Kind("size", "a number of bytes, or a size such as 100MiB", "bytes")]
Switch = Annotated[bool, Kind("boolean", "true or false")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], Kind("choice", ""), BeforeValidator(_parse_choice)]
LogFormat = Annotated[Literal["auto", "text", "json"], Kind("choice", ""), BeforeValidator(_parse_choice)]
Depth = Annotated[int | None, _INTEGER, BeforeValidator(_parse_auto)]
Address = Annotated[str | None, _URL]
Command = Annotated[tuple[str, ...] | None, Kind("command", "a command"), BeforeValidator(_parse_command)]
Folder = Annotated[DirectoryPath | None, _FOLDER]
File = Annotated[FilePath | None, Kind("file", "an existing file")]


def _three_quarters(settings: dict[str, Any]) -> int:
    return int(settings["busy_at"] * 3 // 4)


class Settings(BaseModel):
    """The settings of one replica, in the order in which they are shown. Seconds are floats, sizes are in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: Text = setting("127.0.0.1", "Address to listen on; 0.0.0.0 or :: for all interfaces")
    port: Count = setting(3000, "Port to listen on; 0 takes a free one", ge=0, le=65535)
    public_url: Address = setting(
        None, "Address under which callers reach this replica; makes links in answers absolute", shown="relative links"
    )

    engine_url: Address = setting(
        None, "Engine that runs already, to attach to; excludes engine_command", shown="embedded engine"
    )
    engine_command: Command = setting(
        None, "Command that starts an engine, which is watched, restarted and stopped", shown="embedded engine"
    )
    engine_start_timeout: Seconds = setting(
        300.0, "Time that the engine is given to start, up to the end of its warm-up", gt=0
    )
    restart_budget: Count = setting(
        5, "Restarts of the engine within restart_window after which the replica gives up", ge=0
    )
    restart_window: Seconds = setting(600.0, "Time within which restarts are counted", gt=0)
    engine_depth: Depth = setting(
        None, "Prompts given to the engine at once", shown="auto: what the engine runs at once, plus one", ge=1
    )
    warmup: File = setting(
        None, "Workflow that the engine must complete after each start to be ready", shown="a 16 x 16 picture"
    )
    output_dir: Folder = setting(
        None,
        "The engine's output folder, if it is on a disk of this machine: outputs are read from it",
        shown="read over HTTP",
    )
    input_dir: Folder = setting(
        None, "The engine's input folder, if shared: staged inputs are removed from it", shown="not shared"
    )
    workflows_dir: Folder = setting(None, "Folder of templates", shown="those that ship")

    capacity: Count = setting(16, "Orders held at once, waiting and running; more are refused", ge=1)
    busy_at: Count = setting(
        lambda settings: settings["capacity"], "Depth from which the replica is busy", shown="capacity", ge=1
    )
    ready_at: Count = setting(
        _three_quarters, "Depth down to which a busy replica is ready again", shown="75 % of busy_at", ge=0
    )
    busy_is_ready: Switch = setting(False, "Whether /readyz answers 200 while busy")
    staleness: Seconds = setting(2.0, "Age from which what is known of the engine no longer counts as ready", gt=0)

    timeout: Seconds = setting(95.0, "Time for a whole request, unless it says otherwise", gt=0)
    max_timeout: Seconds = setting(3600.0, "The longest time that a request may ask for", gt=0)
    stall_patience: Seconds = setting(
        120.0, "Time that a running prompt may make no progress before the engine counts as failed", gt=0
    )
    max_attempts: Count = setting(3, "Submissions of one job, if the engine fails under it", ge=1)
    max_body: Size = setting(100 * 2**20, "The largest body of a request", ge=1)
    body_timeout: Seconds = setting(60.0, "Time for a request's body to arrive", gt=0)
    deliveries: Count = setting(64, "Answers with outputs sent at once; more wait their turn", ge=1)
    sse_keepalive: Seconds = setting(15.0, "Silence after which an event stream gets a comment", gt=0, le=15)
    keep_alive: Seconds = setting(
        620.0, "Time that an idle connection is kept; longer than the load balancer's own, or it will see resets", gt=0
    )
    keep_jobs: Seconds = setting(600.0, "Time that finished jobs are kept", ge=0)
    keep_bytes: Size = setting(256 * 2**20, "Memory for the outputs of finished jobs that are kept", ge=0)

    drain_delay: Seconds = setting(
        5.0, "Time after SIGTERM in which requests are still taken, while load balancers turn away", ge=0
    )
    grace: Seconds = setting(100.0, "Time after SIGTERM that work in flight is given to finish", ge=0)

    log_level: LogLevel = setting("info", "Least level that is logged")
    log_format: LogFormat = setting("auto", "Form of log lines; auto is text on a terminal, JSON elsewhere")

    @field_validator("public_url", "engine_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        return None if value is None else _parse_url(value)

    @field_validator("engine_url")
    @classmethod
    def _check_engine_url(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).path:
            raise ValueError("must not have a path")
        return value

    @field_validator("engine_command")
    @classmethod
    def _check_engine_command(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and info.data.get("engine_url") is not None:
            raise ValueError("can't be used together with engine_url")
        return value

    @field_validator("busy_at")
    @classmethod
    def _check_busy_at(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("capacity", value):
            raise ValueError(f"must be at most capacity, which is {info.data['capacity']}")
        return value

    @field_validator("ready_at")
    @classmethod
    def _check_ready_at(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("busy_at", value + 1):
            raise ValueError(f"must be below busy_at, which is {info.data['busy_at']}")
        return value

    @field_validator("max_timeout")
    @classmethod
    def _check_max_timeout(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("timeout", value):
            raise ValueError(f"must be at least timeout, which is {_show(info.data['timeout'])}")
        return value


def declarations(model: type[BaseModel] = Settings) -> tuple[Declaration, ...]:
    """All settings of `model`, in the order of their declaration."""
    return tuple(_describe(name, field) for name, field in model.model_fields.items())


def load(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Make the settings from flags (by setting name) and environment variables; a flag wins.

    An empty variable counts as absent. Variables that Kubernetes injects for Services are ignored. Relative folders
    are taken from the current one. Raises SettingsError with every problem.
    """
    return read(Settings, flags, environment)


def read(model: type[Model], flags: Mapping[str, object], environment: Mapping[str, str]) -> Model:
    """`load` for any model whose fields are declared by `setting`."""
    declared = {declaration.name: declaration for declaration in declarations(model)}
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
    from difflib import get_close_matches

    # Without what all of them begin with, which would make any name look close.
    bare = {each.removeprefix(PREFIX).removeprefix("--"): each for each in known}
    close = get_close_matches(name.removeprefix(PREFIX).removeprefix("--"), bare, n=1, cutoff=0.7)
    return f"did you mean {bare[close[0]]}?" if close else '"converter settings" lists all'


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
    declared = {declaration.name: declaration for declaration in declarations(model)}
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
        lines.append(f"{source}: {sentence}{_quote(problem['input'], declaration)}")
    return tuple(dict.fromkeys(lines))


def _say(problem: str, context: Mapping[str, Any], kind: Kind) -> str:
    limits = {
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than_equal": "must be at most {le}",
        "value_error": "{error}",
    }
    if problem in limits:
        return limits[problem].format_map({key: _show(value) for key, value in context.items()})
    return f"must be {kind.phrase}"


def _quote(value: object, declaration: Declaration) -> str:
    """The wrong value, unless it is secret or (an `@` in an address) may contain a password."""
    if declaration.secret or (declaration.type == "URL" and "@" in str(value)):
        return ""
    return f", not {value[:80]!r}" if isinstance(value, str) else f", not {_show(value)}"


def _describe(name: str, field: FieldInfo) -> Declaration:
    kind = _kind(field)
    extra = cast("JsonDict", field.json_schema_extra)  # as `setting` made it
    secret = bool(extra["secret"])
    default = str(extra["shown"]) or _show(field.default, size=kind.name == "size")
    return Declaration(
        name=name,
        variable=PREFIX + name.upper(),
        flag=_flag(name),
        type=" | ".join(get_args(field.annotation)) if kind.name == "choice" else kind.name,
        unit=kind.unit,
        default="" if secret else default,
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


def _show(value: object, size: bool = False) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and size and value % 2**20 == 0:
        return f"{value // 2**20}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
