"""What every test may ask for: outside vectors, and how hard hypothesis tries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# No deadlines: the machine is shared, and speed is measured by the benchmarks. The blob of a failure is
# printed, so that `@reproduce_failure` repeats it elsewhere.
settings.register_profile("default", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("thorough", max_examples=5_000, deadline=None, print_blob=True)
PROFILE = os.environ.get("COMITY_HYPOTHESIS", "default")
settings.load_profile(PROFILE)


def pytest_report_header() -> str:
    """Say how hard hypothesis tries, and how it would try harder."""
    return f"comity: hypothesis tries as in {PROFILE!r} (COMITY_HYPOTHESIS=default|thorough)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what is slow first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Return the folder of test vectors that others made: `$COMITY_VECTORS`, or `../shared/vectors`.

    They are not part of the repository. Where they are absent the test is skipped; in CI it fails.
    """
    named = os.environ.get("COMITY_VECTORS")
    folder = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if folder.is_dir():
        return folder
    reason = f"no outside vectors: {folder} is not a folder (COMITY_VECTORS names another)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI has them")
    pytest.skip(reason)


@pytest.fixture(params=[True, False], ids=["gossip", "no-gossip"])
def gossip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The nodes of `nodes.running` gossip, and then the same test again without: nothing may depend on it."""
    monkeypatch.setattr("nodes.GOSSIP", request.param)
    return bool(request.param)
