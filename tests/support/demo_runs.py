"""A demo that was run for tests, and what it left; and how a copy of that is altered, one artefact at a time."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DemoRun:
    """A demo that has ended: what it said, and the folder that it left."""

    place: Path
    status: int
    told: str
    said: dict[str, Any] = field(default_factory=dict[str, Any])

    def record(self, claim: str, name: str) -> bytes:
        """The id of a record by which the audit shows a claim."""
        return bytes.fromhex(self.said["proof"][claim]["records"][name])

    def run(self, claim: str, name: str) -> str:
        """The id of a run by which the audit shows a claim."""
        found: str = self.said["proof"][claim]["runs"][name]
        return found


def folder_for_others() -> Path:
    """Make a folder that other users can reach and whose path is short, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


def copy_of(kept: Path, target: Path) -> Path:
    """Copy what a demo has left, with the modes of files and folders."""
    return Path(shutil.copytree(kept, target, symlinks=True))


@contextmanager
def opened(path: Path) -> Generator[sqlite3.Connection]:
    """Open a database to change it; every statement is kept at once."""
    assert path.is_file()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def change_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def spoil_signature(place: Path, organization: str, record: bytes) -> None:
    """Change the last bit of a record's signature in one organization's store."""
    with opened(place / organization / "node/store.sqlite3") as connection:
        ((signatures,),) = connection.execute(
            "SELECT signatures FROM records WHERE id = ?", (record,)
        ).fetchall()
        changed = signatures[:-1] + bytes([signatures[-1] ^ 1])
        connection.execute("UPDATE records SET signatures = ? WHERE id = ?", (changed, record))


def withhold_one_more(place: Path, organization: str) -> None:
    """Let a store say that one more row was withheld each time."""
    with opened(place / organization / "node/store.sqlite3") as connection:
        assert connection.execute('UPDATE withheld SET "rows" = "rows" + 1').rowcount


def edit_log(place: Path, run: str, old: str, new: str) -> None:
    """Replace a text in the event log of one run of the institute, where the failure of a step is told."""
    with opened(place / f"institute/dagster/history/runs/{run}.db") as connection:
        query = "SELECT id, event FROM event_logs WHERE dagster_event_type = 'STEP_FAILURE'"
        ((row, event),) = connection.execute(query).fetchall()
        assert old in event
        connection.execute("UPDATE event_logs SET event = ? WHERE id = ?", (event.replace(old, new), row))


def edit_run(place: Path, organization: str, run: str, old: str, new: str) -> None:
    """Let Dagster of an organization say something else of a run: in what it keeps of the run itself."""
    with opened(place / organization / "dagster/history/runs.db") as connection:
        ((body,),) = connection.execute("SELECT run_body FROM runs WHERE run_id = ?", (run,)).fetchall()
        assert old in body
        connection.execute("UPDATE runs SET run_body = ? WHERE run_id = ?", (body.replace(old, new), run))


def fail_run(place: Path, run: str) -> None:
    """Let Dagster of the institute say that a run failed."""
    with opened(place / "institute/dagster/history/runs.db") as connection:
        assert connection.execute("UPDATE runs SET status = 'FAILURE' WHERE run_id = ?", (run,)).rowcount == 1
