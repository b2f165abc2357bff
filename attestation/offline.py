"""Verification by a stranger: a bundle and the roots, nothing else.

Two levels. `signed`: every signature, chain, certificate and content rule checks. `re-judged`: moreover every
vote that the targets stand on was judged again from the bundle and came out equal to the byte.

Spec: docs/spec/bundle.md section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from comity.attestation.adverse import authorities_of_inputs
from comity.attestation.case import Case, Fault, Governance, Judgement
from comity.attestation.epochs import EpochState, chain, successor_of
from comity.attestation.findings import Finding
from comity.attestation.holdings import Holdings, require_rules
from comity.attestation.judgement import judge
from comity.attestation.lineage import actuation_problem
from comity.attestation.roots import Roots
from comity.attestation.speaking import links_above
from comity.attestation.tally import permit_problem, refusal_problem
from comity.attestation.voter import vote_body
from comity.protocol.accountability import Misbehaviour
from comity.protocol.bundle import Bundle, close, decode_bundle, governing_bodies
from comity.protocol.contradictions import Slot, accused_by, slot_of
from comity.protocol.encoding import encode
from comity.protocol.errors import DecodeError, LocalProtocolError, VerificationError
from comity.protocol.execution import Actuation, Ask, Intent, Permit, Refusal, Start, Vote
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Told: TypeAlias = Callable[[str, int, int], object]
"""Takes what is done, how many of them are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified.

    Attributes:
        level: `signed` or `re-judged`.
        why_not_rejudged: empty at the higher level.
        cosigned: whether the targets are included in checkpoints that a quorum cosigned. Never in this version.
        kinds: how many records of each kind.
        targets: what each target is: kind, asset, partition, outcome.
    """

    level: Literal["signed", "re-judged"]
    coalition: bytes
    epoch_number: int
    records: int
    votes_rejudged: int
    why_not_rejudged: str
    kinds: dict[str, int] = field(default_factory=dict[str, int])
    targets: tuple[dict[str, str], ...] = ()
    cosigned: bool = False


def _untold(stage: str, done: int, total: int) -> None:
    del stage, done, total


def verify_bundle(data: bytes, roots: Roots, engine: bytes, told: Told = _untold) -> Report:
    """Verify a bundle under roots.

    Args:
        engine: the id of the engine that would judge again; where the epochs do not name it the level is `signed`.
        told: is told what is done, and how much of it; for whoever waits. It changes nothing.

    Raises:
        DecodeError: no bundle.
        VerificationError: naming the record and the reason.
    """
    bundle = decode_bundle(data)
    epochs = _pinned_epochs(bundle, roots)
    told("verifying signatures", 0, len(bundle.records))
    holdings = _verified(bundle)
    held = _closure(bundle, holdings, epochs)
    _require_rules(held, epochs)
    carrying = _carrying(bundle.targets, held)
    certificates = _Certificates(held)
    for done, record_id in enumerate(sorted(carrying)):
        told("checking rules", done, len(carrying))
        _check(held[record_id], held, epochs, certificates)
    _check_slots(held, carrying)
    rejudged, why = _rejudge(held, carrying, holdings, epochs, engine, told)
    return Report(
        level="signed" if why else "re-judged",
        coalition=bundle.coalition,
        epoch_number=max(state.number for state in epochs.values()),
        records=len(held),
        votes_rejudged=rejudged,
        why_not_rejudged=why,
        kinds=dict(sorted(Counter(record.header.kind for record in held.values()).items())),
        targets=tuple(_describe(held[target]) for target in bundle.targets),
    )


def _pinned_epochs(bundle: Bundle, roots: Roots) -> dict[bytes, EpochState]:
    """The epoch chain, through the pin."""
    if bundle.epochs[0].id != bundle.coalition or bundle.coalition != roots.coalition:
        raise VerificationError(
            "roots_other", "the bundle is of another coalition than the roots", bundle.coalition
        )
    states = chain(bundle.epochs)
    if roots.epoch_number >= len(states):
        detail = f"the bundle ends at epoch {states[-1].number}, the roots pin epoch {roots.epoch_number}"
        raise VerificationError("pin_not_reached", detail, states[-1].id)
    if states[roots.epoch_number].id != roots.epoch:
        raise VerificationError("pin_missed", "the chain does not pass through the pin", states[-1].id)
    return {state.id: state for state in states}


def _verified(bundle: Bundle) -> Holdings:
    """All records, verified under the keys of the chain."""
    holdings = Holdings(engine=b"", examines=False)
    for record in bundle.epochs:
        holdings.adopt(record)
    # Who vouches for keys comes first, so that nothing has to wait for its authority.
    vouching = [r for r in bundle.records if r.header.kind in ("node_certificate", "credential")]
    admission = holdings.admit((*vouching, *bundle.records))
    if admission.rejected:
        record, problem = admission.rejected[0]
        if isinstance(problem, VerificationError):
            raise problem
        raise VerificationError("record_unreadable", str(problem), record.id)
    if admission.parked:
        waiting = min(record.id for record in admission.parked)
        raise VerificationError("authority_missing", "nobody vouches for its key", waiting)
    return holdings


def _closure(bundle: Bundle, holdings: Holdings, epochs: dict[bytes, EpochState]) -> dict[bytes, AnyRecord]:
    """The records, exactly those that the targets depend on."""
    held, missing = close(bundle.targets, holdings.peek)
    if missing:
        raise VerificationError("record_missing", "a target depends on it", missing[0])
    used = {record.body.epoch for record in held.values() if isinstance(record.body, Vote)}
    wanted = governing_bodies({i: state.body for i, state in epochs.items()}, used)
    queue: list[bytes] = []
    by_body = {(r.header.kind, r.header.body.digest): r.id for r in reversed(bundle.records)}  # smallest id
    for kind, digest in sorted(wanted):
        found = by_body.get((kind, digest))
        if found is None:
            raise VerificationError("record_missing", f"the epoch's {kind} {digest.hex()[:16]}")
        queue.append(found)
    governing, missing = close(queue, holdings.peek)
    if missing:
        raise VerificationError("record_missing", "a governing record depends on it", missing[0])
    held |= governing
    for record in bundle.records:
        if record.id not in held:
            raise VerificationError("record_foreign", "no target depends on it", record.id)
    if not used <= set(epochs):
        raise VerificationError("epoch_missing", "a vote names an epoch that is not in the chain")
    return held


def _require_rules(held: dict[bytes, AnyRecord], epochs: dict[bytes, EpochState]) -> None:
    """The rules of owners and of the epochs' policies compile. Before the closure it would be work for nothing."""
    named = {digest for state in epochs.values() for digest in state.body.policies}
    for record_id in sorted(held):
        record = held[record_id]
        if record.header.kind == "policy" and record.header.body.digest not in named:
            continue
        try:
            require_rules(record)
        except DecodeError as exc:
            raise VerificationError("record_unreadable", str(exc), record_id) from exc


