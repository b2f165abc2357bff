"""The judgement of an ask: a pure function of epoch, ask, evidence and the adverse records held.

It is made once on the ask alone and, where adverse records count, once more with them; the vote is the meet of
both. Invariants of the protocol come first and no bundle can switch them off; the bundles of the epoch and
of the owners follow; everything combines by the meet (law 6).

Spec: docs/spec/judgement.md, whose numbered steps the functions follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import msgspec

from comity.attestation.adverse import NOTHING, Adverse, weigh_adverse
from comity.attestation.approvals import approvals_for
from comity.attestation.case import (
    Case,
    ClassWorking,
    Fault,
    Judgement,
    Working,
)
from comity.attestation.credentials import Chain, bound_problem, read_chain, ticket_for
from comity.attestation.epochs import EpochState
from comity.attestation.evidence import Appraisal, appraise
from comity.attestation.findings import Finding, Findings, defer, refuse, short
from comity.attestation.lineage import (
    Input,
    live_owners,
    owner_policies,
    owners_after,
    read_input,
    realm_problem,
    slope_findings,
    transitions_for,
)
from comity.attestation.policy_facts import BundleRequest, bundle_outcomes
from comity.attestation.tally import restrictions_overflow
from comity.attestation.weighting import Support, weigh
from comity.protocol.encoding import encode
from comity.protocol.execution import ClassJudgement, ItemClass, LaunchTicket, Observation, Transition
from comity.protocol.governance import Credential, OwnerPolicy, ReferenceValues
from comity.protocol.governance_state import GovernanceState
from comity.protocol.limits import (
    ADVERSE_PER_VOTE_MAX,
    ASK_AGE_S_MAX,
    ASK_AHEAD_S,
    LEASE_S,
    OWNERS_MAX,
    TERMS_MAX,
)
from comity.protocol.outcome import Mode, Need, Obligation, Outcome, full_extent, meet, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading one input came to: the input and its state's canonical bytes, or what is wrong or missing."""

    found: Input | None
    state: bytes
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Bearing:
    """What holds for every class of a case."""

    case: Case
    adverse: Adverse
    relied: Mapping[bytes, AnyRecord]
    findings: tuple[Finding, ...]
    chain: Chain | None
    ticketed: bool
    appraisal: Appraisal
    approvals: frozenset[str]
    notes: tuple[Finding, ...]
    policies: Mapping[str, VerifiedRecord[OwnerPolicy]]
    inputs_read: dict[bytes, _Read] = field(default_factory=dict[bytes, "_Read"])


def judge(case: Case) -> Judgement | Fault:
    """Judge an ask.

    Returns what the vote says, or a fault where this voter has to abstain.
    """
    alone = _judge_once(case, NOTHING)
    if isinstance(alone, Fault):
        return alone
    adverse = weigh_adverse(
        case.candidates,
        case.intent,
        case.ask,
        case.relied,
        case.known,
        case.speakers(),
    )
    classes = alone
    if adverse.counts():
        against = _judge_once(case, adverse)
        if isinstance(against, Fault):
            return against
        groups = case.intent.body.classes
        classes = tuple(_both(*three) for three in zip(alone, against, groups, strict=True))
    classes = tuple(_compact(_bounded(working)) for working in classes)
    working = Working(classes=classes, adverse=adverse.ids)
    return Judgement(tuple(w.judgement for w in classes), adverse.ids, working, _expires(case, adverse))


def _expires(case: Case, adverse: Adverse) -> int:
    """The lease ends with the first credential, ticket, approval or consent that was relied on or added."""
    t = case.ask.body.t
    records = (*case.relied.values(), *adverse.added.values())
    ends = [t + LEASE_S, case.intent.body.expires]
    ends.extend(
        record.body.not_after
        for record in records
        if isinstance(record.body, Credential | LaunchTicket | Observation | ReferenceValues | Transition)
    )
    ends.extend(
        consent.until
        for record in records
        if isinstance(record.body, OwnerPolicy)
        for consent in record.body.consents
    )
    ends.append(case.intent.valid_until)
    return min(end for end in ends if end > t)


def _both(alone: ClassWorking, against: ClassWorking, group: ItemClass) -> ClassWorking:
    """The meet of judging without and with the adverse records; the state follows the ask alone.

    The owners to be heard are those of both: whoever has withdrawn a standing consent is heard again.
    """
    full = full_extent(len(group.items), len(group.columns))
    live = tuple(sorted({*alone.judgement.live, *against.judgement.live}))
    judgement = ClassJudgement(
        outcome=meet(alone.judgement.outcome, against.judgement.outcome, full),
        weight=alone.judgement.weight,
        state=alone.judgement.state,
        live=live[:OWNERS_MAX],
    )
    return ClassWorking(
        judgement=judgement,
        supports=against.supports,
        bundles=against.bundles,
        approvals=against.approvals,
        tier=against.tier,
        executables=against.executables,
        freshness=against.freshness,
    )


