"""The command line, as processes: what it says, how it ends, and how quickly it answers."""

import os
import resource
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converter import __version__
from converter.settings import declarations
from tests.converter.terminal import open_terminal


def converter(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
    return subprocess.run(
        [sys.executable, "-m", "converter.cli", *arguments],
        env=inherited | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_answers_at_once() -> None:
    def measure() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begun = measure()
    assert "serve" in converter("--help").stdout
    # Processor time, which is what it takes on an idle machine: 0.5 s is promised, whatever else runs here.
    assert measure() - begun < 0.5


@pytest.mark.parametrize("arguments", [("--help",), ("version",), ("run", "--help")])
def test_answers_about_itself_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom converter.cli import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit: pass\n"
        "heavy = {'aiohttp', 'asyncio', 'pydantic', 'rich', 'prometheus_client'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_version_is_told(argument: str) -> None:
    done = converter(argument)
    assert (done.returncode, done.stdout) == (0, f"converter {__version__}\n")


def test_every_setting_is_a_flag_with_default_unit_and_variable() -> None:
    said = " ".join(converter("serve", "--help").stdout.split())
    for declaration in declarations():
        assert f" {declaration.flag}" in said
        assert f"default: {declaration.default}" in said
        assert f"{declaration.variable})" in said
    assert "--no-busy-is-ready" in said
    assert "(default: 95 seconds; CONVERTER_TIMEOUT)" in said
    assert "75 % of busy_at" in said


SECONDS = "must be a number of seconds, not"
UNKNOWN = {"CONVERTER_CAPACTIY": "3"}
MIXED = [
    "--port: must be a whole number, not 'x'",
    "CONVERTER_GRACE: must be at least 0, not '-1'",
    "--capactiy: no such flag; did you mean --capacity?",
]


@pytest.mark.parametrize(
    ("arguments", "environment", "lines"),
    [
        (["serve"], UNKNOWN, ["CONVERTER_CAPACTIY: no such setting; did you mean CONVERTER_CAPACITY?"]),
        (["serve", "--capactiy=3"], {}, ["--capactiy: no such flag; did you mean --capacity?"]),
        (["serve", "--port", "x", "--capactiy", "3"], {"CONVERTER_GRACE": "-1"}, MIXED),
        (["serve", "8188"], {}, ["8188: no such argument"]),
        (["serve", "--port"], {}, ["argument --port: expected one argument (see converter serve --help)"]),
        (["serve", "--cap", "3"], {}, ['--cap: no such flag; "converter settings" lists all']),
        (["settings", "--all"], {}, ["--all: no such argument"]),
        (["run"], {}, ["the following arguments are required: WORK (see converter run --help)"]),
        (["run", "x", "--wait", "nan"], {}, [f"argument --wait: {SECONDS} 'nan' (see converter run --help)"]),
        (["run", "x", "--timeout", "-1"], {}, [f"argument --timeout: {SECONDS} '-1' (see converter run --help)"]),
        (["run", "x", "--timeout", "soon"], {}, [f"argument --timeout: {SECONDS} 'soon' (see converter run --help)"]),
    ],
)
def test_wrong_usage_is_a_line_each_and_status_2(
    arguments: list[str], environment: dict[str, str], lines: list[str]
) -> None:
    done = converter(*arguments, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"converter {arguments[0]}: {line}" for line in lines]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--api-key", "hunter2"], {}),
        ([], {"CONVERTER_API_KEY": "hunter2"}),
        (["--api-key=hunter2"], {"CONVERTER_API_KEY": "another"}),
    ],
)
def test_run_takes_a_key_from_its_arguments_or_the_environment(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    workflow = tmp_path / "workflow.json"
    workflow.write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ran = pool.submit(converter, "run", str(workflow), "--url", url, *arguments, **environment)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
    assert b"\r\nAuthorization: Bearer hunter2\r\n" in head
    assert "hunter2" not in ran.result().stderr + ran.result().stdout


def test_a_service_without_keys_is_not_opened_to_others_by_mistake() -> None:
    done = converter("serve", "--host", "0.0.0.0", "--engine-url", "http://127.0.0.1:1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("converter serve: CONVERTER_ALLOW_UNGUARDED (by default): without CONVERTER_API_KEYS or ")


def test_settings_are_listed_for_people_and_the_readme() -> None:
    plain = converter("settings").stdout.splitlines()
    markdown = converter("settings", "--markdown").stdout.splitlines()
    assert plain[0].split() == ["Variable", "Type", "Unit", "Default", "Meaning"]
    assert markdown[:2] == ["| Variable | Type | Unit | Default | Meaning |", "| --- | --- | --- | --- | --- |"]
    for row, line, declaration in zip(plain[1:], markdown[2:], declarations(), strict=True):
        for text in (
            declaration.variable,
            declaration.type,
            declaration.unit,
            declaration.default,
            declaration.meaning,
        ):
            assert text in row
            assert text.replace("|", "\\|") in line
    assert (
        "| `CONVERTER_TIMEOUT` | number | seconds | 95 | Time for a whole request, unless it says otherwise |"
        in markdown
    )


def test_settings_are_a_table_on_a_terminal() -> None:
    with open_terminal() as terminal:
        with subprocess.Popen([sys.executable, "-m", "converter.cli", "settings"], stdout=terminal.screen) as child:
            shown = terminal.read_all()
        assert child.returncode == 0
    assert "───" in shown
    assert all(declaration.variable in shown for declaration in declarations())
