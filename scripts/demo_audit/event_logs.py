"""Dagster's event logs of an organization, read through Dagster's own API from a copy of its storage.

What the bridge wrote into them is brought into its form here: a log may say anything.

The organization's `dagster.yaml` is left behind: it names classes that Dagster would import.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from demo_audit.artefacts import AuditError, copied, files_below
from demo_audit.databases import guarded_engines, opened
from demo_main.dagster_worker import read_run
from demo_main.runs import Run

RUNS_MAX: Final = 500
"""Runs of one organization: a demo makes some twenty."""
DATABASES: Final = (".db", ".db-wal")
"""What is copied of a storage. A rollback journal is left behind: it can name files for SQLite to remove."""
_YAML: Final = "telemetry:\n  enabled: false\n"


class LoggedTerm(msgspec.Struct, frozen=True):
    """A cause or a need, as the bridge writes it."""

    code: str
    parameters: dict[str, int | str] = {}  # msgspec copies it


_FORMS: Final[Mapping[str, Any]] = {
    "comity/causes": list[LoggedTerm],
    "comity/needs": list[LoggedTerm],
    "comity/votes": dict[str, str],
}
"""The metadata that claims look into, and what is believed to be there."""


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
    wanted = [path for path in files_below(history) if path.name.endswith(DATABASES)]
    with copied(dagster_home, wanted) as home:
        (home / "dagster.yaml").write_text(_YAML, encoding="utf-8")
        try:
            for path in sorted(home.rglob("*.db")):
                with opened(path):
                    pass
            with guarded_engines(), dg.DagsterInstance.from_config(str(home)) as instance:
                return _runs(instance)
        except AuditError as exc:
            raise AuditError(f"{history}: {exc}") from exc
        except (SQLAlchemyError, sqlite3.Error, dg.DagsterError, KeyError, ValueError) as exc:
            raise AuditError(f"{history}: {type(exc).__name__}: {str(exc)[:200]}") from exc


def _runs(instance: dg.DagsterInstance) -> tuple[LoggedRun, ...]:
    records = instance.get_run_records(limit=RUNS_MAX + 1, ascending=True)
    if len(records) > RUNS_MAX:
        raise AuditError(f"more than {RUNS_MAX} runs in one event log")
    found: list[LoggedRun] = []
    for record in records:
        _require_name(record.dagster_run.run_id)
        said = read_run(instance, record.dagster_run.run_id)
        at = record.create_timestamp.timestamp()
        made = {asset: _formed(each) for asset, each in said["made"].items()}
        failed = {
            step: {**each, "metadata": _formed(each["metadata"])} for step, each in said["failed"].items()
        }
        found.append(
            LoggedRun(
                said["run"], said["job"], said["status"], made, failed, said["tags"], said["events"], at
            )
        )
    return tuple(found)


def _require_name(run: str) -> None:
    """Dagster opens a file of that name for each run, wherever the name leads, and makes it where there is none.

    Raises:
        AuditError: it is no name that Dagster gives.
    """
    try:
        given = str(uuid.UUID(run))
    except ValueError:
        given = ""
    if given != run:
        raise AuditError(f"a run is called {run[:80]!r}")


def _formed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in which what claims look into has the form that the bridge gives it. What has another is left out."""
    formed = dict(metadata)
    for name, form in _FORMS.items():
        try:
            formed[name] = msgspec.to_builtins(msgspec.convert(metadata[name], form))
        except (KeyError, msgspec.ValidationError):
            formed.pop(name, None)
    return formed
