"""From a class of items to what its bundles say of it: the facts that rules may speak of.

Each bundle of the epoch classes the asset and its columns by its own table; an owner's rules see the same facts
as the bundle that classes the asset. The outcomes meet (law 6).

Spec: docs/spec/judgement.md step 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from comity.attestation.case import Bundle, BundleWorking, Case, Fault
from comity.attestation.credentials import Chain
from comity.attestation.lineage import Input
from comity.attestation.policy_engine import ColumnFacts, ContextFacts, PolicyFault, PolicyRequest, evaluate
from comity.attestation.policy_rules import CompiledRules, compile_rules
from comity.attestation.weighting import ONE
from comity.protocol.errors import DecodeError
from comity.protocol.execution import ItemClass
from comity.protocol.governance import ColumnClass, OwnerPolicy
from comity.protocol.outcome import Outcome
from comity.protocol.verified import VerifiedRecord

COLUMN_FACTS_KEPT_MAX: Final = 256
"""Lists of columns that are kept as facts: the assets of one round of pipelines."""


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What the bundles are asked about: one class of items with everything that was found out before."""

    case: Case
    group: ItemClass
    chain: Chain | None
    inputs: tuple[Input, ...]
    weight: int
    tier: int
    fresh: bool
    ticketed: bool
    approvals: frozenset[str]
    policies: Mapping[str, VerifiedRecord[OwnerPolicy]]

    def data_classes(self) -> tuple[str, ...]:
        """The classes that the bundles give the output; those of its inputs where none gives any."""
        rules = (bundle.rule_for(self.group.asset) for bundle in self.case.governance.bundles)
        classed = {rule.data_class for rule in rules if rule is not None}
        return tuple(sorted(classed or {c for found in self.inputs for c in found.state.data_classes}))


def bundle_outcomes(request: BundleRequest) -> tuple[BundleWorking, ...] | Fault:
    """What every bundle of the epoch says, and the rules of every owner of an input."""
    said: list[BundleWorking] = []
    bundles = request.case.governance.bundles
    for bundle in bundles:
        outcome = _evaluate(bundle.rules, bundle, request)
        if isinstance(outcome, PolicyFault):
            return Fault("policy_fault", outcome.code)
        said.append(BundleWorking(bundle=bundle.digest, outcome=outcome))
    classing = next((b for b in bundles if b.rule_for(request.group.asset) is not None), bundles[0])
    for owner in sorted({o for found in request.inputs for o in found.state.owners}):
        policy = request.policies.get(owner)
        if policy is None or not policy.body.rules:
            continue
        try:
            rules = compile_rules(policy.body.rules)
        except DecodeError:
            # It compiled when it was admitted, by an engine before this one.
            return Fault("policy_fault", f"the rules of {owner} do not compile")
        outcome = _evaluate(rules, classing, request)
        if isinstance(outcome, PolicyFault):
            return Fault("policy_fault", f"{outcome.code} in the rules of {owner}")
        said.append(BundleWorking(bundle=policy.header.body.digest, outcome=outcome))
    return tuple(said)


def _evaluate(rules: CompiledRules, bundle: Bundle, request: BundleRequest) -> Outcome | PolicyFault:
    return evaluate(rules, policy_request(bundle, request))


@lru_cache(maxsize=COLUMN_FACTS_KEPT_MAX)
def _column_facts(
    columns: tuple[str, ...], classed: tuple[ColumnClass, ...], named: frozenset[str]
) -> tuple[ColumnFacts, ...]:
    """The columns of a class as a bundle classes them. Intents for one asset declare the same ones."""
    classes = {column.name: column.column_class for column in classed}
    return tuple(
        ColumnFacts(name=name, column_class=classes.get(name, ""), named=name in named) for name in columns
    )


def policy_request(bundle: Bundle, request: BundleRequest) -> PolicyRequest:
    """The facts, as one bundle classes them."""
    case, group, chain = request.case, request.group, request.chain
    intent = case.intent
    rule = bundle.rule_for(group.asset)
    input_classes = {c for found in request.inputs for c in found.state.data_classes}
    taxonomy = {entry.name: entry.within for entry in case.governance.taxonomy.classes}
    return PolicyRequest(
        subject=chain.subject if chain is not None else intent.body.requester,
        member=intent.member,
        kind=chain.own.subject_kind if chain is not None else "automation",
        classes=chain.classes if chain is not None else (),
        class_parents={name: parent for name, parent in taxonomy.items() if parent is not None},
        asset=group.asset,
        writer=intent.member,
        realm=intent.header.realm,
        data_classes=(rule.data_class,) if rule is not None else tuple(sorted(input_classes)),
        rows_by=rule.rows_by if rule is not None else "",
        columns=_column_facts(
            group.columns, rule.columns if rule is not None else (), bundle.columns_of(intent.body.purpose)
        ),
        items=len(group.items),
        delegators=tuple(link.body.subject for link in chain.links[1:]) if chain is not None else (),
        context=ContextFacts(
            purpose=intent.body.purpose,
            tier=request.tier,
            fresh=request.fresh,
            weight=request.weight,
            ticket=request.ticketed,
            approvals=tuple(sorted(request.approvals)),
            input_classes=tuple(sorted(input_classes)),
            input_marked=any(found.marked for found in request.inputs),
            input_owners=tuple(sorted({o for found in request.inputs for o in found.state.owners})),
            input_purposes=tuple(sorted({found.state.purpose for found in request.inputs})),
            input_tier_min=min((found.state.tier for found in request.inputs), default=3),
            input_weight_min=min((found.state.weight for found in request.inputs), default=ONE),
            reversible=group.reversible,
            solo=case.governance.epoch.is_solo,
            code_authors=intent.body.code.authors,
            code_reviewers=intent.body.code.reviewers,
        ),
    )
