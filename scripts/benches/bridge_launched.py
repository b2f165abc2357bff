"""What the launch gate costs a run that Dagster's own daemon launches: from the queue to its success, by turns.

Two instances of Dagster, each with a daemon and a code server: one with the governed launcher and queue and governed
definitions, the other with Dagster's own. Both read their queue every second.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.instance import InstanceRef

from benches.figures import figure
from comity.node.home import Home
from dagster_service import Service, service

AIM: Final = 1.05

DEFINITIONS = """
import dagster as dg
import pyarrow as pa
from comity.dagster_bridge import GovernedFilesIOManager, govern

@dg.asset(key=["plain", "launched"])
def launched() -> pa.Table:
    return pa.table({"time": [1, 2, 3]})

defs = dg.Definitions(assets=[launched], resources={"io_manager": MANAGER})
GOVERN
"""


def measure(place: Path, home: Home, rounds: int, progress: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds from the queue to success of a run of one small asset."""
    times: dict[str, list[float]] = {"launched_governed": [], "launched_plain": []}
    with ExitStack() as stack:
        kinds = {
            kind: stack.enter_context(_serving(place / kind, home, kind)) for kind in ("plain", "governed")
        }
        for number in range(rounds + 1):
            progress(f"launched runs: {number} of {rounds}")
            for kind, made in kinds.items():
                took = _once(made)
                if number:
                    # The first run of each starts its code server.
                    times[f"launched_{kind}"].append(took)
    return times


def _serving(place: Path, home: Home, kind: str) -> Any:
    place.mkdir()
    file = place / "definitions.py"
    governed = kind == "governed"
    manager = (
        f'GovernedFilesIOManager(base="{place}/files", home="{home.path}")'
        if governed
        else f'dg.FilesystemIOManager(base_dir="{place}/files")'
    )
    line = f'govern(defs, home="{home.path}", purpose="care")' if governed else ""
    file.write_text(textwrap.dedent(DEFINITIONS).replace("MANAGER", manager).replace("GOVERN", line))
    settings: dict[str, Any] = {}
    if not governed:
        settings = {
            "run_launcher": {"module": "dagster", "class": "DefaultRunLauncher"},
            "run_coordinator": {
                "module": "dagster._core.run_coordinator",
                "class": "QueuedRunCoordinator",
                "config": {"dequeue_interval_seconds": 1},
            },
        }
    return service(place / "dagster", file, home.path, **settings)


def _once(made: Service) -> float:
    run = made.launch("plain/launched")
    made.run_until(run, "SUCCESS")
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(made.place))) as instance:
        at = {
            entry.dagster_event.event_type_value: entry.timestamp
            for entry in instance.all_logs(run)
            if entry.dagster_event is not None
        }
    return at["PIPELINE_SUCCESS"] - at["PIPELINE_ENQUEUED"]


def figures_of(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    governed, floor = (statistics.median(times[f"launched_{kind}"]) for kind in ("governed", "plain"))
    return [figure("launched", governed, "s", floor, AIM)]
