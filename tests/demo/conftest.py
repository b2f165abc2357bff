"""The demo is a program beside the package: its folder is put on the path for its own tests alone.

Two demos are run: one for all tests that look at what it says and at what it leaves, and one that is served, for those
that join it or look at it while it runs. Tests of one of them name the same `xdist_group`, so that one worker runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo_runs import DemoRun, folder_for_others
from served_demo import ServedDemo

if TYPE_CHECKING:
    from demo_audit.evidence import Evidence

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts/demo")

sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture
def place() -> Iterator[Path]:
    """Name a place for a demo of the test's own."""
    folder = folder_for_others()
    yield folder / "kept"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoRun]:
    """Run the demo, and keep what it leaves. Whoever alters something alters a copy."""
    folder = folder_for_others()
    kept = folder / "kept"
    done = subprocess.run(
        [SCRIPT, "--json", "--keep", str(kept)], capture_output=True, text=True, check=False, timeout=600
    )
    yield DemoRun(kept, done.returncode, done.stderr, json.loads(done.stdout or "{}"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def evidence(demo: DemoRun) -> Evidence:
    """Read once what the demo left."""
    # Its folder is on the path from here on.
    from demo_audit.evidence import read_evidence

    return read_evidence(demo.place)


@pytest.fixture(scope="session")
def served() -> Iterator[ServedDemo]:
    """One served demo for all tests that need one: the one that looks at its end comes last."""
    demo = ServedDemo.started()
    yield demo
    demo.remove()
