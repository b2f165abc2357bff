"""What the file adds to the port: crashes, power, other processes, other versions, other eyes."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy.dialects import postgresql, sqlite

from comity.node import store_sqlite
from comity.node.store import Cursor, Head, IntentRow, Withheld
from comity.node.store_memory import MemoryStore
from comity.node.store_sqlite import BUSY_MS_MAX, SqliteStore
from comity.node.store_tables import SCHEMA, Statement, Statements, definitions, withheld_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import StoreError
from comity.protocol.identifiers import sha256
from said import COALITION, say

X, Y = sha256(b"x"), sha256(b"y")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "store.sqlite3"


@pytest.fixture
def memory_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: for tests that open many stores and lose no power."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def program(code: str, *arguments: object) -> list[str]:
    """A program of its own that can import what this test can."""
    support = Path(__file__).parents[1] / "support"
    prelude = (
        f"import os, signal, sys; sys.path.insert(0, {str(support)!r})\n"
        "from pathlib import Path\nfrom said import COALITION, say\n"
        "from comity.node.store_sqlite import SqliteStore\n"
    )
    return [sys.executable, "-c", prelude + code, *map(str, arguments)]


def fill(store: SqliteStore) -> None:
    store.put([say("credential", "1"), say("vote", "2", subject=[X])], own=True)
    store.vote_once(X, 5, say("vote", "3"))
    store.start_once(X, "a.example/b", "", 1, say("start", "4"))
    store.set_cursor("north", COALITION, Cursor(b"n" * 16, 7))
    store.save_intent(IntentRow(X, "run", "step", b"d", "asking", b"s", 1_000))
    store.raise_head(Head(COALITION, "a.example/b", "", 1, X))
    store.save_withheld([Withheld(X, "a.example/b", "o", "c", 1, ("ä", ""))])


def everything(store: SqliteStore | MemoryStore) -> list[object]:
    return [
        [store.of_kind(kind) for kind in ("credential", "vote", "start", "observation", "ask")],
        store.about(X),
        store.feed(COALITION, 0, records_max=1_000, bytes_max=1_000_000),
        [store.own_log(COALITION, "governance"), store.own_log(COALITION, "execution")],
        store.cursor("north", COALITION),
        store.intents(),
        store.heads("a.example/b"),
        store.withheld(X),
    ]


# Opening again


def test_a_store_that_is_opened_again_is_as_it_was(path: Path) -> None:
    store = SqliteStore(path)
    fill(store)
    before, incarnation = everything(store), store.incarnation
    store.close()
    again = SqliteStore(path)
    assert everything(again) == before
    assert again.incarnation == incarnation
    assert again.vote_once(X, 5, say("vote", "other")) == say("vote", "3")
    late = say("credential", "late")
    again.put([late], own=True)
    assert again.own_log(COALITION, "governance")[1:] == [late.id]
    assert again.feed(COALITION, 1, records_max=9, bytes_max=9_999).next == 2
    again.close()


@pytest.mark.parametrize("damage", ["schema = '0'", f"schema = '{SCHEMA + 1}'"])
def test_a_store_of_another_schema_is_left_alone(path: Path, damage: str) -> None:
    SqliteStore(path).close()
    value = damage.split("'")[1]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE facts SET value = ? WHERE name = 'schema'", (value,))
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"has schema {value}; this program reads {SCHEMA}"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    path.chmod(0o600)
    with pytest.raises(StoreError, match="not a store of Comity"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"patients, and what they have\n" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(path)
    assert path.read_bytes().startswith(b"patients")


def test_a_store_that_cannot_be_opened_is_not_held(path: Path) -> None:
    path.mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(StoreError, match="Is a directory"):
            SqliteStore(path)


# Incarnations


def test_a_copied_store_is_another_one(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    shutil.copy2(path, tmp_path / "copy.sqlite3")
    copy = SqliteStore(tmp_path / "copy.sqlite3")
    assert copy.incarnation != store.incarnation
    copy.close()


def test_a_store_that_the_machine_dropped_is_another_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "s = SqliteStore(Path(sys.argv[1])); print(s.incarnation.hex(), flush=True); os.kill(os.getpid(), 9)"
    )
    said = subprocess.run(program(code, path), capture_output=True, text=True, check=False)
    incarnation = bytes.fromhex(said.stdout)
    # The process died, the machine did not: nothing is lost.
    store = SqliteStore(path)
    assert store.incarnation == incarnation
    store.close()
    subprocess.run(program(code, path), capture_output=True, check=False)
    monkeypatch.setattr(store_sqlite, "_boot", lambda: "another boot")
    later = SqliteStore(path)
    assert later.incarnation != incarnation
    later.close()
    again = SqliteStore(path)
    assert again.incarnation == later.incarnation
    again.close()


# One process


def test_a_store_is_used_by_one_process(path: Path) -> None:
    store = SqliteStore(path)
    try:
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            SqliteStore(path)
        said = subprocess.run(
            program("SqliteStore(Path(sys.argv[1]))", path), capture_output=True, text=True, check=False
        )
        assert (
            f"StoreError: the store is in use by process {os.getpid()}, which holds {path}.lock"
            in said.stderr
        )
        store.put([say("vote")])
    finally:
        store.close()
    SqliteStore(path).close()


def test_another_program_that_holds_the_file_is_waited_for_no_longer_than_the_bound(path: Path) -> None:
    store = SqliteStore(path)
    for connection in (store._writer, store._reader):
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (BUSY_MS_MAX,)
    store._writer.execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.put([say("vote", "1")])
    other.execute("ROLLBACK")
    other.close()
    store.put([say("vote", "2")])
    assert store.of_kind("vote") == [say("vote", "2")]
    store.close()


# Other eyes


def test_nobody_else_can_read_the_store(path: Path) -> None:
    umask = os.umask(0)
    try:
        store = SqliteStore(path)
        fill(store)
        names = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    wal = ("store.sqlite3", "store.sqlite3-wal", "store.sqlite3-shm", "store.sqlite3.lock")
    assert names == dict.fromkeys(wal, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


def test_a_store_that_others_can_read_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    path.chmod(0o640)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        SqliteStore(path)


def test_an_erased_body_is_in_no_file(path: Path) -> None:
    def found() -> list[str]:
        return [file.name for file in path.parent.iterdir() if b"patient 4711" in file.read_bytes()]

    store = SqliteStore(path)
    record = say("intent", "patient 4711, " * 500)
    store.put([record, say("vote")])
    store.maintain()
    assert found()
    store.erase_body(record.id)
    assert found() == []
    store.close()
    assert found() == []


# Damage


def test_a_damaged_record_is_no_record(path: Path) -> None:
    store = SqliteStore(path)
    vote, permit = say("vote", subject=[X]), say("permit")
    store.put([vote, permit])
    store._writer.execute("UPDATE records SET body = x'00' WHERE id = ?", (vote.id,))
    store._writer.execute("UPDATE records SET header = ? WHERE id = ?", (vote.header_bytes, permit.id))
    for damaged in (vote, permit):
        with pytest.raises(StoreError, match="is damaged in the store"):
            store.get([damaged.id])
    with pytest.raises(StoreError, match="is damaged in the store"):
        store.about(X)
    store.close()


def test_a_full_disk_is_told_and_changes_nothing(path: Path) -> None:
    store = SqliteStore(path)
    fill(store)
    before = everything(store)
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="full"):
        store.put([say("credential", "x" * 100_000)], own=True)
    assert everything(store) == before
    store._writer.execute("PRAGMA max_page_count=1000000")
    record = say("credential", "y")
    store.put([record], own=True)
    assert store.own_log(COALITION, "governance")[1:] == [record.id]
    store.close()


# Crashes

WRITING = """
store = SqliteStore(Path(sys.argv[1]))
for n in range(1_000_000):
    store.vote_once(bytes(32), n, say("vote", f"{n}", number=n))
    store.put([say("credential", f"{n} {part}" + "x" * 2_000, number=n) for part in range(3)], own=True)
    print(n, flush=True)
