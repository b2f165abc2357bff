"""Who is shown to have contradicted itself, by the proofs that are held.

Nothing here depends on the order in which proofs arrive.

Spec: docs/spec/accountability.md section 1.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from comity.attestation.epochs import EpochState
from comity.attestation.tally import is_cast_under
from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import contradicting
from comity.protocol.execution import Vote
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


class Accused:
    """What the proofs show that one member holds."""

    def __init__(self) -> None:
        self._twice: dict[bytes, list[VerifiedRecord[Vote]]] = {}
        self._discounted: dict[bytes, frozenset[str]] = {}
        self._written: Counter[tuple[str, str, str]] = Counter()
        self._of: dict[str, set[bytes]] = {}

    def add(self, proof: VerifiedRecord[Misbehaviour], directory: KeyDirectory) -> None:
        """Take a proof that verified, and so shows what it says."""
        shown = contradicting(proof.body)
        if not shown:
            return
        member = shown[0].header.member
        self._written[proof.member, member, proof.body.rule] += 1
        self._of.setdefault(member, set()).add(proof.id)
        if proof.body.rule == "two_votes":
            for vote in (verify(each, directory) for each in shown):
                self._twice.setdefault(vote.body.epoch, []).append(vote)
            self._discounted.clear()

    def discounted(self, epoch: EpochState) -> frozenset[str]:
        """The members that cast two votes in one round, one of which would count under an epoch."""
        if epoch.id not in self._discounted:
            votes = self._twice.get(epoch.id, ())
            self._discounted[epoch.id] = frozenset(v.member for v in votes if is_cast_under(v, epoch))
        return self._discounted[epoch.id]

    def written(self, by: str, against: str, rule: str) -> int:
        """How many proofs of a rule one member has written against another."""
        return self._written[by, against, rule]

    def proofs(self) -> Mapping[str, frozenset[bytes]]:
        """The ids of the proofs, by the member that they are against."""
        return {member: frozenset(ids) for member, ids in sorted(self._of.items())}