def _carrying(targets: Iterable[bytes], held: dict[bytes, AnyRecord]) -> frozenset[bytes]:
    """The records that targets stand on, so that they have to be right themselves.

    What an ask relied on, and what a vote held against it, was weighed and may be wrong: that can be why a target
    is a refusal.
    """
    carrying: set[bytes] = set()
    ahead = list(targets)
    while ahead:
        record_id = ahead.pop()
        if record_id not in carrying:
            carrying.add(record_id)
            ahead += _stands_on(held[record_id], held)
    return frozenset(carrying)


def _stands_on(record: AnyRecord, held: dict[bytes, AnyRecord]) -> tuple[bytes, ...]:
    body = record.body
    match body:
        case Permit():
            return (*body.votes, *_inputs_of(body, held))
        case Refusal():
            return body.votes
        case Start():
            return (body.permit,)
        case Actuation():
            return (body.permit, body.start, *body.inputs)
        case _:
            return ()


def _inputs_of(permit: Permit, held: dict[bytes, AnyRecord]) -> tuple[bytes, ...]:
    """The inputs of the classes that a permit claims, as far as its ask relied on them."""
    intent, ask = held[permit.intent].body, held[permit.ask].body
    if not isinstance(intent, Intent) or not isinstance(ask, Ask):
        return ()
    classes = [intent.classes[c.index] for c in permit.claims if c.index < len(intent.classes)]
    named = {i for group in classes for i in group.inputs}
    named |= {i for group in classes for item in group.items for i in item.inputs}
    return tuple(named.intersection(ask.relied))


