"""Which launch ticket an intent is under, and for which run: a ticket without a run of its own is for one.

Spec: docs/spec/credentials.md section 6.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from comity.protocol.execution import Intent, LaunchTicket
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
TicketOfMember: TypeAlias = tuple[str, bytes]
"""The member whose intents are under a ticket, and the ticket's id."""


def ticket_named(record: AnyRecord) -> bytes | None:
    """The id of the launch ticket that an intent is under; None for one that names none, and for other kinds."""
    if not isinstance(record.body, Intent) or len(record.header.subject) != 1:
        return None
    return record.header.subject[0]


def is_second_run(one: AnyRecord, other: AnyRecord, ticket: AnyRecord) -> bool:
    """Whether two intents of one member are under one ticket that names no run, for different runs."""
    return (
        isinstance(ticket.body, LaunchTicket)
        and not ticket.body.run
        and one.member == other.member
        and ticket_named(one) == ticket_named(other) == ticket.id
        and one.body.run.run != other.body.run.run
    )
