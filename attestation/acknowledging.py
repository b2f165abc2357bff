"""Acknowledgements: what this node says to hold, and how far a revocation has come.

A revocation is effective once a quorum has acknowledged it. Of the n members at most n - q have not, and at most f of
those who have lie; together they are fewer than q, so no permit that rests on what was revoked gets its votes any more.

Spec: docs/spec/decision.md section 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from comity.attestation.adverse import takes_back
from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.holdings import Holdings
from comity.attestation.nodes_in_force import nodes_of_members
from comity.attestation.signing import key_id
from comity.attestation.speaking import credentials_above
from comity.protocol.envelope import SignedRecord
from comity.protocol.governance import Acknowledgement
from comity.protocol.limits import SUBJECTS_MAX
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a revocation or suspension has come.

    Attributes:
        acknowledged: the members of the newest epoch all of whose nodes say to hold it, sorted.
        missing: the others.
        quorum: how many have to.
    """

    acknowledged: tuple[str, ...]
    missing: tuple[str, ...]
    quorum: int

    @property
    def effective(self) -> bool:
        return len(self.acknowledged) >= self.quorum


def acknowledge(holdings: Holdings, author: Author, now: int) -> tuple[SignedRecord, ...]:
    """Acknowledge what arrived since the last call and takes back something that is held, under this node's key.

    It is to be called when that is on disk.
    """
    owed: list[bytes] = []
    for adverse_id in holdings.acknowledged.take_new():
        record = holdings.peek(adverse_id)
        if record is None:
            continue
        if author.signer.key_id in holdings.acknowledged.keys(adverse_id, author.member):
            continue
        if _takes_something_back(holdings, record):
            owed.append(adverse_id)
    return tuple(
        author.write(
            "acknowledgement",
            Acknowledgement(salt=NO_SALT),
            now,
            subject=tuple(sorted(owed[start : start + SUBJECTS_MAX])),
        )
        for start in range(0, len(owed), SUBJECTS_MAX)
    )


def _takes_something_back(holdings: Holdings, record: AnyRecord) -> bool:
    """Whether it takes back one of its subjects that is held, and is looked at. What is not held is waited for.

    Beyond what a vote looks at nothing is acknowledged: it would act on nobody.
    """
    for subject in record.header.subject:
        target = holdings.get(subject)
        if target is None:
            holdings.acknowledged.wait_for(subject, record)
            continue
        links = credentials_above([target], holdings.get)
        looked_at = (said.id for said in holdings.adverse_about((subject,)))
        if takes_back(record, target, links, None) and record.id in looked_at:
            return True
    return False


def reach_of(holdings: Holdings, adverse: bytes, now: int) -> Reach:
    """How far a revocation or suspension has come, as far as this node knows.

    A member has acknowledged it when each of its nodes has, by the newest certificate in force of each: any of them may
    give its vote.
    """
    nodes = nodes_of_members(holdings, now)
    epoch = holdings.epoch
    acknowledged: list[str] = []
    for member in sorted(epoch.members):
        keys = {key_id(record.body.key) for record in nodes.get(member, {}).values()}
        if keys and keys <= holdings.acknowledged.keys(adverse, member):
            acknowledged.append(member)
    missing = sorted(set(epoch.members) - set(acknowledged))
    return Reach(tuple(acknowledged), tuple(missing), epoch.quorum)
