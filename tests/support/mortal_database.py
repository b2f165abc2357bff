"""Writes to a DuckDB database, each in a process that may die: at a call to the database or the node, or at a moment.

    python mortal_database.py DATABASE HOME

It reads one request per line and answers with the exit status of the process that did it, both JSON. It has imported
everything once and forks for each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from comity.dagster_bridge import duckdb_connection, duckdb_storage, table_digest
from comity.dagster_bridge.check_reports import CheckReports
from comity.dagster_bridge.governed_write import write_version
from comity.dagster_bridge.storage import Slot
from comity.node.client import NodeClient, PermittedOutput, StartForm

RELEASED = Slot(("released",))
PERMITTED = PermittedOutput("clinic-north.example/released", "", "execute", [], True)
INTENT = "ab" * 32
_used = (table_digest, duckdb_connection.require_duckdb())


class Death:
    """Comes at a call: `at` counts down, and where it is 0 at the beginning it never comes."""

    def __init__(self, at: int, when: str) -> None:
        self.left = at
        self.when = when

    def mortal(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            here = self.left == 0
            if here and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return called

    def connection(self, connection: Any) -> Any:
        """A connection whose statements, and whose end, are mortal."""
        return SimpleNamespace(
            execute=self.mortal(connection.execute),
            close=self.mortal(connection.close),
            register=connection.register,
            unregister=connection.unregister,
            sql=connection.sql,
        )


def do(path: Path, home: str, request: dict[str, Any]) -> None:
    client = NodeClient.of_home(home)
    at, when = int(request["at"]), str(request["when"])
    death = Death(at, when)
    connect = duckdb_connection._connect
    actuate: Any = client.actuate

    def connected(*args: Any, **kwargs: Any) -> Any:
        if when != "moment":
            return death.connection(connect(*args, **kwargs))
        if at:
            # Within what DuckDB does itself: an alarm that nobody handles ends a process at once.
            signal.setitimer(signal.ITIMER_REAL, at / 1e6)
        return connect(*args, **kwargs)

    duckdb_connection._connect = connected
    if when != "moment":
        actuate = death.mortal(actuate)
    storage = duckdb_storage.DuckDBStorage(path, 2)
    if request.get("put_back"):
        assert storage.put_back(RELEASED, request["put_back"])
        return
    step: Any = SimpleNamespace(
        start=lambda output: client.start(StartForm(INTENT, output.asset)),
        client=SimpleNamespace(actuate=actuate, discard=client.discard),
        answer=SimpleNamespace(intent=INTENT, way="staged"),
        name="released",
        require_same_code=lambda: None,
        checks=CheckReports(client, "released", {}),
    )
    table = pa.table({"n": pa.array([request["number"]] * request["rows"], pa.int64())})
    write_version(storage, step, RELEASED, PERMITTED, storage.prepare(table))


def in_child(path: Path, home: str, request: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do(path, home, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            status = 0
        except Exception:  # noqa: BLE001  # what it was is told, and the status says that it was
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            # Not exit(): what the parent has registered for its own end is not the child's.
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{in_child(Path(sys.argv[1]), sys.argv[2], json.loads(line))}\n")
        sys.stdout.flush()