def _raise(problem: Finding | None, record: AnyRecord) -> None:
    if problem is not None:
        parameters = ", ".join(f"{k}={v}" for k, v in sorted(problem.cause.parameters.items()))
        raise VerificationError(problem.cause.code, parameters or record.header.kind, record.id)


class _Certificates:
    """Permits against the records of one bundle, each looked at once: for itself and for what was made under it."""

    def __init__(self, held: Mapping[bytes, AnyRecord]) -> None:
        self._held = held
        self._found: dict[tuple[bytes, bytes], Finding | None] = {}

    def problem(
        self,
        permit: VerifiedRecord[Permit],
        intent: VerifiedRecord[Intent],
        held: Mapping[bytes, AnyRecord],
        epoch: EpochState,
        successor: EpochState | None,
    ) -> Finding | None:
        """As `permit_problem`. The permit names its epoch, and in one chain that has one successor."""
        if held is not self._held:
            raise LocalProtocolError("certificates of another bundle")
        which = (permit.id, intent.id)
        if which not in self._found:
            self._found[which] = permit_problem(permit, intent, held, epoch, successor)
        return self._found[which]


def _check(
    record: AnyRecord,
    held: dict[bytes, AnyRecord],
    epochs: dict[bytes, EpochState],
    certificates: _Certificates,
) -> None:
    """The rules of a record's kind, against the records that it depends on."""
    body = record.body
    match body:
        case Permit() | Refusal():
            epoch = epochs.get(body.epoch)
            intent = held[body.intent]
            ask = held[body.ask]
            if epoch is None or not isinstance(intent.body, Intent) or not isinstance(ask.body, Ask):
                raise VerificationError("permit_wrong", "names no intent, ask or epoch", record.id)
            if ask.body.intent != intent.id or ask.body.t != body.t or ask.member != intent.member:
                raise VerificationError("ask_mixed", "the ask is not about the intent", record.id)
            if isinstance(body, Permit):
                successor = successor_of(epoch, epochs)
                _raise(certificates.problem(record, intent, held, epoch, successor), record)
            else:
                _raise(refusal_problem(record, intent, held, epoch), record)
        case Start():
            permit = held[body.permit]
            if not isinstance(permit.body, Permit) or permit.member != record.member:
                raise VerificationError("start_foreign", "under a permit of another", record.id)
            if permit.body.intent != body.intent:
                raise VerificationError("start_foreign", "under a permit of another intent", record.id)
            if record.header.at >= permit.body.expires:
                raise VerificationError("permit_expired", "started after the permit's end", record.id)
        case Actuation():
            _check_actuation(record, held, epochs, certificates)
        case _:
            pass


def _check_actuation(
    record: AnyRecord,
    held: dict[bytes, AnyRecord],
    epochs: dict[bytes, EpochState],
    certificates: _Certificates,
) -> None:
    body = record.body
    permit, intent = held[body.permit], held[body.intent]
    _raise(actuation_problem(record, permit, intent, held, epochs, certificates.problem), record)
    for input_id in body.inputs:
        found = held[input_id]
        if not isinstance(found.body, Actuation) or found.header.outcome != "promoted":
            raise VerificationError("input_not_promoted", "names an input that is none", record.id)


def _check_slots(held: dict[bytes, AnyRecord], carrying: frozenset[bytes]) -> None:
    """Two promoted actuations of one slot contradict each other; neither is lineage."""
    slots: dict[Slot, bytes] = {}
    for record_id in sorted(carrying):
        slot = slot_of(held[record_id])
        if slot is not None and slots.setdefault(slot, record_id) != record_id:
            raise VerificationError("slot_twice", f"as record {slots[slot].hex()[:16]}", record_id)


