"""Files of templates: `NAME.toml` and the workflow `NAME.json` beside it, read into a template.

For: messages with file and line about everything that is wrong with them. Leaves what is right to
`core.template_toml`. Invariant: a template comes from two files that are both whole, or Broken is raised.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from converter.core.template import Template
from converter.core.template_toml import Problem, TemplateError, parse
from converter.core.toml_lines import find_lines

SHIPPED = Path(__file__).parent.parent / "workflows"
"""The templates that ship."""


class Broken(Exception):
    """A template that can't be used; `lines` say why, each with its file and, where there is one, its line.

    rest: what is right of it, as `TemplateError` has it; None where that is nothing.
    """

    def __init__(self, lines: list[str], rest: Template | None = None) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)
        self.rest = rest


class _Unread(ValueError):
    """A file that can't be read; the text names it, and the line where there is one."""


def read_template(path: Path) -> Template:
    """The template whose declaration is at `path`. Raises Broken."""
    workflow_path = path.with_suffix(".json")
    lines: list[str] = []
    text, declaration, workflow = "", None, None
    try:
        text = _read(path)
        declaration = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        lines.append(f"{path}:{found[2]}: {found[1]}" if found else f"{path}: {error}")
    except _Unread as error:
        lines.append(str(error))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and what is nested as deep
        lines.append(f"{path}: {error}")
    try:
        workflow = read_workflow(workflow_path)
    except ValueError as error:
        lines.append(str(error))
    if lines:
        raise Broken(lines)
    try:
        return parse(path.stem, workflow, declaration or {})
    except TemplateError as error:
        raise Broken(list(_place(error.problems, path, text, workflow_path)), error.rest) from None


def place_problems(path: Path, problems: Sequence[Problem]) -> Iterator[str]:
    """Problems of the template whose declaration is at `path`, each with its file and line; 1 if it is gone by now."""
    try:
        text = _read(path)
        tomllib.loads(text)
    except ValueError:
        text = ""
    return _place(problems, path, text, path.with_suffix(".json"))


def read_workflow(path: Path) -> Any:
    """The JSON of a file; raises ValueError, which names file and line."""
    try:
        return json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise _Unread(f"{path}:{error.lineno}: is not JSON: {error.msg}") from None
    except _Unread:
        raise
    except (ValueError, RecursionError) as error:
        raise _Unread(f"{path}: {error}") from None


def _read(path: Path) -> str:
    """The text of a file; raises ValueError, which names file and line."""
    try:
        data = path.read_bytes()
        return data.decode()
    except OSError as error:
        raise _Unread(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unread(f"{path}:{line}: is not UTF-8") from None


def _place(problems: Sequence[Problem], path: Path, text: str, workflow_path: Path) -> Iterator[str]:
    """Each problem with its file and line, in the order of the lines."""
    lines = find_lines(text, [problem.keys for problem in problems])

    def locate(problem: Problem) -> tuple[bool, int]:
        if problem.node is None:
            return False, lines[problem.keys]
        return True, _find_node(workflow_path, problem.node)

    for problem in sorted(problems, key=locate):
        in_workflow, line = locate(problem)
        yield f"{workflow_path if in_workflow else path}:{line}: {problem}"


def _find_node(path: Path, node_id: str) -> int:
    """The line on which a node of a workflow begins; 1 if that is not seen, or the file is gone by now."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return 1
    found = re.search(rf"^\s*{{?\s*{re.escape(json.dumps(node_id, ensure_ascii=False))}\s*:", text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found and node_id else 1
