"""A short connection to one DuckDB database file, and the one place where DuckDB's exceptions become ours.

DuckDB lets one process write at a time, and nobody read meanwhile. So a connection is open only while something is
read or written, never while work is done, and whoever finds the file taken waits its turn, for a bounded time.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, TypeAlias

from comity.dagster_bridge.files import FileError
from comity.protocol.errors import ConfigError

Connection: TypeAlias = Any
"""A duckdb.DuckDBPyConnection. Nothing of DuckDB's types leaves the modules that are named after it."""

BUSY_MAX_S: Final = 60.0
"""How long a database that another process has open is waited for: a large version is written in seconds."""
BUSY_MOST_S: Final = 3_600.0
"""As long as a step may wait for its decision."""
_PAUSE_S: Final = 0.01
_PAUSE_MAX_S: Final = 0.5
"""Between tries, doubling: a file that is free is taken soon, one that is not costs little."""
_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700

_SETTINGS: Final = {
    # What stands in a database, or was planted there, reaches no other file and fetches no code.
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Rows are read in the order in which they were written: it is part of a version's digest.
    "preserve_insertion_order": "true",
}
_SHOWN: Final = ("IOException", "ConnectionException", "CatalogException", "PermissionException")
"""Of these the text names files and tables. That of others may hold values, and is not repeated."""
_TAKEN: Final = re.compile(r"Could not set lock on file")
_HOLDER: Final = re.compile(r"PID (\d+)")

_turns_guard: Final = threading.Lock()
_turns: Final[dict[Path, threading.Lock]] = {}
"""One lock for each database of this process, which opens each in one way at a time."""


class DatabaseBusyError(FileError):
    """Another process had the database open for longer than one waits."""


def require_duckdb() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed; the message says what to install.
    """
    if importlib.util.find_spec("duckdb") is None:
        raise ConfigError("tables in DuckDB need duckdb: pip install 'comity[dagster,duckdb]'")
    return importlib.import_module("duckdb")


@contextlib.contextmanager
def opened(path: Path, *, writes: bool, busy_max_s: float = BUSY_MAX_S) -> Generator[Connection]:
    """A connection to a database file for as long as the context lasts. Writing makes the file where there is none.

    Raises:
        DatabaseBusyError: another process had it open all the while.
        FileError: it cannot be opened, read or written.
        ConfigError: DuckDB is not installed.
    """
    duckdb = require_duckdb()
    deadline = time.monotonic() + busy_max_s
    path = path.absolute()
    with _turn(path, busy_max_s):
        try:
            connection = _connected(duckdb, path, deadline, busy_max_s, writes=writes)
            try:
                yield connection
            finally:
                connection.close()
        except duckdb.Error as exc:
            raise FileError(f"{path}: {_words(exc)}") from None


def asked(connection: Connection, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of an answer: a result that is not read to its end keeps the connection from anything else."""
    answer: list[tuple[Any, ...]] = connection.execute(sql, list(parameters)).fetchall()
    return answer


@contextlib.contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """All of it or nothing, on disk when the context ends."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _connected(duckdb: Any, path: Path, deadline: float, busy_max_s: float, *, writes: bool) -> Connection:
    pause = _PAUSE_S
    while True:
        try:
            return _connect(duckdb, path, writes=writes)
        except duckdb.IOException as exc:
            text = str(exc)
            if not _TAKEN.search(text):
                raise
            if time.monotonic() + pause > deadline:
                holder = _HOLDER.search(text)
                whose = f" (process {holder[1]})" if holder else ""
                raise DatabaseBusyError(
                    f"{path} is open in another process{whose} for more than {busy_max_s:g} s, and DuckDB lets one"
                    " process write at a time: close it there, or give the IO manager a larger busy_max_s"
                ) from None
        except duckdb.ConnectionException:
            raise DatabaseBusyError(
                f"{path} is open in this process by a connection that is not the IO manager's: close it before the"
                " step returns"
            ) from None
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MAX_S)


def _connect(duckdb: Any, path: Path, *, writes: bool) -> Connection:
    if writes and not path.exists():
        try:
            path.parent.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as exc:
            raise FileError(f"{path} cannot be made: {exc.strerror}") from exc
    connection = duckdb.connect(str(path), read_only=not writes, config=_SETTINGS)
    if writes:
        try:
            path.chmod(_PRIVATE_FILE)
        except OSError as exc:
            connection.close()
            raise FileError(f"{path} cannot be made private: {exc.strerror}") from exc
    return connection


@contextlib.contextmanager
def _turn(path: Path, busy_max_s: float) -> Generator[None]:
    with _turns_guard:
        turn = _turns.setdefault(path, threading.Lock())
    if not turn.acquire(timeout=busy_max_s):
        raise DatabaseBusyError(
            f"{path} is read or written by another thread for more than {busy_max_s:g} s: give the IO manager a"
            " larger busy_max_s"
        )
    try:
        yield
    finally:
        turn.release()


def _words(exc: Exception) -> str:
    """What DuckDB says, in one line, where that holds no values."""
    kind = type(exc).__name__
    if kind not in _SHOWN:
        return f"DuckDB refuses ({kind})"
    return f"DuckDB refuses: {str(exc).partition(chr(10))[0]}"
