"""Adverse records: what counts against an ask as soon as a voter holds it.

An adverse record counts only if its author is entitled to it for that subject: whoever issued or delegated a
credential revokes it; the writer, an owner, or an observer that policy names reports a failed check.
Misbehaviour proves itself. So one liar's invented failure blocks nobody.

Spec: docs/spec/decision.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from comity.attestation.findings import Finding, refuse, short
from comity.attestation.signing import key_id
from comity.attestation.speaking import Speakers, credentials_above, is_report, may_report, way_up
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import slot_of
from comity.protocol.execution import Actuation, Intent, Observation
from comity.protocol.governance import Credential, OwnerPolicy, Suspension
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX, CHAIN_MAX
from comity.protocol.state import ORGANIZATION, number_key
from comity.protocol.tickets import is_second_run, ticket_named
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

_CARRIES: Final = frozenset({"attestation", "credential", "launch_ticket", "observation"})
"""Kinds that fall with the authority over their key. Certificates and lineage do not: what was decided and done
under a key that was in force stands, and is marked where it is used next (docs/spec/decision.md section 3)."""


_REVOCABLE: Final = _CARRIES | {
    "intent",
    "node_certificate",
    "owner_policy",
    "reference_values",
    "transition",
    "verification",
}
"""Kinds that can be taken back. A vote that was cast, a permit, a start and what was made cannot: a voter that
revoked its old votes would else make all that rests on them unusable."""


_TAKING_BACK: Final = frozenset({"revocation", "suspension"})

ANCESTOR_FAILED: Final = "ancestor_failed"
"""Claim of a report that marks what was made: what it was made from was found wrong since."""


@dataclass(frozen=True, slots=True)
class Adverse:
    """The effect of the adverse records that count.

    Attributes:
        ids: the records, sorted; the vote names them.
        struck: records that no longer count, with the code that says why.
        against: findings by the id that they concern: the intent or one of its inputs.
        added: records that take the place of others that were named.
        overflows: more count than a vote can name. Whoever relies on that much that was taken back is refused.
        marked: intents of what was made before, whose authority was taken back since; and what was made from something
            that was found wrong since. What was made stands.
    """

    ids: tuple[bytes, ...] = ()
    struck: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    against: Mapping[bytes, tuple[Finding, ...]] = field(default_factory=dict[bytes, tuple[Finding, ...]])
    added: Mapping[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])
    overflows: bool = False
    marked: frozenset[bytes] = frozenset()

    def counts(self) -> bool:
        return bool(self.ids or self.struck or self.against or self.marked)


NOTHING = Adverse()


def concerned_ids(records: Iterable[AnyRecord], intent: AnyRecord, ask: AnyRecord | None) -> frozenset[bytes]:
    """The ids that an adverse record must name to concern an ask.

    They are what it relies on, the intent, the ask, and the authorities over the keys of those that fall with
    their authority.
    """
    concerned = {record.id for record in records}
    authorities = {
        record.authority
        for record in records
        if record.authority is not None and record.header.kind in _CARRIES
    }
    for record in (intent, ask):
        if record is not None:
            concerned.add(record.id)
            if record.authority is not None:
                authorities.add(record.authority)
    return frozenset(concerned | authorities)


@dataclass(slots=True)
class _Effects:
    """The effect of adverse records, in the making."""

    ids: list[bytes] = field(default_factory=list[bytes])
    struck: dict[bytes, str] = field(default_factory=dict[bytes, str])
    against: dict[bytes, tuple[Finding, ...]] = field(default_factory=dict[bytes, tuple[Finding, ...]])
    added: dict[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])
    marked: set[bytes] = field(default_factory=set[bytes])


def authorities_of_inputs(
    relied: Mapping[bytes, AnyRecord], find: Callable[[bytes], AnyRecord | None]
) -> dict[bytes, dict[bytes, AnyRecord]]:
    """By each intent that is relied on: the certificate over its key, its credential and those above, as far as held.

    Under these was made what is read now. Where one is taken back, that is marked.
    """
    under: dict[bytes, dict[bytes, AnyRecord]] = {}
    for record in relied.values():
        if not isinstance(record.body, Intent):
            continue
        named = (record.body.credential, record.authority)
        first = [held for i in named if i is not None and (held := find(i)) is not None]
        under[record.id] = {each.id: each for each in first} | credentials_above(first, find)
    return under


def weigh_adverse(
    candidates: Iterable[AnyRecord],
    intent: AnyRecord,
    ask: AnyRecord | None,
    relied: Mapping[bytes, AnyRecord],
    known: Mapping[bytes, AnyRecord],
    speakers: Speakers,
) -> Adverse:
    """Sort out which candidates count, and what they do.

    Args:
        candidates: adverse records, rivals and successors that the voter holds, and what takes them back.
        known: further records by id (authorities that the ask need not name).
        speakers: by what reports are measured.
    """
    everything = {**known, **relied, intent.id: intent}
    if ask is not None:
        everything[ask.id] = ask
    concerned = concerned_ids(relied.values(), intent, ask)
    effects = _Effects()
    places = _Places(relied.values())
    under = authorities_of_inputs(relied, everything.get)
    # The relied among themselves too: whoever judges again sees those pairs.
    whole = {**{r.id: r for r in candidates}, **relied}
    t = ask.body.t if ask is not None else None
    silent = _taken_back(whole, relied, speakers.links, t)
    ordered = [whole[i] for i in sorted(whole) if i not in silent]
    fallen: frozenset[bytes] = frozenset()
    # Reports last: what was taken back, or rests on what has fallen by then, is said no more.
    for reporting in (False, True):
        for record in ordered:
            if is_report(record) is not reporting or record.id in fallen:
                continue
            if record.id not in relied and len(effects.ids) == ADVERSE_PER_VOTE_MAX:
                # What the vote cannot name has no effect either: whoever judges again sees only what it names.
                continue
            if isinstance(record.body, Misbehaviour):
                hit = _prove(record, relied, ask, effects)
            elif record.is_adverse():
                hit = _count(record, concerned, everything, speakers, effects, t)
                hit = _mark(record, under, everything, effects, t) or hit
            elif isinstance(record.body, Intent):
                hit = _second_run(record, intent, relied, effects)
            else:
                hit = places.effect_of(record, effects)
            if hit and record.id not in relied:
                effects.ids.append(record.id)
        if not reporting:
            _strike_below(relied.values(), effects.struck)
            fallen = frozenset(effects.struck)
    overflows = len(effects.ids) >= ADVERSE_PER_VOTE_MAX
    return Adverse(
        tuple(sorted(effects.ids)),
        effects.struck,
        effects.against,
        effects.added,
        overflows,
        frozenset(effects.marked),
    )


def _taken_back(
    whole: Mapping[bytes, AnyRecord],
    relied: Mapping[bytes, AnyRecord],
    links: Mapping[bytes, AnyRecord],
    t: int | None,
) -> frozenset[bytes]:
    """The reports among the candidates that were taken back, or whose author's authority was.

    They have no effect and are named by nobody, so whoever judges again misses neither them nor what took them back.
    What took back a report that the ask itself names is named, for it strikes that.
    """
    about: dict[bytes, list[AnyRecord]] = {}
    for record in whole.values():
        if record.header.kind in _TAKING_BACK:
            for subject in record.header.subject:
                about.setdefault(subject, []).append(record)
    silent: set[bytes] = set()
    for record_id, record in whole.items() if about else ():
        if record_id in relied or not is_report(record):
            continue
        way = way_up(record, links)
        if any(takes_back(said, step, links, t) for step in way for said in about.get(step.id, ())):
            silent.add(record_id)
    return frozenset(silent)


def _number_of(record: AnyRecord) -> object | None:
    """What numbers order: governance. A name that a voter gives its votes makes them no rivals."""
    return number_key(record) if record.record.kind.log == "governance" else None


class _Places:
    """What may stand there only once: numbered records, slots, and the newest owner policy of a name."""

    def __init__(self, relied: Iterable[AnyRecord]) -> None:
        self._numbered: dict[object, list[AnyRecord]] = {}
        self._policies: dict[tuple[str, str], list[AnyRecord]] = {}
        for record in relied:
            for key in (_number_of(record), slot_of(record)):
                if key is not None:
                    self._numbered.setdefault(key, []).append(record)
            if isinstance(record.body, OwnerPolicy):
                self._policies.setdefault((record.member, record.header.name), []).append(record)

    def effect_of(self, record: AnyRecord, effects: _Effects) -> bool:
        """Equal numbers and equal slots strike both; a higher owner policy strikes the lower and takes its place."""
        hit = False
        for key, code in ((_number_of(record), "rivalled"), (slot_of(record), "slot_twice")):
            for other in self._numbered.get(key, ()) if key is not None else ():
                if other.id != record.id:
                    effects.struck[other.id] = effects.struck[record.id] = code
                    hit = True
        if isinstance(record.body, OwnerPolicy):
            for other in self._policies.get((record.member, record.header.name), ()):
                if other.header.number < record.header.number:
                    effects.struck.setdefault(other.id, "superseded")
                    effects.added[record.id] = record
                    hit = True
        return hit


def _count(
    record: AnyRecord,
    concerned: frozenset[bytes],
    everything: Mapping[bytes, AnyRecord],
    speakers: Speakers,
    effects: _Effects,
    t: int | None,
) -> bool:
    """What one adverse record does to the records that it names, where its author is entitled to it."""
    hit = False
    for subject in record.header.subject:
        target = everything.get(subject)
        if subject not in concerned or target is None:
            continue
        if record.header.kind in _TAKING_BACK:
            # What is said once more has no effect, so nobody makes a decision overflow by saying it often.
            code = "revoked" if record.header.kind == "revocation" else "suspended"
            if effects.struck.get(subject) not in (code, "revoked") and takes_back(
                record, target, everything, t
            ):
                effects.struck[subject] = code
                hit = True
        elif record.header.outcome is not None and may_report(record, target, speakers):
            if isinstance(target.body, Observation):
                effects.struck[subject] = record.header.outcome
            elif is_mark(record, target):
                # Said once more it has no effect, so nobody makes a decision overflow by it.
                hit = hit or subject not in effects.marked
                effects.marked.add(subject)
                continue
            else:
                finding = refuse(f"{record.header.kind}_{record.header.outcome}", member=record.member)
                effects.against[subject] = (*effects.against.get(subject, ()), finding)
            hit = True
    return hit


def is_mark(report: AnyRecord, target: AnyRecord) -> bool:
    """Whether a report says no more of what was made than that its input was found wrong since."""
    says = isinstance(report.body, Observation) and report.body.claim == ANCESTOR_FAILED
    return says and isinstance(target.body, Actuation)


def _mark(
    record: AnyRecord,
    under: Mapping[bytes, Mapping[bytes, AnyRecord]],
    everything: Mapping[bytes, AnyRecord],
    effects: _Effects,
    t: int | None,
) -> bool:
    """Mark what was made under an authority that this record takes back, and is not marked yet."""
    subjects = frozenset(record.header.subject)
    hit = {
        intent
        for intent, authorities in under.items()
        if intent not in effects.marked
        and any(takes_back(record, authorities[i], everything, t) for i in subjects & authorities.keys())
    }
    effects.marked |= hit
    return bool(hit)


def _prove(
    proof: VerifiedRecord[Misbehaviour],
    relied: Mapping[bytes, AnyRecord],
    ask: AnyRecord | None,
    effects: _Effects,
) -> bool:
    """What a proof does to the records that it shows. It verified with both, so it needs no trust in its author.

    Votes are no evidence for an ask, and what a certificate carries stays: two votes speak against who cast them, and
    are looked at before the work begins (docs/spec/decision.md section 7). Of several proofs of one thing the first
    has the effect.
    """
    hit = False
    for subject in proof.header.subject:
        target = relied.get(subject)
        if proof.body.rule == "two_actuations" and target is not None and slot_of(target) is not None:
            hit = hit or effects.struck.get(subject) != "slot_twice"
            effects.struck[subject] = "slot_twice"
        elif proof.body.rule == "two_asks" and ask is not None and subject == ask.id:
            finding = refuse("asked_twice", member=ask.member)
            told = effects.against.get(ask.body.intent, ())
            if finding not in told:
                effects.against[ask.body.intent] = (*told, finding)
                hit = True
    return hit


def _second_run(
    record: VerifiedRecord[Intent], intent: AnyRecord, relied: Mapping[bytes, AnyRecord], effects: _Effects
) -> bool:
    """What another run under a ticket that is for one run does to an intent under it. Once is enough."""
    ticket = relied.get(ticket_named(intent) or b"")
    told = effects.against.get(intent.id, ())
    if ticket is None or not is_second_run(intent, record, ticket):
        return False
    if any(finding.cause.code == "ticket_used" for finding in told):
        return False
    finding = refuse("ticket_used", ticket=short(ticket.id), run=record.body.run.run)
    effects.against[intent.id] = (*told, finding)
    return True


def _strike_below(relied: Iterable[AnyRecord], struck: dict[bytes, str]) -> None:
    """What falls with its authority falls with every authority above it."""
    records = [r for r in relied if r.authority is not None and r.header.kind in _CARRIES]
    for _ in range(CHAIN_MAX + 1):
        fallen = [r for r in records if r.id not in struck and r.authority in struck]
        if not fallen:
            return
        for record in fallen:
            struck[record.id] = struck[record.authority or b""]


def may_take_back(target: AnyRecord, links: Mapping[bytes, AnyRecord]) -> frozenset[tuple[str, bytes]]:
    """Whose keys may take a record back: members, each with the id of a key, or `ORGANIZATION` for its own.

    Args:
        links: records by id, among them the target's chain.
    """
    keys = {ORGANIZATION, target.header.key}
    above = target.authority
    while above is not None and (link := links.get(above)) is not None:
        if isinstance(link.body, Credential):
            keys.add(key_id(link.body.key))
        above = link.authority
    return frozenset((target.member, key) for key in keys)


def takes_back(
    record: AnyRecord, target: AnyRecord, everything: Mapping[bytes, AnyRecord], t: int | None
) -> bool:
    """Whether a record revokes another that it names, or suspends it at t, and may.

    Who may: the organization itself, the key that signed the target, or a key above it in its chain.

    Args:
        everything: records by id, among them the target's chain.
        t: None where no time is asked about: a suspension that ends somewhen counts.
    """
    if record.header.kind not in _TAKING_BACK or target.header.kind not in _REVOCABLE:
        return False
    if isinstance(record.body, Suspension) and t is not None and t >= record.body.until:
        return False
    if target.id not in record.header.subject or record.member != target.member:
        return False
    signer = ORGANIZATION if record.role == "organization" else record.header.key
    return (record.member, signer) in may_take_back(target, everything)
