"""The scripts themselves: what they answer when asked wrongly, and what uv is told of pip's settings."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arguments", [[], ["no_such_benchmark"], ["../conftest"], ["_measure"]])
def test_bench_names_what_there_is(arguments: list[str]) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/bench"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: scripts/bench NAME" in done.stderr


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