def _judge_once(case: Case, adverse: Adverse) -> tuple[ClassWorking, ...] | Fault:
    bearing = _bearing(case, adverse)
    workings: list[ClassWorking] = []
    for index, group in enumerate(case.intent.body.classes):
        working = _judge_class(bearing, index, group)
        if isinstance(working, Fault):
            return working
        workings.append(working)
    return tuple(workings)


def _bearing(case: Case, adverse: Adverse) -> _Bearing:
    """Steps 1 to 4: the ask, the credential, who asked, the evidence, the approvals."""
    governance, intent, t = case.governance, case.intent, case.ask.body.t
    struck = adverse.struck
    relied = {i: r for i, r in {**case.relied, **adverse.added}.items() if i not in struck}
    findings = Findings()
    findings.extend(_ask_findings(case, struck))
    if adverse.overflows:
        findings.add(refuse("adverse_many", adverse_max=ADVERSE_PER_VOTE_MAX))
    findings.extend(adverse.against.get(intent.id, ()))
    chain = read_chain(intent.body.credential, relied, governance.epoch, governance.taxonomy, t)
    ticketed = case.granted.ticket
    if isinstance(chain, Finding):
        hit = intent.body.credential in case.relied and intent.body.credential not in relied
        findings.add(refuse("credential_revoked", id=short(intent.body.credential)) if hit else chain)
        held = None
    else:
        held = chain
        if chain.subject != intent.body.requester or chain.links[0].member != intent.member:
            findings.add(refuse("requester_wrong", wanted=intent.body.requester, subject=chain.subject))
        if not ticketed:
            ticket = ticket_for(intent, chain, relied, t)
            findings.add(ticket if isinstance(ticket, Finding) else None)
            ticketed = isinstance(ticket, VerifiedRecord)
    appraisal, spliced = appraise(intent, relied, governance.epoch, t)
    findings.add(spliced)
    if case.granted.tier > appraisal.tier:
        appraisal = Appraisal(tier=case.granted.tier)
    approvals, notes = (
        approvals_for(intent, held, relied, governance.epoch, governance.taxonomy, t)
        if held is not None
        else (frozenset[str](), ())
    )
    return _Bearing(
        case=case,
        adverse=adverse,
        relied=relied,
        findings=tuple(findings.found),
        chain=held,
        ticketed=ticketed,
        appraisal=appraisal,
        approvals=approvals | case.granted.approvals,
        notes=notes,
        policies=owner_policies(relied, governance.epoch),
    )


def _ask_findings(case: Case, struck: Mapping[bytes, str]) -> list[Finding]:
    """Step 1: intent and ask belong together, are in force, and are of this coalition."""
    intent, ask, epoch = case.intent, case.ask, case.governance.epoch
    t = ask.body.t
    findings: list[Finding] = []
    if ask.body.intent != intent.id or ask.member != intent.member:
        findings.append(refuse("ask_not_the_requesters"))
    if [(e.scope, e.epoch) for e in ask.body.epochs] != [(epoch.coalition, epoch.id)]:
        findings.append(refuse("scope_wrong"))
    for record in (intent, ask):
        if record.header.coalition != epoch.coalition or record.role != "node":
            findings.append(refuse("record_foreign", kind=record.header.kind))
        if record.member not in epoch.members:
            findings.append(refuse("not_a_member", member=record.member))
        elif record.root_key not in epoch.organization_keys(record.member) or not record.in_force(t):
            findings.append(refuse("node_key_not_in_force", member=record.member))
        if record.authority is not None and record.authority in struck:
            findings.append(refuse("node_key_revoked", member=record.member))
        if record.id in struck:
            findings.append(refuse("intent_revoked", kind=record.header.kind))
    if t >= intent.body.expires or t - intent.header.at > ASK_AGE_S_MAX:
        findings.append(refuse("intent_expired", expires=intent.body.expires))
    if intent.header.at > t + ASK_AHEAD_S:
        findings.append(refuse("intent_early", at=intent.header.at))
    if intent.header.realm != ask.header.realm:
        findings.append(refuse("realm_mixed"))
    return findings


