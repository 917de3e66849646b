"""Dashboard, alerts and scrape configuration: every query asks for what `/metrics` has, in a way that can answer."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from converter.telemetry import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
SCRAPE: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())

ADDED = {"instance", "job"}
"""Labels that Prometheus adds when it scrapes."""

VARIABLES = {"$__rate_interval": "5m"}
"""What Grafana puts in where PromQL has no quotes."""


def known() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """The samples of `/metrics` by name: the kind of metric, and the values of each label."""
    found: dict[str, tuple[str, dict[str, set[str]]]] = {"up": ("gauge", {})}
    for metric in Metrics().collect():
        for sample in metric.samples:
            labels = found.setdefault(sample.name, (metric.type, {}))[1]
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


KNOWN = known()


def problems(query: str) -> list[str]:
    """What is wrong with a query; of one that can't be parsed, why."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    try:
        expression = promql.parse(query)
    except ValueError as error:
        return [str(error)]
    found: list[str] = []

    def visit(node: Any) -> None:
        match node:
            case promql.MatrixSelector():
                found.extend(_check_selector(node.vector_selector, ranged=True))
            case promql.VectorSelector():
                found.extend(_check_selector(node, ranged=False))
            case promql.AggregateExpr() if node.modifier is not None:
                kept = set(node.modifier.labels)
                found.extend(f"nothing has the label {label}" for label in kept - labels_of(node.expr))
            case promql.Call() if node.func.name == "histogram_quantile" and "le" not in labels_of(node.args[1]):
                found.append("a quantile without le")

    for node in nodes(expression):
        visit(node)
    return found


def _check_selector(selector: Any, *, ranged: bool) -> Iterator[str]:
    if selector.name not in KNOWN:
        yield f"there is no {selector.name}"
        return
    kind, labels = KNOWN[selector.name]
    grows = kind in ("counter", "histogram")
    if grows is not ranged:
        yield f"{selector.name} is a {kind}, " + ("of which a rate is wanted" if grows else "which has no rate")
    for matcher in selector.matchers.matchers:
        if matcher.name in ADDED:
            continue
        values = labels.get(matcher.name)
        if values is None:
            yield f"{selector.name} has no label {matcher.name}"
        elif missing := [value for value in matcher.value.split("|") if value not in values]:
            yield f"{matcher.name} is never {missing}"


def nodes(expression: Any) -> Iterator[Any]:
    """The nodes of a parsed query, a selector with a range as one."""
    yield expression
    match expression:
        case promql.BinaryExpr():
            below = [expression.lhs, expression.rhs]
        case promql.Call():
            below = list(expression.args)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            below = [expression.expr]
        case _:
            below = []
    for node in below:
        yield from nodes(node)


def labels_of(expression: Any) -> set[str]:
    """The labels that the answer to an expression has."""
    match expression:
        case promql.MatrixSelector():
            return labels_of(expression.vector_selector)
        case promql.VectorSelector():
            return ADDED | set(KNOWN.get(expression.name or "", ("", {}))[1])
        case promql.AggregateExpr():
            modifier = expression.modifier
            return set() if modifier is None else labels_of(expression.expr) & set(modifier.labels)
        case promql.BinaryExpr():
            return labels_of(expression.lhs)
        case promql.Call():
            lost = {"le"} if expression.func.name == "histogram_quantile" else set()
            return labels_of(expression.args[-1]) - lost
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels_of(expression.expr)
    return set()


def answer_labels(query: str) -> set[str]:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return labels_of(promql.parse(query))


# The judge itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("sum(converter_waitings)", "there is no converter_waitings"),
        ("sum(rate(converter_jobs[5m]))", "there is no converter_jobs"),
        ('converter_state{stat="READY"}', "no label stat"),
        ('converter_state{state="READDY"}', "never ['READDY']"),
        ('sum(rate(converter_jobs_total{outcome=~"internal|nothing"}[5m]))', "never ['nothing']"),
        ("sum(converter_jobs_total)", "of which a rate is wanted"),
        ("rate(converter_waiting[5m])", "has no rate"),
        ("sum by (reason) (rate(converter_jobs_total[5m]))", "nothing has the label reason"),
        ("histogram_quantile(0.9, sum(rate(converter_total_seconds_bucket[5m])))", "without le"),
        ("sum(", "unclosed left parenthesis"),
    ],
)
def test_a_wrong_query_is_found(query: str, complaint: str) -> None:
    assert complaint in " ".join(problems(query))


def test_labels_that_an_answer_has_are_known() -> None:
    assert answer_labels("converter_waiting") == ADDED
    assert answer_labels("sum(converter_waiting)") == set()
    assert answer_labels("sum by (outcome) (rate(converter_jobs_total[$__rate_interval])) > 0") == {"outcome"}
    assert answer_labels("histogram_quantile(0.5, sum by (le) (rate(converter_total_seconds_bucket[1m])))") == set()


# The dashboard -----------------------------------------------------------------------------------------------------

TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {each['refId']}" for title, each in TARGETS])
def test_every_query_of_the_dashboard_asks_for_what_there_is(title: str, target: dict[str, Any]) -> None:
    assert problems(target["expr"]) == []
    assert 'instance=~"$instance"' in target["expr"], "the chosen replicas"
    assert set(re.findall(r"\{\{(\w+)}}", target["legendFormat"])) <= answer_labels(target["expr"])


def test_everything_that_the_fleet_tells_is_on_the_dashboard_or_left_out_on_purpose() -> None:
    queries = " ".join(target["expr"] for _, target in TARGETS)
    families = {metric.name for metric in Metrics().collect() if metric.name.startswith("converter_")}
    shown = {name for name in families if re.search(rf"\b{name}(_total|_bucket|_sum)?\b", queries)}
    told_otherwise = {"depth", "engine_depth", "engine_up", "websocket_connected"}
    assert families - shown == {f"converter_{name}" for name in told_otherwise}


def test_the_dashboard_is_well_made() -> None:
    assert DASHBOARD["schemaVersion"] >= 41
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert sources == [{"type": "prometheus", "uid": "${datasource}"}] * len(sources)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance"}
    [metric] = re.findall(r"label_values\((\w+), instance\)", variables["instance"]["query"]["query"])
    assert metric in KNOWN


# The alerts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_asks_for_what_there_is_and_says_what_it_means(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= answer_labels(rule["expr"])


def test_saturation_refusals_failed_engines_overhead_and_restarts_are_alerted_on() -> None:
    queries = " ".join(rule["expr"] for rule in RULES)
    for name in ("saturation", "refusals_total", "overhead_seconds_bucket", "engine_restarts_total"):
        assert f"converter_{name}" in queries
    assert 'converter_state{state="FAILED"}' in queries
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


# The scrape --------------------------------------------------------------------------------------------------------


def test_prometheus_scrapes_the_replicas_of_the_composition() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    [job] = SCRAPE["scrape_configs"]
    targets = [target for each in job["static_configs"] for target in each["targets"]]
    assert set(targets) == {f"{name}:3000" for name in compose["services"] if name.startswith("replica-")}
    assert [(PROMETHEUS / name).exists() for name in SCRAPE["rule_files"]] == [True]
    assert f'up{{job="{job["job_name"]}"}}' in RULES[0]["expr"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("words", [("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml")])
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
