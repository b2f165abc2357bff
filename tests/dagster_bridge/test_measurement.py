"""What a process measures of itself, computed a second time from the spec."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import msgpack
import pytest

from comity.dagster_bridge import measurement
from comity.dagster_bridge.measurement import (
    code_root,
    measure_code,
    measure_context,
    measure_distributions,
)
from comity.protocol.errors import ConfigError


def project(folder: Path) -> Path:
    """A package with what is code and what is not."""
    root = folder / "pipeline"
    for name, text in {
        "__init__.py": "",
        "assets/__init__.py": "a = 1\n",
        "assets/b.py": "b = 2\n",
        "readme.md": "no code",
        "__pycache__/b.py": "left over",
        ".git/hook.py": "hidden",
        "env/pyvenv.cfg": "",
        "env/lib/x.py": "an environment",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_code_is_the_list_of_python_files_and_their_digests(tmp_path: Path) -> None:
    root = project(tmp_path)
    found = measure_code(root)
    files = [["__init__.py", b""], ["assets/__init__.py", b"a = 1\n"], ["assets/b.py", b"b = 2\n"]]
    listed = [[name, hashlib.sha256(data).digest()] for name, data in files]  # type: ignore[arg-type]
    expected = hashlib.sha256(msgpack.packb({"domain": "comity code v1", "files": listed})).hexdigest()
    assert (found.digest, found.files) == (expected, 3)


def test_the_example_of_the_spec_is_right(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "spec" / "evidence.md").read_text(encoding="utf-8")
    root = tmp_path / "location"
    (root / "assets").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "assets" / "patients.py").write_text("a = 1\n")
    (root / "env").mkdir()
    (root / "env" / "pyvenv.cfg").write_text("")
    (root / "env" / "other.py").write_text("x = 1\n")
    found = measure_code(root)
    assert f"    {found.digest}\n" in text
    spelled = "".join(re.findall(r"^    ([0-9a-f]+)$", text, re.MULTILINE)[:-1])
    assert hashlib.sha256(bytes.fromhex(spelled)).hexdigest() == found.digest


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_any_change_of_code_changes_the_measurement(tmp_path: Path, change: str) -> None:
    root = project(tmp_path)
    before = measure_code(root)
    file = root / "assets" / "b.py"
    if change == "content":
        file.write_text("b = 3\n")
    elif change == "name":
        file.rename(root / "assets" / "c.py")
    elif change == "more":
        (root / "c.py").write_text("")
    else:
        file.unlink()
    assert measure_code(root).digest != before.digest


def test_what_is_no_code_changes_nothing(tmp_path: Path) -> None:
    root = project(tmp_path)
    before = measure_code(root)
    (root / "readme.md").write_text("other")
    (root / "env" / "lib" / "x.py").write_text("other")
    assert measure_code(root) == before


def test_the_root_is_the_topmost_package(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert code_root(root / "assets" / "b.py") == root
    assert code_root(root / "__init__.py") == root
    alone = tmp_path / "definitions.py"
    assert code_root(alone) == tmp_path


def test_a_root_that_is_no_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    with pytest.raises(ConfigError, match="not a directory"):
        measure_code(root / "readme.md")
    monkeypatch.setattr(measurement, "FILES_MAX", 2)
    with pytest.raises(ConfigError, match="code_root="):
        measure_code(root)


def distribution(folder: Path, name: str, record: str | None) -> None:
    info = folder / f"{name}.dist-info"
    info.mkdir(parents=True)
    if record is not None:
        (info / "RECORD").write_text(record)


RECORD = """\
tool/__init__.py,sha256=AAA,3
tool/__pycache__/__init__.cpython-311.pyc,,
Some_Tool-1.0.dist-info/METADATA,sha256=BBB,5
Some_Tool-1.0.dist-info/RECORD,,
Some_Tool-1.0.dist-info/INSTALLER,sha256=CCC,4
../../../bin/tool,sha256=DDD,200
"""


def test_distributions_are_names_versions_and_what_their_packages_recorded(tmp_path: Path) -> None:
    distribution(tmp_path, "Some_Tool-1.0", RECORD)
    distribution(tmp_path, "bare-2.0", None)
    rows = "Some_Tool-1.0.dist-info/METADATA,sha256=BBB\ntool/__init__.py,sha256=AAA\n"
    listed = [["bare", "2.0", b""], ["some-tool", "1.0", hashlib.sha256(rows.encode()).digest()]]
    packed = msgpack.packb({"distributions": listed, "domain": "comity distributions v1"})
    found = measure_distributions([str(tmp_path), str(tmp_path), str(tmp_path / "absent.zip")])
    assert (found.digest, found.count) == (hashlib.sha256(packed).hexdigest(), 2)


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("sha256=AAA", "sha256=ZZZ", True),
        ("sha256=BBB", "sha256=ZZZ", True),
        ("sha256=CCC", "sha256=ZZZ", False),
        ("sha256=DDD", "sha256=ZZZ", False),
    ],
)
def test_who_installed_it_and_where_does_not_count(tmp_path: Path, old: str, new: str, differs: bool) -> None:  # noqa: FBT001
    distribution(tmp_path / "one", "Some_Tool-1.0", RECORD)
    distribution(tmp_path / "two", "Some_Tool-1.0", RECORD.replace(old, new))
    one, two = (measure_distributions([str(tmp_path / name)]) for name in ("one", "two"))
    assert (one != two) is differs


def test_this_process_is_measured(tmp_path: Path) -> None:
    context = measure_context(measure_code(project(tmp_path)))
    assert context.python == f"CPython {sys.version.split()[0]}"
    assert context.distributions_count > 10
    assert context.code_files == 3
    assert context.platform.startswith(os.uname().sysname.lower())
