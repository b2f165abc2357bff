"""A project under `comity dev`: found and imported as Dagster does, with files for its tables, its files unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from comity.dagster_bridge import GovernedFilesIOManager
from comity.dagster_bridge.dev_location import (
    ProjectError,
    described,
    governed_project,
    run_once,
    shown_traceback,
)
from fake_node import FakeNode

ASSET = """
import dagster as dg
import pandas as pd

@dg.asset
def table() -> pd.DataFrame:
    return pd.DataFrame({"a": [1]})
"""


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a project imports of its own is forgotten again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def governed(
    node: FakeNode, base: Path, *, file: Path | None = None, module: str = "", **more: Any
) -> dg.Definitions:
    wanted: dict[str, Any] = {
        "search": [],
        "home": str(node.home),
        "base": str(base),
        "purpose": "dev",
        **more,
    }
    return governed_project(file=str(file) if file else "", module=module, **wanted)


def names(definitions: dg.Definitions) -> list[str]:
    return [each["asset"] for each in described(definitions)["assets"]]


def test_a_file_by_itself(node: FakeNode, tmp_path: Path) -> None:
    written(tmp_path / "beside.py", "NAME = 'found'\n")
    text = f"from beside import NAME\n{ASSET}\ndefs = dg.Definitions([table])\n"
    assert names(governed(node, tmp_path / "own", file=written(tmp_path / "a_project.py", text))) == ["table"]


def test_a_file_of_a_package_is_imported_by_its_whole_name(node: FakeNode, tmp_path: Path) -> None:
    written(tmp_path / "pack" / "__init__.py", "")
    written(tmp_path / "pack" / "assets.py", ASSET)
    text = "import dagster as dg\nfrom .assets import table\nassert __name__ == 'pack.definitions'\n"
    file = written(tmp_path / "pack" / "definitions.py", f"{text}\ndefs = dg.Definitions([table])\n")
    assert names(governed(node, tmp_path / "own", file=file)) == ["table"]


def test_a_module_by_its_name(node: FakeNode, tmp_path: Path) -> None:
    written(tmp_path / "src" / "named" / "__init__.py", f"{ASSET}\ndefs = dg.Definitions([table])\n")
    assert names(governed(node, tmp_path / "own", module="named", search=[str(tmp_path / "src")])) == [
        "table"
    ]


@pytest.mark.parametrize(
    "end",
    ["", "@dg.definitions\ndef defs():\n    return dg.Definitions([table])\n"],
    ids=["loose assets", "lazy"],
)
def test_definitions_that_are_none_yet(node: FakeNode, tmp_path: Path, end: str) -> None:
    assert names(governed(node, tmp_path / "own", file=written(tmp_path / "p.py", f"{ASSET}\n{end}"))) == [
        "table"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ASSET}\na = dg.Definitions([table])\nb = dg.Definitions()\n", "several Definitions: a, b"),
        ("import dagster as dg\n", "no Definitions"),
    ],
)
def test_definitions_that_cannot_be_meant(node: FakeNode, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        governed(node, tmp_path / "own", file=written(tmp_path / "q.py", text))


def test_its_tables_go_to_the_preview_and_not_where_the_project_keeps_them(
    node: FakeNode, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    text = f"""{ASSET}
defs = dg.Definitions([table], resources={{"io_manager": dg.FilesystemIOManager(base_dir={str(real)!r})}})
"""
    definitions = governed(node, tmp_path / "own", file=written(tmp_path / "r.py", text))
    resources = definitions.resources or {}
    assert isinstance(resources["io_manager"], GovernedFilesIOManager)
    # A node of whose list nothing is known governs what is asked; here it says that no policy speaks of it.
    assert described(definitions)["assets"] == [{"asset": "table", "unbound": ""}]
    assert not real.exists()


def test_what_cannot_be_bound_is_said_before_it_is_run(node: FakeNode, tmp_path: Path) -> None:
    text = f"""{ASSET}
@dg.asset
def written() -> None: ...

@dg.asset(io_manager_key="warehouse")
def elsewhere() -> pd.DataFrame: ...

defs = dg.Definitions([table, written, elsewhere], resources={{"warehouse": dg.mem_io_manager}})
"""
    said = described(governed(node, tmp_path / "own", file=written(tmp_path / "s.py", text)))
    assert {each["asset"]: bool(each["unbound"]) for each in said["assets"]} == {
        "table": False,
        "written": True,
        "elsewhere": True,
    }


def test_a_job_or_a_selection_is_run_once(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    written(tmp_path / "dagster.yaml", "telemetry:\n  enabled: false\n")
    text = f"""{ASSET}
@dg.asset
def fails(table: pd.DataFrame) -> pd.DataFrame:
    raise ValueError("a mistake")

@dg.asset
def never(fails: pd.DataFrame) -> pd.DataFrame: ...

defs = dg.Definitions([table, fails, never], jobs=[dg.define_asset_job("tables", selection="table")])
"""
    definitions = governed(node, tmp_path / "own", file=written(tmp_path / "t.py", text))
    assert described(definitions)["jobs"] == ["tables"]
    once = run_once(definitions, job="tables")
    assert (once["success"], [each["assets"] for each in once["outcomes"]]) == (True, [["table"]])
    once = run_once(definitions, select="*")
    assert not once["success"]
    assert [(each["assets"], each["outcome"]) for each in once["outcomes"]] == [
        (["table"], "ungoverned"),
        (["fails"], "failed"),
        (["never"], "not begun"),
    ]
    assert "a mistake" in once["outcomes"][1]["message"]
    with pytest.raises(ProjectError, match="no job 'nightly'"):
        run_once(definitions, job="nightly")
    with pytest.raises(ProjectError, match="selects no asset"):
        run_once(definitions, select="key:nothing")


def test_a_traceback_begins_in_the_project(node: FakeNode, tmp_path: Path) -> None:
    file = written(tmp_path / "u.py", "def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(ZeroDivisionError) as raised:
        governed(node, tmp_path / "own", file=file)
    lines = shown_traceback(raised.value)
    assert lines[-1] == "ZeroDivisionError: division by zero"
    shown = [line for line in lines if line.strip().startswith("File") and "test_dev_location" not in line]
    assert all(str(file) in line for line in shown)
    assert len(shown) == 2
