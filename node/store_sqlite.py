"""The store in one SQLite file, in WAL mode.

*Durability.* The writing connection runs under `synchronous=NORMAL`: a commit is a write to the WAL, which
outlives the process. A durable transaction is begun under `synchronous=FULL`, where SQLite syncs the WAL
before the commit returns, and with it everything that was committed before. The level cannot change inside of
a transaction, so it is set before it begins; a test counts the calls to the operating system.

*Threads.* One connection writes, another one reads and never waits for the disk of the first. Each has a
lock.

*Exclusion.* One process holds a store, by a lock on a file beside it. A store that was not closed before the
machine went down may lack its newest records, and a copied file is another store: either gets a new
incarnation.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from comity.node.store import (
    HEADS_MAX,
    INCARNATION_BYTES,
    QUERY_ROWS_MAX,
    Cursor,
    Head,
    IntentRow,
    Page,
    Withheld,
    coalition_of,
    cut_page,
    log_of,
    require_erasable,
    require_kind,
    round_slot,
    start_slot,
    wanted_statuses,
)
from comity.node.store_tables import (
    SCHEMA,
    Row,
    Statement,
    Statements,
    definitions,
    head_of,
    intent_of,
    record_of,
    record_values,
    withheld_of,
    withheld_values,
)
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError, StoreError
from comity.protocol.kinds import KINDS, Log

BUSY_MS_MAX: Final = 5_000
"""How long a statement waits for another program, such as a backup, that holds the file."""
WAL_PAGES_MAX: Final = 8_192
"""16 MiB: a commit folds the WAL into the file at this size where `maintain` has not done so before."""
PAGE_BYTES: Final = 2_048
"""A commit writes every page that it touches, about ten for a vote. Of half the usual size they are 24 kB
instead of 39; of a quarter, so many that the processor notices."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@cache
def _statements() -> Statements:
    """Compiling them takes longer than opening a store."""
    return Statements(sqlite.dialect())


class _Translated:
    """The one place where errors of the disk and its libraries become ours."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, sqlite3.Error | SQLAlchemyError | OSError):
            raise StoreError(f"store {self._path}: {exc}") from exc


class _Lock:
    """This process's claim on a store: a locked file beside it.

    The system drops the lock when the process ends.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                f"the store is in use by process {holder or 'unknown'}, which holds {path}"
            ) from exc
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        # The file stays: removing it could take away the lock of whoever opened it meanwhile.
        os.close(self._descriptor)


