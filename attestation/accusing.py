"""The accuser: which contradictions of others are worth a proof, and the proof.

Without IO, like the other machines. What contradicts what is for `comity.protocol.contradictions` to say, and what
follows from a proof for the judgement.

Spec: docs/spec/accountability.md section 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.attestation.tally import is_cast_under
from comity.protocol.contradictions import proof_of, rule_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation, Ask, Permit, Vote
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

PROOFS_OF_RULE_MAX: Final = {"two_asks": 16, "two_actuations": 256}
"""Proofs of one rule that a node writes against one member, each of up to a megabyte. Of two votes one for each epoch
is enough. Two actuations cost who makes them two permits of a quorum; two asks harm nobody but who asks."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two records of one member that cannot both be honest, with the proof; without one they are the own member's."""

    one: AnyRecord
    other: AnyRecord
    proof: SignedRecord | None


def accuse(holdings: Holdings, author: Author, now: int) -> tuple[Contradiction, ...]:
    """Prove the contradictions that came to light since the last call.

    Of its own organization's contradictions a node writes no proof: its operator has to hear of them.
    """
    found: list[Contradiction] = []
    shown: set[tuple[str, str]] = set()
    for one, other in holdings.take_contradictions():
        kind = (one.member, rule_of(one))
        if one.member == author.member:
            found.append(Contradiction(one, other, None))
        elif kind in shown:
            # One of a kind at a time: what the next one is worth depends on this one.
            holdings.put_back(one.member, (one.id, other.id))
        elif _is_enough(holdings, author.member, one, other):
            continue
        elif not _is_about_something(holdings, one, other):
            holdings.put_back(one.member, (one.id, other.id))
        elif (body := proof_of(one, other)) is not None:
            proof = author.write("misbehaviour", body, now, subject=(one.id, other.id))
            found.append(Contradiction(one, other, proof))
            shown.add(kind)
    return tuple(found)


def _is_enough(holdings: Holdings, author: str, one: AnyRecord, other: AnyRecord) -> bool:
    """Whether another proof would show nothing that is not shown, or there are as many as this node writes."""
    if isinstance(one.body, Vote):
        epochs = [e for vote in (one, other) if (e := holdings.epochs.get(vote.body.epoch)) is not None]
        return all(
            one.member in holdings.discounted(e.id) or not any(is_cast_under(v, e) for v in (one, other))
            for e in epochs
        )
    return holdings.accused.written(author, one.member, rule_of(one)) >= PROOFS_OF_RULE_MAX[rule_of(one)]


def _is_about_something(holdings: Holdings, one: AnyRecord, other: AnyRecord) -> bool:
    """Whether both asks are of the member's own intent, and both actuations of a permit of its own, as held here.

    What may still come is waited for. So nobody uses up what is written against it with words about nothing.
    """
    match one.body:
        case Ask():
            intent = holdings.get(one.body.intent)
            return intent is not None and intent.member == one.member
        case Actuation():
            permits = (holdings.get(each.body.permit) for each in (one, other))
            return all(
                p is not None and isinstance(p.body, Permit) and p.member == one.member for p in permits
            )
        case _:
            return True
