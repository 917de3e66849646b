"""The load balancers of `deploy/` with other addresses in them, to be checked and run.

Nothing else is changed but what `Changes` says, and that three replicas may be named where the files have two: what
names the second is repeated, as the files tell operators to do. Leaves running them to whoever wants it.
Invariant: what is checked and run here is what ships.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.ladder import ROOT

DEPLOY = ROOT / "deploy"

Addresses = Mapping[str, int]
"""Ports of this machine, by the tags of the replicas; `a` and `b` come first, as in the files."""


@dataclass(frozen=True)
class Changes:
    """`port`: where callers are awaited. `down`: tags of replicas that get no new work (nginx). `times`: what is put in
    the place of a time that the file has, for tests that can't wait so long.
    """

    port: int
    down: frozenset[str] = frozenset()
    times: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One load balancer: how it is called, what makes its configuration, and the commands that check and run that."""

    name: str
    render: Callable[[Addresses, Changes, Path], str]
    check: tuple[str, ...]
    run: tuple[str, ...]

    def program(self) -> str | None:
        """Where its program is, None where there is none."""
        beside = Path(sys.executable).parent
        return shutil.which(self.check[0], path=os.pathsep.join((str(beside), os.environ["PATH"], "/usr/sbin")))

    def write(self, folder: Path, replicas: Addresses, changes: Changes) -> Path:
        """Write the configuration into a folder of its own."""
        path = folder / f"{self.name}.yaml"
        path.write_text(self.render(replicas, changes, folder))
        return path

    def command(self, words: tuple[str, ...], path: Path) -> list[str]:
        """`check` or `run` for a configuration that was written."""
        program = self.program()
        assert program is not None
        return [program, *(word.format(path=path, folder=path.parent) for word in words[1:])]


def _haproxy(replicas: Addresses, changes: Changes, folder: Path) -> str:
    return _fill((DEPLOY / "haproxy" / "haproxy.cfg").read_text(), replicas, changes)


def _nginx(replicas: Addresses, changes: Changes, folder: Path) -> str:
    text = _fill((DEPLOY / "nginx" / "nginx.conf").read_text(), replicas, changes)
    for tag in changes.down:
        text = re.sub(rf"(server 127.0.0.1:{replicas[tag]} max_fails=1 .+?);", r"\1 down;", text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return text.replace("http {", f"http {{ {paths}", 1)


def _fill(text: str, replicas: Addresses, changes: Changes) -> str:
    lines = []
    for line in text.splitlines():
        tags = [tag for tag in replicas if tag != "a"] if "replica-b" in line else ["b"]
        lines += [line.replace("replica-b", f"replica-{tag}").replace("/b-", f"/{tag}-") for tag in tags]
    text = re.sub(r"replica-(\w+):3000", lambda match: f"127.0.0.1:{replicas[match[1]]}", "\n".join(lines))
    for given, changed in changes.times.items():
        text = re.sub(rf"\b{given}\b", changed, text)
    return (
        text.replace(":8080", f"127.0.0.1:{changes.port}").replace("listen 8080", f"listen 127.0.0.1:{changes.port}")
        + "\n"
    )


def _envoy(replicas: Addresses, changes: Changes, folder: Path) -> str:
    text = (DEPLOY / "envoy" / "envoy.yaml").read_text()
    for given, changed in changes.times.items():
        text = re.sub(rf"\b{given}\b", changed, text)
    document = yaml.safe_load(text)
    resources = document["static_resources"]
    [listener] = resources["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": changes.port}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    host["routes"] = [route for one in host["routes"] for route in _repeat(one, replicas)]
    resources["clusters"] = [cluster for one in resources["clusters"] for cluster in _repeat(one, replicas)]
    [endpoints] = resources["clusters"][0]["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [end for one in endpoints["lb_endpoints"] for end in _repeat(one, replicas)]
    return re.sub(
        r"address: replica-(\w+)\n(\s+)port_value: 3000",
        lambda match: f"address: 127.0.0.1\n{match[2]}port_value: {replicas[match[1]]}",
        yaml.safe_dump(document),
    )


def _repeat(part: Any, replicas: Addresses) -> list[Any]:
    """The part, or, where it is about the second replica alone, one for each after the first."""
    text = yaml.safe_dump(part)
    if "replica-b" not in text or "replica-a" in text:
        return [part]
    tags = [tag for tag in replicas if tag != "a"]
    return [yaml.safe_load(text.replace("replica-b", f"replica-{tag}").replace("/b-", f"/{tag}-")) for tag in tags]


HAPROXY = Kind(
    "haproxy",
    _haproxy,
    check=("haproxy", "-c", "-f", "{path}"),
    run=("haproxy", "-db", "-f", "{path}"),
)

_NGINX = ("-p", "{folder}", "-c", "{path}", "-g")
_SETTINGS = "pid {folder}/nginx.pid; error_log stderr;" + (" user root;" if os.geteuid() == 0 else "")
NGINX = Kind(
    "nginx",
    _nginx,
    check=("nginx", "-t", *_NGINX, _SETTINGS),
    run=("nginx", *_NGINX, f"daemon off; {_SETTINGS}"),
)

_ENVOY = ("-c", "{path}", "--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id")
ENVOY = Kind(
    "envoy",
    _envoy,
    check=("envoy", "--mode", "validate", *_ENVOY),
    run=("envoy", *_ENVOY),
)

KINDS = (HAPROXY, NGINX, ENVOY)