class SqliteStore:
    """A `Store` in a file that this process alone uses.

    Raises:
        StoreError: another process holds it, others can read it, a newer program wrote it, it is no store, or
            the disk failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._translated = _Translated(path)
        self._statements = _statements()
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._depth = 0
        self._durable = False
        self._spoilt = False
        self._synced: bool = False
        self._writing_thread: int | None = None
        self._last: dict[tuple[str, bytes], int] = {}
        self._closed = False
        self.committed: Callable[[float], object] = lambda _: None
        """Is told how many seconds each commit took, in the thread that wrote."""
        with self._translated, ExitStack() as undo:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _Lock(path.with_name(path.name + ".lock"))
            undo.callback(self._lock.release)
            # Only under the lock: closing a descriptor drops every lock of this process on the file.
            _make_private(path)
            self._writer = self._connect()
            undo.callback(self._writer.close)
            self._incarnation = self._claim()
            self._reader = self._connect()
            undo.callback(self._reader.close)
            self._reader.execute("PRAGMA query_only=ON")
            undo.pop_all()

    @property
    def incarnation(self) -> bytes:
        return self._incarnation

    # Opening and closing

    def _connect(self) -> sqlite3.Connection:
        with ExitStack() as undo:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_MS_MAX / 1_000, isolation_level=None, check_same_thread=False
            )
            undo.callback(connection.close)
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise StoreError(f"store {self._path}: this file system cannot hold a write-ahead log")
            for pragma in (
                "synchronous=NORMAL",
                # Where the operating system's own sync stops at the drive's cache (macOS).
                "fullfsync=ON",
                "checkpoint_fullfsync=ON",
                # What was erased is overwritten.
                "secure_delete=ON",
                "trusted_schema=OFF",
                f"wal_autocheckpoint={WAL_PAGES_MAX}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            undo.pop_all()
        return connection

    def _claim(self) -> bytes:
        """Make the tables where there are none, check the schema, and say that the store is open."""
        with self.batch(durable=True):
            tables = {row[0] for row in self._writer.execute("SELECT name FROM sqlite_master")}
            if not tables:
                self._create()
            elif "facts" not in tables:
                raise StoreError(f"{self._path} is a database, but not a store of Comity")
            self._check_schema()
            state = self._path.stat()
            incarnation, opened = bytes.fromhex(self._fact("incarnation")), self._fact("opened")
            here, boot = f"{state.st_ino}", _boot()
            if opened not in (f"{here} closed", f"{here} {boot}"):
                incarnation = secrets.token_bytes(INCARNATION_BYTES)
                self._set_fact("incarnation", incarnation.hex())
            self._set_fact("opened", f"{here} {boot}")
        return incarnation

    def _create(self) -> None:
        for definition in definitions(sqlite.dialect()):
            self._writer.execute(definition)
        for name, value in (("schema", str(SCHEMA)), ("incarnation", ""), ("opened", "")):
            self._run(self._statements.insert_fact, {"name": name, "value": value})

    def _check_schema(self) -> None:
        schema = self._fact("schema")
        if schema != str(SCHEMA):
            raise StoreError(
                f"store {self._path} has schema {schema}; this program reads {SCHEMA}. "
                "Use the version of Comity that wrote it, or a newer one"
            )

    def _fact(self, name: str) -> str:
        row = self._run(self._statements.fact, {"name": name}).fetchone()
        if row is None:
            raise StoreError(f"store {self._path} does not say its {name}")
        return str(row[0])

    def _set_fact(self, name: str, value: str) -> None:
        self._run(self._statements.update_fact, {"which": name, "value": value})

    def close(self) -> None:
        with self._write_lock, self._read_lock, self._translated:
            if self._closed:
                return
            if self._depth:
                raise LocalProtocolError("a store is not closed inside of a batch")
            self._closed = True
            try:
                with self.batch(durable=True):
                    self._set_fact("opened", f"{self._path.stat().st_ino} closed")
                self._reader.close()
                self._writer.close()
            finally:
                self._lock.release()

    def maintain(self) -> None:
        if self._closed:
            raise StoreError(f"store {self._path} is closed")
        # On a connection of its own, so that neither readers nor writers wait while pages are copied.
        with self._translated:
            connection = self._connect()
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()

    # Transactions

    @contextmanager
    def batch(self, *, durable: bool = False) -> Generator[None, None, None]:
        with self._write_lock, self._translated:
            if self._depth:
                yield from self._inner(durable=durable)
                return
            self._begin(durable=durable)
            try:
                yield
                if self._spoilt:
                    raise LocalProtocolError("a write of this batch failed, so none of it is kept")
                began = time.perf_counter()
                self._writer.execute("COMMIT")
                self.committed(time.perf_counter() - began)
            except BaseException:
                # What was counted ahead was not written.
                self._last.clear()
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0
                self._writing_thread = None

    def _begin(self, *, durable: bool) -> None:
        if durable is not self._synced:
            self._writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._synced = durable
        self._writer.execute("BEGIN IMMEDIATE")
        self._depth, self._durable, self._spoilt = 1, durable, False
        self._writing_thread = threading.get_ident()

    def _inner(self, *, durable: bool) -> Generator[None, None, None]:
        if durable and not self._durable:
            raise LocalProtocolError("a durable write inside of a batch that is not durable")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._spoilt = True
            raise
        finally:
            self._depth -= 1

    def _run(self, statement: Statement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run a statement on the writing connection."""
        return self._writer.execute(statement.sql, statement.arguments(values))

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection, None, None]:
        """The connection to read from: a thread that writes sees what it has written."""
        with self._translated:
            if self._writing_thread == threading.get_ident():
                yield self._writer
            else:
                with self._read_lock:
                    yield self._reader

    def _rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Row]:
        with self._reading() as connection:
            return connection.execute(statement.sql, statement.arguments(values)).fetchall()

    def _next(
        self, counter: str, scope: bytes, statement: Statement, values: Mapping[str, Any], *, first: int
    ) -> int:
        """The next of a count without gaps: `first`, or one more than the statement finds."""
        last = self._last.get((counter, scope))
        if last is None:
            (found,) = self._run(statement, values).fetchone()
            last = first - 1 if found is None else int(found)
        self._last[counter, scope] = last + 1
        return last + 1

    def _upsert(self, insert: Statement, update: Statement, values: Mapping[str, Any]) -> None:
        if not self._run(update, values).rowcount:
            self._run(insert, values)

    # Records

    def put(
        self, records: Iterable[SignedRecord], *, durable: bool = False, own: bool = False
    ) -> tuple[bytes, ...]:
        with self.batch(durable=durable):
            return tuple([record.id for record in records if self._put(record, own=own)[1]])

    def _put(self, record: SignedRecord, *, own: bool) -> tuple[int, bool]:
        """The row of the record, and whether it is new."""
        held = self._run(self._statements.record_row, {"id": record.id}).fetchone()
        if held is None:
            return self._insert(record, own=own), True
        row, own_index, erased, bodiless = held
        if own and own_index is None:
            index = self._next_own_index(record)
            self._run(self._statements.set_own_index, {"own": index, "which": row})
        if bodiless and not erased and record.body_bytes is not None:
            self._run(self._statements.set_body, {"bytes": record.body_bytes, "gone": 0, "which": row})
        return row, False

    def _insert(self, record: SignedRecord, *, own: bool) -> int:
        row = self._next("row", b"", self._statements.last_row, {}, first=1)
        arrival = None
        if log_of(record) == "governance":
            coalition = coalition_of(record)
            values = {"coalition": coalition}
            # The first is 1, so that what lies behind 0 is everything.
            arrival = self._next("feed", coalition, self._statements.last_arrival, values, first=1)
        own_index = self._next_own_index(record) if own else None
        self._run(self._statements.insert_record, record_values(record, row, arrival, own_index))
        for subject in record.header.subject:
            self._run(self._statements.insert_subject, {"subject": subject, "row": row})
        return row

    def _next_own_index(self, record: SignedRecord) -> int:
        coalition, log = coalition_of(record), log_of(record)
        values = {"coalition": coalition, "log": log}
        return self._next(log, coalition, self._statements.last_own_index, values, first=0)

    def get(self, ids: Iterable[bytes]) -> list[SignedRecord]:
        found: list[SignedRecord] = []
        for record_id in ids:
            found += map(record_of, self._rows(self._statements.record, {"id": record_id}))
        return found

    def holds(self, ids: Iterable[bytes]) -> frozenset[bytes]:
        return frozenset(i for i in ids if self._rows(self._statements.record_row, {"id": i}))

    def ids(self, first: bytes, last: bytes, limit: int) -> list[tuple[bytes, str]]:
        rows = self._rows(self._statements.ids, {"first": first, "last": last, "limit": limit})
        return [(bytes(row[0]), str(row[1])) for row in rows]

    def about(
        self,
        subject: bytes,
        kind: str | None = None,
        *,
        execution: bool = False,
        after: bytes = b"",
        limit: int = QUERY_ROWS_MAX,
    ) -> list[SignedRecord]:
        given = {} if kind is None else {"kind": kind}
        values = {**given, "subject": subject, "after": after, "limit": limit}
        conditions = frozenset((*given, "execution") if execution else given)
        return [record_of(row) for row in self._rows(self._statements.about(conditions), values)]

    def file_under(self, subject: bytes, record: bytes) -> None:
        with self.batch():
            held = self._run(self._statements.record_row, {"id": record}).fetchone()
            values = {"subject": subject, "row": held[0]} if held is not None else None
            if values is not None and self._run(self._statements.filed, values).fetchone() is None:
                self._run(self._statements.insert_subject, values)

    def of_kind(
        self,
        kind: str,
        *,
        coalition: bytes | None = None,
        member: str | None = None,
        name: str | None = None,
        before: tuple[int, bytes] | None = None,
        limit: int = QUERY_ROWS_MAX,
    ) -> list[SignedRecord]:
        given = _given(coalition=coalition, member=member, name=name)
        if before is not None:
            given["at"], given["id"] = before
        conditions = set(given)
        if name is not None and kind in KINDS and KINDS[kind].log == "governance":
            # True of every such record; said so that their index by name is used.
            conditions.add("arrived")
        statement = self._statements.of_kind(frozenset(conditions))
        return [record_of(row) for row in self._rows(statement, {**given, "kind": kind, "limit": limit})]

    def erase_body(self, record: bytes) -> bool:
        with self.batch(durable=True):
            held = self._run(self._statements.record, {"id": record}).fetchone()
            if held is None:
                return False
            require_erasable(record_of(held))
            row, _, _, bodiless = self._run(self._statements.record_row, {"id": record}).fetchone()
            self._run(self._statements.set_body, {"bytes": None, "gone": 1, "which": row})
            outermost = self._depth == 1
        if outermost:
            # Until it is folded into the file, the WAL still has the page with the body.
            with self._write_lock, self._read_lock, self._translated:
                busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreError(f"store {self._path}: another program reads it, so the body is not gone yet")
        return not bodiless

    def feed(self, coalition: bytes, after: int, *, records_max: int, bytes_max: int) -> Page:
        statement = self._statements.feed
        values = {"coalition": coalition, "after": after, "limit": records_max}
        ((end,),) = self._rows(self._statements.last_arrival, {"coalition": coalition})
        with self._reading() as connection:
            # Row by row: most of a page's records would be read in vain where they are long.
            rows = connection.execute(statement.sql, statement.arguments(values))
            page = cut_page(((row[0], record_of(row[1:])) for row in rows), after, end or 0, bytes_max)
            rows.close()
        return page

    def own_log(self, coalition: bytes, log: Log, first: int = 0, limit: int = QUERY_ROWS_MAX) -> list[bytes]:
        values = {"coalition": coalition, "log": log, "first": first, "limit": limit}
        return [row[0] for row in self._rows(self._statements.own_log, values)]

    def own_log_size(self, coalition: bytes, log: Log) -> int:
        ((last,),) = self._rows(self._statements.last_own_index, {"coalition": coalition, "log": log})
        return 0 if last is None else last + 1

    def cursor(self, peer: str, coalition: bytes) -> Cursor | None:
        rows = self._rows(self._statements.cursor, {"peer": peer, "coalition": coalition})
        return Cursor(*rows[0]) if rows else None

    def set_cursor(self, peer: str, coalition: bytes, cursor: Cursor) -> None:
        values = {
            "peer": peer,
            "coalition": coalition,
            "incarnation": cursor.incarnation,
            "position": cursor.position,
        }
        with self.batch():
            self._upsert(self._statements.insert_cursor, self._statements.update_cursor, values)

    # What is said once

    def vote_once(self, intent: bytes, t: int, record: SignedRecord) -> SignedRecord:
        require_kind(record, "vote")
        return self._once(round_slot("vote", coalition_of(record), intent, t), record, durable=False)

    def ask_once(self, intent: bytes, t: int, record: SignedRecord) -> SignedRecord:
        require_kind(record, "ask")
        return self._once(round_slot("ask", coalition_of(record), intent, t), record, durable=False)

    def start_once(
        self, permit: bytes, asset: str, partition: str, attempt: int, record: SignedRecord
    ) -> SignedRecord:
        require_kind(record, "start")
        slot = start_slot(coalition_of(record), permit, asset, partition, attempt)
        return self._once(slot, record, durable=True)

    def _once(self, slot: bytes, record: SignedRecord, *, durable: bool) -> SignedRecord:
        with self.batch(durable=durable):
            held = self._run(self._statements.once, {"slot": slot}).fetchone()
            if held is not None:
                return record_of(held)
            row, _ = self._put(record, own=True)
            self._run(self._statements.insert_once, {"slot": slot, "row": row})
        return record

    # What this node knows for itself

    def save_intent(self, row: IntentRow) -> None:
        values = {name: getattr(row, name) for name in IntentRow.__slots__}
        with self.batch():
            self._upsert(self._statements.insert_intent, self._statements.update_intent, values)

    def intent(self, intent: bytes) -> IntentRow | None:
        rows = self._rows(self._statements.intents(frozenset({"intent"})), {"intent": intent, "limit": 1})
        return intent_of(rows[0]) if rows else None

    def intents(
        self,
        *,
        status: Collection[str] | None = None,
        dedup: bytes | None = None,
        run: str | None = None,
        step: str | None = None,
        limit: int = QUERY_ROWS_MAX,
    ) -> list[IntentRow]:
        given = _given(dedup=dedup, run=run, step=step)
        wanted = wanted_statuses(status)
        if wanted is not None:
            if not wanted:
                return []
            given |= {f"status_{index}": word for index, word in enumerate(wanted)}
        rows = self._rows(self._statements.intents(frozenset(given)), {**given, "limit": limit})
        return [intent_of(row) for row in rows]

    def raise_head(self, head: Head) -> Head:
        values = {name: getattr(head, name) for name in Head.__slots__}
        with self.batch():
            given = frozenset({"coalition", "partition"})
            rows = self._run(self._statements.heads(given), {**values, "limit": 1}).fetchall()
            if rows and rows[0][3] >= head.generation:
                return head_of(rows[0])
            self._upsert(self._statements.insert_head, self._statements.update_head, values)
        return head

    def heads(
        self, asset: str, partition: str | None = None, *, coalition: bytes | None = None
    ) -> list[Head]:
        given = _given(partition=partition, coalition=coalition)
        values = {**given, "asset": asset, "limit": HEADS_MAX}
        return [head_of(row) for row in self._rows(self._statements.heads(frozenset(given)), values)]

    def heads_below(self, domain: str, coalition: bytes, *, limit: int) -> list[Head]:
        # "0" follows "/": all that begins with the domain and a slash lies between.
        values = {"first": f"{domain}/", "last": f"{domain}0", "coalition": coalition, "limit": limit}
        return [head_of(row) for row in self._rows(self._statements.heads_below, values)]

    def save_withheld(self, rows: Iterable[Withheld]) -> None:
        with self.batch():
            for row in rows:
                values = withheld_values(row)
                self._upsert(self._statements.insert_withheld, self._statements.update_withheld, values)

    def withheld(self, intent: bytes) -> list[Withheld]:
        return [withheld_of(row) for row in self._rows(self._statements.withheld, {"intent": intent})]


def _given(**conditions: Any) -> dict[str, Any]:
    return {name: value for name, value in conditions.items() if value is not None}


def _boot() -> str:
    """What changes with every start of the machine, or with every call where the system does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(INCARNATION_BYTES)


def _make_private(path: Path) -> None:
    """Make the file where it is missing, for the owner alone. What SQLite lays beside it is alike."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if mode & _OTHERS:
        raise StoreError(f"others can read the store {path} (mode {mode:04o}): chmod 600 {path}")
