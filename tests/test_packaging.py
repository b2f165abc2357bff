"""What a user gets: the wheel that is built from the sdist, without extras, in an environment of its own.

Building in two steps is the point: links to folders that a wheel from the tree follows can be lost in the
sdist without an error. Needs the package index.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("protocol", "attestation", "gossip", "node", "dagster_bridge")
EXTRAS_ONLY = ("dagster", "fastapi", "hypercorn", "libp2p", "pandas", "pyarrow", "sqlalchemy", "trio")
HELP_FLOORS_MAX = 2.2
"""The half second that help may take, in imports of what draws it, which are 0.2 s of CPU. It is 1.4 of them."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


@dataclasses.dataclass(frozen=True)
class Installation:
    """A wheel, the sdist that it came from, and an environment that holds it and its dependencies."""

    sdist: Path
    wheel: Path
    programs: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment outside of the repository and return what it printed."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cost(self, program: str, *arguments: str) -> float:
        """The CPU time of a run, in seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(program, *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def uv(*arguments: str | Path) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/_uv"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    place = tmp_path_factory.mktemp("packaging")
    tree = place / "tree"
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", *ROOMS):
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=leave)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / file, tree)
    uv("build", "--quiet", "--python", sys.executable, "--out-dir", place / "dist", tree)
    wheel = only(place / "dist", "*.whl")
    uv("venv", "--quiet", "--python", sys.executable, place / "venv")
    uv("pip", "install", "--quiet", "--python", place / "venv/bin/python", wheel)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    return Installation(only(place / "dist", "*.tar.gz"), wheel, place / "venv/bin", elsewhere)


def test_the_wheel_has_every_module_under_one_name(installation: Installation) -> None:
    names = set(zipfile.ZipFile(installation.wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"comity"}
    ours = {f"comity/{p.relative_to(ROOT)}" for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    # A browser asks an installed node for these.
    page = {f"comity/{p.relative_to(ROOT)}" for p in (ROOT / "node/page_files").iterdir()}
    assert page <= names
    assert "comity/node/page_files/app.js" in page
    assert ours | {"comity/__init__.py", "comity/py.typed"} <= names


def test_licence_and_readme_travel(installation: Installation) -> None:
    wheel = [name.rpartition("/")[2] for name in zipfile.ZipFile(installation.wheel).namelist()]
    with tarfile.open(installation.sdist) as archive:
        sdist = [name.rpartition("/")[2] for name in archive.getnames()]
    assert "LICENSE" in wheel
    assert {"LICENSE", "README.md", "pyproject.toml"} <= set(sdist)


def test_words_and_judgement_need_no_extra(installation: Installation) -> None:
    """All of protocol and attestation imports without extras, and nothing that belongs to one is there."""
    program = f"""
import importlib, importlib.util, json, pkgutil
import comity, comity.protocol, comity.attestation
imported = [
    importlib.import_module(found.name).__name__
    for package in (comity.protocol, comity.attestation)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
present = [name for name in {(*ROOMS, *EXTRAS_ONLY)!r} if importlib.util.find_spec(name)]
print(json.dumps({{"file": comity.__file__, "imported": imported, "present": present}}))
"""
    said = json.loads(installation.run("python", "-c", program))
    assert said["present"] == []
    assert not Path(said["file"]).is_relative_to(ROOT)
    expected = {
        f"comity.{room}.{path.stem}"
        for room in ("protocol", "attestation")
        for path in (ROOT / room).glob("*.py")
        if path.stem != "__init__"
    }
    assert expected <= set(said["imported"])


def test_the_client_needs_no_extra(installation: Installation) -> None:
    if not (ROOT / "node/client.py").exists() and not (ROOT / "node/client").exists():
        pytest.skip("comity.node.client is not written yet")
    installation.run("python", "-c", "import comity.node.client")


def test_help_answers_at_once(installation: Installation) -> None:
    """It costs little more than what draws it, by turns in one run: a machine of another speed changes both."""
    if not (ROOT / "node/cli.py").exists() and not (ROOT / "node/cli").exists():
        pytest.skip("comity.node.cli is not written yet")
    assert "Usage" in installation.run("comity", "--help")
    costs: list[float] = []
    floors: list[float] = []
    for _ in range(4):
        costs.append(installation.cost("comity", "--help"))
        floors.append(installation.cost("python", "-c", "import typer.main, typer.rich_utils"))
    assert min(costs) < HELP_FLOORS_MAX * min(floors)
