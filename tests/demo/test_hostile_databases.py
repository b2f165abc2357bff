"""The audit reads databases that somebody else has written: none makes it compute for ever, or write elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from demo_audit import databases
from demo_audit.artefacts import AuditError
from demo_audit.event_logs import read_runs
from demo_audit.evidence import Evidence
from demo_audit.stores import read_store
from demo_runs import DemoRun, copy_of, opened

pytestmark = pytest.mark.xdist_group("demo")

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
RECORDS = '"row", zeroblob(32) AS id, zeroblob(9) AS header, zeroblob(9) AS signatures, zeroblob(9) AS body'


def written(path: Path, *statements: str) -> Path:
    """Write a database, or change one; its schema as if by hand."""
    path.touch()
    with opened(path) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
    return path


def read(path: Path) -> None:
    with databases.opened(path, ("a",)):
        pass


def test_a_view_in_place_of_a_stores_table_is_not_read(
    demo: DemoRun, evidence: Evidence, tmp_path: Path
) -> None:
    home = copy_of(demo.place / "board/node", tmp_path / "node")
    written(
        home / "store.sqlite3",
        "DROP TABLE records",
        f"CREATE VIEW records AS {FOR_EVER} SELECT i AS {RECORDS} FROM n",
    )
    with pytest.raises(AuditError, match=r"store.sqlite3: .*'records': neither a plain table nor an index"):
        read_store("ethics-board.example", home, evidence.roots)


@pytest.mark.parametrize(
    ("database", "table"),
    [("runs.db", "runs"), ("runs/index.db", "event_logs"), ("runs/*-*.db", "event_logs")],
)
def test_a_view_in_place_of_a_table_of_dagsters_is_not_read(
    demo: DemoRun, tmp_path: Path, database: str, table: str
) -> None:
    home = copy_of(demo.place / "north/dagster", tmp_path / "dagster")
    (path, *_) = (home / "history").glob(database)
    written(
        path,
        f"ALTER TABLE {table} RENAME TO kept",
        f"CREATE VIEW {table} AS {FOR_EVER} SELECT kept.* FROM kept, n",
    )
    with pytest.raises(AuditError, match=f"'{table}': neither a plain table nor an index"):
        read_runs(home)


def test_a_run_that_is_called_like_a_path_opens_no_file_there(demo: DemoRun, tmp_path: Path) -> None:
    home = copy_of(demo.place / "north/dagster", tmp_path / "dagster")
    outside = tmp_path / "outside"
    with opened(home / "history/runs.db") as connection:
        ((run,),) = connection.execute("SELECT run_id FROM runs LIMIT 1").fetchall()
        changed = "UPDATE runs SET run_id = ?2, run_body = replace(run_body, ?1, ?2) WHERE run_id = ?1"
        connection.execute(changed, (run, str(outside)))
    with pytest.raises(AuditError, match="a run is called"):
        read_runs(home)
    assert list(tmp_path.iterdir()) == [home]


def test_a_rollback_journal_is_left_behind(demo: DemoRun, tmp_path: Path) -> None:
    """It can name files that SQLite removes when it rolls back."""
    home = copy_of(demo.place / "north/dagster", tmp_path / "dagster")
    before = read_runs(home)
    (home / "history/runs.db-journal").write_bytes(b"no journal")
    seen: list[list[str]] = []

    def look(path: Path) -> object:
        seen.append([each.name for each in path.parent.iterdir()])
        return databases_opened(path)

    databases_opened = databases.opened
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demo_audit.event_logs.opened", look)
        assert read_runs(home) == before
    assert seen
    assert not any(name.endswith("-journal") for names in seen for name in names)


HOSTILE: dict[str, tuple[str, ...]] = {
    "no table a": ("CREATE TABLE b (c)",),
    "'view' 'v': neither": ("CREATE TABLE a (b)", "CREATE VIEW v AS SELECT 1"),
    "'trigger' 't': neither": (
        "CREATE TABLE a (b)",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
    ),
    "'table' 'a': neither": (
        "INSERT INTO sqlite_master VALUES ('table', 'a', 'a', 0, 'CREATE VIRTUAL TABLE a USING fts5(b)')",
    ),
    "table 'a': 'c' is computed": ("CREATE TABLE a (b, c AS (zeroblob(1000000)))",),
    "more than": tuple(f"CREATE TABLE a{i} (b)" for i in range(databases.NAMES_MAX + 1)),
    "2nd reference to page": (
        "CREATE TABLE a (b)",
        "CREATE TABLE c (b)",
        "UPDATE sqlite_master SET rootpage = 2",
    ),
}


@pytest.mark.parametrize("problem", HOSTILE)
def test_what_is_more_than_plain_tables_is_not_read(problem: str, tmp_path: Path) -> None:
    path = written(tmp_path / "one.db", *HOSTILE[problem])
    with pytest.raises(AuditError, match=rf"(?s)one\.db: .*{problem}"):
        read(path)


def test_plain_tables_and_their_indexes_are_read(tmp_path: Path) -> None:
    read(
        written(
            tmp_path / "one.db",
            "CREATE TABLE a (b INTEGER PRIMARY KEY AUTOINCREMENT, c UNIQUE, d)",
            "CREATE INDEX i ON a (d)",
            "CREATE UNIQUE INDEX j ON a (d, c)",
        )
    )


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.db").write_bytes(b"SQLite format 3\0" + bytes(500))
    with pytest.raises(AuditError, match=r"one\.db: "):
        read(tmp_path / "one.db")


def by_sqlite(path: Path, query: str) -> None:
    with databases.opened(path) as connection:
        connection.execute(query).fetchall()


def by_sqlalchemy(path: Path, query: str) -> None:
    with databases.guarded_engines(), create_engine(f"sqlite:///{path}").connect() as connection:
        connection.execute(text(query)).fetchall()


@pytest.mark.parametrize("ask", [by_sqlite, by_sqlalchemy])
def test_no_query_computes_for_ever_or_makes_gigabytes(
    ask: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "STEPS_MAX", 100_000)
    path = written(tmp_path / "one.db", "CREATE TABLE a (b)")
    with pytest.raises((sqlite3.OperationalError, SQLAlchemyError), match="interrupted"):
        # It ends by itself, after many more instructions than it may take.
        ask(path, f"{FOR_EVER} SELECT count(*) FROM (SELECT i FROM n LIMIT 1000000)")
    with pytest.raises((sqlite3.DataError, SQLAlchemyError), match="too big"):
        ask(path, "SELECT length(hex(zeroblob(100000000)))")
    ask(path, "SELECT 1")


def test_what_is_audited_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path / "one.db", "CREATE TABLE a (b)")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        by_sqlite(path, "INSERT INTO a VALUES (1)")
    with databases.opened(path) as connection:
        assert connection.execute("PRAGMA trusted_schema").fetchall() == [(0,)]
