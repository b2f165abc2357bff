"""The store port: what a node keeps.

Methods are synchronous. Without `durable` a write survives the death of the process; with it, the loss of
power too, at the cost of an fsync: such a call belongs into a worker thread. Every query answers in an order
that follows from the set of records alone; the order of arrival shows in the feed and in nothing else.

Adapters: `store_sqlite` (a file), `store_memory` (tests and simulations). One suite holds for both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from comity.protocol.encoding import encode, pack
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError
from comity.protocol.identifiers import sha256
from comity.protocol.kinds import Log
from comity.protocol.limits import ITEMS_MAX

INCARNATION_BYTES: Final = 16
"""Chance of two equal ones: none worth counting, without a registry."""
QUERY_ROWS_MAX: Final = 1_000
"""Rows of one answer: about 1 MiB of ordinary records, read in some 50 ms. Who wants more asks for the next
page."""
HEADS_MAX: Final = ITEMS_MAX
"""Heads of one asset in one answer: what one intent could have made."""
STATUSES_MAX: Final = 16
"""Statuses that one query may name: a node has fewer."""
WITHHELD_BYTES_MAX: Final = 1_048_576
"""Values of one withheld row, written canonically: as large as a body, for it is read as a whole."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the feed.

    Attributes:
        records: in the order of their arrival here.
        next: the position to go on after.
        end: the last position that there is. A cursor beyond it was given by a store that has since lost its
            newest records: go back to 0.
    """

    records: tuple[SignedRecord, ...]
    next: int
    end: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a peer's feed was read.

    Attributes:
        incarnation: of the peer's store. Under another one positions mean nothing: go back to 0.
        position: the last position that was read.
    """

    incarnation: bytes
    position: int


@dataclass(frozen=True, slots=True)
class IntentRow:
    """Where an intent of this node stands, for this node alone.

    Attributes:
        intent: id of the intent record.
        run, step: what asked for it.
        dedup: equal for intents that ask for the same thing; what goes in is the node's to say.
        status: the node's own word.
        state: the node's working state, opaque here.
        updated: whole seconds since 1970.
    """

    intent: bytes
    run: str
    step: str
    dedup: bytes
    status: str
    state: bytes
    updated: int


@dataclass(frozen=True, slots=True)
class Head:
    """The newest promoted actuation of a slot that this node knows, its own or a partner's."""

    coalition: bytes
    asset: str
    partition: str
    generation: int
    actuation: bytes


@dataclass(frozen=True, slots=True)
class Withheld:
    """What an obligation kept out of an output. It stays here: no record, feed or bundle is made from it."""

    intent: bytes
    asset: str
    obligation: str
    column: str
    rows: int
    values: tuple[str, ...] = ()
    partition: str = ""


