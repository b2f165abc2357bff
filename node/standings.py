"""Where intents of other members stand, as far as it is known here, and what they want of this organization's people.

A partner's intent is pursued at its own node. Here there are the records that reached this node: decisions on it,
and the votes, this organization's among them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, TypeAlias

from comity.node.core import Core
from comity.node.revocations import state_of
from comity.node.terms import cause_form, need_form
from comity.protocol.execution import Actuation, Intent, Observation, Permit, Refusal, Vote
from comity.protocol.governance import Credential
from comity.protocol.outcome import Mode, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

LOOKED_THROUGH_MAX: Final = 200
"""Partners' intents that are looked through for what waits here, the newest: as many as a listing has."""
SEEN: Final = "seen"
"""The standing of a partner's intent on which no decision is held here."""


def standing_of(core: Core, record: VerifiedRecord[Intent]) -> str:
    """Where an intent stands: as it is pursued here, else by the newest decision that is held, else `seen`."""
    pursuit = core.requester.pursuit(record.id)
    if pursuit is not None:
        return pursuit.standing
    row = core.store.intent(record.id)
    if row is not None:
        return row.status
    decision = newest_decision(core, record)
    if decision is None:
        return SEEN
    return "permitted" if isinstance(decision.body, Permit) else "refused"


def newest_decision(core: Core, intent: VerifiedRecord[Intent]) -> AnyRecord | None:
    """The newest permit or refusal of an intent that is held, by the intent's own author: nobody else writes them."""
    decisions = [
        r
        for kind in ("permit", "refusal")
        for r in _about(core, intent.id, kind, intent.member)
        if isinstance(r.body, Permit | Refusal)
    ]
    return max(decisions, key=lambda r: (r.body.t, r.id), default=None)


def _about(core: Core, intent: bytes, kind: str, member: str) -> list[AnyRecord]:
    """What a member said of an intent, of one kind. Only that is verified: others may have said much."""
    found = core.store.about(intent, kind)
    return [r for f in found if f.header.member == member and (r := core.holdings.get(f.id)) is not None]


def own_vote(core: Core, intent: bytes) -> VerifiedRecord[Vote] | None:
    """This organization's newest vote on an intent."""
    votes: list[VerifiedRecord[Vote]] = [
        r for r in _about(core, intent, "vote", core.identity.member) if isinstance(r.body, Vote)
    ]
    return max(votes, key=lambda vote: (vote.body.t, vote.id), default=None)


def mode_of(vote: VerifiedRecord[Vote]) -> str:
    """The lowest mode that a vote says."""
    return str(min((each.outcome.mode for each in vote.body.judgements), key=lambda mode: mode.rank))


def partner_view(core: Core, record: VerifiedRecord[Intent]) -> Json:
    """What is known here of a partner's intent: the newest votes by member, and why the own one is as it is."""
    newest: dict[str, VerifiedRecord[Vote]] = {}
    for held in core.holdings.about(record.id):
        if isinstance(held.body, Vote) and held.body.t >= _t_of(newest.get(held.member)):
            newest[held.member] = held
    own = newest.get(core.identity.member)
    outcomes = [each.outcome for each in own.body.judgements] if own is not None else []
    decision = newest_decision(core, record)
    kind = decision.header.kind if decision is not None else ""
    return {
        "votes": {member: mode_of(newest[member]) for member in sorted(newest)},
        "causes": [asdict(cause_form(cause)) for cause in union(*(each.causes for each in outcomes))],
        "needs": [asdict(need_form(need)) for need in union(*(each.needs for each in outcomes))],
        "permit": decision.id.hex() if decision is not None and kind == "permit" else "",
        "refusal": decision.id.hex() if decision is not None and kind == "refusal" else "",
    }


def _t_of(vote: VerifiedRecord[Vote] | None) -> int:
    return vote.body.t if vote is not None else -1


def inputs_shown(core: Core, intent: Intent) -> Json:
    """The inputs of an intent by the ids of their actuations: what each is, who owns it, how it is classed."""
    named = {i for group in intent.classes for i in group.inputs}
    named |= {i for group in intent.classes for item in group.items for i in item.inputs}
    return {record_id.hex(): _input_shown(core, record_id) for record_id in sorted(named)}


def _input_shown(core: Core, record_id: bytes) -> Json:
    made = core.holdings.get(record_id)
    if made is None or not isinstance(made.body, Actuation):
        return {"held": False}
    state = made.header.governance
    return {
        "held": True,
        "asset": made.body.asset,
        "partition": made.body.partition,
        "generation": made.body.generation,
        "member": made.member,
        "made_at": made.header.at,
        "owners": list(state.owners) if state is not None else [],
        "data_classes": list(state.data_classes) if state is not None else [],
        "tier": state.tier if state is not None else 0,
    }


def data_classes_of(core: Core, intent: Intent) -> dict[str, list[str]]:
    """Output asset to the data classes that the policies in force give it."""
    governance = core.holdings.governance()
    if governance is None:
        return {}
    found: dict[str, list[str]] = {}
    for group in intent.classes:
        rules = [bundle.rule_for(group.asset) for bundle in governance.bundles]
        found[group.asset] = sorted({rule.data_class for rule in rules if rule is not None})
    return found


def approvals_wanted(core: Core) -> list[tuple[AnyRecord, list[Any]]]:
    """Partners' intents that this organization's own vote deferred for an approval that its people may give.

    Each with those needs. Left out are intents that are decided or over, classes whose credentials this
    organization may not issue, and what one of its people has approved already.
    """
    wanted: list[tuple[AnyRecord, list[Any]]] = []
    now = core.clock.now()
    for found in core.store.of_kind("intent", coalition=core.coalition, limit=LOOKED_THROUGH_MAX):
        record = core.holdings.get(found.id)
        if record is None or not isinstance(record.body, Intent):
            continue
        if record.member == core.identity.member or now >= record.body.expires:
            continue
        vote = own_vote(core, record.id)
        if vote is None or mode_of(vote) != str(Mode.DEFER) or standing_of(core, record) != SEEN:
            continue
        given = _classes_of_approvals(core, record)
        needs = [
            need
            for need in union(*(each.outcome.needs for each in vote.body.judgements))
            if need.code == "approval"
            and need.parameters.get("class") not in given
            and _may_issue(core, str(need.parameters.get("class")))
        ]
        if needs:
            wanted.append((record, [need_form(need) for need in needs]))
    return wanted


def _may_issue(core: Core, authority_class: str) -> bool:
    governance = core.holdings.governance()
    for entry in governance.taxonomy.classes if governance is not None else ():
        if entry.name == authority_class:
            return not entry.issuers or core.identity.member in entry.issuers
    return False


def _classes_of_approvals(core: Core, intent: AnyRecord) -> set[str]:
    """The classes of this organization's people that have approved an intent as it is."""
    classes: set[str] = set()
    for record in _about(core, intent.id, "observation", core.identity.member):
        body = record.body
        if not isinstance(body, Observation):
            continue
        credential = core.holdings.get(record.authority) if record.authority is not None else None
        approved = body.claim == "approval" and body.shown == intent.header.body.digest
        if approved and (state_of(core, record) or 0 < body.not_after <= core.clock.now()):
            # It was withdrawn, or has ended: somebody is wanted again.
            continue
        if approved and credential is not None and isinstance(credential.body, Credential):
            classes.update(credential.body.classes)
    return classes
