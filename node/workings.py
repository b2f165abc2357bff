"""How votes came about: the full working, computed again from what a vote rests on.

The judgement is a pure function of what a vote names, and the store keeps all of that. So the working is not
kept beside it but computed again when somebody asks for it, and compared with what was signed. Functions of
the core, run in its thread; values are what JSON can hold, digests and ids lower-case hex.

Why it is so, and until when it can be done: docs/adr/0019-the-working-is-computed-again.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeAlias

from comity.attestation.adverse import Adverse, weigh_adverse
from comity.attestation.approvals import approvals_for
from comity.attestation.case import BundleWorking, Case, ClassWorking, Fault, Judgement
from comity.attestation.credentials import Chain, read_chain, ticket_for
from comity.attestation.evidence import appraise
from comity.attestation.findings import Finding
from comity.attestation.judgement import judge
from comity.attestation.lineage import read_input, transitions_for
from comity.attestation.offline import case_of, differences
from comity.attestation.voter import vote_body
from comity.node.certificates import authorities
from comity.node.core import Core
from comity.node.plain_values import plain
from comity.node.problems import Refused
from comity.node.terms import cause_form, need_form, obligation_form
from comity.protocol.execution import (
    Ask,
    Attestation,
    Intent,
    ItemClass,
    LaunchTicket,
    Observation,
    Permit,
    Refusal,
    Vote,
)
from comity.protocol.governance import Credential
from comity.protocol.limits import CHAIN_MAX
from comity.protocol.outcome import Outcome, indices_of
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
VoteRecord: TypeAlias = VerifiedRecord[Vote]
Json: TypeAlias = Any

MISSING_NAMED_MAX: Final = 64
"""Missing records that an answer names: so many at most are asked for at once, too."""


@dataclass(frozen=True, slots=True)
class Round:
    """Votes of one ask.

    Attributes:
        decision: the permit or refusal that they carry; None where they carry none, or are asked for one by one.
        groups: ids of votes, together where the same ask and the same adverse records make one working of them.
        lost: ids of votes that the decision names and that are not held.
    """

    intent: bytes
    decision: bytes | None
    groups: tuple[tuple[bytes, ...], ...]
    lost: tuple[bytes, ...] = ()


def round_of(core: Core, named: bytes) -> Round:
    """The votes that an id stands for: those of a decision, of an intent's newest decision or round, or one vote.

    Raises:
        Refused: `not_found`.
    """
    record = core.holdings.get(named)
    decision = _decision(core, record)
    if decision is not None:
        body: Permit | Refusal = decision.body
        lost = tuple(i for i in body.votes if _held(core, i) is None)
        votes = [v for i in body.votes if (v := _held(core, i)) is not None]
        return Round(body.intent, decision.id, _grouped(votes), lost)
    if record is not None and isinstance(record.body, Vote):
        return Round(record.body.intent, None, ((record.id,),))
    if record is not None and isinstance(record.body, Intent):
        votes = [r for r in core.holdings.about(named) if isinstance(r.body, Vote)]
        newest = max((vote.body.t for vote in votes), default=0)
        groups = _grouped(vote for vote in votes if vote.body.t == newest)
        if groups:
            return Round(named, None, groups)
    raise Refused(
        "not_found",
        f"no decision, and no vote, is held here under {named.hex()[:16]}",
        404,
        "`comity decision list` and `comity intent list` show what is held",
    )


def _decision(core: Core, record: AnyRecord | None) -> AnyRecord | None:
    if record is not None and isinstance(record.body, Intent):
        certificates = [r for r in core.holdings.about(record.id) if isinstance(r.body, Permit | Refusal)]
        return max(certificates, key=lambda r: (r.body.t, r.id), default=None)
    return record if record is not None and isinstance(record.body, Permit | Refusal) else None


def _grouped(votes: Iterable[VoteRecord]) -> tuple[tuple[bytes, ...], ...]:
    groups: dict[tuple[bytes, bytes, tuple[bytes, ...]], list[bytes]] = {}
    for vote in sorted(votes, key=lambda vote: (vote.member, vote.id)):
        groups.setdefault((vote.body.ask, vote.body.epoch, vote.body.adverse), []).append(vote.id)
    return tuple(tuple(group) for group in groups.values())


def missing_for(core: Core, named: bytes) -> tuple[bytes, ...]:
    """What has to be fetched before the working can be shown. What was erased here is not asked for again."""
    if core.holdings.get(named) is None:
        wanted: set[bytes] = {named}
    else:
        try:
            found = round_of(core, named)
        except Refused:
            return ()
        wanted = set(found.lost)
        for group in found.groups:
            vote = _held(core, group[0])
            wanted |= set(_wanting(core, vote)) if vote is not None else set()
    return tuple(sorted(i for i in wanted if not core.store.holds([i])))[:MISSING_NAMED_MAX]


def _held(core: Core, vote_id: bytes) -> VoteRecord | None:
    found = core.holdings.get(vote_id)
    return found if found is not None and isinstance(found.body, Vote) else None


def _wanting(core: Core, vote: VoteRecord) -> tuple[bytes, ...]:
    """Ids of the records that a vote rests on and that are not here."""
    ask = core.holdings.get(vote.body.ask)
    if ask is None or not isinstance(ask.body, Ask):
        return (vote.body.ask,)
    wanted = (vote.body.intent, *ask.body.relied, *vote.body.adverse)
    return tuple(i for i in wanted if core.holdings.get(i) is None)


# One working


def working_of(core: Core, votes: tuple[bytes, ...]) -> Json:
    """The working of votes that rest on the same: judged again, shown, and compared with each of them.

    Args:
        votes: ids of one group of a `Round`.
    """
    signed = [vote for i in votes if (vote := _held(core, i)) is not None]
    first = signed[0]
    shown: dict[str, Json] = {
        "ask": first.body.ask.hex(),
        "t": first.body.t,
        "computed": False,
        "problem": None,
        "missing": [],
        "votes": [_voted(vote, None) for vote in signed],
    }
    missing = _wanting(core, first)
    if missing:
        shown["missing"] = [_gone(core, i) for i in missing[:MISSING_NAMED_MAX]]
        return shown | {"problem": _problem("records_missing", f"{len(missing)} records that it rests on")}
    case = _case(core, first)
    if case is None:
        return shown | {"problem": _problem("governance_missing", "the epoch, or what was in force under it")}
    judged = judge(case)
    if isinstance(judged, Fault):
        return shown | {"problem": _problem(judged.code, judged.detail)}
    shown["votes"] = [_voted(vote, differences(case, judged, vote)) for vote in signed]
    return shown | {"computed": True} | _working(core, case, judged)


def _problem(code: str, detail: str) -> Json:
    return {"code": code, "message": detail}


def _gone(core: Core, record_id: bytes) -> Json:
    return {"record": record_id.hex(), "why": "erased" if core.store.holds([record_id]) else "not_held"}


def _voted(vote: VoteRecord, differs: tuple[str, ...] | None) -> Json:
    """A vote, and whether it is equal, to the byte, to what comes out here; None where nothing came out."""
    return {
        "vote": vote.id.hex(),
        "member": vote.member,
        "engine": vote.body.engine.hex(),
        "working": vote.body.working.hex(),
        "equal": None if differs is None else not differs,
        "differs": list(differs or ()),
    }


def _case(core: Core, vote: VoteRecord) -> Case | None:
    """The case that a vote was cast on, under the epoch of then."""
    epoch = core.holdings.epochs.get(vote.body.epoch)
    governance = core.holdings.governance_at(epoch, core.holdings.engine) if epoch is not None else None
    ask = core.holdings.get(vote.body.ask)
    if governance is None or ask is None:
        return None
    wanted = {vote.body.intent, ask.id, *ask.body.relied, *vote.body.adverse}
    held = {i: record for i in wanted if (record := core.holdings.get(i)) is not None}
    for record in tuple(held.values()):
        if record.authority is not None:
            for above in authorities(core.holdings, record.authority):
                held.setdefault(above.id, above)
    return case_of(vote, held, governance)


def _working(core: Core, case: Case, judged: Judgement) -> Json:
    """Everything that the judgement of a case rested on, and what it made of it."""
    adverse = weigh_adverse(case.candidates, case.intent, case.ask, case.relied, case.known, case.speakers())
    counted = {i: r for i, r in {**case.relied, **adverse.added}.items() if i not in adverse.struck}
    # Without what others hold against it: the same case, as if nothing were held.
    alone = judge(replace(case, candidates=())) if adverse.counts() else judged
    # What the vote says, which is the judgement wherever a vote has room for it.
    body = vote_body(case, judged)
    without = alone.working.classes if isinstance(alone, Judgement) else judged.working.classes
    return {
        "epoch": case.governance.epoch.number,
        "engine": case.governance.engine.hex(),
        "digest": body.working.hex(),
        "relied": len(case.relied),
        "authority": _authority(case, counted, adverse),
        "evidence": _evidence(case, counted),
        "approvals": _approvals(case, counted),
        "adverse": _adverse(case, adverse),
        "classes": [
            _class(core, case, counted, group, said.outcome, working)
            | (_without(before, group) if adverse.counts() else {})
            for group, said, working, before in zip(
                case.intent.body.classes, body.judgements, judged.working.classes, without, strict=True
            )
        ],
    }


# By whose authority, on which evidence, with whose approval, against whose word


def _authority(case: Case, counted: Mapping[bytes, AnyRecord], adverse: Adverse) -> Json:
    """Who acts, by which chain of credentials, and who asked for the run."""
    governance, t = case.governance, case.ask.body.t
    chain = read_chain(case.intent.body.credential, counted, governance.epoch, governance.taxonomy, t)
    asked = ticket_for(case.intent, chain, counted, t) if isinstance(chain, Chain) else None
    problem = chain if isinstance(chain, Finding) else asked if isinstance(asked, Finding) else None
    return {
        "requester": case.intent.body.requester,
        "credentials": [
            _link(link, adverse.struck) for link in _links(case.intent.body.credential, case.relied)
        ],
        "ticket": _ticket(asked) if isinstance(asked, VerifiedRecord) else None,
        "problem": _found(problem) if problem is not None else None,
    }


def _links(credential: bytes, relied: Mapping[bytes, AnyRecord]) -> list[VerifiedRecord[Credential]]:
    links: list[VerifiedRecord[Credential]] = []
    wanted: bytes | None = credential
    while wanted is not None and len(links) < CHAIN_MAX:
        link = relied.get(wanted)
        if link is None or not isinstance(link.body, Credential):
            break
        links.append(link)
        wanted = link.authority
    return links


def _link(link: VerifiedRecord[Credential], struck: Mapping[bytes, str]) -> Json:
    body = link.body
    return {
        "credential": link.id.hex(),
        "member": link.member,
        "subject": body.subject,
        "kind": body.subject_kind,
        "classes": list(body.classes),
        "assets": list(body.assets),
        "not_before": body.not_before,
        "not_after": body.not_after,
        "struck": struck.get(link.id, ""),
    }


def _ticket(ticket: VerifiedRecord[LaunchTicket]) -> Json:
    return {"ticket": ticket.id.hex(), "member": ticket.member, "not_after": ticket.body.not_after}


def _evidence(case: Case, counted: Mapping[bytes, AnyRecord]) -> Json:
    """What the execution context measured of itself, and what that is worth."""
    appraisal, spliced = appraise(case.intent, counted, case.governance.epoch, case.ask.body.t)
    found = [counted[i] for i in sorted(counted) if isinstance(counted[i].body, Attestation)]
    return {
        "attestations": [
            {"attestation": each.id.hex(), "member": each.member, "type": each.body.type}
            | plain(each.body.context)
            for each in found
        ],
        "tier": appraisal.tier,
        "executables": appraisal.executables,
        "freshness": appraisal.freshness,
        "problem": _found(spliced) if spliced is not None else None,
    }


def _approvals(case: Case, counted: Mapping[bytes, AnyRecord]) -> list[Json]:
    """Every approval that the ask names, with the classes it brings, or why it does not count."""
    governance, t = case.governance, case.ask.body.t
    chain = read_chain(case.intent.body.credential, counted, governance.epoch, governance.taxonomy, t)
    if isinstance(chain, Finding):
        return []
    given = {i: r for i, r in counted.items() if _is_approval(r)}
    others = {i: r for i, r in counted.items() if i not in given}
    rows: list[Json] = []
    for record_id in sorted(given):
        one = {**others, record_id: given[record_id]}
        classes, notes = approvals_for(case.intent, chain, one, governance.epoch, governance.taxonomy, t)
        said = [str(note.cause.parameters.get("reason", "")) for note in notes]
        rows.append(
            {
                "approval": record_id.hex(),
                "member": given[record_id].member,
                "credential": (given[record_id].authority or b"").hex(),
                "counts": not notes,
                "because": said[0] if said else "",
                "classes": sorted(classes),
            }
        )
    return rows


def _is_approval(record: AnyRecord) -> bool:
    return isinstance(record.body, Observation) and record.body.claim == "approval"


def _adverse(case: Case, adverse: Adverse) -> Json:
    """What speaks against it, and what it struck or brought up."""
    held = {record.id: record for record in case.candidates}
    return {
        "records": [
            {
                "record": i.hex(),
                "member": held[i].member,
                "kind": held[i].header.kind,
                "outcome": held[i].header.outcome or "",
                "about": [subject.hex() for subject in held[i].header.subject],
            }
            for i in adverse.ids
        ],
        "struck": [{"record": i.hex(), "because": adverse.struck[i]} for i in sorted(adverse.struck)],
        "more_than_named": adverse.overflows,
    }


def _found(finding: Finding) -> Json:
    return asdict(cause_form(finding.cause)) | {
        "mode": str(finding.mode),
        "needs": [asdict(need_form(need)) for need in finding.needs],
    }


# One class of items


def _class(
    core: Core,
    case: Case,
    counted: Mapping[bytes, AnyRecord],
    group: ItemClass,
    outcome: Outcome,
    working: ClassWorking,
) -> Json:
    """How one class was judged."""
    return {
        "asset": group.asset,
        "items": len(group.items),
        "outcome": _outcome(outcome, group),
        "weight": _weight(working),
        "weight_min": max((b.policy.weight_min for b in case.governance.bundles), default=0),
        "policies": [_policy(core, case, counted, said, group) for said in working.bundles],
        "inputs": [_input(case, counted, i) for i in _inputs_of(group)],
        "transitions": _transitions(case, counted, group),
        "live": list(working.judgement.live),
        "state": plain(working.judgement.state),
    }


def _without(before: ClassWorking, group: ItemClass) -> Json:
    """How a class would have been judged without what speaks against it. The vote's weight is that one's."""
    return {"without_adverse": _outcome(before.judgement.outcome, group), "weight": _weight(before)}


def _weight(working: ClassWorking) -> Json:
    terms = [{"code": code, "source": source, "ppm": ppm} for code, source, ppm in working.supports]
    return {"ppm": working.judgement.weight, "terms": terms}


def _outcome(outcome: Outcome, group: ItemClass) -> Json:
    items = [i for i in sorted(indices_of(outcome.extent.items)) if i < len(group.items)]
    columns = [i for i in sorted(indices_of(outcome.extent.columns)) if i < len(group.columns)]
    return {
        "mode": str(outcome.mode),
        "items": len(items),
        "columns": [group.columns[i] for i in columns],
        "causes": [asdict(cause_form(cause)) for cause in outcome.causes],
        "needs": [asdict(need_form(need)) for need in outcome.needs],
        "obligations": [asdict(obligation_form(each)) for each in outcome.obligations],
    }


def _policy(
    core: Core, case: Case, counted: Mapping[bytes, AnyRecord], said: BundleWorking, group: ItemClass
) -> Json:
    """What one policy says, with the rules that fired: those of the epoch, then those of owners of inputs."""
    owners = (r for r in counted.values() if r.header.kind == "owner_policy")
    owner = next((r for r in owners if r.header.body.digest == said.bundle), None)
    of_epoch = any(bundle.digest == said.bundle for bundle in case.governance.bundles)
    record = core.holdings.with_body("policy", said.bundle) if of_epoch else owner
    return {
        "digest": said.bundle.hex(),
        "name": record.header.name if record is not None else "",
        "of": "epoch" if of_epoch else record.member if record is not None else "",
        "rules": sorted({cause.rule for cause in said.outcome.causes if cause.rule}),
    } | _outcome(said.outcome, group)


def _transitions(case: Case, counted: Mapping[bytes, AnyRecord], group: ItemClass) -> list[Json]:
    """What owners have signed to let the output go, or to let trust step down on the way to it."""
    intent, t = case.intent, case.ask.body.t
    found = transitions_for(group.asset, intent.body.purpose, counted, case.governance.epoch, t)
    return [
        {
            "transition": each.id.hex(),
            "member": each.member,
            "type": each.body.type,
            "tier_to": each.body.tier_to,
            "not_after": each.body.not_after,
        }
        for each in found
    ]


def _inputs_of(group: ItemClass) -> list[bytes]:
    return sorted({*group.inputs, *(i for item in group.items for i in item.inputs)})


def _input(case: Case, counted: Mapping[bytes, AnyRecord], actuation_id: bytes) -> Json:
    """One input: what governs it, by the word of those who permitted it, or why it is no lineage."""
    found = read_input(actuation_id, counted, case.governance.epochs)
    if isinstance(found, Finding):
        return {"actuation": actuation_id.hex(), "problem": _found(found)}
    made = found.actuation
    return {
        "actuation": actuation_id.hex(),
        "asset": made.body.asset,
        "partition": made.body.partition,
        "generation": made.body.generation,
        "member": made.member,
        "permit": made.body.permit.hex(),
        "state": plain(found.state),
        "problem": None,
    }