def _rejudge(
    held: dict[bytes, AnyRecord],
    carrying: frozenset[bytes],
    holdings: Holdings,
    epochs: dict[bytes, EpochState],
    engine: bytes,
    told: Told,
) -> tuple[int, str]:
    """Judge every vote that the targets stand on again. Returns how many, and why not if not."""
    compiled: dict[bytes, Governance] = {}
    count = 0
    votes = [held[i] for i in sorted(carrying) if isinstance(held[i].body, Vote)]
    for vote in votes:
        told("judging votes again", count, len(votes))
        if vote.body.engine != engine:
            return count, "judged by an engine that is not this one"
        governance = compiled.get(vote.body.epoch)
        if governance is None:
            governance = holdings.governance_at(epochs[vote.body.epoch], engine)
            if governance is None:
                raise VerificationError("record_missing", "taxonomy or policy of its epoch", vote.id)
            compiled[vote.body.epoch] = governance
        _rejudge_vote(vote, held, governance)
        count += 1
    return count, ""


def case_of(vote: VerifiedRecord[Vote], held: dict[bytes, AnyRecord], governance: Governance) -> Case:
    """The case that a vote was cast on, from the records of a bundle."""
    ask = held[vote.body.ask]
    relied = {i: held[i] for i in ask.body.relied if i != vote.body.intent}
    authorities = {r.authority for r in (held[vote.body.intent], ask, *relied.values())}
    authorities |= {i for under in authorities_of_inputs(relied, held.get).values() for i in under}
    against = tuple(held[i] for i in vote.body.adverse)
    return Case(
        governance=governance,
        intent=held[vote.body.intent],
        ask=ask,
        relied=relied,
        candidates=against,
        known={i: held[i] for i in authorities if i is not None and i in held},
        links=links_above((*against, *relied.values()), held.get),
    )


def read_unpinned(data: bytes) -> tuple[dict[bytes, AnyRecord], dict[bytes, Governance]]:
    """The records of a bundle that is trusted by other means, verified, and the governance of its epochs.

    Raises:
        DecodeError, VerificationError: as `verify_bundle`.
    """
    bundle = decode_bundle(data)
    epochs = {state.id: state for state in chain(bundle.epochs)}
    holdings = _verified(bundle)
    held = _closure(bundle, holdings, epochs)
    compiled = {i: holdings.governance_at(state, b"") for i, state in epochs.items()}
    return held, {i: governance for i, governance in compiled.items() if governance is not None}


def _rejudge_vote(vote: VerifiedRecord[Vote], held: dict[bytes, AnyRecord], governance: Governance) -> None:
    if not isinstance(held[vote.body.intent].body, Intent) or not isinstance(held[vote.body.ask].body, Ask):
        raise VerificationError("vote_wrong", "it names no intent, or no ask", vote.id)
    case = case_of(vote, held, governance)
    judgement = judge(case)
    if isinstance(judgement, Fault):
        raise VerificationError("judgement_fault", judgement.code, vote.id)
    differs = differences(case, judgement, vote)
    if differs:
        raise VerificationError(
            "judgement_differs", f"in {', '.join(differs)} of {vote.member}'s vote", vote.id
        )


def differences(case: Case, judgement: Judgement, vote: VerifiedRecord[Vote]) -> tuple[str, ...]:
    """The fields in which a signed vote is not, to the byte, what a judgement of its case says."""
    body = vote_body(case, judgement)
    return tuple(
        name
        for name in ("judgements", "adverse", "working", "expires", "engine", "epoch", "scope")
        if _bytes_of(getattr(body, name)) != _bytes_of(getattr(vote.body, name))
    )


def _bytes_of(value: Any) -> bytes:
    return encode({"value": value})


def _describe(record: AnyRecord) -> dict[str, str]:
    body = record.body
    described = {"id": record.id.hex(), "kind": record.header.kind, "member": record.member}
    if isinstance(body, Actuation):
        described |= {"asset": body.asset, "partition": body.partition}
    if isinstance(body, Misbehaviour):
        described |= {"rule": body.rule, "accused": ", ".join(sorted(accused_by(body)))}
    if record.header.outcome is not None:
        described["outcome"] = record.header.outcome
    return described
