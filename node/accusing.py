"""Proofs of misbehaviour, as operators see them: told when they are written, and shown with the members."""

from __future__ import annotations

from typing import Any, Final

import structlog

from comity.attestation.accusing import accuse
from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.protocol.envelope import SignedRecord

log = structlog.get_logger("comity.node")

PROOFS_SHOWN_MAX: Final = 3
"""Proofs against one member that its status names."""


def proofs_to_publish(holdings: Holdings, author: Author, now: int) -> list[SignedRecord]:
    """The proofs of what came to light since the last call. The log tells of them, and of the own contradictions."""
    proofs: list[SignedRecord] = []
    for found in accuse(holdings, author, now):
        one, other = found.one.id.hex(), found.other.id.hex()
        if found.proof is None:
            log.error("contradicts_itself", accused=found.one.member, one=one, other=other)
        else:
            log.warning("contradiction_proved", accused=found.one.member, one=one, other=other)
            proofs.append(found.proof)
    return proofs


def proofs_held(holdings: Holdings) -> dict[str, dict[str, Any]]:
    """Of each member that proofs are held against: how many there are, and the first few by id."""
    held: dict[str, dict[str, Any]] = {}
    for member, ids in holdings.accused.proofs().items():
        first = [holdings.state.get(i) for i in sorted(ids)[:PROOFS_SHOWN_MAX]]
        held[member] = {
            "count": len(ids),
            "proofs": [
                {"id": r.id.hex(), "rule": r.body.rule, "by": r.member, "at": r.header.at}
                for r in first
                if r is not None
            ],
        }
    return held
