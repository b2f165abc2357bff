"""SQLite databases of a kept demo: files that somebody else has written, so that opening one is reading hostile bytes.

A schema is a program: a view in place of a table computes for ever, a generated column makes gigabytes of nothing,
and pages that are shared do the same. So nothing but plain tables and their indexes is read, and no connection
computes longer than it may. Databases are opened as copies (`artefacts.copied`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event

from demo_audit.artefacts import FILE_BYTES_MAX, AuditError

STEPS_MAX: Final = 20_000_000
"""Instructions of SQLite's machine on one connection: a second or two. A demo's databases need some ten thousand."""
STEPS_BETWEEN: Final = 10_000
"""Instructions after which a connection is asked whether it may go on."""
NAMES_MAX: Final = 500
"""Tables and indexes of one database: Dagster's largest has some fifty."""
_PRAGMAS: Final = (
    # No function of the schema's is called that is not known to be harmless.
    "trusted_schema=OFF",
    "cell_size_check=ON",
    # A constraint is an expression of whoever wrote the schema, and reading asks for none.
    "ignore_check_constraints=ON",
)
_DEFINITIONS: Final = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
"""How SQLite itself begins what it keeps of plain tables and indexes. A virtual table and a view begin otherwise."""


@contextmanager
def opened(path: Path, tables: Iterable[str] = ()) -> Generator[sqlite3.Connection]:
    """A database, for reading alone: no page of it is in two places, and it has only plain tables and indexes.

    Args:
        tables: those that are going to be read, and have to be there.

    Raises:
        AuditError: it is none, or holds something else.
        sqlite3.Error: of what is done with the connection, also where it takes more than `STEPS_MAX`.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        _guard(connection)
        try:
            _require_plain(connection, tables)
        except (sqlite3.Error, UnicodeError) as exc:
            raise AuditError(f"{path.name}: {exc}") from exc
        yield connection


@contextmanager
def guarded_engines() -> Generator[None]:
    """Guard every connection that SQLAlchemy makes meanwhile: Dagster opens its databases itself, and anew each time.

    They are copies, and Dagster may write to them.
    """

    def guard(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            _guard(connection)

    event.listen(Engine, "connect", guard)
    try:
        yield
    finally:
        event.remove(Engine, "connect", guard)


def _guard(connection: sqlite3.Connection) -> None:
    left = STEPS_MAX // STEPS_BETWEEN

    def spent() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(spent, STEPS_BETWEEN)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, FILE_BYTES_MAX)
    # Python 3.12 has it.
    if (configure := getattr(connection, "setconfig", None)) is not None:
        configure(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009  unknown to 3.11
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _require_plain(connection: sqlite3.Connection, tables: Iterable[str]) -> None:
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master LIMIT ?", (NAMES_MAX + 1,)
    ).fetchall()
    if len(rows) > NAMES_MAX:
        raise sqlite3.DataError(f"more than {NAMES_MAX} tables and indexes")
    plain: set[str] = set()
    for kind, name, definition in rows:
        # An index that a table's own definition asks for has none.
        if kind == "index" and definition is None:
            continue
        if kind not in ("table", "index") or not str(definition).startswith(_DEFINITIONS):
            raise sqlite3.DataError(f"{kind!r} {name!r}: neither a plain table nor an index")
        if kind == "table":
            plain.add(name)
    if missing := set(tables) - plain:
        raise sqlite3.DataError(f"no table {', '.join(sorted(missing))}")
    for name in sorted(plain):
        columns = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
        if computed := [column for column, hidden in columns if hidden]:
            raise sqlite3.DataError(f"table {name!r}: {computed[0]!r} is computed, not stored")
    ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    if said != "ok":
        raise sqlite3.DataError(said)