"""


def test_what_was_answered_for_survives_the_death_of_the_process(path: Path) -> None:
    with subprocess.Popen(program(WRITING, path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 300:
                break
        process.kill()
        # What it had said and nobody had read yet; the last line may be half of one.
        rest = process.stdout.read().rpartition("\n")[0].split()
    answered = max([300, *map(int, rest)])
    store = SqliteStore(path)
    votes = {record.header.number for record in store.of_kind("vote", limit=100_000)}
    credentials = [record.header.number for record in store.of_kind("credential", limit=100_000)]
    assert set(range(answered + 1)) <= votes
    assert set(range(answered + 1)) <= set(credentials)
    # The round under way when it died is there as a whole or not at all.
    assert {credentials.count(number) for number in set(credentials)} == {3}
    assert store.own_log_size(COALITION, "governance") == len(credentials)
    assert store.feed(COALITION, 0, records_max=1, bytes_max=1).end == len(credentials)
    store.close()


DYING = """
import sqlite3
from comity.node import store_sqlite
real, statements = sqlite3.connect, 0
store_sqlite._statements()

def connect(*args, **kwargs):
    connection = real(*args, **kwargs)
    connection.set_trace_callback(count)
    return connection

def count(statement):
    global statements
    statements += 1
    if statements == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)