class Store(Protocol):
    """What a node needs of its disk.

    Raises:
        StoreError: any method may. The disk failed or the store is not ours; the node stops.
    """

    @property
    def incarnation(self) -> bytes:
        """16 random bytes under which the positions of the feed hold.

        A store that may have lost its newest records, or is a copy of another, gets new ones when it is
        opened.
        """
        ...

    def batch(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """All writes inside of it happen together, or none where it is left by an exception.

        Only the thread that opened it writes meanwhile. Calls inside may not be more durable than the batch.
        A write that failed inside spoils the whole batch, also where its exception was caught.
        """
        ...

    def put(
        self, records: Iterable[SignedRecord], *, durable: bool = False, own: bool = False
    ) -> tuple[bytes, ...]:
        """Keep records, and answer with the ids of those that are new.

        The first copy of a record stays as it came; only a body that it lacks is taken from a later one,
        unless it was erased here. `own` says that this node is the author: the record gets the next index,
        from 0 and without gaps, of this node's governance or execution log in the record's coalition.
        """
        ...

    def get(self, ids: Iterable[bytes]) -> list[SignedRecord]:
        """The records that are held, in the order asked for."""
        ...

    def holds(self, ids: Iterable[bytes]) -> frozenset[bytes]:
        """Which of the records are held, with or without a body."""
        ...

    def ids(self, first: bytes, last: bytes, limit: int) -> list[tuple[bytes, str]]:
        """Ids of records from `first` to `last`, both among them, in their order, each with its kind."""
        ...

    def about(
        self,
        subject: bytes,
        kind: str | None = None,
        *,
        execution: bool = False,
        after: bytes = b"",
        limit: int = QUERY_ROWS_MAX,
    ) -> list[SignedRecord]:
        """Records whose header names the subject, in the order of their ids, from behind the id `after`.

        With `execution` those of the execution log only: adverse records, of which anybody may publish many, are not
        among them.
        """
        ...

    def file_under(self, subject: bytes, record: bytes) -> None:
        """Let `about(subject)` find a record that is held, although its header does not name it. Once is for good."""
        ...

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
        """Records of a kind, newest first by the time that they say, then by id, both descending.

        `before` is the (`at`, id) of the last record of the page before. By `name` a governance record is
        found through an index, any other among all of its kind.
        """
        ...

    def erase_body(self, record: bytes) -> bool:
        """Forget the body of a record, durably and for good. Answers whether there was one.

        Raises:
            LocalProtocolError: records of its kind keep their body.
        """
        ...

    def feed(self, coalition: bytes, after: int, *, records_max: int, bytes_max: int) -> Page:
        """Records of a coalition's governance logs as they arrived here, from behind the position `after`.

        At most `records_max`, and so many as travel in `bytes_max` bytes, but at least one where there is
        one.
        """
        ...

    def own_log(self, coalition: bytes, log: Log, first: int = 0, limit: int = QUERY_ROWS_MAX) -> list[bytes]:
        """Ids of this node's own records in one of its logs, from the index `first`."""
        ...

    def own_log_size(self, coalition: bytes, log: Log) -> int: ...

    def cursor(self, peer: str, coalition: bytes) -> Cursor | None:
        """How far the peer's feed of a coalition was read."""
        ...

    def set_cursor(self, peer: str, coalition: bytes, cursor: Cursor) -> None: ...

    def vote_once(self, intent: bytes, t: int, record: SignedRecord) -> SignedRecord:
        """Keep this node's vote on (coalition, intent, t), or answer with the one that was kept before.

        Only what it answers may be sent.

        Raises:
            LocalProtocolError: not a vote.
        """
        ...

    def ask_once(self, intent: bytes, t: int, record: SignedRecord) -> SignedRecord:
        """Keep this node's ask of (coalition, intent, t), or answer with the one that was kept before.

        Raises:
            LocalProtocolError: not an ask.
        """
        ...

    def start_once(
        self, permit: bytes, asset: str, partition: str, attempt: int, record: SignedRecord
    ) -> SignedRecord:
        """Keep the start of an attempt under a permit, durably, or answer with the one that was kept before.

        Work begins only where the answer is `record` itself.

        Raises:
            LocalProtocolError: not a start.
        """
        ...

    def save_intent(self, row: IntentRow) -> None:
        """Keep the newest state of an intent of this node."""
        ...

    def intent(self, intent: bytes) -> IntentRow | None: ...

    def intents(
        self,
        *,
        status: Collection[str] | None = None,
        dedup: bytes | None = None,
        run: str | None = None,
        step: str | None = None,
        limit: int = QUERY_ROWS_MAX,
    ) -> list[IntentRow]:
        """Intents of this node that meet all that is given, the last updated first.

        Raises:
            LocalProtocolError: more than `STATUSES_MAX` statuses.
        """
        ...

    def raise_head(self, head: Head) -> Head:
        """Keep a slot's head if its generation is higher than the one kept; answer with the one in force.

        Of two with equal generation the first stays: the caller has seen two actuations of one slot.
        """
        ...

    def heads(
        self, asset: str, partition: str | None = None, *, coalition: bytes | None = None
    ) -> list[Head]:
        """Heads of an asset in the order of coalition and partition, at most `HEADS_MAX`."""
        ...

    def heads_below(self, domain: str, coalition: bytes, *, limit: int) -> list[Head]:
        """Heads of the assets below a trust domain in one coalition, in the order of asset and partition."""
        ...

    def save_withheld(self, rows: Iterable[Withheld]) -> None:
        """Keep what was withheld; the newest word on (intent, asset, partition, obligation, column) stands.

        Raises:
            LocalProtocolError: more than `ITEMS_MAX` values, or more than `WITHHELD_BYTES_MAX` holds.
        """
        ...

    def withheld(self, intent: bytes) -> list[Withheld]: ...

    def maintain(self) -> None:
        """Do what would else be done inside of somebody's write.

        Call it every few seconds, from a worker thread.
        """
        ...

    def close(self) -> None:
        """Give the store back. Closing twice is closing once."""
        ...


def coalition_of(record: SignedRecord) -> bytes:
    """The coalition that a record belongs to; a genesis is its own."""
    return record.header.coalition if record.header.coalition is not None else record.id


def log_of(record: SignedRecord) -> Log:
    """The log that a record is kept in; an adverse one in the governance log, whatever its kind."""
    return record.kind.log_of(record.header.outcome)


def round_slot(kind: str, coalition: bytes, intent: bytes, t: int) -> bytes:
    """What there is one vote, or one ask, of."""
    return sha256(pack([kind, coalition, intent, t]))


def start_slot(coalition: bytes, permit: bytes, asset: str, partition: str, attempt: int) -> bytes:
    """What there is one start of."""
    return sha256(pack(["start", coalition, permit, asset, partition, attempt]))


def slot_subject(coalition: bytes, member: str, asset: str, partition: str, generation: int) -> bytes:
    """What the promoted actuations of a slot are filed under. It is longer than what any header can name."""
    return b"slot" + sha256(pack([coalition, member, asset, partition, generation]))


def launch_subject(coalition: bytes, member: str, ticket: bytes) -> bytes:
    """What the first intents of the runs under a launch ticket are filed under. Longer than any name in a header."""
    return b"launch" + sha256(pack([coalition, member, ticket]))


def used_subject(coalition: bytes, made: bytes) -> bytes:
    """What the actuations are filed under that name one as their input. Longer than any name in a header."""
    return b"used" + sha256(pack([coalition, made]))


def require_kind(record: SignedRecord, kind: str) -> None:
    """Refuse to keep one kind of record in the place of another.

    Raises:
        LocalProtocolError: it is of another kind.
    """
    if record.header.kind != kind:
        raise LocalProtocolError(f"a record of kind {record.header.kind} where a {kind} is kept")


def require_erasable(record: SignedRecord) -> None:
    """Refuse to erase what a quorum's state rests on.

    Raises:
        LocalProtocolError: records of its kind keep their body.
    """
    if not record.kind.erasable:
        raise LocalProtocolError(f"a record of kind {record.header.kind} keeps its body")


def cut_page(found: Iterable[tuple[int, SignedRecord]], after: int, end: int, bytes_max: int) -> Page:
    """As many of the records found as travel in `bytes_max` bytes, but at least one.

    It reads at most one more than it takes.
    """
    records: list[SignedRecord] = []
    position, size = after, 0
    for arrival, record in found:
        size += len(record.encoded())
        if records and size > bytes_max:
            break
        records.append(record)
        position = arrival
    # More may have arrived since the end was asked for; a cursor beyond it moves it not.
    return Page(records=tuple(records), next=position, end=max(end, position) if records else end)


def withheld_bytes(row: Withheld) -> bytes:
    """The values of a withheld row, written canonically.

    Raises:
        LocalProtocolError: more than `ITEMS_MAX` values or `WITHHELD_BYTES_MAX` bytes, or one text too long.
    """
    packed = encode(list(row.values))
    if len(row.values) > ITEMS_MAX or len(packed) > WITHHELD_BYTES_MAX:
        raise LocalProtocolError(
            f"{len(row.values)} withheld values of {len(packed)} bytes; "
            f"at most {ITEMS_MAX} of {WITHHELD_BYTES_MAX} are kept"
        )
    return packed


def wanted_statuses(status: Collection[str] | None) -> tuple[str, ...] | None:
    """The statuses of a query, each once.

    Raises:
        LocalProtocolError: more than `STATUSES_MAX`.
    """
    if status is None:
        return None
    wanted = tuple(sorted(set(status)))
    if len(wanted) > STATUSES_MAX:
        raise LocalProtocolError(f"{len(wanted)} statuses in one query; at most {STATUSES_MAX} are allowed")
    return wanted
