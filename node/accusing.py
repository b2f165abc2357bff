"""Proofs of misbehaviour: written by whoever holds both records, and shown to operators.

What contradicts what is for `comity.protocol.contradictions` to say, and what follows from a proof for the judgement.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import structlog

from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.attestation.tally import is_cast_under
from comity.protocol.contradictions import proof_of, rule_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation, Ask, Permit, Vote
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

log = structlog.get_logger("comity.node")

PROOFS_OF_RULE_MAX: Final = {"two_asks": 16, "two_actuations": 256}
"""Proofs of one rule that this node writes against one member, each of up to a megabyte. Of two votes one for each
epoch is enough. Two actuations cost who makes them two permits of a quorum; two asks harm nobody but who asks."""

PROOFS_SHOWN_MAX: Final = 3
"""Proofs against one member that its status names."""


def proofs_to_publish(holdings: Holdings, author: Author, now: int) -> list[SignedRecord]:
    """Proofs of the contradictions that came to light since the last call.

    Of its own organization's contradictions a node writes none: its operator has to hear of them.
    """
    proofs: list[SignedRecord] = []
    shown: set[tuple[str, str]] = set()
    for one, other in holdings.take_contradictions():
        rule = rule_of(one)
        said = {"accused": one.member, "rule": rule, "one": one.id.hex(), "other": other.id.hex()}
        if one.member == author.member:
            log.error("contradicts_itself", **said)
        elif (one.member, rule) in shown:
            # One of a kind at a time: what the next one is worth depends on this one.
            holdings.put_back(one.member, (one.id, other.id))
        elif _is_enough(holdings, author.member, one, other):
            continue
        elif not _is_about_something(holdings, one, other):
            holdings.put_back(one.member, (one.id, other.id))
        elif (body := proof_of(one, other)) is not None:
            log.warning("contradiction_proved", **said)
            proofs.append(author.write("misbehaviour", body, now, subject=(one.id, other.id)))
            shown.add((one.member, rule))
    return proofs


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
