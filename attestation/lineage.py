"""Inputs: what was made before, by whose permit, and what governs it now.

An input counts when its actuation was promoted under a permit whose certificate checks, exactly as that
permit allowed. Its governance state is then the voters' own word, not its writer's; by induction no ancestor
needs to be read (docs/spec/lineage.md section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from comity.attestation.credentials import Relied
from comity.attestation.epochs import EpochState, successor_of
from comity.attestation.findings import Finding, defer, refuse, short
from comity.attestation.tally import permit_problem
from comity.protocol.execution import Actuation, Claim, Intent, Permit, Start, Transition
from comity.protocol.governance import Consent, OwnerPolicy
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import PRODUCTION, pattern_matches
from comity.protocol.outcome import Need, indices_of, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Epochs: TypeAlias = Mapping[bytes, EpochState]
CertificateProblem: TypeAlias = Callable[
    [
        VerifiedRecord[Permit],
        VerifiedRecord[Intent],
        Mapping[bytes, AnyRecord],
        EpochState,
        EpochState | None,
    ],
    Finding | None,
]


@dataclass(frozen=True, slots=True)
class Input:
    """An input whose actuation and certificate check."""

    actuation: VerifiedRecord[Actuation]
    state: GovernanceState
    marked: bool = False
    """An authority under which it was made was taken back since, or something that it was made from found wrong."""


def read_input(actuation_id: bytes, relied: Relied, epochs: Epochs) -> Input | Finding:
    """Check one input through the records that an ask names.

    What is missing defers and names it; what contradicts its own permit refuses.
    """
    actuation = relied.get(actuation_id)
    if actuation is None:
        return defer("lineage_missing", Need(code="record", parameters={"id": short(actuation_id)}))
    body = actuation.body
    state = actuation.header.governance
    if not isinstance(body, Actuation) or state is None or actuation.header.outcome != "promoted":
        return refuse("input_not_promoted", id=short(actuation_id))
    permit, intent = relied.get(body.permit), relied.get(body.intent)
    for wanted in (body.permit, body.intent, body.start):
        if wanted not in relied:
            return defer("lineage_missing", Need(code="record", parameters={"id": short(wanted)}))
    if permit is None or intent is None:
        return refuse("lineage_wrong", asset=body.asset)
    problem = actuation_problem(actuation, permit, intent, relied, epochs)
    return problem or Input(actuation, state)


def actuation_problem(
    actuation: VerifiedRecord[Actuation],
    permit: AnyRecord,
    intent: AnyRecord,
    held: Mapping[bytes, AnyRecord],
    epochs: Epochs,
    certificate_problem: CertificateProblem = permit_problem,
) -> Finding | None:
    """Why an actuation is not what a sound permit allowed, or None.

    Args:
        certificate_problem: `permit_problem`, or what remembers its answers about these records.
    """
    if not isinstance(permit.body, Permit) or not isinstance(intent.body, Intent):
        return refuse("lineage_wrong", asset=actuation.body.asset)
    epoch = epochs.get(permit.body.epoch)
    if epoch is None:
        return refuse("epoch_unknown", asset=actuation.body.asset)
    if actuation.header.coalition != epoch.coalition:
        return refuse("lineage_foreign", asset=actuation.body.asset)
    problem = certificate_problem(permit, intent, held, epoch, successor_of(epoch, epochs))
    if problem is not None:
        return problem
    problem = _start_problem(actuation, permit, intent.body, held)
    if problem is not None:
        return problem
    claim = claim_for(permit.body, intent.body, actuation.body)
    if claim is None or actuation.member != intent.member:
        return refuse("not_permitted", asset=actuation.body.asset)
    return _content_problem(actuation, claim, intent.body)


def _start_problem(
    actuation: VerifiedRecord[Actuation],
    permit: VerifiedRecord[Permit],
    intent: Intent,
    held: Mapping[bytes, AnyRecord],
) -> Finding | None:
    """Why an actuation's start does not carry it, or None: same work, under the permit, before its end."""
    body = actuation.body
    start = held.get(body.start)
    if start is None:
        return refuse("start_missing", asset=body.asset)
    said = start.body
    if not isinstance(said, Start) or start.member != actuation.member:
        return refuse("start_foreign", asset=body.asset)
    if (said.permit, said.intent, said.asset, said.partition, said.attempt) != (
        body.permit,
        body.intent,
        body.asset,
        body.partition,
        body.attempt,
    ):
        return refuse("start_foreign", asset=body.asset)
    if start.header.at >= permit.body.expires:
        return refuse("permit_expired", asset=body.asset)
    if body.attempt > intent.attempts_max:
        return refuse("attempts_used", asset=body.asset)
    return None


def claim_for(permit: Permit, intent: Intent, actuation: Actuation) -> Claim | None:
    """The claim that covers an actuation's slot, or None."""
    for claim in permit.claims:
        if claim.index >= len(intent.classes):
            return None
        group = intent.classes[claim.index]
        if group.asset != actuation.asset:
            continue
        indices = indices_of(claim.extent.items)
        if any(index >= len(group.items) for index in indices):
            return None
        for index in sorted(indices):
            item = group.items[index]
            if (item.partition, item.generation, item.previous) == (
                actuation.partition,
                actuation.generation,
                actuation.previous,
            ):
                return claim
    return None


