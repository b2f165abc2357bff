"""A node's store, opened as a copy, and every record of it verified under the roots.

What does not verify is counted and is otherwise not there. The columns of a row are believed nowhere where the
signed bytes say the same.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from comity.attestation.epochs import EpochState
from comity.attestation.holdings import Holdings
from comity.attestation.roots import Roots
from comity.node.store import Withheld
from comity.node.store_tables import record_of, withheld_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, StoreError, VerificationError
from comity.protocol.verified import VerifiedRecord
from demo_audit.artefacts import AuditError, copied
from demo_audit.databases import opened

AnyRecord: TypeAlias = VerifiedRecord[Any]

STORE: Final = "store.sqlite3"
RECORDS_MAX: Final = 50_000
"""Records of one store: a demo makes a few hundred. All are verified and held in memory."""
WITHHELD_MAX: Final = 10_000
"""Rows about what was withheld: a demo makes a few."""
_TABLES: Final = ("records", "withheld")
_RECORDS: Final = 'SELECT "row", id, header, signatures, body FROM records ORDER BY "row" LIMIT ?'
_WITHHELD: Final = (
    'SELECT intent, asset, "partition", obligation, "column", "rows", "values" FROM withheld LIMIT ?'
)


@dataclass(frozen=True, slots=True)
class Store:
    """What one member's node holds.

    Attributes:
        records: those whose signature verifies, by id.
        rows: the place of each in the order in which they came here.
        governance: ids of the governance logs' records, epochs among them.
        unverified: how many records do not verify.
    """

    member: str
    records: Mapping[bytes, AnyRecord]
    rows: Mapping[bytes, int]
    governance: frozenset[bytes]
    epochs: Mapping[bytes, EpochState]
    withheld: tuple[Withheld, ...] = ()
    unverified: int = 0

    def find(self, record_id: bytes, kind: str) -> AnyRecord:
        """A record of a kind.

        Raises:
            AuditError: this store holds none that verifies.
        """
        found = self.records.get(record_id)
        if found is None or found.header.kind != kind:
            raise AuditError(f"the store of {self.member} has no genuine {kind} {record_id.hex()[:16]}")
        return found

    def of_kind(self, kind: str) -> list[AnyRecord]:
        """All records of a kind, in the order in which they came here."""
        found = [record for record in self.records.values() if record.header.kind == kind]
        return sorted(found, key=lambda record: self.rows[record.id])

    def about(self, subject: bytes, kind: str) -> list[AnyRecord]:
        """Records of a kind that name a subject, in the order in which they came here."""
        return [record for record in self.of_kind(kind) if subject in record.header.subject]


@dataclass(slots=True)
class _Rows:
    """The rows of a store as they were read: whole records, their places, and how many are damaged."""

    records: list[SignedRecord] = field(default_factory=list[SignedRecord])
    places: dict[bytes, int] = field(default_factory=dict[bytes, int])
    withheld: list[Withheld] = field(default_factory=list[Withheld])
    damaged: int = 0


def read_store(member: str, home: Path, roots: Roots) -> Store:
    """Read the store of a node's home.

    Raises:
        AuditError: there is none, it is no store, or no chain of epochs in it passes through the roots.
    """
    wanted = [path for end in ("", "-wal") if (path := home / f"{STORE}{end}").is_file()]
    if not wanted:
        raise AuditError(f"{home / STORE}: no such file")
    with copied(home, wanted) as folder:
        try:
            rows = _read_rows(folder / STORE)
        except (sqlite3.Error, StoreError, AuditError) as exc:
            raise AuditError(f"{home / STORE}: {exc}") from exc
    return _verified(member, rows, roots)


def _read_rows(path: Path) -> _Rows:
    rows = _Rows()
    with opened(path, _TABLES) as connection:
        for place, *parts in _within(connection, _RECORDS, RECORDS_MAX):
            try:
                record = record_of(tuple(parts))
            except (StoreError, AttributeError):
                # Also of another type than bytes, which a table of SQLite does not rule out.
                rows.damaged += 1
                continue
            if not isinstance(place, int):
                rows.damaged += 1
                continue
            rows.records.append(record)
            rows.places[record.id] = place
        for row in _within(connection, _WITHHELD, WITHHELD_MAX):
            with contextlib.suppress(StoreError):
                rows.withheld.append(withheld_of(row))
    return rows


def _within(connection: sqlite3.Connection, query: str, rows_max: int) -> Iterator[tuple[Any, ...]]:
    for count, row in enumerate(connection.execute(query, (rows_max + 1,))):
        if count == rows_max:
            raise AuditError(f"more than {rows_max} rows in one table of a store")
        yield row


def _verified(member: str, rows: _Rows, roots: Roots) -> Store:
    holdings = Holdings(engine=b"", examines=False)
    epochs = sorted((r for r in rows.records if r.header.kind == "epoch"), key=lambda r: r.header.number)
    try:
        states = [holdings.adopt(record) for record in epochs]
    except (VerificationError, DecodeError) as exc:
        raise AuditError(f"the epochs in the store of {member}: {exc}") from exc
    pinned = states[roots.epoch_number] if roots.epoch_number < len(states) else None
    if pinned is None or (pinned.coalition, pinned.id) != (roots.coalition, roots.epoch):
        raise AuditError(f"the epochs in the store of {member} do not pass through the roots")
    others = [record for record in rows.records if record.header.kind != "epoch"]
    vouching = [r for r in others if r.header.kind in ("node_certificate", "credential")]
    holdings.admit((*vouching, *others))
    records = {r.id: held for r in others if (held := holdings.peek(r.id)) is not None}
    governance = {i for i, r in records.items() if r.record.kind.log_of(r.header.outcome) == "governance"}
    return Store(
        member=member,
        records=records,
        rows=rows.places,
        governance=frozenset(governance | {record.id for record in epochs}),
        epochs=holdings.epochs,
        withheld=tuple(rows.withheld),
        unverified=rows.damaged + len(others) - len(records),
    )
