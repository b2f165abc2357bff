"""Contradictions: what an author may say only once, and the proof that it said two things.

A member shows a contradiction by both records, whole. Whoever reads the proof verifies both, so that it needs no
trust in whoever presents it.

Spec: docs/spec/accountability.md section 1.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, TypeAlias

from comity.protocol.accountability import Misbehaviour
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.execution import Actuation, Ask, Vote
from comity.protocol.limits import BODY_BYTES_MAX, SALT_BYTES
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Slot: TypeAlias = tuple[str, str, str, int]
"""Writer, asset, partition and generation."""
Round: TypeAlias = tuple[str, str, bytes, bytes, int, bytes]
"""Kind, member, key, intent, t, and for a vote its scope."""

RULES: Final = {"two_votes": "vote", "two_asks": "ask", "two_actuations": "actuation"}
"""In what two records may contradict each other, and of which kind both then are."""


def slot_of(record: AnyRecord) -> Slot | None:
    """What there is one promoted actuation of, for voters and in a bundle alike."""
    body = record.body
    if not isinstance(body, Actuation) or record.header.outcome != "promoted":
        return None
    return (record.member, body.asset, body.partition, body.generation)


def round_of(record: AnyRecord) -> Round | None:
    """What there is one ask of, and one vote of each key: an intent and a t."""
    match record.body:
        case Vote() as vote:
            return ("vote", record.member, record.header.key, vote.intent, vote.t, vote.scope)
        case Ask() as ask:
            return ("ask", record.member, record.header.key, ask.intent, ask.t, b"")
        case _:
            return None


def said_once(record: AnyRecord) -> Hashable | None:
    """What this record says that its author may say only once; None where there is no such thing."""
    return round_of(record) or slot_of(record)


def contradict(one: AnyRecord, other: AnyRecord) -> bool:
    """Whether two verified records cannot both be honest."""
    said = said_once(one)
    return said is not None and said == said_once(other) and one.id != other.id


def rule_of(record: AnyRecord) -> str:
    """The rule of two records of which this is one; empty for a kind of which there may be many."""
    return next((rule for rule, kind in RULES.items() if kind == record.header.kind), "")


def proof_of(one: AnyRecord, other: AnyRecord) -> Misbehaviour | None:
    """The body of the proof that two records contradict each other; None where both do not fit into one."""
    if not contradict(one, other):
        return None
    records = tuple(r.record.encoded() for r in sorted((one, other), key=lambda r: r.id))
    body = Misbehaviour(salt=bytes(SALT_BYTES), rule=rule_of(one), records=records)
    return body if len(encode(body)) <= BODY_BYTES_MAX else None


def contradicting(body: Misbehaviour) -> tuple[SignedRecord, ...]:
    """The two records of a proof, as they were said, not verified. None of a rule that this version does not know.

    Raises:
        DecodeError: one of them is no record.
    """
    if body.rule not in RULES:
        return ()
    return tuple(decode_record(data) for data in body.records)


def accused_by(body: Misbehaviour) -> frozenset[str]:
    """The member that a verified proof is against; nobody, where its rule is not known here."""
    return frozenset(record.header.member for record in contradicting(body))
