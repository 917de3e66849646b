"""Templates as their authors meet them: a first declaration drafted from a workflow, and what is wrong with one told.

Leaves guessing to `core.draft`, and reading files to `template_files`. Invariant: no file that is there is changed.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from converter.core.address import parse_url
from converter.core.catalog import Catalog
from converter.core.draft import draft
from converter.core.misfits import find_misfits
from converter.core.offers import offer, tell_lacks
from converter.core.template import Template
from converter.core.template_toml import NAME, find_folder
from converter.core.workflow import Graph, check
from converter.errors import InvalidWorkflow
from converter.link.client import EngineClient, LinkError, Unexpected
from converter.template_files import Broken, place_problems, read_template, read_workflow
from converter.templates import survey

DONE, WRONG, USAGE = 0, 1, 2
"""Exit statuses: done; something is wrong with a template; wrong usage, or the engine was not reached."""


class Unusable(Exception):
    """What was asked for can't be done, and why."""


def new(workflow: str, output: str | None, url: str | None) -> int:
    """Write a first declaration beside a workflow (to standard output for `-`); the exit status."""
    path = Path(workflow)
    target = path.with_suffix(".toml") if output is None else Path(output)
    if output != "-" and not NAME.fullmatch(target.stem):
        return _refuse(USAGE, f"{target}: a template's name must match {NAME.pattern}; name another file with -o")
    try:
        graph = check(read_workflow(path))
        catalog = _ask(url, [graph], ())
        text = draft(graph, catalog, path.stem.replace("_", " ").replace("-", " ").capitalize())
        if output == "-":
            print(text, end="")
            return DONE
        _write(target, text)
    except InvalidWorkflow as fault:
        return _refuse(WRONG, f"{path}: {fault.detail}")
    except ValueError as error:  # the file or the address
        return _refuse(USAGE, str(error))
    except Unusable as error:
        return _refuse(USAGE, str(error))
    print(target)
    print(f"Look it through, then: converter template check {target}", file=sys.stderr)
    if target.with_suffix(".json") != path:
        print(f"The workflow belongs beside it, as {target.with_suffix('.json')}", file=sys.stderr)
    return DONE


def _write(target: Path, text: str) -> None:
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Unusable(f"{target} is there already: name another file with -o, or - for standard output") from None
    except OSError as error:
        raise Unusable(f"can't write {target}: {error.strerror}") from None


def examine(paths: Iterable[str], url: str | None) -> int:
    """Say of each template (a declaration, its workflow, or a folder of them) what is wrong; the exit status."""
    good: dict[Path, Template] = {}
    broken: dict[Path, Template] = {}
    wrong: list[str] = []
    for path in _find(map(Path, paths), wrong):
        if not path.exists() and path.with_suffix(".json").is_file():
            there = path.with_suffix(".json")
            wrong.append(f"{there}: has no {path.name} beside it; `converter template new {there}` drafts one")
            continue
        try:
            good[path] = read_template(path)
        except Broken as error:
            wrong += error.lines
            broken |= {path: error.rest} if error.rest is not None else {}
    read = good | broken
    try:
        catalog = _ask(url, [template.workflow for template in read.values()], read.values())
    except (Unusable, ValueError) as error:
        return _refuse(USAGE, str(error))
    for path, template in read.items():
        misfits = [misfit.problem for misfit in find_misfits(template, catalog)]
        lacks = tell_lacks(template, catalog)
        wrong += place_problems(path, misfits)
        wrong += [f"{template.name}: {'; '.join(lacks)}"] if lacks else []
        if path in good:
            unavailable = offer(template, catalog).available is False
            verdict = "not available" if unavailable else "wrong" if misfits else "right"
            inputs = ", ".join(hole.name if hole.required else f"[{hole.name}]" for hole in template.inputs)
            print(f"{template.name}: {verdict}; inputs: {inputs}")
    for line in wrong:
        print(line, file=sys.stderr)
    return WRONG if wrong else DONE


def _find(paths: Iterable[Path], wrong: list[str]) -> Iterator[Path]:
    """The declarations that are meant; what is none is added to `wrong`."""
    for path in paths:
        if path.is_dir():
            names = {child.stem: child for child in sorted(path.iterdir()) if child.suffix in (".toml", ".json")}
            for stem in names:
                yield path / f"{stem}.toml"
            if not names:
                wrong.append(f"{path}: there are no templates")
        elif path.suffix in (".toml", ".json"):
            yield path.with_suffix(".toml")
        else:
            wrong.append(f"{path}: is neither a folder nor a .toml or .json file")


def _ask(url: str | None, graphs: Iterable[Graph], templates: Iterable[Template]) -> Catalog:
    """What the engine has for these; nothing is known without an address. Raises ValueError and Unusable."""
    if url is None:
        return Catalog()
    try:
        address = parse_url(url)
    except ValueError as error:
        raise ValueError(f"--url {error}") from None
    classes = {node["class_type"] for graph in graphs for node in graph.values()}
    folders = {find_folder(hole.source) for template in templates for hole in template.inputs}

    async def ask() -> Catalog:
        async with EngineClient(address) as client:
            return await survey(client, classes, folders)

    try:
        return asyncio.run(ask())
    except LinkError as error:
        if isinstance(error, Unexpected) and error.by_converter:
            raise Unusable(f"{address} is a converter: --url must be the address of its engine") from None
        raise Unusable(f"the engine at {address} did not say what it has, if it is one: {error}") from None


def _refuse(status: int, line: str) -> int:
    print(f"converter template: {line}", file=sys.stderr)
    return status
