"""The documents as data: tables, which are made from the code, and snippets with the answers that are shown for them.

`python -m tests.docs` writes the tables anew. Leaves running the snippets to `test_readme`. Invariant: what stands
between two markers comes from the code alone.
"""

import ast
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import Metric

from converter import cli, errors
from converter.telemetry import Metrics
from engine.nodes.registry import list_nodes
from tests.converter.api.renderings import FAULTS, code_of, make, render_all

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DIALECTS = ROOT / "docs" / "dialects.md"
ENGINE = ROOT / "docs" / "engine.md"
METRICS = ROOT / "docs" / "metrics.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A script of the README, and the answer that is shown after it: its kind is json, http or text."""

    title: str
    script: str
    kind: str = ""
    answer: str = ""


def snippets(text: str) -> list[Snippet]:
    """The `sh` blocks, each with the block that follows it in its section, unless that is another script."""
    found: list[Snippet] = []
    for section in re.split(r"^(?=##+ )", text, flags=re.MULTILINE):
        blocks = _BLOCK.findall(section)
        for (kind, script), (next_kind, answer) in zip(blocks, [*blocks[1:], ("", "")], strict=False):
            if kind == "sh":
                shown = (next_kind, answer) if next_kind in ("json", "http", "text") else ("", "")
                found.append(Snippet(f"{section.splitlines()[0].lstrip('# ')} {len(found)}", script, *shown))
    return found


def commands(text: str) -> list[str]:
    """The lines after a prompt: what a person types, and no test runs."""
    blocks = (block for kind, block in _BLOCK.findall(text) if kind == "console")
    return [line[2:].partition("  #")[0] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def faults() -> str:
    """The table of faults, from the classes: each with a code of its own, by status. One that no module raises yet is
    left out.
    """
    rows = ["| Status | `code` | `retry` | When |", "| --- | --- | --- | --- |"]
    told = _mentioned()
    concrete = (kind for kind in _descend(errors.Fault) if "code" in vars(kind) or kind is errors.Internal)
    for kind in sorted(concrete, key=lambda kind: (kind.status, kind.code)):
        if kind.__name__ not in told:
            continue
        when = re.sub(r" \(RFC [^)]*\)", "", " ".join((kind.__doc__ or "").split()))
        rows.append(f"| {kind.status} | `{kind.code}` | {kind.retry} | {when} |")
    return "\n".join(rows)


def _mentioned() -> set[str]:
    """Every name that a module of the converter uses, but for those that only tell of faults."""
    modules = set((ROOT / "converter").rglob("*.py")) - {ROOT / "converter" / "api" / "operations.py"}
    found = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    return {node.id for node in found if isinstance(node, ast.Name)} | {
        node.attr for node in found if isinstance(node, ast.Attribute)
    }


def _descend(kind: type[errors.Fault]) -> Iterator[type[errors.Fault]]:
    for below in kind.__subclasses__():
        yield below
        yield from _descend(below)


def renderings() -> str:
    """The table of what each dialect makes of each fault: the status, and the word by which programs tell it."""
    told = _mentioned()
    kinds = sorted((kind for kind in FAULTS if kind.__name__ in told), key=lambda kind: (kind.status, kind.code))
    answers = {kind: render_all(make(kind)) for kind in kinds}
    names = list(answers[kinds[0]])
    rows = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for kind in kinds:
        cells = (f"{response.status} `{code_of(response)}`" for response in answers[kind].values())
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def settings() -> str:
    """The table of settings, as `converter settings --markdown` prints it."""
    with redirect_stdout(io.StringIO()) as printed:
        cli.main(["settings", "--markdown"])
    return printed.getvalue().strip()


def modules(package: str) -> str:
    """The table of a package's modules, each with the first sentence of its docstring."""
    rows = ["| Module | What it is for |", "| --- | --- |"]
    for path in sorted(
        (ROOT / package).rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path)
    ):
        name = path.parent if path.name == "__init__.py" else path
        docstring = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        sentence = re.split(r"(?<=[.])\s(?=[A-Z`])", docstring)[0]
        rows.append(f"| [`{name.relative_to(ROOT)}`](../{path.relative_to(ROOT)}) | {sentence} |")
    return "\n".join(rows)


def nodes() -> str:
    """The table of the embedded engine's node classes, without those for tests."""
    rows = ["| Class | What it does | Category |", "| --- | --- | --- |"]
    declared = sorted(list_nodes().values(), key=lambda node: (node.category, node.class_type))
    rows += [f"| `{node.class_type}` | {node.description} | {node.category} |" for node in declared]
    return "\n".join(rows)


def metrics() -> str:
    """The table of metrics, under the names that a query has for them, and the buckets of the histograms."""
    rows = ["| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |"]
    buckets: dict[str, list[str]] = {}
    for metric in Metrics().collect():
        if not metric.name.startswith("converter_"):
            continue
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        rows.append(f"| `{name}` | {metric.type} | {_show_labels(metric)} | {metric.documentation} |")
        if metric.type == "histogram":
            edges = [sample.labels["le"] for sample in metric.samples if sample.name.endswith("_bucket")]
            buckets.setdefault(", ".join(edge.removesuffix(".0") for edge in edges[:-1]), []).append(f"`{name}`")
    rows += [f"\nBuckets of {', '.join(names)}: {edges}." for edges, names in buckets.items()]
    return "\n".join(rows)


def _show_labels(metric: Metric) -> str:
    values: dict[str, list[str]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label != "le" and value not in values.setdefault(label, []):
                values[label].append(value)
    return "; ".join(f"`{label}`: {', '.join(f'`{value}`' for value in found)}" for label, found in values.items())


def pages() -> dict[Path, str]:
    """Every document that has something generated in it, as it should be."""
    return {
        README: _fill(README, {"faults": faults(), "settings": settings()}),
        ARCHITECTURE: _fill(ARCHITECTURE, {package: modules(package) for package in ("converter", "engine")}),
        DIALECTS: _fill(DIALECTS, {"renderings": renderings()}),
        ENGINE: _fill(ENGINE, {"nodes": nodes()}),
        METRICS: _fill(METRICS, {"metrics": metrics()}),
    }


def _fill(page: Path, tables: dict[str, str]) -> str:
    text = page.read_text()
    for name, table in tables.items():
        found = re.search(f"(<!-- {name}:[^\n]*-->\n).*?(<!-- /{name} -->)", text, re.DOTALL)
        if found is None:
            raise ValueError(f"{page} must have the markers of {name}")
        text = f"{text[: found.start()]}{found[1]}\n{table}\n\n{found[2]}{text[found.end() :]}"
    return text


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
