"""The Dockerfile, judged without Docker: what it copies, installs and calls exists, and its form follows the rules of
hadolint that matter here (named in brackets).
"""

import asyncio
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from converter import cli
from converter.app import run_replica
from converter.settings import declarations, load

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = ("converter", "all")


@dataclass(frozen=True)
class Instruction:
    """One instruction; `flags` are the words with two dashes that come first, `text` is the rest."""

    name: str
    flags: dict[str, str]
    text: str


@dataclass(frozen=True)
class Stage:
    """One FROM with what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


def parse() -> dict[str, Stage]:
    """The stages by name."""
    source = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in source.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        flags = {}
        while (text := text.strip()).startswith("--"):
            flag, _, text = text.partition(" ")
            key, _, value = flag[2:].partition("=")
            flags[key] = value
        if name == "FROM":
            base, _, stage = text.partition(" AS ")
            stages[stage] = Stage(stage, base)
        else:
            list(stages.values())[-1].instructions.append(Instruction(name, flags, text.strip()))
    return stages


STAGES = parse()
EVERYTHING = [instruction for stage in STAGES.values() for instruction in stage.instructions]


def lineage(target: str) -> Iterator[Instruction]:
    """The instructions of a target and of the stages that it is made from, first things first."""
    stage = STAGES[target]
    if stage.base in STAGES:
        yield from lineage(stage.base)
    yield from stage.instructions


def last(target: str, name: str) -> Instruction:
    """The instruction of a kind that counts in the end."""
    return [instruction for instruction in lineage(target) if instruction.name == name][-1]


def all_of(name: str) -> list[Instruction]:
    return [instruction for instruction in EVERYTHING if instruction.name == name]


def healthcheck() -> list[str]:
    """The command of HEALTHCHECK, with this Python for the image's."""
    name, _, command = last("converter", "HEALTHCHECK").text.partition(" ")
    assert name == "CMD"
    program, *arguments = json.loads(command)
    assert program == "python"
    return [sys.executable, *arguments]


def test_both_targets_are_there() -> None:
    assert set(TARGETS) <= STAGES.keys()


def test_bases_are_pinned_to_a_version_or_made_here() -> None:
    """[DL3006, DL3007]"""
    for stage in STAGES.values():
        assert stage.base in STAGES or re.fullmatch(r"[a-z]+:\d+\.\d+[a-z0-9.-]*", stage.base), stage.base


def test_bases_are_of_a_python_that_the_package_takes() -> None:
    for stage in STAGES.values():
        if stage.base not in STAGES:
            version = stage.base.partition(":")[2].partition("-")[0]
            assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_nobody_special(target: str) -> None:
    """[DL3002]; a number, so that Kubernetes can see that it is not root."""
    assert int(last(target, "USER").text) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_programs_are_started_without_a_shell_and_exist(target: str) -> None:
    """[DL3025]: signals reach the program itself."""
    program, *arguments = json.loads(last(target, "ENTRYPOINT").text)
    arguments += json.loads(last(target, "CMD").text)
    assert program in PROJECT["scripts"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--help"])
    assert ended.value.code == 0


def test_form() -> None:
    """[DL3000, DL3003, DL3004, DL3008, DL3009, DL3020, DL3042, DL4000]"""
    names = {instruction.name for instruction in EVERYTHING}
    assert not names & {"ADD", "MAINTAINER", "SHELL"}
    assert all(instruction.text.startswith("/") for instruction in all_of("WORKDIR"))
    for run in all_of("RUN"):
        words = shlex.split(run.text)
        assert not {"sudo", "cd", "apt", "curl", "wget"} & set(words), run.text
        assert "apt-get" not in words or ("--no-install-recommends" in words and "/var/lib/apt/lists" in run.text)
        assert "install" not in words or "apt-get" in words or "--no-cache-dir" in words, run.text


def test_what_is_copied_exists_and_is_let_in() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    for copy in all_of("COPY"):
        *sources, destination = copy.text.split()
        for source in sources:
            if "from" in copy.flags:
                assert copy.flags["from"] in STAGES
                assert source == destination, "a virtual environment works only where it was made"
            else:
                assert (ROOT / source).exists(), source
                assert source.strip("/") in let_in, source
    assert {path for path in let_in if not (ROOT / path).exists()} == set()


def test_everything_that_the_wheel_is_built_from_is_copied() -> None:
    copied = {word.strip("/") for copy in all_of("COPY") if "from" not in copy.flags for word in copy.text.split()}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}
    assert {name for name in needed if name not in copied and name.partition("/")[0] not in copied} == set()


def test_what_is_installed_exists_and_the_sidecar_has_no_torch() -> None:
    lists = [named for run in all_of("RUN") for named in re.findall(r"\.\[([\w,]+)]", run.text)]
    assert {extra for named in lists for extra in named.split(",")} == {"engine", "otel", "storage"}
    origin = last("converter", "COPY").flags["from"]
    assert not any("engine]" in step.text or "TORCH" in step.text for step in lineage(origin) if step.name == "RUN")
    everything = last("all", "COPY").flags["from"]
    assert any("engine]" in step.text for step in lineage(everything) if step.name == "RUN")


@pytest.mark.parametrize("target", TARGETS)
def test_environment_names_settings_and_the_port_that_is_exposed(target: str) -> None:
    pairs = (word.partition("=") for word in shlex.split(last(target, "ENV").text))
    environment = {name: value for name, _, value in pairs}
    settings = load({}, environment)
    assert settings.host == "0.0.0.0"
    assert settings.allow_unguarded
    assert str(settings.port) == last(target, "EXPOSE").text
    known = {declaration.variable for declaration in declarations()}
    assert {name for name in environment if name.startswith("CONVERTER_")} <= known


def test_volume_is_made_by_the_user_who_writes_there() -> None:
    volume = PurePosixPath(last("all", "VOLUME").text)
    steps = list(lineage("all"))
    made = [i for i, step in enumerate(steps) if step.name == "RUN" and f"mkdir -p {volume}" in step.text]
    users = [i for i, step in enumerate(steps) if step.name == "USER"]
    assert users[-1] < made[0] < steps.index(last("all", "VOLUME"))
    assert "/".join(volume.parts[-3:]) == ".local/share/converter-engine"
    assert "~/.local/share/converter-engine" in (ROOT / "engine" / "__main__.py").read_text()


async def test_healthcheck_is_true_to_the_probe(unused_tcp_port: int) -> None:
    settings = load({"engine_url": f"http://127.0.0.1:{unused_tcp_port}", "port": 0}, {})
    async with run_replica(settings, {}) as replica:
        port = str(urlsplit(replica.address).port)
        # A proxy of the host must not be asked for what is on this side of it.
        environment = {"CONVERTER_PORT": port, "http_proxy": "http://127.0.0.1:9"}
        check = await asyncio.create_subprocess_exec(*healthcheck(), env=environment)
        assert await check.wait() == 0
        apart = {**environment, "CONVERTER_PORT": "1", "CONVERTER_PROBES_PORT": port}
        check = await asyncio.create_subprocess_exec(*healthcheck(), env=apart)
        assert await check.wait() == 0
    dead = await asyncio.create_subprocess_exec(*healthcheck(), env=environment, stderr=asyncio.subprocess.DEVNULL)
    assert await dead.wait() != 0
