"""The intents of a node's earlier processes, as its store has them: what to take up after a restart.

Only what the node itself wrote says where its intents stood. Others may have written asks and certificates that name
them, and those are kept like any record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.node.store import IntentRow, Store
from comity.protocol.execution import Ask, Intent, Permit, Refusal
from comity.protocol.identifiers import DIGEST_BYTES
from comity.protocol.limits import ASKS_PER_INTENT_MAX
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

TAKEN_UP: Final = ("asking", "deferred", "held", "permitted", "refused", "expired")
"""Where intents may have stood. Those that are over are taken up to be shown."""


@dataclass(frozen=True, slots=True)
class PastIntent:
    """One intent of an earlier process.

    Attributes:
        offered: the records that came with it.
        certificate: its permit or refusal, where it was decided.
        asked_last: the last t that it was asked for, or 0.
        asks: how often it was asked for.
    """

    intent: VerifiedRecord[Intent]
    offered: tuple[AnyRecord, ...]
    certificate: AnyRecord | None
    asked_last: int
    asks: int


def past_intents(store: Store, holdings: Holdings, author: Author) -> Iterator[PastIntent]:
    """This node's intents from before this process, the last updated first.

    Args:
        author: the node's key.
    """
    for row in store.intents(status=TAKEN_UP):
        intent = holdings.get(row.intent)
        if intent is not None and isinstance(intent.body, Intent):
            yield _past(row, intent, holdings, author)


def _past(row: IntentRow, intent: AnyRecord, holdings: Holdings, author: Author) -> PastIntent:
    about = [record for record in holdings.about(row.intent) if record.member == author.member]
    own = [record for record in about if record.header.key == author.signer.key_id]
    tickets = (holdings.get(row.state[i : i + DIGEST_BYTES]) for i in range(0, len(row.state), DIGEST_BYTES))
    certificates = [record for record in own if isinstance(record.body, Permit | Refusal)]
    asked = {record.body.t for record in own if isinstance(record.body, Ask)}
    asks = len(asked)
    if row.status == "expired":
        # It stays so, whatever the clock says by now.
        asks = max(asks, ASKS_PER_INTENT_MAX)
    return PastIntent(
        intent=intent,
        offered=(
            *(record for record in about if record.header.kind == "attestation"),
            *(ticket for ticket in tickets if ticket is not None),
        ),
        certificate=max(certificates, key=lambda r: (r.body.t, r.id), default=None)
        if row.status in ("permitted", "refused")
        else None,
        asked_last=max(asked, default=0),
        asks=asks,
    )
