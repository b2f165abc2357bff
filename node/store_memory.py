"""The store in memory, for tests and simulations.

It keeps what the port promises, except to outlive the process.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, TypeVar

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
    withheld_bytes,
)
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError, StoreError
from comity.protocol.kinds import Log

_K = TypeVar("_K")
_V = TypeVar("_V")
_ABSENT: Final = object()


class MemoryStore:
    """A `Store` without a disk. `incarnation` may be given, so that a simulation can be repeated."""

    def __init__(self, incarnation: bytes | None = None) -> None:
        self._incarnation = incarnation or secrets.token_bytes(INCARNATION_BYTES)
        self._lock = threading.RLock()
        self._depth = 0
        self._durable = False
        self._spoilt = False
        self._closed = False
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self._records: dict[bytes, SignedRecord] = {}
        self._erased: dict[bytes, bool] = {}
        self._about: dict[bytes, dict[bytes, None]] = {}
        self._kinds: dict[str, dict[bytes, None]] = {}
        self._feeds: dict[tuple[bytes, int], bytes] = {}
        self._logs: dict[tuple[bytes, str, int], bytes] = {}
        self._logged: dict[bytes, int] = {}
        self._counts: dict[tuple[str, bytes], int] = {}
        self._once_by_slot: dict[bytes, bytes] = {}
        self._intents: dict[bytes, IntentRow] = {}
        self._heads: dict[tuple[str, bytes, str], Head] = {}
        self._withheld: dict[tuple[bytes, str, str, str, str], Withheld] = {}
        self._cursors: dict[tuple[str, bytes], Cursor] = {}

    @property
    def incarnation(self) -> bytes:
        return self._incarnation

    @contextmanager
    def batch(self, *, durable: bool = False) -> Generator[None, None, None]:
        with self._lock:
            self._require_open()
            if self._depth and durable and not self._durable:
                raise LocalProtocolError("a durable write inside of a batch that is not durable")
            if not self._depth:
                self._durable, self._spoilt = durable, False
            self._depth += 1
            try:
                yield
                if self._depth == 1 and self._spoilt:
                    raise LocalProtocolError("a write of this batch failed, so none of it is kept")
            except BaseException:
                self._spoilt = True
                if self._depth == 1:
                    self._roll_back()
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._undo.clear()

    def _roll_back(self) -> None:
        for table, key, value in reversed(self._undo):
            if value is _ABSENT:
                del table[key]
            else:
                table[key] = value

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("the store in memory is closed")

    def _set(self, table: dict[_K, _V], key: _K, value: _V) -> None:
        """Write, so that the batch can be taken back."""
        self._undo.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def _count(self, counter: str, scope: bytes) -> int:
        count = self._counts.get((counter, scope), 0)
        self._set(self._counts, (counter, scope), count + 1)
        return count

    # Records

    def put(
        self, records: Iterable[SignedRecord], *, durable: bool = False, own: bool = False
    ) -> tuple[bytes, ...]:
        with self.batch(durable=durable):
            return tuple([record.id for record in records if self._put(record, own=own)])

    def _put(self, record: SignedRecord, *, own: bool) -> bool:
        coalition, log = coalition_of(record), log_of(record)
        held = self._records.get(record.id)
        if held is None:
            self._set(self._records, record.id, record)
            for subject in record.header.subject:
                self._set(self._about.setdefault(subject, {}), record.id, None)
            self._set(self._kinds.setdefault(record.header.kind, {}), record.id, None)
            if log == "governance":
                self._set(self._feeds, (coalition, 1 + self._count("feed", coalition)), record.id)
        elif held.body_bytes is None and record.id not in self._erased and record.body_bytes is not None:
            self._set(self._records, record.id, dataclasses.replace(held, body_bytes=record.body_bytes))
        if own and record.id not in self._logged:
            index = self._count(log, coalition)
            self._set(self._logs, (coalition, log, index), record.id)
            self._set(self._logged, record.id, index)
        return held is None

    def get(self, ids: Iterable[bytes]) -> list[SignedRecord]:
        with self._lock:
            self._require_open()
            return [self._records[i] for i in ids if i in self._records]

    def holds(self, ids: Iterable[bytes]) -> frozenset[bytes]:
        with self._lock:
            self._require_open()
            return frozenset(i for i in ids if i in self._records)

    def ids(self, first: bytes, last: bytes, limit: int) -> list[tuple[bytes, str]]:
        with self._lock:
            self._require_open()
            found = sorted(i for i in self._records if first <= i <= last)
            return [(i, self._records[i].header.kind) for i in found[:limit]]

    def about(
        self,
        subject: bytes,
        kind: str | None = None,
        *,
        execution: bool = False,
        after: bytes = b"",
        limit: int = QUERY_ROWS_MAX,
    ) -> list[SignedRecord]:
        with self._lock:
            found = self.get(sorted(i for i in self._about.get(subject, ()) if i > after))
        return [
            record
            for record in found
            if kind in (None, record.header.kind) and not (execution and log_of(record) == "governance")
        ][:limit]

    def file_under(self, subject: bytes, record: bytes) -> None:
        with self.batch():
            if record in self._records:
                self._set(self._about.setdefault(subject, {}), record, None)

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
        with self._lock:
            found = self.get(self._kinds.get(kind, ()))
        wanted = [
            record
            for record in found
            if coalition in (None, coalition_of(record))
            and member in (None, record.header.member)
            and name in (None, record.header.name)
            and (before is None or (record.header.at, record.id) < before)
        ]
        return sorted(wanted, key=lambda record: (record.header.at, record.id), reverse=True)[:limit]

    def erase_body(self, record: bytes) -> bool:
        with self.batch(durable=True):
            held = self._records.get(record)
            if held is None:
                return False
            require_erasable(held)
            self._set(self._erased, record, True)
            self._set(self._records, record, dataclasses.replace(held, body_bytes=None))
            return held.body_bytes is not None

    def feed(self, coalition: bytes, after: int, *, records_max: int, bytes_max: int) -> Page:
        with self._lock:
            self._require_open()
            end = self._counts.get(("feed", coalition), 0)
            found = [
                (position, self._records[self._feeds[coalition, position]])
                for position in range(after + 1, min(after + records_max, end) + 1)
            ]
        return cut_page(found, after, end, bytes_max)

    def own_log(self, coalition: bytes, log: Log, first: int = 0, limit: int = QUERY_ROWS_MAX) -> list[bytes]:
        with self._lock:
            size = self.own_log_size(coalition, log)
            return [self._logs[coalition, log, index] for index in range(first, min(first + limit, size))]

    def own_log_size(self, coalition: bytes, log: Log) -> int:
        with self._lock:
            self._require_open()
            return self._counts.get((log, coalition), 0)

    def cursor(self, peer: str, coalition: bytes) -> Cursor | None:
        with self._lock:
            self._require_open()
            return self._cursors.get((peer, coalition))

    def set_cursor(self, peer: str, coalition: bytes, cursor: Cursor) -> None:
        with self.batch():
            self._set(self._cursors, (peer, coalition), cursor)

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
            held = self._once_by_slot.get(slot)
            if held is not None:
                return self._records[held]
            self._put(record, own=True)
            self._set(self._once_by_slot, slot, record.id)
            return record

    # What this node knows for itself

    def save_intent(self, row: IntentRow) -> None:
        with self.batch():
            self._set(self._intents, row.intent, row)

    def intent(self, intent: bytes) -> IntentRow | None:
        with self._lock:
            self._require_open()
            return self._intents.get(intent)

    def intents(
        self,
        *,
        status: Collection[str] | None = None,
        dedup: bytes | None = None,
        run: str | None = None,
        step: str | None = None,
        limit: int = QUERY_ROWS_MAX,
    ) -> list[IntentRow]:
        wanted = wanted_statuses(status)
        with self._lock:
            self._require_open()
            found = [
                row
                for row in self._intents.values()
                if (wanted is None or row.status in wanted)
                and dedup in (None, row.dedup)
                and run in (None, row.run)
                and step in (None, row.step)
            ]
        return sorted(found, key=lambda row: (-row.updated, row.intent))[:limit]

    def raise_head(self, head: Head) -> Head:
        key = (head.asset, head.coalition, head.partition)
        with self.batch():
            held = self._heads.get(key)
            if held is not None and held.generation >= head.generation:
                return held
            self._set(self._heads, key, head)
        return head

    def heads(
        self, asset: str, partition: str | None = None, *, coalition: bytes | None = None
    ) -> list[Head]:
        with self._lock:
            self._require_open()
            found = [
                (key, head)
                for key, head in self._heads.items()
                if key[0] == asset
                and coalition in (None, head.coalition)
                and partition in (None, head.partition)
            ]
        return [head for _, head in sorted(found, key=lambda pair: pair[0])[:HEADS_MAX]]

    def heads_below(self, domain: str, coalition: bytes, *, limit: int) -> list[Head]:
        with self._lock:
            self._require_open()
            found = [
                head
                for head in self._heads.values()
                if head.asset.startswith(f"{domain}/") and head.coalition == coalition
            ]
        return sorted(found, key=lambda head: (head.asset, head.partition))[:limit]

    def save_withheld(self, rows: Iterable[Withheld]) -> None:
        with self.batch():
            for row in rows:
                withheld_bytes(row)
                key = (row.intent, row.asset, row.partition, row.obligation, row.column)
                self._set(self._withheld, key, row)

    def withheld(self, intent: bytes) -> list[Withheld]:
        with self._lock:
            self._require_open()
            return [self._withheld[key] for key in sorted(self._withheld) if key[0] == intent]

    def maintain(self) -> None:
        self._require_open()

    def close(self) -> None:
        with self._lock:
            if self._depth:
                raise LocalProtocolError("a store is not closed inside of a batch")
            self._closed = True
