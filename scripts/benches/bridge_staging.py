"""What staging, verifying and promoting a version of a file costs beside writing and flushing the same bytes."""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benches.bridge_job import table
from benches.figures import figure
from comity.dagster_bridge.declared import NOTHING
from comity.dagster_bridge.files import Place
from comity.dagster_bridge.files_storage import FilesStorage
from comity.dagster_bridge.storage import Slot
from comity.node.client import PermittedOutput

AIM: Final = 1.3
BYTES: Final = 100_000_000
SIDECAR: Final = b"x" * 16_384
"""As large as the records of a decision by four."""


def plain(path: Path, data: bytes) -> None:
    """Write as durably: beside, flushed, renamed, the folder flushed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{secrets.token_hex(8)}")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def measure(place: Path, rounds: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of both, by turns. The node's answer in between is not part of it: that is a decision's cost."""
    storage = FilesStorage(Place(place / "staged", shared=False, versions=2), "parquet")
    prepared = storage.prepare(table(BYTES))
    permitted = PermittedOutput("bench.example/made", "", "execute", [], True)
    slot = Slot(("made",))
    times: dict[str, list[float]] = {"staging_governed": [], "staging_plain": []}
    for number in range(rounds + 1):
        progress(f"staging {BYTES} bytes: {number} of {rounds}")
        began = time.perf_counter()
        plain(place / "plain" / "made.parquet", prepared.data)
        between = time.perf_counter()
        staged = storage.stage(slot, prepared)
        storage.verify(staged, permitted, NOTHING)
        storage.promote(slot, staged, SIDECAR)
        ended = time.perf_counter()
        if number:
            # The first one makes the folders, and counts for neither.
            times["staging_plain"].append(between - began)
            times["staging_governed"].append(ended - between)
    return times


def figures_of(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    governed, floor = (statistics.median(times[f"staging_{kind}"]) for kind in ("governed", "plain"))
    return [figure("staging_100mb", governed, "s", floor, AIM)]
