"""Every number in `deploy/` follows from the one table in docs/operating.md, and the table from the settings."""

import re
from collections.abc import Mapping

import pytest

from converter.jobs import WITHDRAWAL
from converter.settings import load
from tests.deploy.ladder import PAGE, ROOT, ladder, number

LADDER = ladder()

NUMBERS: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {
    "deploy/haproxy/haproxy.cfg": {
        r"tune\.bufsize": "retry-size",
        r"timeout connect": "connect",
        r"timeout (?:client|server)": "balancer",
        r"timeout http-request": "headers",
        r"timeout http-keep-alive": "idle",
        r"timeout check": "probe-timeout",
        r"\binter": "probe",
        r"fastinter": "probe-timeout",
    },
    "deploy/nginx/nginx.conf": {
        r"client_max_body_size": "body-size",
        r"client_body_buffer_size": "retry-size",
        r"client_header_timeout": "headers",
        r"(?:client_body|proxy_send)_timeout": "body",
        r"keepalive_timeout (?=[1-9])": "idle",
        r"proxy_connect_timeout": "connect",
        r"proxy_read_timeout": "balancer",
        r"max_fails=1 fail_timeout=": ("back-off", "probe"),
    },
    "deploy/envoy/envoy.yaml": {
        r"per_connection_buffer_limit_bytes:": "retry-size",
        r"request_headers_timeout:": "headers",
        r"stream_idle_timeout:": "balancer",
        r"common_http_protocol_options: \{idle_timeout:": "idle",
        r"connect_timeout:": "connect",
        r"- interval:|no_traffic_interval:|base_ejection_time:": "probe",
        r"\btimeout: (?=[1-9])": "probe-timeout",
        r"^        interval:": "back-off",
    },
    "deploy/compose/compose.yaml": {r"stop_grace_period:": "stop"},
    "deploy/kubernetes/base/deployment.yaml": {
        r"terminationGracePeriodSeconds:": "pod-stop",
        r"CONVERTER_TIMEOUT, value:": "converter",
        r"CONVERTER_DRAIN_DELAY, value:": "drain-delay",
        r"CONVERTER_GRACE, value:": "grace",
        r"preStop: \{sleep: \{seconds:": "pre-stop",
        r"timeoutSeconds:": "probe-timeout",
        r"periodSeconds:": ("probe", "live"),
    },
    "deploy/kubernetes/keda/scaled-object.yaml": {
        r"stabilizationWindowSeconds:": "scale-down",
        r"sum\(converter_waiting\)\s+threshold:": "scale-at",
    },
    "deploy/saladcloud/container-group.json": {
        r'"CONVERTER_TIMEOUT":': "converter",
        r'"CONVERTER_DRAIN_DELAY":': "drain-delay",
        r'"CONVERTER_GRACE":': "grace",
        r'"timeout_seconds":': "probe-timeout",
    },
    "README.md": {r"terminationGracePeriodSeconds:": "pod-stop", r"readinessProbe: .*periodSeconds:": "probe"},
}
"""By file: what stands before a number, and the rows of the table, one of which it has to have."""

SETTINGS = {
    "converter": "timeout",
    "comment": "sse_keepalive",
    "headers": "header_timeout",
    "body": "body_timeout",
    "keep-alive": "keep_alive",
    "probe": "staleness",
    "start": "engine_start_timeout",
    "drain-delay": "drain_delay",
    "grace": "grace",
    "body-size": "max_body",
    "capacity": "capacity",
}


@pytest.mark.parametrize("file", NUMBERS)
def test_every_number_of_a_file_is_in_the_table(file: str) -> None:
    text = _without_comments((ROOT / file).read_text())
    for words, names in NUMBERS[file].items():
        allowed = {LADDER[name] for name in ([names] if isinstance(names, str) else names)}
        found = re.findall(rf'(?:{words})\s*"?(\d+)(ms|s|k|m)?\b', text, re.MULTILINE)
        assert found, words
        assert {number(value, unit) for value, unit in found} == allowed, words


@pytest.mark.parametrize("file", [file for file in NUMBERS if file != "README.md"])
def test_a_file_has_no_times_that_the_table_does_not_know(file: str) -> None:
    text = _without_comments((ROOT / file).read_text())
    times = {number(value, unit) for value, unit in re.findall(r"\b(\d+)(ms|s)\b", text)}
    assert times <= {*LADDER.values(), 0.0}


def test_the_rungs_are_in_order() -> None:
    assert LADDER["caller"] > LADDER["balancer"] > LADDER["converter"] >= LADDER["engine"]
    assert LADDER["balancer"] <= 100 < LADDER["keep-alive"], "what Salad and Cloudflare bear"
    assert LADDER["comment"] < 60 <= LADDER["idle"] < LADDER["keep-alive"], "what ALB and nginx bear by default"
    assert LADDER["probe-timeout"] < LADDER["probe"]
    assert LADDER["drain-delay"] == 2 * LADDER["probe"] + LADDER["probe-timeout"]
    assert LADDER["grace"] == LADDER["drain-delay"] + LADDER["converter"]
    assert LADDER["ending"] > WITHDRAWAL
    assert LADDER["stop"] == LADDER["grace"] + LADDER["ending"]
    assert LADDER["pod-stop"] == LADDER["pre-stop"] + LADDER["stop"]
    assert LADDER["scale-at"] == LADDER["capacity"] / 4


def test_the_table_has_what_the_settings_have() -> None:
    settings = load({}, {})
    assert {name: getattr(settings, setting) for name, setting in SETTINGS.items()} == {
        name: LADDER[name] for name in SETTINGS
    }


def test_nothing_in_the_table_is_of_no_use() -> None:
    used = {name for rules in NUMBERS.values() for names in rules.values() for name in _tuple(names)} | SETTINGS.keys()
    assert LADDER.keys() - used == {"caller", "engine", "ending"}, "these are numbers of others"


@pytest.mark.parametrize("file", ["deploy/kubernetes/base/deployment.yaml", "deploy/saladcloud/container-group.json"])
def test_probes_are_as_patient_as_the_start(file: str) -> None:
    text = (ROOT / file).read_text()
    begun = re.search(r"startup_?[pP]robe.*?(?=readiness)", text, re.DOTALL)
    assert begun is not None
    period, threshold = (
        int(re.findall(rf'{words}"?: (\d+)', begun[0])[0]) for words in ("period_?[sS]econds", "failure_?[tT]hreshold")
    )
    assert period * threshold == LADDER["start"]


def test_salad_has_its_largest_time_in_milliseconds() -> None:
    text = (ROOT / "deploy/saladcloud/container-group.json").read_text()
    assert set(re.findall(r'_timeout": (\d+)', text)) == {str(int(LADDER["balancer"] * 1000))}


def test_the_page_names_every_folder() -> None:
    folders = {path.name for path in (ROOT / "deploy").iterdir()}
    assert folders <= set(re.findall(r"`(\w+)/", PAGE.read_text()))


def _without_comments(text: str) -> str:
    return re.sub(r"#.*$", "", text, flags=re.MULTILINE)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
