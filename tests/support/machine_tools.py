"""Programs of the machine that judge what is deployed. Where they are missing a test says so; with CI=true it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL_S = 60.0


def cannot(reason: str) -> NoReturn:
    """Skip a test for what this machine lacks; with CI=true it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI has it")
    pytest.skip(reason)


def tool(name: str, package: str) -> str:
    """The path of a program: of the machine, or as scripts/_machine_tools has unpacked it."""
    unpacked = ROOT / f".venv-{name}/usr/bin/{name}"
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else "")
    return found or cannot(f"no {name} is on this machine: apt-get install {package}")


def said_by(*words: str | Path, status: int | None = 0) -> str:
    """All that a program prints."""
    ran = subprocess.run(words, capture_output=True, text=True, timeout=TOOL_S, check=False)
    said = ran.stdout + ran.stderr
    assert status is None or ran.returncode == status, said
    return said
