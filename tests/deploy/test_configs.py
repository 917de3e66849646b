"""The files in `deploy/`, checked by the programs that read them, or against the schemas of their formats."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from converter.settings import declarations
from converter.telemetry import Metrics
from tests.deploy.balancers import DEPLOY, KINDS, Changes, Kind

KUBERNETES = DEPLOY / "kubernetes"
FOLDERS = ("base", "keda", "inference-pool")
VERSION = "1.34"

FILES = [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml")]

BESIDE_KUBERNETES = {
    "gateway.networking.k8s.io/v1 HTTPRoute": {
        "spec": {"parentRefs", "rules"},
        "rules": {"matches", "backendRefs", "timeouts"},
        "matches": {"path"},
        "backendRefs": {"group", "kind", "name", "port"},
        "timeouts": {"request"},
    },
    "keda.sh/v1alpha1 ScaledObject": {
        "spec": {
            *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "advanced", "triggers"),
        },
        "scaleTargetRef": {"name"},
        "triggers": {"type", "name", "metadata"},
        "metadata": {"serverAddress", "query", "threshold"},
        "advanced": {"horizontalPodAutoscalerConfig"},
    },
    "inference.networking.k8s.io/v1 InferencePool": {
        "spec": {"selector", "targetPorts", "endpointPickerRef"},
        "selector": {"matchLabels"},
        "targetPorts": {"number"},
        "endpointPickerRef": {"name", "port"},
    },
}
"""Kinds that Kubernetes itself does not have: which fields there may be, as their definitions have them."""


def build(folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would apply."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl, which builds what kustomization.yaml describes")
    done = subprocess.run([kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("tags", ["ab", "abc"])
def test_load_balancers_take_their_configuration(kind: Kind, tags: str, tmp_path: Path) -> None:
    if kind.program() is None:
        pytest.skip(f"there is no {kind.name}")
    path = kind.write(tmp_path, {tag: 9000 + number for number, tag in enumerate(tags)}, Changes(9999))
    done = subprocess.run(
        kind.command(kind.check, path), capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "replica" not in re.sub(r"replica-\w\b|server replica.*", "", done.stderr + done.stdout), done.stderr
    assert not re.search(r"\[(WARNING|warn)\]", done.stderr), done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_yaml_is_yaml(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))


def test_compose_follows_its_specification() -> None:
    document = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    jsonschema.validate(document, get_builtin_schema("vendor.compose-spec"))


def test_compose_mounts_files_that_there_are() -> None:
    document = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    mounts = [mount for service in document["services"].values() for mount in service.get("volumes", [])]
    folder = DEPLOY / "compose"
    paths = [folder / mount.partition(":")[0] for mount in mounts if mount.startswith(".")]
    assert len(paths) == 6
    assert all(path.is_file() for path in paths), paths


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_follow_the_schemas_of_kubernetes(folder: str) -> None:
    documents = build(folder)
    assert {document["kind"] for document in documents} >= {"Deployment", "Service", "PodDisruptionBudget", "HTTPRoute"}
    for document in documents:
        if f"{document['apiVersion']} {document['kind']}" not in BESIDE_KUBERNETES:
            kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_of_other_kinds_have_no_unknown_fields(folder: str) -> None:
    for document in build(folder):
        known = BESIDE_KUBERNETES.get(f"{document['apiVersion']} {document['kind']}", {})
        for name, part in _parts("spec", document["spec"]) if known else ():
            assert part.keys() <= known.get(name, part.keys()), (document["kind"], name)


def _parts(name: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside a value, by the name of the field that has it."""
    if isinstance(value, list):
        for one in value:
            yield from _parts(name, one)
    elif isinstance(value, dict):
        yield name, value
        for key, one in value.items():
            yield from _parts(key, one)


def test_a_pod_is_told_nothing_by_services_and_stops_its_engine_last() -> None:
    [pod] = [document["spec"]["template"]["spec"] for document in build("base") if document["kind"] == "Deployment"]
    assert pod["enableServiceLinks"] is False
    [engine] = pod["initContainers"]
    assert engine["restartPolicy"] == "Always"
    [converter] = pod["containers"]
    assert {probe: converter[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")} == {
        "startup": "/startupz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }


def test_everything_selects_the_same_pods() -> None:
    documents = {document["kind"]: document for document in build("inference-pool")}
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["Deployment"]["spec"]["selector"]["matchLabels"],
        documents["InferencePool"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    picker = yaml.safe_load(documents["ConfigMap"]["data"]["config.yaml"])
    [extractor] = [one for one in picker["plugins"] if one["type"] == "model-server-protocol-metrics"]
    [engine] = extractor["parameters"]["engineConfigs"]
    assert engine["name"] == labels[extractor["parameters"]["engineLabelKey"]]


def test_settings_and_metrics_that_are_named_exist() -> None:
    texts = [path.read_text() for path in DEPLOY.rglob("*") if path.is_file()]
    texts.append((DEPLOY.parent / "docs" / "operating.md").read_text())
    settings = {name for text in texts for name in re.findall(r"\bCONVERTER_[A-Z_]+\b", text)}
    assert settings - {declaration.variable for declaration in declarations()} <= {
        "CONVERTER_PORT",
        "CONVERTER_API_KEY",
    }
    shown = Metrics().text().decode()
    named = {
        name
        for path in KUBERNETES.rglob("*.yaml")
        for name in re.findall(r"(?:\(|Spec: )(converter_\w+)", path.read_text())
    }
    assert named
    assert all(re.search(rf"^{name}\b", shown, re.MULTILINE) for name in named), named


def test_salads_group_is_json_with_probes_that_exist() -> None:
    group = json.loads((DEPLOY / "saladcloud" / "container-group.json").read_text())
    assert {group[f"{probe}_probe"]["http"]["path"] for probe in ("startup", "readiness", "liveness")} == {
        *("/startupz", "/readyz", "/livez"),
    }
    assert all(
        1 <= group[f"{probe}_probe"]["failure_threshold"] <= 20 for probe in ("startup", "readiness", "liveness")
    )