def _judge_class(bearing: _Bearing, index: int, group: ItemClass) -> ClassWorking | Fault:
    """Steps 5 to 9 for one class of items."""
    case, governance = bearing.case, bearing.case.governance
    intent, t = case.intent, case.ask.body.t
    full = full_extent(len(group.items), len(group.columns))
    findings = Findings(list(bearing.findings))
    findings.extend(_class_findings(bearing, index, group))
    inputs, missing = _inputs(bearing, group)
    findings.extend(missing)
    findings.add(realm_problem(intent.header.realm, inputs))
    transitions = transitions_for(group.asset, intent.body.purpose, bearing.relied, governance.epoch, t)
    findings.extend(
        f
        for f in slope_findings(bearing.appraisal.tier, group.asset, inputs, transitions)
        if not any(need.parameters.get("member") in case.granted.trust for need in f.needs)
    )
    owners = owners_after(intent.member, inputs, transitions)
    if len(owners) > OWNERS_MAX:
        findings.add(refuse("owners_many", owners_max=OWNERS_MAX))
        owners = owners[:OWNERS_MAX]
    if _terms_overflow(inputs):
        findings.add(refuse("classes_many", classes_max=TERMS_MAX))
    weight, supports = _weight(bearing, inputs)
    request = BundleRequest(
        case=case,
        group=group,
        chain=bearing.chain,
        inputs=tuple(inputs),
        weight=weight,
        tier=bearing.appraisal.tier,
        fresh=bearing.appraisal.freshness == "fresh",
        ticketed=bearing.ticketed,
        approvals=bearing.approvals,
        policies=bearing.policies,
    )
    said = bundle_outcomes(request) if bearing.chain is not None else ()
    if isinstance(said, Fault):
        return said
    findings.extend(_weight_findings(bearing, weight))
    outcome = findings.outcome(full)
    for working in said:
        outcome = meet(outcome, working.outcome, full)
    if outcome.mode is Mode.DEFER and bearing.notes:
        outcome = meet(outcome, Findings(list(bearing.notes)).outcome(full), full)
    state = _state(bearing, request, owners, weight)
    judgement = ClassJudgement(
        outcome=outcome,
        weight=weight,
        state=state,
        live=live_owners(inputs, bearing.policies, t)[:OWNERS_MAX],
    )
    return ClassWorking(
        judgement=judgement,
        supports=tuple((s.code, s.source, s.weight) for s in supports),
        bundles=said,
        approvals=tuple(sorted(bearing.approvals)),
        tier=bearing.appraisal.tier,
        executables=bearing.appraisal.executables,
        freshness=bearing.appraisal.freshness,
    )


def _terms_overflow(inputs: list[Input]) -> bool:
    """Whether the output would inherit more classes or restrictions than a governance state can carry."""
    classes = {name for found in inputs for name in found.state.data_classes}
    return len(classes) > TERMS_MAX or len(union(*(f.state.restrictions for f in inputs))) > TERMS_MAX


def _bounded(working: ClassWorking) -> ClassWorking:
    """Refuse what could be made and not be recorded: its state would carry the decision's obligations, too."""
    judgement = working.judgement
    permits = judgement.outcome.mode.rank >= Mode.RESTRICT.rank
    if not permits or not restrictions_overflow(judgement.state, judgement.outcome.obligations):
        return working
    refused = refuse("classes_many", classes_max=TERMS_MAX).cause
    outcome = msgspec.structs.replace(
        judgement.outcome, mode=Mode.REFUSE, causes=union(judgement.outcome.causes, (refused,))
    )
    return msgspec.structs.replace(working, judgement=msgspec.structs.replace(judgement, outcome=outcome))


def _compact(working: ClassWorking) -> ClassWorking:
    """Below *restrict* nothing is permitted: extent and obligations say nothing, and a refusal needs nothing.

    It comes last, for the meet of a deferral and anything else looks at both extents.
    """
    outcome = working.judgement.outcome
    if outcome.mode.rank >= Mode.RESTRICT.rank:
        return working
    needs = outcome.needs if outcome.mode is Mode.DEFER else ()
    said = Outcome(mode=outcome.mode, extent=full_extent(0, 0), needs=needs, causes=outcome.causes)
    judgement = msgspec.structs.replace(working.judgement, outcome=said)
    return msgspec.structs.replace(working, judgement=judgement)


