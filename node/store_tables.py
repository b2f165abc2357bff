"""The tables of a store in SQL, and every statement that is run on them.

Written in SQLAlchemy Core, so that the dialect is a parameter. A statement is compiled once and then handed
to the database driver as text: running it through SQLAlchemy's own connection costs some 30 us more per
statement, which is half of what storing a vote may cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from comity.node.store import (
    WITHHELD_BYTES_MAX,
    Head,
    IntentRow,
    Withheld,
    coalition_of,
    log_of,
    withheld_bytes,
)
from comity.protocol.encoding import decode_value, pack
from comity.protocol.envelope import Signature, SignedRecord, assemble
from comity.protocol.errors import DecodeError, LocalProtocolError, StoreError
from comity.protocol.limits import RECORD_BYTES_MAX

SCHEMA: Final = 1
"""Version of the tables. A store of a higher one was written by a newer program and is left alone."""

Row = tuple[Any, ...]

_metadata: Final = MetaData()

facts: Final = Table("facts", _metadata, Column("name", String, primary_key=True), Column("value", String))
"""The store itself: schema, incarnation, and where and since when it is open."""

records: Final = Table(
    "records",
    _metadata,
    Column("row", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", LargeBinary, nullable=False),
    Column("kind", String, nullable=False),
    Column("log", String, nullable=False),
    Column("coalition", LargeBinary, nullable=False),
    Column("member", String, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("adverse", SmallInteger, nullable=False),
    Column("name", String, nullable=False),
    Column("number", BigInteger, nullable=False),
    # Position in the feed of the coalition's governance records; null for execution records.
    Column("arrival", BigInteger),
    # Index in this node's own log; null for what others said.
    Column("own_index", BigInteger),
    Column("erased", SmallInteger, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
    Column("body", LargeBinary),
)
Index("records_id", records.c.id, unique=True)
Index("records_kind", records.c.kind, records.c.at, records.c.id)
# Partial indices: a database uses one where the query repeats its condition. Each index is one more page for
# a commit to write, which is most of its cost; votes and asks pay for four.
_arrived = records.c.arrival.is_not(None)
Index(
    "records_name",
    records.c.name,
    records.c.kind,
    records.c.at,
    records.c.id,
    sqlite_where=_arrived,
    postgresql_where=_arrived,
)
Index(
    "records_arrival",
    records.c.coalition,
    records.c.arrival,
    unique=True,
    sqlite_where=_arrived,
    postgresql_where=_arrived,
)
_own = records.c.own_index.is_not(None)
Index(
    "records_own",
    records.c.coalition,
    records.c.log,
    records.c.own_index,
    unique=True,
    sqlite_where=_own,
    postgresql_where=_own,
)

subjects: Final = Table(
    "subjects",
    _metadata,
    Column("subject", LargeBinary),
    Column("row", BigInteger),
    PrimaryKeyConstraint("subject", "row"),
    sqlite_with_rowid=False,
)

once: Final = Table(
    "once",
    _metadata,
    Column("slot", LargeBinary, primary_key=True),
    Column("row", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What may be said once: a vote or an ask of (coalition, intent, t), a start of an attempt."""

