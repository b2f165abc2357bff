"""Which runs the intents that are held were for, by the launch ticket that they are under.

A ticket that names no run is for one. Of each ticket two runs are known, by one intent each: the first two that were
met. That is enough to know of any run whether there was another.

Spec: docs/spec/credentials.md section 6.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from comity.protocol.encoding import Form
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Intent
from comity.protocol.records import decode_body
from comity.protocol.tickets import TicketOfMember, ticket_named
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

RUNS_PER_TICKET_MAX: Final = 2
TICKETS_HELD_MAX: Final = 16_384
"""Tickets in memory. They expire, and the store knows those that are forgotten here."""


class Launches:
    """The runs under each ticket.

    Args:
        load: finds stored intents under a ticket, one for each of the first `RUNS_PER_TICKET_MAX` runs.
    """

    def __init__(self, load: Callable[[TicketOfMember], Iterable[SignedRecord]] | None = None) -> None:
        self._load = load
        self._runs: OrderedDict[TicketOfMember, dict[str, bytes]] = OrderedDict()

    def add(self, record: AnyRecord) -> TicketOfMember | None:
        """Take an intent. Answers with its ticket where it is the first intent of one of the runs that are kept."""
        ticket = ticket_named(record)
        if ticket is None:
            return None
        key = (record.member, ticket)
        runs = self._of(key)
        run: str = record.body.run.run
        if run in runs:
            return key if runs[run] == record.id else None
        if len(runs) == RUNS_PER_TICKET_MAX:
            return None
        runs[run] = record.id
        return key

    def others(self, record: AnyRecord) -> tuple[bytes, ...]:
        """Ids of intents under the same ticket for other runs."""
        ticket = ticket_named(record)
        if ticket is None:
            return ()
        runs = self._of((record.member, ticket))
        return tuple(sorted(known for run, known in runs.items() if run != record.body.run.run))

    def first_run(self, member: str, ticket: bytes) -> str | None:
        """The first run that was met under a ticket; None where there was none."""
        return next(iter(self._of((member, ticket))), None)

    def _of(self, key: TicketOfMember) -> dict[str, bytes]:
        runs = self._runs.get(key)
        if runs is None:
            runs = self._runs[key] = {}
            for stored in self._load(key) if self._load is not None else ():
                body = _intent_of(stored)
                if body is not None:
                    runs.setdefault(body.run.run, stored.id)
            while len(self._runs) > TICKETS_HELD_MAX and self._load is not None:
                self._runs.popitem(last=False)
        return runs


def _intent_of(stored: SignedRecord) -> Intent | None:
    """The body of a stored intent; None where it was erased, or is none."""
    try:
        body: Form = decode_body(stored)
    except DecodeError:
        return None
    return body if isinstance(body, Intent) else None
