"""Dagster's event logs of an organization, read through Dagster's own API from a copy of its storage.

The organization's `dagster.yaml` is left behind: it names classes that Dagster would import.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from demo_audit.artefacts import AuditError, copied, files_below
from demo_main.dagster_worker import read_run
from demo_main.runs import Run

RUNS_MAX: Final = 500
"""Runs of one organization: a demo makes some twenty."""
_YAML: Final = "telemetry:\n  enabled: false\n"


@dataclass(frozen=True, slots=True)
class LoggedRun(Run):
    """A run as the event log has it. `at` is when it was created, in seconds since 1970."""

    at: float


def read_runs(dagster_home: Path) -> tuple[LoggedRun, ...]:
    """All runs of an organization's Dagster, the oldest first.

    Raises:
        AuditError: there is no storage, it cannot be read, or it holds more than `RUNS_MAX` runs.
    """
    history = dagster_home / "history"
    with copied(dagster_home, files_below(history)) as home:
        (home / "dagster.yaml").write_text(_YAML, encoding="utf-8")
        try:
            with dg.DagsterInstance.from_config(str(home)) as instance:
                return _runs(instance)
        except (SQLAlchemyError, sqlite3.Error, dg.DagsterError, KeyError, ValueError) as exc:
            raise AuditError(f"{history}: {type(exc).__name__}: {str(exc)[:200]}") from exc


def _runs(instance: dg.DagsterInstance) -> tuple[LoggedRun, ...]:
    records = instance.get_run_records(limit=RUNS_MAX + 1, ascending=True)
    if len(records) > RUNS_MAX:
        raise AuditError(f"more than {RUNS_MAX} runs in one event log")
    found: list[LoggedRun] = []
    for record in records:
        said = read_run(instance, record.dagster_run.run_id)
        at = record.create_timestamp.timestamp()
        found.append(LoggedRun(said["run"], said["job"], said["status"], said["made"], said["failed"], at))
    return tuple(found)
