"""The rules of the house, checked against the imports themselves: one direction, pure cores, no meeting of worlds."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Higher floors may import lower ones, and nothing on their own floor but what is named here.
FLOORS: list[set[str]] = [
    {"converter.errors"},
    {"converter.core"},
    {"converter.client"},
    {"converter.declarations", "converter.causes"},
    {"converter.settings", "converter.telemetry", "converter.spans", "converter.renewal", "converter.template_files"},
    {
        "converter.link",
        "converter.media",
        "converter.gate",
        "converter.chronicle",
        "converter.tracing",
        "converter.trail",
        "converter.alarm",
        "converter.database",
    },
    {"converter.stores", "converter.templates", "converter.ledger", "converter.backlog", "converter.vault"},
    {"converter.watch", "converter.warden", "converter.postbox"},
    {"converter.means"},
    {"converter.errands", "converter.fitting"},
    {"converter.runner"},
    {"converter.jobs"},
    {"converter.api"},
    {"converter.entrance", "converter.greeting"},
    {"converter.app"},
    {"converter.caller", "converter.authoring"},
    {"converter.cli"},
]
# A node's declaration names folders by Path; it touches none.
ENGINE_PURE = {
    "errors",
    "wire",
    "graph",
    "plan",
    "submission",
    "prompts",
    "batching",
    "cache",
    "holdings",
    "nodes.spec",
}
# The guard of the engine child hands its environment on, unread.
ENVIRONMENT_READERS = {"converter.cli", "converter.settings", "converter.link.guard"}
MAX_LINES = 400


def modules(package: str) -> dict[str, Path]:
    """Module name to file, for every module of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


CONVERTER = modules("converter")
ENGINE = modules("engine")


def imports(path: Path, module: str) -> set[str]:
    """Full names of everything that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def floor_of(name: str) -> int | None:
    """The floor on which a module of the converter stands."""
    for number, rooms in enumerate(FLOORS):
        if any(name == room or name.startswith(f"{room}.") for room in rooms):
            return number
    return None


def room_of(name: str) -> str:
    """The room (module or subpackage) to which a module belongs."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("module", sorted(set(CONVERTER) - {"converter"}))
def test_every_module_of_the_converter_stands_on_a_floor(module: str) -> None:
    assert floor_of(module) is not None, f"{module} has no floor"


@pytest.mark.parametrize("module", sorted(set(CONVERTER) - {"converter"}))
def test_the_converter_imports_downwards_only(module: str) -> None:
    own = floor_of(module)
    assert own is not None
    for name in imports(CONVERTER[module], module):
        if not name.startswith("converter.") or room_of(name) == room_of(module):
            continue
        floor = floor_of(name)
        if floor is not None:
            assert floor < own, f"{module} (floor {own}) imports {name} (floor {floor})"


def test_the_client_and_the_service_do_not_know_each_other() -> None:
    """Who stands on the client is the command line alone, which knows no service either."""
    users = {
        room_of(module)
        for module, path in CONVERTER.items()
        if any(name.startswith("converter.client") for name in imports(path, module))
    }
    assert users <= {"converter.client", "converter.caller"}
    for module, path in CONVERTER.items():
        if room_of(module) == "converter.caller":
            own = {room_of(name) for name in imports(path, module) if name.startswith("converter.")}
            assert own <= {"converter.caller", "converter.client", "converter.core", "converter.errors"}, module


@pytest.mark.parametrize(
    "module", sorted(m for m in CONVERTER if m.startswith("converter.core") or m == "converter.errors")
)
def test_the_core_is_pure(module: str) -> None:
    allowed = sys.stdlib_module_names - {"time", "random", "asyncio", "socket", "threading", "os", "pathlib", "secrets"}
    for name in imports(CONVERTER[module], module):
        assert name.split(".")[0] in allowed | {"converter"}, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in ENGINE if m.partition(".")[2] in ENGINE_PURE - {"nodes.spec"}))
def test_the_engines_pure_half_is_pure(module: str) -> None:
    pure = {f"engine.{name}" for name in ENGINE_PURE} | {"engine"}
    allowed = sys.stdlib_module_names - {"time", "random", "asyncio", "socket", "threading", "os", "pathlib", "secrets"}
    for name in imports(ENGINE[module], module):
        if name.startswith("engine"):
            assert any(name == p or name.startswith(f"{p}.") for p in pure - {"engine"}), f"{module} imports {name}"
        else:
            assert name.split(".")[0] in allowed, f"{module} imports {name}"


def test_converter_and_engine_do_not_know_each_other() -> None:
    for module, path in CONVERTER.items():
        assert not any(name.split(".")[0] == "engine" for name in imports(path, module)), module
    for module, path in ENGINE.items():
        assert not any(name.split(".")[0] == "converter" for name in imports(path, module)), module


def test_torch_and_aiohttp_meet_nowhere_but_in_the_engines_entry() -> None:
    for module, path in (CONVERTER | ENGINE).items():
        roots = {name.split(".")[0] for name in imports(path, module)}
        assert not {"torch", "aiohttp"} <= roots or module == "engine.__main__", module
        assert "torch" not in roots or module.startswith("engine"), module


def test_only_two_modules_read_the_environment() -> None:
    for module, path in CONVERTER.items():
        reads = any(word in path.read_text() for word in ("os.environ", "os.getenv", "getenv("))
        assert not reads or module in ENVIRONMENT_READERS, module


@pytest.mark.parametrize("path", [*CONVERTER.values(), *ENGINE.values()], ids=str)
def test_every_file_is_one_concept_of_readable_size_with_a_docstring(path: Path) -> None:
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), f"{path} has no docstring"
    assert source.count("\n") <= MAX_LINES, f"{path} has more than {MAX_LINES} lines"


@pytest.mark.parametrize("path", [*CONVERTER.values(), *ENGINE.values()], ids=str)
def test_importing_has_no_effect(path: Path) -> None:
    """At module level there are definitions, constants and imports; no loop, no call standing alone."""
    for node in ast.parse(path.read_text()).body:
        bare_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        main_guard = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        allowed = main_guard or not (bare_call or isinstance(node, ast.For | ast.While | ast.With))
        assert allowed or path.name == "__main__.py", f"{path}:{node.lineno}"