for dies_at in range(1, 400):
    child = os.fork()
    if not child:
        store_sqlite.sqlite3.connect = connect
        store = SqliteStore(Path(sys.argv[1]) / f"{dies_at}.sqlite3")
        store.start_once(bytes(32), "a.example/b", "", 1, say("start", "one", subject=[bytes(32)]))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(dies_at)
"""


def test_a_store_is_sound_whichever_statement_its_process_died_in(memory_disk: Path) -> None:
    """From the making of the tables to a start: before every single statement, a process is killed."""
    said = subprocess.run(program(DYING, memory_disk), capture_output=True, text=True, check=True)
    points = int(said.stdout)
    assert 40 < points < 400
    kept = 0
    for dies_at in range(1, points):
        store = SqliteStore(memory_disk / f"{dies_at}.sqlite3")
        one, two = say("start", "one", subject=[bytes(32)]), say("start", "two")
        held = store.of_kind("start")
        assert held in ([], [one])
        assert store.about(bytes(32)) == held
        assert store.own_log(COALITION, "execution") == [record.id for record in held]
        assert store.start_once(bytes(32), "a.example/b", "", 1, two) == (one if held else two)
        kept += len(held)
        store.close()
    assert kept < points


SYNCING = """
store = SqliteStore(Path(sys.argv[1]))
store.put([say("vote", "first")])
for n in range(20):
    os.write(2, b"MARK %d\\n" % n)
    if n % 2:
        store.start_once(bytes(32), "a.example/b", "", n, say("start", f"{n}"))
    else:
        store.vote_once(bytes(32), n, say("vote", f"{n}"))
