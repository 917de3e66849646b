"""Every setting of the converter, declared once: type, unit, default, limits and meaning.

For: flags, environment variables, help texts and the README's table, which all come from this declaration. Leaves how
settings are read and explained to `declarations`, and what a setting does to whoever uses it.
Invariant: a `Settings` that exists is valid in itself and as a whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from converter.core.address import parse_url
from converter.core.keys import parse_keys
from converter.core.origins import is_loopback
from converter.core.webhooks import parse_secrets
from converter.declarations import (
    Address,
    Bound,
    Command,
    Count,
    Declaration,
    Depth,
    File,
    Folder,
    Keys,
    LogFormat,
    LogLevel,
    Names,
    Origins,
    Seconds,
    Secret,
    Secrets,
    Size,
    Switch,
    Tag,
    Text,
    describe,
    read,
    setting,
    show,
)

DIALECTS: tuple[str, ...] = ("comfyapi", "comfyui-api", "openai", "runpod")
"""The names of all dialects beside the native one."""


def _lacks_keys(info: ValidationInfo) -> bool:
    """Whether neither of two settings gives keys; False where one of them is wrong itself."""
    return all(info.data.get(name, "") is None for name in ("api_keys", "api_keys_file"))


def _three_quarters(settings: dict[str, Any]) -> int:
    return int(settings["busy_at"] * 3 // 4)


class Settings(BaseModel):
    """The settings of one replica, in the order in which they are shown. Seconds are floats, sizes are in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: Text = setting("127.0.0.1", "Address to listen on; 0.0.0.0 or :: for all interfaces")
    port: Count = setting(3000, "Port to listen on; 0 takes a free one", ge=0, le=65535)
    probes_port: Bound = setting(
        None, "Port for probes and metrics alone, without keys and TLS", shown="that of all", ge=0, le=65535
    )
    public_url: Address = setting(
        None, "Address under which callers reach this replica; makes links in answers absolute", shown="relative links"
    )
    replica_tag: Tag = setting(
        None, "What the ids of its jobs begin with, by which a load balancer can route them back", shown="random"
    )

    tls_cert: File = setting(
        None, "Certificate chain (PEM) to serve HTTPS with; read again when it changes", shown="none"
    )
    tls_key: File = setting(None, "Private key (PEM) of the certificate", shown="in tls_cert")
    api_keys: Keys = setting(
        None, "Keys of those who may call: name:secret, separated by commas", shown="none: anyone may call", secret=True
    )
    api_keys_file: File = setting(None, "File of such keys, one a line; read again when it changes", shown="none")
    allow_unguarded: Switch = setting(False, "Whether to listen on more than the loopback without keys")
    key_concurrency: Bound = setting(None, "Orders of one key that may be under way at once", shown="no limit", ge=1)
    key_rate: Bound = setting(None, "Orders that one key may begin a minute, at once or evenly", shown="no limit", ge=1)
    cors_origins: Origins = setting((), "Origins whose web pages may call, separated by commas", shown="none")
    page: Switch = setting(True, "Whether people get pages: / to try the templates, /docs to read about the API")

    dialects: Names = setting(
        DIALECTS,
        "APIs of others that are served beside the native one, separated by commas; none for none",
        shown=", ".join(DIALECTS) or "none",
    )

    comfy_passthrough: Switch = setting(
        False, "Whether ComfyUI's own API is served under /comfy/, and without that prefix unless comfyui-api is spoken"
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
        "The engine's output folder, if it is on a disk of this machine: outputs are read from it, and removed",
        shown="read over HTTP; the embedded engine has one that goes with the replica",
    )
    keep_outputs: Switch = setting(False, "Whether outputs stay in the engine's output folder once they are delivered")
    url_secret: Secret = setting(
        None, "What links to outputs are signed with, so that they outlive a restart", shown="random", secret=True
    )
    url_expiry: Seconds = setting(3600.0, "Time for which a link to an output is good", gt=0)
    put_origins: Origins = setting(
        (), "Origins to whose URLs callers may have outputs put, separated by commas", shown="none"
    )
    put_anywhere: Switch = setting(False, "Whether they may be put to any public origin as well")
    destinations_file: File = setting(
        None, "Places in object storage to which outputs may be uploaded (TOML)", shown="none"
    )
    input_dir: Folder = setting(
        None,
        "The engine's input folder, if shared: staged inputs are removed from it",
        shown="not shared; the embedded engine has one that goes with the replica",
    )
    workflows_dir: Folder = setting(
        None, "Folder of templates beside those that ship; of two with one name the one in it counts", shown="none"
    )
    shipped_workflows: Switch = setting(True, "Whether the templates that ship are served")

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
        120.0,
        "Time that a running prompt may make no progress before the engine counts as failed; twice as long as its node "
        "was ever silent, if that is longer",
        gt=0,
    )
    max_attempts: Count = setting(3, "Submissions of one job, if the engine fails under it", ge=1)
    max_header: Size = setting(8192, "The longest line of a request's head", ge=1024)
    header_timeout: Seconds = setting(10.0, "Time for a request's head to arrive, or for the TLS handshake", gt=0)
    max_body: Size = setting(100 * 2**20, "The largest body of a request", ge=1)
    body_timeout: Seconds = setting(60.0, "Time for a request's body to arrive", gt=0)
    max_input: Size = setting(
        100 * 2**20, "The largest input: a part, base64, or what a URL leads to; ComfyUI itself takes 100MiB", ge=1
    )
    max_input_total: Size = setting(400 * 2**20, "All inputs of one request together", ge=1)
    max_pixels: Count = setting(
        100_000_000, "Pixels of one picture among the inputs, all its frames together", ge=1, le=178_956_970
    )
    fetch_timeout: Seconds = setting(60.0, "Time to fetch one input from a URL, redirects included", gt=0)
    fetch_redirects: Count = setting(5, "Redirects that are followed for one input", ge=0)
    fetch_origins: Origins = setting(
        (), "Private origins that inputs may be fetched from, too, separated by commas", shown="none"
    )
    sources_file: File = setting(None, "Places in object storage that inputs may be read from (TOML)", shown="none")
    deliveries: Count = setting(64, "Answers with outputs sent at once; more wait their turn", ge=1)
    sse_keepalive: Seconds = setting(15.0, "Silence after which an event stream gets a comment", gt=0, le=15)
    keep_alive: Seconds = setting(
        620.0, "Time that an idle connection is kept; longer than the load balancer's own, or it will see resets", gt=0
    )
    keep_jobs: Seconds = setting(600.0, "Time that finished jobs are kept", ge=0)
    keep_bytes: Size = setting(256 * 2**20, "Memory for the outputs of finished jobs that are kept", ge=0)

    webhook_secret: Secrets = setting(
        None,
        "Secrets that webhooks are signed with: whsec_..., separated by commas",
        shown="none: no webhooks",
        secret=True,
    )
    webhook_origins: Origins = setting(
        (), "Private origins that webhooks may go to, too, separated by commas", shown="none"
    )
    webhook_patience: Seconds = setting(3600.0, "Time for which a webhook that is not taken is sent again", ge=0)
    webhook_backlog: Count = setting(1000, "Webhooks that may be pending, those of unfinished jobs included", ge=1)
    webhook_bytes: Size = setting(
        64 * 2**20, "Room for outputs in pending webhooks; one that finds none goes without them", ge=0
    )
    keep_assets: Seconds = setting(86_400.0, "Time that assets uploaded through Comfy API are kept", gt=0)
    asset_bytes: Size = setting(256 * 2**20, "Room for such assets; the oldest go first", ge=0)
    state_dir: Folder = setting(
        None,
        "Folder for what a restart keeps: pending webhooks, jobs and assets of Comfy API; of this replica alone",
        shown="nothing is kept",
    )

    drain_delay: Seconds = setting(
        5.0, "Time after SIGTERM in which requests are still taken, while load balancers turn away", ge=0
    )
    grace: Seconds = setting(100.0, "Time after SIGTERM that work in flight is given to finish", ge=0)

    log_level: LogLevel = setting("info", "Least level that is logged")
    log_format: LogFormat = setting("auto", "Form of log lines; auto is text on a terminal, JSON elsewhere")

    @field_validator("public_url", "engine_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        return None if value is None else parse_url(value)

    @field_validator("probes_port")
    @classmethod
    def _check_probes_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and value == info.data.get("port"):
            raise ValueError("must be another than {port}")
        return value

    @field_validator("tls_key")
    @classmethod
    def _check_tls_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls_cert", value) is None:
            raise ValueError("needs {tls_cert}")
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, value: str | None) -> str | None:
        if value is not None:
            parse_keys(value)
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, value: str | None) -> str | None:
        if value is not None:
            parse_secrets(value)
        return value

    @field_validator("url_secret")
    @classmethod
    def _check_url_secret(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("replica_tag", "") is None:
            raise ValueError("needs {replica_tag}, since replicas of one secret could not tell their links apart")
        return value

    @field_validator("allow_unguarded")
    @classmethod
    def _check_allow_unguarded(cls, value: bool, info: ValidationInfo) -> bool:
        host = info.data.get("host", "127.0.0.1")
        if not value and not is_loopback(host) and _lacks_keys(info):
            raise ValueError(
                f"without {{api_keys}} or {{api_keys_file}} anyone who reaches {host} could run workflows: "
                "set one of them, or let this be true"
            )
        return value

    @field_validator("dialects")
    @classmethod
    def _check_dialects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not set(value) <= set(DIALECTS):
            raise ValueError(f"must be names among {', '.join(DIALECTS)}, or none")
        return value

    @field_validator("key_concurrency", "key_rate")
    @classmethod
    def _check_limits_of_keys(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and _lacks_keys(info):
            raise ValueError("needs {api_keys} or {api_keys_file}")
        return value

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
            raise ValueError("can't be used together with {engine_url}")
        return value

    @field_validator("busy_at")
    @classmethod
    def _check_busy_at(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("capacity", value):
            raise ValueError(f"must be at most {{capacity}}, which is {info.data['capacity']}")
        return value

    @field_validator("ready_at")
    @classmethod
    def _check_ready_at(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("busy_at", value + 1):
            raise ValueError(f"must be below {{busy_at}}, which is {info.data['busy_at']}")
        return value

    @field_validator("max_timeout")
    @classmethod
    def _check_max_timeout(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("timeout", value):
            raise ValueError(f"must be at least {{timeout}}, which is {show(info.data['timeout'])}")
        return value

    @property
    def embedded(self) -> bool:
        """Whether the engine is the one that comes with the converter."""
        return self.engine_url is None and self.engine_command is None


def declarations() -> tuple[Declaration, ...]:
    """All settings, in the order of their declaration."""
    return describe(Settings)


def load(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Make the settings, as `read` does. Raises SettingsError with every problem."""
    return read(Settings, flags, environment)
