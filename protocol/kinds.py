"""The table of all kinds of record.

A kind fixes its number, the log that it is kept in, whether it counts for or against, and whose key signs
it. Numbers are never used twice.

*Polarity*: a favourable record counts only where an ask names it. An adverse one counts as soon as a voter
holds it. Where polarity is by outcome the header says the outcome, and the outcomes listed as adverse are.
An adverse record is kept in the governance log whatever its kind: everyone needs it.

Spec: docs/spec/kinds.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Log: TypeAlias = Literal["governance", "execution"]
Polarity: TypeAlias = Literal["favourable", "adverse", "neutral", "by_outcome"]
Signer: TypeAlias = Literal["members", "organization", "node", "subject", "any"]
"""Whose key signs: all members' organization keys, the organization's, a node's, a person's or agent's own,
or any key of the organization."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table."""

    number: int
    name: str
    log: Log
    polarity: Polarity
    signer: Signer
    erasable: bool
    outcomes: frozenset[str] = frozenset()
    adverse_outcomes: frozenset[str] = frozenset()

    def is_adverse(self, outcome: str | None) -> bool:
        return self.polarity == "adverse" or (outcome is not None and outcome in self.adverse_outcomes)

    def log_of(self, outcome: str | None) -> Log:
        return "governance" if self.is_adverse(outcome) else self.log


_EXECUTION: Final = range(32, 64)
"""The numbers of the execution family."""


def _kind(
    number: int,
    name: str,
    polarity: Polarity,
    signer: Signer,
    outcomes: str = "",
    adverse: str = "",
    log: Log | None = None,
) -> Kind:
    log = log or ("execution" if number in _EXECUTION else "governance")
    bad = frozenset(adverse.split())
    return Kind(
        number=number,
        name=name,
        log=log,
        polarity=polarity,
        signer=signer,
        # What a quorum's state rests on is never erased, so state never changes by erasure.
        erasable=log == "execution",
        outcomes=frozenset(outcomes.split()) | bad,
        adverse_outcomes=bad,
    )


_TABLE: Final = (
    # Governance
    _kind(1, "epoch", "favourable", "members"),
    _kind(2, "proposal", "neutral", "organization"),
    _kind(3, "prepare", "neutral", "organization"),
    _kind(4, "commit", "neutral", "organization"),
    _kind(5, "node_certificate", "favourable", "organization"),
    _kind(6, "address", "neutral", "node"),
    _kind(7, "taxonomy", "favourable", "organization"),
    _kind(8, "policy", "favourable", "organization"),
    _kind(9, "owner_policy", "favourable", "organization"),
    _kind(10, "credential", "favourable", "any"),
    _kind(11, "revocation", "adverse", "any"),
    _kind(12, "suspension", "adverse", "any"),
    _kind(13, "acknowledgement", "neutral", "node"),
    _kind(14, "comment", "neutral", "any"),
    _kind(15, "reference_values", "favourable", "organization"),
    _kind(16, "endorsement", "favourable", "any"),
    # Execution
    _kind(32, "intent", "favourable", "node"),
    _kind(33, "observation", "by_outcome", "any", "passed approved observed", "failed disputed withdrawn"),
    _kind(34, "launch_ticket", "favourable", "subject"),
    _kind(35, "attestation", "favourable", "node"),
    _kind(36, "appraisal", "by_outcome", "node", "affirming none", "warning contraindicated"),
    _kind(37, "challenge", "favourable", "node"),
    _kind(38, "ask", "neutral", "node"),
    _kind(39, "vote", "neutral", "node"),
    _kind(40, "permit", "favourable", "node"),
    _kind(41, "refusal", "neutral", "node"),
    _kind(42, "start", "neutral", "node"),
    _kind(43, "actuation", "by_outcome", "node", "staged promoted", "rolled_back quarantined"),
    _kind(44, "verification", "by_outcome", "any", "passed", "failed"),
    # A transition changes who has a say for everybody who meets the data, so everybody holds it.
    _kind(45, "transition", "favourable", "organization", log="governance"),
    _kind(46, "share_release", "neutral", "node"),
    # Accountability
    _kind(64, "checkpoint", "neutral", "node"),
    _kind(65, "cosignature", "neutral", "node"),
    _kind(66, "misbehaviour", "adverse", "node"),
    _kind(67, "erased", "neutral", "organization"),
)

KINDS: Final = MappingProxyType({kind.name: kind for kind in _TABLE})
"""Every kind by its name."""
