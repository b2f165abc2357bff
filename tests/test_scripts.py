"""The scripts themselves: what they answer when asked wrongly, where they work, what uv is told of pip's settings."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "arguments", [[], ["no_such_benchmark"], ["../conftest"], ["_measure"], ["decide_node"]]
)
def test_bench_names_what_there_is(arguments: list[str]) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/bench"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: scripts/bench NAME" in done.stderr
    # What the benchmarks use is none.
    listed = done.stderr.partition("benchmarks:")[2].split()
    assert listed == ["bridge", "decide", "lineage"]


def venv_for(wish: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask the scripts which folder they work in when COMITY_PYTHON is `wish`."""
    return subprocess.run(
        ["bash", "-euc", 'source "$0"; choose_venv; printf %s "$venv"', str(ROOT / "scripts/_environment")],
        env={**os.environ, "COMITY_PYTHON": wish, **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("wish", "venv"), [("", ".venv"), (sys.executable, f".venv-{HERE}")])
def test_each_python_that_is_asked_for_has_its_own_environment(wish: str, venv: str) -> None:
    assert venv_for(wish).stdout == venv


def test_a_version_finds_what_pyenv_has_behind_a_shim_that_does_not_run(tmp_path: Path) -> None:
    shim = tmp_path / "shims" / f"python{HERE}"
    python = tmp_path / "versions" / f"{HERE}.0" / "bin/python"
    for program, then in ((shim, "exit 127"), (python, f'exec "{sys.executable}" "$@"')):
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\n{then}\n")
        program.chmod(0o755)
    path = f"{shim.parent}:{os.environ['PATH']}"
    assert venv_for(HERE, PYENV_ROOT=str(tmp_path), PATH=path).stdout == f".venv-{HERE}"


@pytest.mark.parametrize("wish", ["3.9", "/no/such/python"])
def test_a_python_that_is_not_there_is_not_replaced_by_another(wish: str) -> None:
    done = venv_for(wish)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"COMITY_PYTHON={wish}: no Python 3.11 to 3.13" in done.stderr


def test_no_script_names_the_environment_itself() -> None:
    naming = [
        path for path in (ROOT / "scripts").glob("[!.]*") if path.is_file() and ".venv/" in path.read_text()
    ]
    assert naming == []


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the translation of settings, on a machine where uv is told nothing by its own means."""
    module = module_of(ROOT / "scripts/_pip_settings.py")
    for name in (*module.UV_INDEX_VARIABLES, "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return module


def test_uv_is_told_what_pip_is_told(bare: ModuleType) -> None:
    told = bare.uv_variables(
        {
            "index-url": "https://index.example/simple",
            "extra-index-url": "https://a.example/simple\nhttps://b.example/simple",
            "find-links": "/wheels /more",
            "cert": "/certificates.pem",
        }
    )
    assert told == {
        "SSL_CERT_FILE": "/certificates.pem",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_EXTRA_INDEX_URL": "https://a.example/simple https://b.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_what_uv_is_told_by_its_own_means_stays(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://mine.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.pem")
    assert bare.uv_variables({"index-url": "https://index.example/simple", "cert": "/c.pem"}) == {}


def test_a_file_of_uv_stays_too(bare: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/uv.toml").touch()
    assert bare.uv_variables({"index-url": "https://index.example/simple"}) == {}


def test_pip_variables_are_stronger_than_its_files(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    assert bare.pip_settings()["index-url"] == "https://variable.example/simple"
