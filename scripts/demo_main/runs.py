"""Dagster runs of the organizations: started in their own processes, and what their event logs say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo_main.organizations import Organization
from demo_main.processes import DemoError, Running, Supervisor

READY_S: Final = 120.0
"""Importing Dagster, on a slow machine with everything else going on."""
RUN_S: Final = 120.0
"""One run, waiting for its decision included."""
PRELOADED: Final = ("pandas", "pyarrow.parquet", "comity.dagster_bridge", "comity.dagster_bridge.tables")
WITH_FITS: Final = (*PRELOADED, "lifelines")
WITHOUT_THREADS: Final = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""A worker forks for every run, which is safe without threads alone; numpy, scipy and Arrow would each start one."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as the event log has it.

    `made` maps assets to the metadata of their materialization, `failed` steps to description, metadata and
    error. `events` says when the run was first enqueued, dequeued, started and so on, by Dagster's names, in seconds
    since 1970.
    """

    id: str
    job: str
    status: str
    made: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, Mapping[str, Any]]
    tags: Mapping[str, str]
    events: Mapping[str, float]

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCESS"

    def failure(self) -> Mapping[str, Any]:
        """The metadata of the one step that failed; empty where none did."""
        return next((each["metadata"] for each in self.failed.values()), {})

    def description(self) -> str:
        """Why a step failed, in Dagster's words."""
        return next((str(each["description"]) for each in self.failed.values()), "")

    def codes(self, key: str) -> list[str]:
        """The codes of the causes (`comity/causes`) or needs (`comity/needs`) of the failure."""
        return [str(term["code"]) for term in self.failure().get(key, [])]


def environment_of(
    organization: Organization, exchange: Path, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of an organization's programs: its own homes, and nothing of whoever started the demo."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(organization.place),
        "MPLCONFIGDIR": str(organization.place / ".matplotlib"),
        "DAGSTER_HOME": str(organization.dagster_home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "COMITY_HOME": str(organization.home),
        "COMITY_EXCHANGE": str(exchange),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **(more or {}),
    }


class Worker:
    """One organization's Dagster, in a process of its own (`dagster_worker`)."""

    def __init__(self, supervisor: Supervisor, organization: Organization, exchange: Path) -> None:
        self.organization = organization
        modules = WITH_FITS if organization.project == "institute" else PRELOADED
        self._running: Running = supervisor.start(
            f"Dagster of {organization.title}",
            [
                sys.executable,
                "-P",
                "-m",
                "demo_main.dagster_worker",
                str(organization.project_folder),
                *modules,
            ],
            organization.account,
            environment_of(organization, exchange, WITHOUT_THREADS),
            organization.place,
            organization.logs / "dagster.log",
        )

    def wait_until_ready(self) -> None:
        """Wait until it has imported Dagster and made its instance.

        Raises:
            DemoError: it does not come up.
        """
        self._running.line(READY_S)

    def run(self, job: str, env: Mapping[str, str] | None = None, run: str | None = None) -> Run:
        """Make a run, and read it back.

        Args:
            run: the id that the run is to have; otherwise a new one.
        """
        return _run_of(self._ask({"do": "run", "job": job, "env": dict(env or {}), "run": run}))

    def read(self, job: str) -> Run:
        """Read back the newest run of a job."""
        return _run_of(self._ask({"do": "read", "job": job}))

    def newest(self, job: str) -> Run | None:
        """Read back the newest run of a job, if there is one."""
        found = self._ask({"do": "newest", "job": job})
        return _run_of(found) if found else None

    def _ask(self, request: Mapping[str, Any]) -> Any:
        self._running.write(json.dumps(request))
        answer = json.loads(self._running.line(RUN_S))
        if isinstance(answer, dict) and "error" in answer:
            raise DemoError(f"{self._running.name}: {answer['error']}\n{self._running.tail()}")
        return answer


def _run_of(answer: Mapping[str, Any]) -> Run:
    return Run(
        answer["run"],
        answer["job"],
        answer["status"],
        answer["made"],
        answer["failed"],
        answer["tags"],
        answer["events"],
    )
