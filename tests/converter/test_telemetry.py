"""Log lines that can be read and parsed, and metrics that exist from the start."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from converter.errors import Fault
from converter.telemetry import CONTENT_TYPE, OUTCOMES, REFUSALS, STATES, Metrics, configure_logging, redact

log = logging.getLogger("converter.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("asyncio", "PIL", "websockets"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_machine_gets_one_json_object_a_record() -> None:
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    log.info("job %s", "ended", extra={"job": "a\nb", "seconds": 1.5, "key": SecretStr("hunter2"), "level": "mine"})
    log.debug("unheard")
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "info",
        "logger": "converter.test",
        "event": "job ended",
        "job": "a\nb",
        "seconds": 1.5,
        "key": "**********",
    }


def test_an_exception_is_part_of_its_record() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: why" in json.loads(line)["exception"]


def test_a_person_gets_a_line_with_fields() -> None:
    stream = Terminal()
    configure_logging("info", "auto", stream)
    log.info("job ended", extra={"job": "a b", "seconds": 1.5, "none": "", "forged": "x\n12:00:00 INFO fine"})
    logging.getLogger("aiohttp.server").warning("odd \x1b[31m request")
    first, second = stream.getvalue().splitlines()
    assert first.split(maxsplit=1)[1] == (
        'INFO    job ended job="a b" seconds=1.5 none="" forged="x\\n12:00:00 INFO fine"'
    )
    assert second.split(maxsplit=1)[1] == r'WARNING aiohttp.server: "odd \u001b[31m request"'


def test_a_person_gets_the_traceback_below_the_line() -> None:
    stream = io.StringIO()
    configure_logging("info", "text", stream)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().splitlines()[-1] == "ValueError: why"


def test_configuring_again_replaces_only_its_own_handler() -> None:
    others = list(logging.getLogger().handlers)
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "text", first)
    configure_logging("debug", "text", second)
    log.debug("heard once")
    assert first.getvalue() == ""
    assert second.getvalue().count("heard once") == 1
    assert logging.getLogger().handlers[: len(others)] == others


def test_frames_of_callers_are_not_logged_at_level_debug() -> None:
    stream = io.StringIO()
    configure_logging("debug", "text", stream)
    logging.getLogger("websockets.client").debug("< TEXT secret")
    configure_logging("error", "text", stream)
    logging.getLogger("websockets.client").info("connection open")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no URL at all: a?b=c user:pass@host", "no URL at all: a?b=c user:pass@host"),
        ("at http://host:80/a/b.png.", "at http://host:80/a/b.png."),
        ("at https://u:p@host/a?X-Sig=1&b=2 and on", "at https://host/a?… and on"),
        ("'https://u:p@ss@host/a#token=1'", "'https://host/a?…'"),
        ("redis://:p@host:6379/0, s3://k:s@b/x", "redis://host:6379/0, s3://b/x"),
        ('{"url": "https://host/?q=1"}', '{"url": "https://host/?…"}'),
        ("http://host/~me@here?x", "http://host/~me@here?…"),
    ],
)
def test_addresses_are_told_without_their_secrets(text: str, told: str) -> None:
    assert redact(text) == told


def test_no_place_in_a_record_keeps_a_secret() -> None:
    url = "https://u:hunter2@host/?key=hunter2"
    for form in ("json", "text"):
        stream = io.StringIO()
        configure_logging("info", form, stream)
        try:
            raise ValueError(url)
        except ValueError as error:
            log.exception("at %s", url, extra={"url": url, "object": error})
        assert stream.getvalue().count("https://host/?…") + stream.getvalue().count("https://host/?\\u2026") == 4
        assert "hunter2" not in stream.getvalue()


def test_warnings_are_log_lines() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("info", "json", stream)
        warnings.warn("old ways", stacklevel=1)
    assert "old ways" in json.loads(stream.getvalue())["event"]
    logging.captureWarnings(capture=False)


def samples(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_every_series_exists_at_zero() -> None:
    found = samples(Metrics())
    expected = {f"converter_{name}" for name in ("waiting", "running", "capacity", "depth")}
    expected |= {"converter_engine_up", "converter_websocket_connected", "converter_engine_restarts_total"}
    expected |= {"converter_reconnects_total", "converter_looks_total"}
    expected |= {f'converter_jobs_total{{outcome="{outcome}"}}' for outcome in OUTCOMES}
    expected |= {f'converter_refusals_total{{reason="{reason}"}}' for reason in REFUSALS}
    expected |= {f"converter_{name}_seconds_count" for name in ("waiting", "executing", "total", "overhead")}
    expected |= {"converter_output_bytes_count"}
    assert {name: found.get(name) for name in expected} == dict.fromkeys(expected, 0.0)
    assert found["process_resident_memory_bytes"] > 0
    assert not [name for name in found if "_created" in name]
    assert CONTENT_TYPE.startswith("text/plain")


def test_one_state_is_present() -> None:
    metrics = Metrics()
    for state in (None, *STATES):
        if state:
            metrics.show_state(state)
        found = samples(metrics)
        present = [each for each in STATES if found[f'converter_state{{state="{each}"}}']]
        assert present == [state or "STARTING"]


def test_what_is_counted_is_told() -> None:
    metrics, other = Metrics(), Metrics()
    metrics.jobs.labels("out_of_memory").inc()
    metrics.total_seconds.observe(95)
    found = samples(metrics)
    assert found['converter_jobs_total{outcome="out_of_memory"}'] == 1
    assert found['converter_total_seconds_bucket{le="95.0"}'] == 1
    assert found['converter_total_seconds_bucket{le="60.0"}'] == 0
    assert samples(other)["converter_total_seconds_count"] == 0


def test_labels_are_codes_of_faults() -> None:
    def codes(fault: type[Fault]) -> set[str]:
        return {fault.code}.union(*(codes(child) for child in fault.__subclasses__()))

    assert set(OUTCOMES) - {"succeeded"} <= codes(Fault)
    assert set(REFUSALS) == {
        "queue_full", "shed", "deadline_unmeetable", "rate_limited", "starting", "draining", "engine_down"
    }  # fmt: skip