os.write(2, b"MARK end\\n")
"""


def test_a_durable_write_is_synced_and_another_is_not(path: Path, tmp_path: Path) -> None:
    """Seen from outside: the calls by which a program asks the system to put a file onto the disk."""
    strace = shutil.which("strace")
    if (
        strace is None
        or subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("strace is not installed, or may not trace here")
    trace = tmp_path / "trace"
    calls = ["-f", "-e", "trace=fsync,fdatasync,write", "-o", str(trace)]
    subprocess.run([strace, *calls, *program(SYNCING, path)], check=True, capture_output=True)
    text = trace.read_text()
    spans = re.split(r'write\(2, "MARK \w+\\n"', text)[1:-1]
    assert [len(re.findall(r"\bf(?:data)?sync\(", span)) for span in spans] == [0, 1] * 10


def test_a_durable_transaction_runs_under_full_synchronization(path: Path) -> None:
    store = SqliteStore(path)
    for durable, level in ((True, 2), (False, 1), (False, 1), (True, 2)):
        with store.batch(durable=durable):
            store.put([say("vote")])
            assert store._writer.execute("PRAGMA synchronous").fetchone() == (level,)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


# Readers


def test_a_reader_does_not_wait_for_a_writer(path: Path) -> None:
    store = SqliteStore(path)
    store.put([say("credential", "old")])
    seen: list[SignedRecord] = []

    def read() -> None:
        seen.extend(store.of_kind("credential"))
        seen.extend(store.feed(COALITION, 0, records_max=9, bytes_max=9_999).records)

    with store.batch():
        store.put([say("credential", "new")])
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(timeout=5)
    assert seen == [say("credential", "old")] * 2
    assert len(store.of_kind("credential")) == 2
    store.close()


def test_maintenance_empties_the_log_into_the_file(path: Path) -> None:
    store = SqliteStore(path)
    store.put([say("credential", f"{n}" * 500) for n in range(100)])
    before = path.stat().st_size
    store.maintain()
    assert path.stat().st_size > before + 50_000
    store.close()


# Statements


def all_statements(dialect: object) -> Iterator[Statement]:
    statements = Statements(dialect)  # type: ignore[arg-type]
    yield from (value for value in vars(statements).values() if isinstance(value, Statement))
    yield from (statements.about(frozenset(given)) for given in ((), ("kind",), ("execution",)))
    yield from (
        statements.of_kind(frozenset(given))
        for given in ((), ("coalition",), ("at", "id"), ("name", "arrived"), ("name", "member", "arrived"))
    )
    yield from (
        statements.intents(frozenset(given))
        for given in (
            ("intent",),
            ("dedup",),
            ("run",),
            ("run", "step"),
            ("status_0",),
            ("status_0", "status_1"),
            (),
        )
    )
    yield from (
        statements.heads(frozenset(given)) for given in ((), ("partition",), ("coalition", "partition"))
    )


def test_no_query_reads_a_whole_table(path: Path) -> None:
    store = SqliteStore(path)
    plans = {}
    for statement in all_statements(sqlite.dialect()):
        rows = store._writer.execute(f"EXPLAIN QUERY PLAN {statement.sql}", [0] * len(statement._names))
        plans[statement.sql] = [row[3] for row in rows]
    store.close()
    assert len(plans) > 30
    # The newest intents, through an index that has their order; and the highest row, which is the last one.
    allowed = {"SCAN intents USING INDEX intents_updated"}
    whole = {(sql, step) for sql, plan in plans.items() for step in plan} - {
        (Statements(sqlite.dialect()).last_row.sql, "SEARCH records")
    }
    assert [
        (sql, step)
        for sql, step in whole
        if step.startswith(("SCAN", "SEARCH")) and step not in allowed
        if step.startswith("SCAN") or "USING" not in step
    ] == []
    used = {step for plan in plans.values() for step in plan}
    # Through the index of its kind a named record is found too, by looking at every record of the kind.
    assert "SEARCH records USING INDEX records_name (name=? AND kind=?)" in used
    assert "SEARCH records USING INDEX records_arrival (coalition=? AND arrival>?)" in used
    assert "SEARCH records USING COVERING INDEX records_own (coalition=? AND log=? AND own_index>?)" in used


def test_a_governance_record_is_found_by_name_through_an_index(path: Path) -> None:
    store = SqliteStore(path)
    said: list[str] = []
    store._reader.set_trace_callback(said.append)
    store.of_kind("policy", name="main")
    store.of_kind("vote", name="main")
    assert ["arrival IS NOT NULL" in sql for sql in said] == [True, False]
    store.close()


def test_the_same_statements_are_good_for_postgresql() -> None:
    dialect = postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    assert len(list(definitions(dialect))) > 10
    assert all(statement.sql.count("%s") == len(statement._names) for statement in all_statements(dialect))


# Both adapters, whatever is done


class Both(RuleBasedStateMachine):
    """The same calls on both adapters: the same answers."""

    def __init__(self) -> None:
        super().__init__()
        self._number = next(Both.numbers)
        self.path = Both.folder / f"{self._number}.sqlite3"
        self.sqlite = SqliteStore(self.path)
        self.memory = MemoryStore()

    folder: Path
    numbers = iter(range(1_000_000))
    said = st.builds(
        say,
        st.sampled_from(["credential", "vote", "ask", "start"]),
        st.sampled_from("abcde"),
        subject=st.sets(st.sampled_from([X, Y])),
        at=st.sampled_from([1_000, 1_001]),
    )

    @rule(records=st.lists(said, max_size=4), own=st.booleans(), fails=st.booleans())
    def put(self, records: list[SignedRecord], *, own: bool, fails: bool) -> None:
        answers: list[object] = []
        for store in (self.sqlite, self.memory):
            try:
                with store.batch():
                    answers.append(store.put(records, own=own))
                    if fails:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        assert answers[0] == answers[1]

    @rule(record=said, t=st.integers(0, 2))
    def say_once(self, record: SignedRecord, t: int) -> None:
        if record.header.kind == "credential":
            return
        answers = []
        for store in (self.sqlite, self.memory):
            call = {"vote": store.vote_once, "ask": store.ask_once}.get(record.header.kind)
            answers.append(call(X, t, record) if call else store.start_once(X, "a.example/b", "", t, record))
        assert answers[0] == answers[1]

    @rule(record=said)
    def erase(self, record: SignedRecord) -> None:
        if record.kind.erasable:
            assert self.sqlite.erase_body(record.id) == self.memory.erase_body(record.id)

    @rule()
    def open_again(self) -> None:
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path)

    @invariant()
    def answers_agree(self) -> None:
        assert everything(self.sqlite) == everything(self.memory)

    def teardown(self) -> None:
        self.sqlite.close()


def test_both_adapters_answer_alike(memory_disk: Path) -> None:
    Both.folder = memory_disk
    run_state_machine_as_test(Both, settings=settings(max_examples=15, stateful_step_count=12, deadline=None))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("values", 7),
        ("values", "x"),
        ("values", None),
        ("values", b"\x91\x07"),
        ("rows", "many"),
        ("asset", b"a"),
    ],
)
def test_what_was_withheld_and_is_of_another_type_is_damaged(column: str, value: object) -> None:
    """A column of SQLite holds a value of any type, and a file may be anybody's."""
    row: dict[str, object] = {
        "intent": bytes(32),
        "asset": "a.example/b",
        "partition": "",
        "obligation": "min_group_rows",
        "column": "inst",
        "rows": 11,
        "values": b"\x91\xa14",
    }
    assert withheld_of(tuple(row.values())).values == ("4",)
    with pytest.raises(StoreError, match="damaged"):
        withheld_of(tuple((row | {column: value}).values()))
