"""What a judgement is about: one ask with everything that it may rest on, and nothing else.

A case is complete. Two peers that hold the same case reach the same judgement to the byte (law 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comity.attestation.epochs import EpochState
from comity.attestation.policy_rules import CompiledRules
from comity.attestation.speaking import Speakers
from comity.protocol.encoding import Form
from comity.protocol.execution import Ask, ClassJudgement, Intent
from comity.protocol.governance import AssetRule, Policy, Taxonomy
from comity.protocol.identifiers import Code, Digest, Natural, pattern_matches
from comity.protocol.outcome import Need, Outcome
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A policy that the epoch names, compiled."""

    digest: bytes
    policy: Policy
    rules: CompiledRules

    def rule_for(self, asset: str) -> AssetRule | None:
        """The first rule of the classification whose pattern matches."""
        return next((rule for rule in self.policy.assets if pattern_matches(rule.pattern, asset)), None)

    def columns_of(self, purpose: str) -> frozenset[str]:
        """The columns that a purpose names as needed."""
        return frozenset(
            column for entry in self.policy.purposes if entry.name == purpose for column in entry.columns
        )


@dataclass(frozen=True, slots=True)
class Governance:
    """What is in force: an epoch with its taxonomy and policies, and the chain behind it."""

    epoch: EpochState
    epochs: Mapping[bytes, EpochState]
    taxonomy: Taxonomy
    bundles: tuple[Bundle, ...]
    engine: bytes

    @property
    def observers(self) -> frozenset[str]:
        return frozenset(member for bundle in self.bundles for member in bundle.policy.observers)

    def governs(self, asset: str) -> bool:
        """Whether any policy in force speaks of an asset."""
        return any(bundle.rule_for(asset) is not None for bundle in self.bundles)


@dataclass(frozen=True, slots=True)
class Grants:
    """What a dry run supposes to be there, to find out whether it would help."""

    approvals: frozenset[str] = frozenset()
    tier: int = 0
    weight: bool = False
    ticket: bool = False
    trust: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Case:
    """One ask, ready to be judged.

    Attributes:
        relied: exactly the favourable records that the ask names, by id.
        candidates: adverse records, rivals and successors that this voter holds.
        known: records that vouch for keys and that an ask need not name, by id.
        links: the credentials above the keys of persons and agents among the candidates, by id.
        granted: suppositions of a dry run; empty in every vote.
    """

    governance: Governance
    intent: VerifiedRecord[Intent]
    ask: VerifiedRecord[Ask]
    relied: Mapping[bytes, AnyRecord]
    candidates: tuple[AnyRecord, ...] = ()
    known: Mapping[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])
    links: Mapping[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])
    granted: Grants = Grants()

    def speakers(self) -> Speakers:
        """By what reports are measured."""
        governance = self.governance
        return Speakers(governance.epoch, governance.taxonomy, governance.observers, self.links)


class BundleWorking(Form, frozen=True):
    """What one bundle said of one class."""

    bundle: Digest
    outcome: Outcome


class ClassWorking(Form, frozen=True):
    """How the judgement of one class came about."""

    judgement: ClassJudgement
    supports: tuple[tuple[str, str, Natural], ...] = ()
    bundles: tuple[BundleWorking, ...] = ()
    approvals: tuple[str, ...] = ()
    tier: Natural = 0
    executables: Natural = 0
    freshness: Code = "none"


class Working(Form, frozen=True):
    """The full working of a vote, whose digest the vote carries."""

    classes: tuple[ClassWorking, ...]
    adverse: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a vote will say, and how it came about.

    Attributes:
        expires: the earliest end of the lease, of a credential, a ticket or an approval that it rests on.
    """

    classes: tuple[ClassJudgement, ...]
    adverse: tuple[bytes, ...]
    working: Working
    expires: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The judgement could not be made here: this voter abstains, and abstention supports nothing (law 4)."""

    code: str
    detail: str = ""
    needs: tuple[Need, ...] = ()
