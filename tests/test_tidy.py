"""The style of the house, where a machine can see it: sizes, names, waiting in tests, links, bounds.

Formats, lint, types and import directions are `scripts/check`'s. Each rule here is a function from a parsed
module to problems, and is shown a planted breach.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("protocol", "attestation", "gossip", "node", "dagster_bridge")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
# Names that say nothing: everything fits in, so everything ends there.
NAMES_BANNED = frozenset({"common", "helper", "helpers", "misc", "types", "util", "utils"})
SLEEPS = frozenset({"anyio.sleep", "asyncio.sleep", "time.sleep", "trio.sleep", "trio.sleep_until"})

Rule = Callable[[ast.Module], Iterator[str]]


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def all_python_files() -> list[Path]:
    return [ROOT / "src/comity/__init__.py", *python_files(*ROOMS, "tests", "scripts")]


def broken(rule: Rule, files: list[Path]) -> list[str]:
    assert files
    return [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in files
        for problem in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]


def long_functions(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def relative_imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: a relative import names a second copy of a module"


def bare_excepts(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: a bare except takes interruption and cancellation too"


def missing_docstring(module: ast.Module) -> Iterator[str]:
    if module.body and ast.get_docstring(module) is None:
        yield "no module docstring: what lives here, and what does not"


def imported_names(module: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def mocks(module: ast.Module) -> Iterator[str]:
    for node, name in imported_names(module):
        if f"{name}.".startswith(("unittest.mock.", "mock.", "pytest_mock.")):
            yield f"line {node.lineno}: a fake implements the port; {name} imitates whatever is asked"


def sleeps(module: ast.Module) -> Iterator[str]:
    for node, name in imported_names(module):
        if name in SLEEPS:
            yield f"line {node.lineno}: {name}: wait for an event, or let a mock clock jump"
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in SLEEPS:
            yield f"line {call.lineno}: {ast.unparse(call.func)}: wait for an event, or let a mock clock jump"


@pytest.mark.parametrize("rule", [long_functions, relative_imports, bare_excepts, missing_docstring])
def test_every_module_keeps(rule: Rule) -> None:
    assert broken(rule, all_python_files()) == []


@pytest.mark.parametrize("rule", [mocks, sleeps])
def test_every_test_keeps(rule: Rule) -> None:
    assert broken(rule, python_files("tests")) == []


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        (long_functions, "def f():\n" + "    pass\n" * FUNCTION_LINES_MAX),
        (relative_imports, "from . import a"),
        (bare_excepts, "try:\n    pass\nexcept:\n    pass"),
        (missing_docstring, "X = 1"),
        (mocks, "from unittest import mock"),
        (mocks, "from unittest.mock import Mock"),
        (sleeps, "async def f():\n    await trio.sleep(1)"),
        (sleeps, "from time import sleep"),
    ],
)
def test_a_planted_breach_is_found(rule: Rule, breach: str) -> None:
    assert len(list(rule(ast.parse(breach)))) == 1


@pytest.mark.parametrize("allowed", ["trio.sleep_forever()", "trio.testing.wait_all_tasks_blocked()"])
def test_waiting_without_a_time_is_allowed(allowed: str) -> None:
    assert list(sleeps(ast.parse(allowed))) == []


def test_files_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in all_python_files()}
    assert {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > FILE_LINES_MAX} == {}


def test_module_names_say_what_is_inside() -> None:
    paths = [path.relative_to(ROOT) for path in all_python_files()]
    assert [str(path) for path in paths if NAMES_BANNED & {*path.parent.parts, path.stem}] == []


# Links


def markdown_files() -> list[Path]:
    folders = [ROOT / folder for folder in (*ROOMS, "docs", "tests", "scripts")]
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the fragments that headings of a page answer to, in GitHub's spelling."""
    headings = re.findall(r"^#+ +(.*?) *$", without_code_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> Iterator[str]:
    prose = re.sub(r"`[^`\n]*`", "", without_code_blocks(text))
    for target in re.findall(r"\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)", prose):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.is_relative_to(ROOT) or not path.exists():
            yield f"{target}: no such file in the repository"
        elif fragment and path.suffix == ".md" and fragment not in anchors(path.read_text(encoding="utf-8")):
            yield f"{target}: no such heading"


def test_links_between_documents_resolve() -> None:
    pages = markdown_files()
    assert ROOT / "CONTRIBUTING.md" in pages
    assert [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in pages
        for problem in dead_links(page, page.read_text(encoding="utf-8"))
    ] == []


def test_a_dead_link_is_found() -> None:
    page = ROOT / "CONTRIBUTING.md"
    text = "[a](LICENSE) [b](absent.md) [c](CHANGELOG.md#absent) [d](https://example.org) `[e](f)`"
    problems = [problem.split(":")[0] for problem in dead_links(page, text)]
    assert problems == ["absent.md", "CHANGELOG.md#absent"]


# Bounds


def bare_bounds(source: str) -> list[str]:
    """Return the constants that have neither words of their own below nor a heading above their group."""
    bare: list[str] = []
    constant = re.compile(r"([A-Z][A-Z0-9_]*)\s*(?::|=)")
    for blank, group in groupby(source.splitlines(), key=lambda line: not line.strip()):
        lines = list(group)
        if blank or lines[0].startswith("#"):
            continue
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            named = constant.match(line)
            if named and not after.startswith('"""'):
                bare.append(named[1])
    return bare


def test_every_bound_has_its_reason() -> None:
    source = (ROOT / "protocol/limits.py").read_text(encoding="utf-8")
    assert "DEPTH_MAX" in source
    assert bare_bounds(source) == []


def test_a_bare_bound_is_found() -> None:
    source = '# Sizes\nA_MAX: Final = 1\nB_MAX: Final = 2\n\nC_MAX = 3\nD_MAX: Final = 4\n"""Why."""\n'
    assert bare_bounds(source) == ["C_MAX"]


# Forms


def protocol_structs() -> list[type[msgspec.Struct]]:
    package = importlib.import_module("comity.protocol")
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(package.__path__, prefix="comity.protocol.")
    ]
    structs = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
    }
    return sorted(structs, key=lambda struct: struct.__qualname__)


def holds_float(part: object, seen: set[int]) -> bool:
    """Search a type of msgspec.inspect, which is made of structs and tuples, for a float."""
    if isinstance(part, msgspec.inspect.FloatType):
        return True
    if id(part) in seen:
        return False
    seen.add(id(part))
    if isinstance(part, tuple):
        return any(holds_float(each, seen) for each in part)
    if isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
        return any(holds_float(getattr(part, name), seen) for name in part.__struct_fields__)
    return False


def test_no_form_holds_a_float() -> None:
    structs = protocol_structs()
    assert structs
    assert [s.__qualname__ for s in structs if holds_float(msgspec.inspect.type_info(s), set())] == []


def test_forms_are_frozen() -> None:
    assert [s.__qualname__ for s in protocol_structs() if not s.__struct_config__.frozen] == []


def test_a_float_deep_inside_is_found() -> None:
    inner: Any = msgspec.defstruct("inner", [("weights", dict[str, list[float | int]])])
    outer: Any = msgspec.defstruct("outer", [("number", int), ("inner", inner | None)])
    assert holds_float(msgspec.inspect.type_info(outer), set())