def _class_findings(bearing: _Bearing, index: int, group: ItemClass) -> list[Finding]:
    """Step 5: only the writer makes an asset, each slot once, within the bounds of its credential."""
    case = bearing.case
    intent = case.intent
    findings: list[Finding] = []
    writer = case.governance.epoch.writer_of(group.asset)
    if writer != intent.member:
        findings.append(refuse("not_the_writer", asset=group.asset, member=intent.member))
    others = [g for i, g in enumerate(intent.body.classes) if i < index and g.asset == group.asset]
    partitions = [item.partition for g in (*others, group) for item in g.items]
    if len(partitions) != len(set(partitions)):
        findings.append(refuse("item_twice", asset=group.asset))
    if len(group.columns) != len(set(group.columns)):
        findings.append(refuse("column_twice", asset=group.asset))
    if not group.columns and any(
        rule is not None and rule.columns
        for rule in (bundle.rule_for(group.asset) for bundle in case.governance.bundles)
    ):
        # Where signed policy classes columns, nobody gets around it by declaring none.
        findings.append(refuse("columns_undeclared", asset=group.asset))
    if bearing.chain is not None:
        problem = bound_problem(
            bearing.chain, "materialize", group.asset, intent.header.realm, intent.body.purpose
        )
        if problem is not None:
            findings.append(problem)
    return findings


def _inputs(bearing: _Bearing, group: ItemClass) -> tuple[list[Input], list[Finding]]:
    """Step 6: every input checks, and all items of the class have inputs of one kind."""
    kinds: set[frozenset[bytes]] = set()
    wanted = [group.inputs, *(item.inputs for item in group.items if item.inputs)]
    every = [_read(bearing, i) for i in sorted({i for ids in wanted for i in ids})]
    findings = [finding for read in every for finding in read.findings]
    inputs = [read.found for read in every if read.found is not None]
    for position, ids in enumerate(wanted):
        if position:
            kinds.add(frozenset(read.state for i in ids if (read := _read(bearing, i)).found is not None))
    if len(kinds) > 1 or (kinds and any(not item.inputs for item in group.items)):
        findings.append(refuse("class_mixed", asset=group.asset))
    return inputs, findings


def _read(bearing: _Bearing, actuation_id: bytes) -> _Read:
    """Read an input once, however often the intent mentions it: its certificate costs up to a millisecond."""
    known = bearing.inputs_read.get(actuation_id)
    if known is not None:
        return known
    adverse = bearing.adverse
    if actuation_id in adverse.struck:
        read = _Read(None, b"", (refuse("input_struck", reason=adverse.struck[actuation_id]),))
    else:
        found = read_input(actuation_id, bearing.relied, bearing.case.governance.epochs)
        if isinstance(found, Finding):
            read = _Read(None, b"", (found,))
        else:
            made = found.actuation
            found = replace(found, marked=not adverse.marked.isdisjoint((made.id, made.body.intent)))
            read = _Read(found, encode(found.state), tuple(adverse.against.get(actuation_id, ())))
    bearing.inputs_read[actuation_id] = read
    return read


def _weight(bearing: _Bearing, inputs: list[Input]) -> tuple[int, tuple[Support, ...]]:
    """Step 7."""
    if bearing.chain is None:
        return 0, ()
    subjects = frozenset({bearing.case.intent.id, *(found.actuation.id for found in inputs)})
    case = bearing.case
    heard = {
        i: r
        for i, r in bearing.relied.items()
        if r.member != case.intent.member and _counts(r, case.governance.epoch, case.ask.body.t)
    }
    return weigh(
        bearing.chain, case.governance.taxonomy, bearing.appraisal.tier, bearing.relied, heard, subjects
    )


def _counts(record: AnyRecord, epoch: EpochState, t: int) -> bool:
    """Whether a record's author is a member, its key in force, and what it says not out of date."""
    not_after = getattr(record.body, "not_after", 0)
    return (
        record.root_key in epoch.organization_keys(record.member)
        and record.in_force(t)
        and (not not_after or t < not_after)
    )


def _weight_findings(bearing: _Bearing, weight: int) -> list[Finding]:
    """Step 8: each bundle may ask for a least weight."""
    if bearing.case.granted.weight:
        return []
    least = max((b.policy.weight_min for b in bearing.case.governance.bundles), default=0)
    if weight >= least:
        return []
    need = Need(code="corroboration", parameters={"weight": least})
    return [defer("weight_low", need, weight=weight, weight_min=least)]


def _state(
    bearing: _Bearing, request: BundleRequest, owners: tuple[str, ...], weight: int
) -> GovernanceState:
    """Step 9: what governs the output."""
    intent = bearing.case.intent
    restrictions: tuple[Obligation, ...] = union(*(f.state.restrictions for f in request.inputs))[:TERMS_MAX]
    return GovernanceState(
        tier=bearing.appraisal.tier,
        realm=intent.header.realm,
        owners=owners,
        purpose=intent.body.purpose,
        weight=weight,
        data_classes=request.data_classes()[:TERMS_MAX],
        authority_classes=tuple(sorted(bearing.chain.classes)) if bearing.chain is not None else (),
        restrictions=restrictions,
    )