def _content_problem(actuation: VerifiedRecord[Actuation], claim: Claim, intent: Intent) -> Finding | None:
    """What was made lies within the claim, and states the governance that the permit gave it."""
    group = intent.classes[claim.index]
    body = actuation.body
    allowed = {group.columns[i] for i in indices_of(claim.extent.columns) if i < len(group.columns)}
    beyond = sorted(set(body.content.columns) - allowed)
    if group.columns and beyond:
        return refuse("column_not_permitted", asset=body.asset, column=beyond[0])
    if not set(body.inputs) <= set(group.inputs) | {i for item in group.items for i in item.inputs}:
        return refuse("lineage_wrong", asset=body.asset)
    if actuation.header.governance != state_after(claim):
        return refuse("governance_state_wrong", asset=body.asset)
    if actuation.header.realm != claim.state.realm:
        return refuse("governance_state_wrong", asset=body.asset)
    return None


def state_after(claim: Claim) -> GovernanceState:
    """The governance state of what is made under a claim: its obligations join the restrictions."""
    state = claim.state
    return GovernanceState(
        tier=state.tier,
        realm=state.realm,
        owners=state.owners,
        purpose=state.purpose,
        weight=state.weight,
        data_classes=state.data_classes,
        authority_classes=state.authority_classes,
        restrictions=union(state.restrictions, claim.obligations),
    )


def realm_problem(realm: str, inputs: Iterable[Input]) -> Finding | None:
    """Nothing made in a preview reaches production or another preview."""
    for found in inputs:
        if found.state.realm not in (PRODUCTION, realm):
            return refuse("preview_input", asset=found.actuation.body.asset, realm=found.state.realm)
    return None


def slope_findings(
    tier: int, asset: str, inputs: Iterable[Input], transitions: tuple[VerifiedRecord[Transition], ...]
) -> list[Finding]:
    """Trust may only step down where every owner of the input said so."""
    findings: list[Finding] = []
    for found in inputs:
        if found.state.tier <= tier:
            continue
        for owner in found.state.owners:
            if any(
                record.member == owner and record.body.type == "trust" and record.body.tier_to <= tier
                for record in transitions
            ):
                continue
            need = Need(code="transition", parameters={"member": owner, "type": "trust", "tier": tier})
            findings.append(defer("trust_slope", need, asset=asset, tier_from=found.state.tier, tier_to=tier))
    return findings


def transitions_for(
    asset: str, purpose: str, relied: Relied, epoch: EpochState, t: int
) -> tuple[VerifiedRecord[Transition], ...]:
    """The transitions named in the ask that hold for one output at t."""
    return tuple(
        relied[i]
        for i in sorted(relied)
        if isinstance(relied[i].body, Transition)
        and relied[i].header.key in epoch.organization_keys(relied[i].member)
        and relied[i].body.not_before <= t < relied[i].body.not_after
        and pattern_matches(relied[i].body.asset, asset)
        and relied[i].body.purpose in ("", purpose)
    )


def owners_after(
    writer: str, inputs: Iterable[Input], transitions: tuple[VerifiedRecord[Transition], ...]
) -> tuple[str, ...]:
    """The writer, and the owners of the inputs that have not released their say over this output."""
    released = {record.member for record in transitions if record.body.type == "release"}
    inherited = {owner for found in inputs for owner in found.state.owners}
    return tuple(sorted({writer} | (inherited - released)))


def owner_policies(relied: Relied, epoch: EpochState) -> dict[str, VerifiedRecord[OwnerPolicy]]:
    """The newest owner policy of each member among the records named."""
    newest: dict[str, VerifiedRecord[OwnerPolicy]] = {}
    for record_id in sorted(relied):
        record = relied[record_id]
        if not isinstance(record.body, OwnerPolicy):
            continue
        if record.header.key not in epoch.organization_keys(record.member):
            continue
        held = newest.get(record.member)
        if held is None or record.header.number > held.header.number:
            newest[record.member] = record
    return newest


def is_live(policy: OwnerPolicy | None, data_classes: tuple[str, ...], t: int) -> bool:
    """Whether an owner's own supporting vote is needed for data of these classes. Live unless it says otherwise."""
    if policy is None:
        return True
    return any(not _stands(_consent_for(policy, name), t) for name in data_classes or ("*",))


def _consent_for(policy: OwnerPolicy, data_class: str) -> Consent | None:
    by_class = {consent.data_class: consent for consent in policy.consents}
    return by_class.get(data_class, by_class.get("*"))


def _stands(consent: Consent | None, t: int) -> bool:
    return consent is not None and consent.mode == "standing" and t < consent.until


def live_owners(
    inputs: Iterable[Input], policies: Mapping[str, VerifiedRecord[OwnerPolicy]], t: int
) -> tuple[str, ...]:
    """The owners of the inputs whose supporting vote a permit needs."""
    live: set[str] = set()
    for found in inputs:
        for owner in found.state.owners:
            policy = policies.get(owner)
            if is_live(policy.body if policy is not None else None, found.state.data_classes, t):
                live.add(owner)
    return tuple(sorted(live))
