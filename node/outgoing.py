"""What the machines leave to be carried: by the service, after every call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from comity.node.store import Head
from comity.protocol.envelope import SignedRecord
from comity.protocol.frames import AskFrame, encode_frame
from comity.protocol.notices import SlotHead


@dataclass(frozen=True, slots=True)
class OutgoingAsk:
    """An ask on its way to some members' nodes; `attached` are the records that travel with it."""

    ask: SignedRecord
    attached: tuple[SignedRecord, ...]
    members: tuple[str, ...]

    def frame(self) -> bytes:
        records = tuple(record.encoded() for record in self.attached)
        return encode_frame(AskFrame(ask=self.ask.encoded(), records=records))


@dataclass(frozen=True, slots=True)
class OutgoingOffer:
    """Records that concern other members."""

    frame: bytes
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class News:
    """What this organization has said that others may want to pull: ids of governance records, and heads."""

    records: tuple[bytes, ...]
    heads: tuple[SlotHead, ...]


def news_of(said: Iterable[SignedRecord], heads: Iterable[Head]) -> News:
    """What there is to tell of records that this organization has just said, and of the heads that they raised."""
    governance = tuple(r.id for r in said if r.kind.log_of(r.header.outcome) == "governance")
    raised = (SlotHead(head.asset, head.generation, head.actuation, head.partition) for head in heads)
    return News(governance, tuple(raised))


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `tick` at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Changed:
    """An intent's standing changed: whoever waits for it looks again."""

    intent: bytes


@dataclass(frozen=True, slots=True)
class GovernanceChanged:
    """An epoch, a certificate, a policy or a revocation is new: who is a peer, or what is governed, may change."""


Outgoing: TypeAlias = OutgoingAsk | OutgoingOffer | News | Wake | Changed | GovernanceChanged
