"""Settings: defaults, where values come from, and one clear line for each thing that is wrong."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from converter.declarations import Count, SettingsError, describe, read, setting
from converter.settings import declarations, load

NAMES_THAT_STAY = {
    *("HOST", "PORT", "PUBLIC_URL", "ENGINE_URL", "ENGINE_COMMAND", "ENGINE_DEPTH", "WARMUP"),
    *("CAPACITY", "BUSY_AT", "READY_AT", "BUSY_IS_READY", "STALENESS", "STALL_PATIENCE", "MAX_ATTEMPTS"),
    *("TIMEOUT", "MAX_TIMEOUT", "DRAIN_DELAY", "GRACE", "OUTPUT_DIR", "INPUT_DIR", "WORKFLOWS_DIR"),
    *("API_KEYS", "API_KEYS_FILE", "LOG_LEVEL", "LOG_FORMAT"),
}


def wrong(environment: dict[str, str], flags: dict[str, object] | None = None) -> tuple[str, ...]:
    """The lines about an environment, given without the prefix."""
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, {f"CONVERTER_{name}": value for name, value in environment.items()})
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def test_defaults_are_those_of_the_contract() -> None:
    made = load({}, {})
    assert (made.host, made.port, made.capacity, made.busy_at, made.ready_at) == ("127.0.0.1", 3000, 16, 16, 12)
    assert (made.timeout, made.max_timeout, made.staleness, made.stall_patience) == (95.0, 3600.0, 2.0, 120.0)
    assert (made.max_attempts, made.drain_delay, made.grace, made.busy_is_ready) == (3, 5.0, 100.0, False)
    assert (made.engine_url, made.engine_command, made.engine_depth, made.warmup) == (None, None, None, None)
    assert (made.max_body, made.keep_jobs, made.keep_bytes) == (100 * 2**20, 600.0, 256 * 2**20)


def test_every_name_that_stays_is_declared_with_a_meaning() -> None:
    declared = {declaration.variable: declaration for declaration in declarations()}
    assert declared.keys() >= {f"CONVERTER_{name}" for name in NAMES_THAT_STAY}
    assert all(d.meaning and d.type and d.default for d in declared.values())
    secret = ["CONVERTER_API_KEYS", "CONVERTER_URL_SECRET", "CONVERTER_WEBHOOK_SECRET"]
    assert [d.variable for d in declared.values() if d.secret] == secret
    assert declared["CONVERTER_BUSY_IS_READY"].switch
    assert declared["CONVERTER_MAX_BODY"].default == "100MiB"
    assert declared["CONVERTER_TIMEOUT"].unit == "seconds"
    assert declared["CONVERTER_LOG_FORMAT"].type == "auto | text | json"
    assert declared["CONVERTER_ENGINE_URL"].flag == "--engine-url"


def test_shown_defaults_are_values_that_are_taken() -> None:
    words = (
        "relative",
        "embedded",
        "auto:",
        "a 16",
        "read",
        "no",
        "those",
        "capacity",
        "75",
        "random",
        "that of",
        "in tls",
    )
    flags = {d.name: d.default for d in declarations() if not d.default.startswith(words)}
    assert len(flags) > 20
    assert load(flags, {}) == load({}, {})


def test_a_flag_wins_over_the_environment_and_an_empty_variable_is_none() -> None:
    environment = {"CONVERTER_CAPACITY": "4", "CONVERTER_PORT": "1", "CONVERTER_ENGINE_URL": "", "CAPACITY": "9"}
    made = load({"port": "2"}, environment)
    assert (made.capacity, made.port, made.engine_url) == (4, 2, None)


@given(st.integers(1, 10**6))
def test_marks_follow_the_capacity(capacity: int) -> None:
    made = load({}, {"CONVERTER_CAPACITY": str(capacity)})
    assert made.busy_at == capacity
    assert made.ready_at == math.floor(0.75 * capacity) < made.busy_at


def test_values_are_parsed_as_people_write_them(tmp_path: Path) -> None:
    made = load(
        {"busy_is_ready": True},
        {
            "CONVERTER_ENGINE_DEPTH": "AUTO",
            "CONVERTER_MAX_BODY": "1 GiB",
            "CONVERTER_LOG_LEVEL": "INFO",
            "CONVERTER_ENGINE_COMMAND": "python 'my main.py' --port {port}",
            "CONVERTER_OUTPUT_DIR": str(tmp_path),
            "CONVERTER_PUBLIC_URL": "https://example.org/replica-1/",
        },
    )
    assert made.engine_depth is None
    assert made.max_body == 2**30
    assert made.log_level == "info"
    assert made.engine_command == ("python", "my main.py", "--port", "{port}")
    assert made.output_dir == tmp_path
    assert made.public_url == "https://example.org/replica-1"
    assert made.busy_is_ready


def test_settings_are_not_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}, {}).port = 1


@pytest.mark.parametrize(
    ("environment", "flags", "line"),
    [
        ({"CAPACTIY": "3"}, {}, "CONVERTER_CAPACTIY: no such setting; did you mean CONVERTER_CAPACITY?"),
        ({"XYZZY": "3"}, {}, 'CONVERTER_XYZZY: no such setting; "converter settings" lists all'),
        ({}, {"capactiy": "3"}, "--capactiy: no such flag; did you mean --capacity?"),
    ],
)
def test_an_unknown_name_stops_the_start(environment: dict[str, str], flags: dict[str, object], line: str) -> None:
    assert wrong(environment, flags) == (line,)


def test_everything_wrong_is_said_at_once() -> None:
    environment = {"CAPACITY": "0", "NOPE": "1", "LOG_FORMAT": "xml", "BUSY_IS_READY": "perhaps"}
    assert sorted(wrong(environment, {"port": "99999", "timeout": "soon"})) == [
        "--port: must be at most 65535, not '99999'",
        "--timeout: must be a number, not 'soon'",
        "CONVERTER_BUSY_IS_READY: must be true or false, not 'perhaps'",
        "CONVERTER_CAPACITY: must be at least 1, not '0'",
        "CONVERTER_LOG_FORMAT: must be auto, text or json, not 'xml'",
        'CONVERTER_NOPE: no such setting; "converter settings" lists all',
    ]


SIZE = "must be a number of bytes, or a size such as 100MiB"
ADDRESS = "must be an address such as http://127.0.0.1:8188"
EACH_ORIGIN = "must name each origin: * would let every web page call"
KEYS = "must be name:secret, with names of up to 64 letters, digits and ._-, which entry 2 is not"
UNGUARDED = (
    "CONVERTER_ALLOW_UNGUARDED (by default): without CONVERTER_API_KEYS or CONVERTER_API_KEYS_FILE anyone who "
    "reaches {} could run workflows: set one of them, or let this be true"
)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"CAPACITY": "4.5"}, "CONVERTER_CAPACITY: must be a whole number, not '4.5'"),
        ({"TIMEOUT": "nan"}, "CONVERTER_TIMEOUT: must be a number, not 'nan'"),
        ({"TIMEOUT": "0"}, "CONVERTER_TIMEOUT: must be more than 0, not '0'"),
        ({"SSE_KEEPALIVE": "16"}, "CONVERTER_SSE_KEEPALIVE: must be at most 15, not '16'"),
        ({"MAX_BODY": "12 parsecs"}, f"CONVERTER_MAX_BODY: {SIZE}, not '12 parsecs'"),
        ({"MAX_BODY": "-1"}, f"CONVERTER_MAX_BODY: {SIZE}, not '-1'"),
        ({"ENGINE_DEPTH": "0"}, "CONVERTER_ENGINE_DEPTH: must be at least 1, not '0'"),
        ({"ENGINE_COMMAND": "a 'b"}, "CONVERTER_ENGINE_COMMAND: must have its quotation marks closed, not \"a 'b\""),
        ({"ENGINE_COMMAND": " "}, "CONVERTER_ENGINE_COMMAND: must name a program, not ' '"),
        ({"OUTPUT_DIR": "/nowhere"}, "CONVERTER_OUTPUT_DIR: must be an existing folder, not '/nowhere'"),
        ({"REPLICA_TAG": "a-b"}, "CONVERTER_REPLICA_TAG: must be 1 to 16 letters and digits, not 'a-b'"),
        ({"WARMUP": "/"}, "CONVERTER_WARMUP: must be an existing file, not '/'"),
        ({"ENGINE_URL": "127.0.0.1:8188"}, f"CONVERTER_ENGINE_URL: {ADDRESS}, not '127.0.0.1:8188'"),
        ({"ENGINE_URL": "ws://h"}, f"CONVERTER_ENGINE_URL: {ADDRESS}, not 'ws://h'"),
        ({"ENGINE_URL": "http://h:99999"}, "CONVERTER_ENGINE_URL: must have a port from 0 to 65535, or none, not 'http://h:99999'"),
        ({"ENGINE_URL": "http://h/path"}, "CONVERTER_ENGINE_URL: must not have a path, not 'http://h/path'"),
        ({"ENGINE_URL": "http://h?q=1"}, "CONVERTER_ENGINE_URL: must not have a query or a fragment, not 'http://h?q=1'"),
        ({"ENGINE_URL": "http://h\n"}, "CONVERTER_ENGINE_URL: must not contain spaces or control characters, not 'http://h\\n'"),
        ({"ENGINE_URL": "http://me:secret@h"}, "CONVERTER_ENGINE_URL: must not contain credentials"),
        ({"BUSY_AT": "17"}, "CONVERTER_BUSY_AT: must be at most CONVERTER_CAPACITY, which is 16, not '17'"),
        ({"READY_AT": "16"}, "CONVERTER_READY_AT: must be below CONVERTER_BUSY_AT, which is 16, not '16'"),
        (
            {"TIMEOUT": "5000"},
            "CONVERTER_MAX_TIMEOUT (by default): must be at least CONVERTER_TIMEOUT, which is 5000, not 3600",
        ),
        ({"MAX_TIMEOUT": "9.5"}, "CONVERTER_MAX_TIMEOUT: must be at least CONVERTER_TIMEOUT, which is 95, not '9.5'"),
        ({"PROBES_PORT": "3000"}, "CONVERTER_PROBES_PORT: must be another than CONVERTER_PORT, not '3000'"),
        ({"TLS_KEY": __file__}, "CONVERTER_TLS_KEY: needs CONVERTER_TLS_CERT"),
        ({"API_KEYS": "alice:hunter2,hunter3"}, f"CONVERTER_API_KEYS: {KEYS}"),
        ({"API_KEYS": ","}, "CONVERTER_API_KEYS: must have a key, such as name:secret"),
        ({"API_KEYS_FILE": "/nowhere"}, "CONVERTER_API_KEYS_FILE: must be an existing file, not '/nowhere'"),
        ({"HOST": "0.0.0.0"}, UNGUARDED.format("0.0.0.0")),
        ({"HOST": "::", "ALLOW_UNGUARDED": "no"}, UNGUARDED.format("::").replace(" (by default)", "")),
        ({"WEBHOOK_SECRET": "planted"}, "CONVERTER_WEBHOOK_SECRET: must be whsec_ and base64 of 24 to 64 bytes"),
        ({"KEY_RATE": "60"}, "CONVERTER_KEY_RATE: needs CONVERTER_API_KEYS or CONVERTER_API_KEYS_FILE"),
        ({"KEY_CONCURRENCY": "2"}, "CONVERTER_KEY_CONCURRENCY: needs CONVERTER_API_KEYS or CONVERTER_API_KEYS_FILE"),
        ({"KEY_RATE": "0", "API_KEYS": "a:b"}, "CONVERTER_KEY_RATE: must be at least 1, not '0'"),
        ({"CORS_ORIGINS": "*"}, f"CONVERTER_CORS_ORIGINS: {EACH_ORIGIN}, not '*'"),
        ({"MAX_HEADER": "100"}, "CONVERTER_MAX_HEADER: must be at least 1024, not '100'"),
        (
            {"ENGINE_URL": "http://h", "ENGINE_COMMAND": "python main.py"},
            "CONVERTER_ENGINE_COMMAND: can't be used together with CONVERTER_ENGINE_URL",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_source(environment: dict[str, str], line: str) -> None:
    assert wrong(environment) == (line,)


@pytest.mark.parametrize(
    ("environment", "flags", "line"),
    [
        ({}, {"busy_at": "17"}, "--busy-at: must be at most --capacity, which is 16, not '17'"),
        ({"CAPACITY": "8"}, {"busy_at": "9"}, "--busy-at: must be at most CONVERTER_CAPACITY, which is 8, not '9'"),
        ({"BUSY_AT": "9"}, {"capacity": "8"}, "CONVERTER_BUSY_AT: must be at most --capacity, which is 8, not '9'"),
        (
            {},
            {"engine_url": "http://h", "engine_command": "x"},
            "--engine-command: can't be used together with --engine-url",
        ),
        ({}, {"workflows_dir": "{port}"}, "--workflows-dir: must be an existing folder, not '{port}'"),
    ],
)
def test_other_settings_are_named_as_they_are_given(
    environment: dict[str, str], flags: dict[str, object], line: str
) -> None:
    assert wrong(environment, flags) == (line,)


@pytest.mark.parametrize(
    "environment",
    [
        {"HOST": "0.0.0.0", "API_KEYS": "alice:hunter2"},
        {"HOST": "0.0.0.0", "API_KEYS_FILE": __file__},
        {"HOST": "0.0.0.0", "ALLOW_UNGUARDED": "true"},
        {"HOST": "localhost"},
        {"HOST": "::1"},
    ],
)
def test_more_than_the_loopback_is_listened_on_with_keys_or_on_purpose(environment: dict[str, str]) -> None:
    made = load({}, {f"CONVERTER_{name}": value for name, value in environment.items()})
    assert made.host == environment["HOST"]


def test_settings_show_nothing_of_keys() -> None:
    made = load({"api_keys": "alice:hunter2"}, {})
    assert made.api_keys == "alice:hunter2"
    assert "hunter2" not in repr(made) + str(made)


def test_variables_of_kubernetes_services_are_ignored() -> None:
    environment = {
        "CONVERTER_PORT": "tcp://10.0.0.1:3000",
        "CONVERTER_SERVICE_HOST": "10.0.0.1",
        "CONVERTER_SERVICE_PORT": "3000",
        "CONVERTER_SERVICE_PORT_HTTP": "3000",
        "CONVERTER_PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "CONVERTER_PORT_3000_TCP_PROTO": "tcp",
        "CONVERTER_PORT_3000_TCP_PORT": "3000",
        "CONVERTER_PORT_3000_TCP_ADDR": "10.0.0.1",
        "CONVERTER_CANARY_SERVICE_HOST": "10.0.0.2",
        "CONVERTER_CANARY_PORT": "udp://10.0.0.2:3000",
        "CONVERTER_CANARY_PORT_3000_UDP_ADDR": "10.0.0.2",
    }
    assert load({}, environment) == load({}, {})
    assert len(wrong({"SERVICE_HOSTS": "x", "PORT_TCP": "x", "PORT": "udp"})) == 3


class WithSecret(BaseModel):
    """A model with a secret, as the settings may have."""

    key: Count = setting(1, "A key", secret=True)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        read(WithSecret, {}, {"CONVERTER_KEY": "hunter2"})
    assert caught.value.lines == ("CONVERTER_KEY: must be a whole number",)
    assert "42" not in repr(read(WithSecret, {"key": "42"}, {}))
    (declaration,) = describe(WithSecret)
    assert declaration.secret
    assert declaration.default == ""
