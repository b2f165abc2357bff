"""Proofs of misbehaviour: written by whoever holds both records, and shown to operators.

What contradicts what is for `comity.protocol.contradictions` to say, and what follows from a proof for the judgement.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, TypeAlias

import structlog

from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.attestation.tally import doubtful_voters
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import accused_by, proof_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

log = structlog.get_logger("comity.node")

PROOFS_PER_MEMBER_MAX: Final = 64
"""Proofs that this node writes against one member. One shows what the member is; of a member that contradicts itself
without end all others keep only so many, each of up to a megabyte."""


def proofs_to_publish(holdings: Holdings, author: Author, now: int) -> list[SignedRecord]:
    """Proofs of the contradictions that came to light since the last call.

    Of its own organization's contradictions a node writes none: its operator has to hear of them.
    """
    proofs: list[SignedRecord] = []
    for one, other in holdings.take_contradictions():
        said = {"accused": one.member, "kind": one.header.kind, "one": one.id.hex(), "other": other.id.hex()}
        if one.member == author.member:
            log.error("contradicts_itself", **said)
            continue
        written = _written(holdings, author.member)[one.member]
        body = proof_of(one, other) if written + len(proofs) < PROOFS_PER_MEMBER_MAX else None
        log.warning("contradiction_found", proof_written=body is not None, **said)
        if body is not None:
            proofs.append(author.write("misbehaviour", body, now, subject=(one.id, other.id)))
    return proofs


def _written(holdings: Holdings, author: str) -> Counter[str]:
    """How many proofs a member has written, by whom they are against."""
    return Counter(
        member
        for record in holdings.state.of_kind("misbehaviour")
        if record.member == author
        for member in accused_by(record.body)
    )


def doubtful(holdings: Holdings, permit: AnyRecord) -> tuple[str, ...]:
    """Members shown to have cast two votes without whom a permit has no quorum: nothing is started under it."""
    epoch = holdings.epochs.get(permit.body.epoch)
    votes = [vote for i in permit.body.votes if (vote := holdings.get(i)) is not None]
    return doubtful_voters(votes, epoch, holdings.discounted(epoch.id)) if epoch is not None else ()


def proofs_held(holdings: Holdings) -> dict[str, list[dict[str, Any]]]:
    """The proofs that are held, by the member that they are against, in the order of their ids."""
    held: dict[str, list[dict[str, Any]]] = {}
    for record in holdings.state.of_kind("misbehaviour"):
        body = record.body
        for member in accused_by(body) if isinstance(body, Misbehaviour) else ():
            shown = {"id": record.id.hex(), "rule": body.rule, "by": record.member, "at": record.header.at}
            held.setdefault(member, []).append(shown)
    return held
