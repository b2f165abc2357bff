"""The demo is a program beside the package: its folder is put on the path for its own tests alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from served_demo import ServedDemo

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="session")
def served() -> Iterator[ServedDemo]:
    """One run of the demo for all tests that need a served one: the one that looks at its end comes last."""
    demo = ServedDemo.started()
    yield demo
    demo.remove()