intents: Final = Table(
    "intents",
    _metadata,
    Column("intent", LargeBinary, primary_key=True),
    Column("run", String, nullable=False),
    Column("step", String, nullable=False),
    Column("dedup", LargeBinary, nullable=False),
    Column("status", String, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("updated", BigInteger, nullable=False),
)
Index("intents_status", intents.c.status, intents.c.updated)
Index("intents_dedup", intents.c.dedup)
Index("intents_run", intents.c.run, intents.c.step)
Index("intents_updated", intents.c.updated, intents.c.intent)

heads: Final = Table(
    "heads",
    _metadata,
    Column("asset", String),
    Column("coalition", LargeBinary),
    Column("partition", String),
    Column("generation", BigInteger, nullable=False),
    Column("actuation", LargeBinary, nullable=False),
    PrimaryKeyConstraint("asset", "coalition", "partition"),
    sqlite_with_rowid=False,
)

withheld: Final = Table(
    "withheld",
    _metadata,
    Column("intent", LargeBinary),
    Column("asset", String),
    Column("partition", String),
    Column("obligation", String),
    Column("column", String),
    Column("rows", BigInteger, nullable=False),
    Column("values", LargeBinary, nullable=False),
    PrimaryKeyConstraint("intent", "asset", "partition", "obligation", "column"),
)

cursors: Final = Table(
    "cursors",
    _metadata,
    Column("peer", String),
    Column("coalition", LargeBinary),
    Column("incarnation", LargeBinary, nullable=False),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("peer", "coalition"),
)

_TABLES: Final = (facts, records, subjects, once, intents, heads, withheld, cursors)


def definitions(dialect: Dialect) -> Iterator[str]:
    """The statements that make an empty store."""
    for table in _TABLES:
        yield str(CreateTable(table).compile(dialect=dialect))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield str(CreateIndex(index).compile(dialect=dialect))


_KEY: Final = "key_"
"""Marks the parameters of an update that find the row, apart from those that it writes."""


class Statement:
    """One statement, compiled for the positional parameters of a driver."""

    __slots__ = ("_defaults", "_names", "sql")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        if not isinstance(compiled, SQLCompiler):
            raise LocalProtocolError(f"not a statement with parameters: {clause}")
        self.sql = str(compiled)
        self._names = tuple(name.removeprefix(_KEY) for name in compiled.positiontup or ())
        # Values that stand in the clause itself, such as the offset that SQLite's LIMIT is rendered with.
        self._defaults = {name: value for name, value in compiled.params.items() if value is not None}

    def arguments(self, values: Mapping[str, Any]) -> Row:
        """The parameters in the order of their positions."""
        if self._defaults:
            values = {**self._defaults, **values}
        return tuple([values[name] for name in self._names])


_RECORD: Final = (records.c.id, records.c.header, records.c.signatures, records.c.body)
_LIMIT: Final = bindparam("limit", type_=Integer)


class Statements:
    """Every statement that a store runs, compiled for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._made: dict[tuple[str, frozenset[str]], Statement] = {}
        fixed = self._compile
        self.fact = fixed(select(facts.c.value).where(facts.c.name == bindparam("name")))
        self.insert_fact = fixed(insert(facts))
        self.update_fact = fixed(
            update(facts).values(value=bindparam("value")).where(facts.c.name == bindparam("which"))
        )
        self._compile_records(fixed)
        self._compile_local(fixed)

    def _compile(self, clause: ClauseElement) -> Statement:
        return Statement(clause, self._dialect)

    def _compile_records(self, fixed: Callable[[ClauseElement], Statement]) -> None:
        by_id = records.c.id == bindparam("id")
        of_coalition = records.c.coalition == bindparam("coalition")
        of_log = and_(of_coalition, records.c.log == bindparam("log"), records.c.own_index.is_not(None))
        self.insert_record = fixed(insert(records))
        self.insert_subject = fixed(insert(subjects))
        self.filed = fixed(
            select(subjects.c.row).where(
                subjects.c.subject == bindparam("subject"), subjects.c.row == bindparam("row")
            )
        )
        self.record = fixed(select(*_RECORD).where(by_id))
        self.ids = fixed(
            select(records.c.id, records.c.kind)
            .where(records.c.id.between(bindparam("first"), bindparam("last")))
            .order_by(records.c.id)
            .limit(bindparam("limit"))
        )
        self.record_row = fixed(
            select(records.c.row, records.c.own_index, records.c.erased, records.c.body.is_(None)).where(
                by_id
            )
        )
        self.set_own_index = fixed(
            update(records).values(own_index=bindparam("own")).where(records.c.row == bindparam("which"))
        )
        self.set_body = fixed(
            update(records)
            .values(body=bindparam("bytes"), erased=bindparam("gone"))
            .where(records.c.row == bindparam("which"))
        )
        self.last_row = fixed(select(func.max(records.c.row)))
        self.last_arrival = fixed(select(func.max(records.c.arrival)).where(of_coalition, _arrived))
        self.last_own_index = fixed(select(func.max(records.c.own_index)).where(of_log))
        self.feed = fixed(
            select(records.c.arrival, *_RECORD)
            .where(of_coalition, records.c.arrival > bindparam("after"))
            .order_by(records.c.arrival)
            .limit(_LIMIT)
        )
        self.own_log = fixed(
            select(records.c.id)
            .where(of_log, records.c.own_index >= bindparam("first"))
            .order_by(records.c.own_index)
            .limit(_LIMIT)
        )
        self.once = fixed(
            select(*_RECORD).join(once, once.c.row == records.c.row).where(once.c.slot == bindparam("slot"))
        )
        self.insert_once = fixed(insert(once))

    def _compile_local(self, fixed: Callable[[ClauseElement], Statement]) -> None:
        self.insert_intent, self.update_intent = self._upsert(intents)
        self.insert_head, self.update_head = self._upsert(heads)
        self.insert_withheld, self.update_withheld = self._upsert(withheld)
        self.insert_cursor, self.update_cursor = self._upsert(cursors)
        self.cursor = fixed(
            select(cursors.c.incarnation, cursors.c.position).where(
                cursors.c.peer == bindparam("peer"), cursors.c.coalition == bindparam("coalition")
            )
        )
        self.heads_below = fixed(
            select(heads)
            .where(heads.c.asset >= bindparam("first"), heads.c.asset < bindparam("last"))
            .where(heads.c.coalition == bindparam("coalition"))
            .order_by(heads.c.asset, heads.c.partition)
            .limit(_LIMIT)
        )
        self.withheld = fixed(
            select(withheld)
            .where(withheld.c.intent == bindparam("intent"))
            .order_by(withheld.c.asset, withheld.c.partition, withheld.c.obligation, withheld.c.column)
        )

    def _upsert(self, table: Table) -> tuple[Statement, Statement]:
        """Insert a row, and update it by its primary key: both take the columns' names as parameters."""
        keys = [column == bindparam(f"{_KEY}{column.name}") for column in table.primary_key.columns]
        rest: dict[str, Any] = {c.name: bindparam(c.name) for c in table.columns if not c.primary_key}
        return self._compile(insert(table)), self._compile(update(table).values(rest).where(and_(*keys)))

    def _selected(self, name: str, given: frozenset[str], make: Callable[[], ClauseElement]) -> Statement:
        """A query of which only some conditions are wanted, compiled when they are first wanted together."""
        statement = self._made.get((name, given))
        if statement is None:
            statement = self._made[name, given] = self._compile(make())
        return statement

    def about(self, given: frozenset[str]) -> Statement:
        """Records about `subject`, with `id` above `after`; optionally of a `kind`, or of the `execution` log."""

        def make() -> ClauseElement:
            query = select(*_RECORD).join(subjects, subjects.c.row == records.c.row)
            query = query.where(subjects.c.subject == bindparam("subject"), records.c.id > bindparam("after"))
            if "kind" in given:
                query = query.where(records.c.kind == bindparam("kind"))
            if "execution" in given:
                query = query.where(~_arrived)
            return query.order_by(records.c.id).limit(_LIMIT)

        return self._selected("about", given, make)

    def of_kind(self, given: frozenset[str]) -> Statement:
        """Records of a `kind`; optionally by `coalition`, `member`, `name`, `arrived`, (`at`, `id`)."""

        def make() -> ClauseElement:
            query = select(*_RECORD).where(records.c.kind == bindparam("kind"))
            for name in sorted(given & {"coalition", "member", "name"}):
                query = query.where(records.c[name] == bindparam(name))
            if "arrived" in given:
                query = query.where(_arrived)
            if "at" in given:
                query = query.where(
                    records.c.at <= bindparam("at"),
                    or_(records.c.at < bindparam("at"), records.c.id < bindparam("id")),
                )
            return query.order_by(records.c.at.desc(), records.c.id.desc()).limit(_LIMIT)

        return self._selected("of_kind", given, make)

    def intents(self, given: frozenset[str]) -> Statement:
        """Intents; optionally by `intent`, `dedup`, `run`, `step`, or any of `status_0`, `status_1` ..."""

        def make() -> ClauseElement:
            query = select(intents)
            for name in sorted(given & {"intent", "dedup", "run", "step"}):
                query = query.where(intents.c[name] == bindparam(name))
            statuses = sorted(name for name in given if name.startswith("status_"))
            if statuses:
                query = query.where(or_(*(intents.c.status == bindparam(name) for name in statuses)))
            return query.order_by(intents.c.updated.desc(), intents.c.intent).limit(_LIMIT)

        return self._selected("intents", given, make)

    def heads(self, given: frozenset[str]) -> Statement:
        """Heads of an `asset`; optionally of a `partition` or a `coalition`."""

        def make() -> ClauseElement:
            query = select(heads).where(heads.c.asset == bindparam("asset"))
            for name in sorted(given & {"coalition", "partition"}):
                query = query.where(heads.c[name] == bindparam(name))
            return query.order_by(heads.c.coalition, heads.c.partition).limit(_LIMIT)

        return self._selected("heads", given, make)


def record_values(
    record: SignedRecord, row: int, arrival: int | None, own_index: int | None
) -> dict[str, Any]:
    """A row of `records`."""
    header = record.header
    return {
        "row": row,
        "id": record.id,
        "kind": header.kind,
        "log": log_of(record),
        "coalition": coalition_of(record),
        "member": header.member,
        "key": header.key,
        "at": header.at,
        "adverse": int(record.kind.is_adverse(header.outcome)),
        "name": header.name,
        "number": header.number,
        "arrival": arrival,
        "own_index": own_index,
        "erased": 0,
        "header": record.header_bytes,
        "signatures": pack([[s.key, s.suite, s.value] for s in record.signatures]),
        "body": record.body_bytes,
    }


def record_of(row: Row) -> SignedRecord:
    """The record of a row of id, header, signatures and body.

    Raises:
        StoreError: what was read is not what was written.
    """
    record_id, header, signatures, body = row
    try:
        value: Any = decode_value(signatures, RECORD_BYTES_MAX)
        record = assemble(header, body, tuple(Signature(key, suite, sig) for key, suite, sig in value))
    except (DecodeError, TypeError, ValueError) as exc:
        raise StoreError(f"record {record_id.hex()[:16]} is damaged in the store: {exc}") from exc
    if record.id != record_id:
        raise StoreError(f"record {record_id.hex()[:16]} is damaged in the store: its id is another")
    return record


def withheld_values(row: Withheld) -> dict[str, Any]:
    """A row of `withheld`. The values are canonical bytes."""
    return {
        "intent": row.intent,
        "asset": row.asset,
        "partition": row.partition,
        "obligation": row.obligation,
        "column": row.column,
        "rows": row.rows,
        "values": withheld_bytes(row),
    }


_WITHHELD_FIELDS: Final = tuple(each.name for each in dataclasses.fields(Withheld))


def withheld_of(row: Row) -> Withheld:
    """What `withheld_values` wrote.

    Raises:
        StoreError: what was read is not what was written.
    """
    intent, asset, partition, obligation, column, rows, packed = row
    try:
        values: Any = decode_value(packed, WITHHELD_BYTES_MAX) if isinstance(packed, bytes) else None
        read = (intent, asset, obligation, column, rows, values, partition)
        # A column of SQLite holds a value of any type.
        return msgspec.convert(dict(zip(_WITHHELD_FIELDS, read, strict=True)), Withheld)
    except (DecodeError, msgspec.ValidationError) as exc:
        raise StoreError(f"what was withheld from {asset!r} is damaged in the store: {exc}") from exc


def head_of(row: Row) -> Head:
    """The head of a row of `heads`."""
    asset, coalition, partition, generation, actuation = row
    return Head(coalition, asset, partition, generation, actuation)


def intent_of(row: Row) -> IntentRow:
    """The intent of a row of `intents`."""
    return IntentRow(*row)
