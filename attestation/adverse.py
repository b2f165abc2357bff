"""Adverse records: what counts against an ask as soon as a voter holds it.

An adverse record counts only if its author is entitled to it for that subject: whoever issued or delegated a
credential revokes it; the writer, an owner, or an observer that policy names reports a failed check.
Misbehaviour proves itself. So one liar's invented failure blocks nobody.

Spec: docs/spec/decision.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comity.attestation.findings import Finding, refuse
from comity.attestation.signing import key_id
from comity.protocol.execution import Actuation
from comity.protocol.governance import Credential, OwnerPolicy
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX
from comity.protocol.state import number_key
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


@dataclass(frozen=True, slots=True)
class Adverse:
    """The effect of the adverse records that count.

    Attributes:
        ids: the records, sorted; the vote names them.
        struck: records that no longer count, with the code that says why.
        against: findings by the id that they concern: the intent or one of its inputs.
        added: records that take the place of others that were named.
    """

    ids: tuple[bytes, ...] = ()
    struck: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    against: Mapping[bytes, tuple[Finding, ...]] = field(default_factory=dict[bytes, tuple[Finding, ...]])
    added: Mapping[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])


NOTHING = Adverse()


def concerned_ids(intent: AnyRecord, relied: Mapping[bytes, AnyRecord]) -> frozenset[bytes]:
    """The ids that an adverse record must name to concern an ask: what it relies on, and who vouches for that."""
    authorities = {r.authority for r in (intent, *relied.values()) if r.authority is not None}
    return frozenset({intent.id, *relied, *authorities})


def weigh_adverse(
    candidates: Iterable[AnyRecord],
    intent: AnyRecord,
    relied: Mapping[bytes, AnyRecord],
    known: Mapping[bytes, AnyRecord],
    observers: frozenset[str],
) -> Adverse:
    """Sort out which candidates count, and what they do.

    Args:
        candidates: adverse records, rivals and successors that the voter holds.
        known: further records by id (authorities that the ask need not name).
        observers: members whose failed checks policy admits for assets that are not theirs.
    """
    everything = {**known, **relied, intent.id: intent}
    concerned = concerned_ids(intent, relied)
    ids: list[bytes] = []
    struck: dict[bytes, str] = {}
    against: dict[bytes, tuple[Finding, ...]] = {}
    added: dict[bytes, AnyRecord] = {}
    for record in sorted({r.id: r for r in candidates}.values(), key=lambda r: r.id):
        if len(ids) == ADVERSE_PER_VOTE_MAX:
            break
        effect = _replacement(record, relied)
        if effect is not None:
            struck.update(effect)
            if record.id not in relied:
                ids.append(record.id)
                if "superseded" in effect.values():
                    added[record.id] = record
            continue
        if not record.is_adverse():
            continue
        hit = False
        for subject in record.header.subject:
            target = everything.get(subject)
            if subject not in concerned or target is None:
                continue
            if record.header.kind in ("revocation", "suspension"):
                if _may_revoke(record, target, everything):
                    code = "revoked" if record.header.kind == "revocation" else "suspended"
                    struck[subject] = code
                    hit = True
            elif _may_report(record, target, observers):
                code = f"{record.header.kind}_{record.header.outcome}"
                finding = refuse(code, member=record.member)
                against[subject] = (*against.get(subject, ()), finding)
                hit = True
        if hit:
            ids.append(record.id)
    return Adverse(tuple(ids), struck, against, added)


def _replacement(record: AnyRecord, relied: Mapping[bytes, AnyRecord]) -> dict[bytes, str] | None:
    """Records that a rival or successor strikes: equal numbers strike both, a higher owner policy the lower."""
    if record.is_adverse():
        return None
    struck: dict[bytes, str] = {}
    key = number_key(record)
    for other in relied.values():
        if other.id == record.id:
            continue
        if key is not None and number_key(other) == key:
            struck[other.id] = "rivalled"
            struck[record.id] = "rivalled"
        elif (
            isinstance(record.body, OwnerPolicy)
            and isinstance(other.body, OwnerPolicy)
            and other.member == record.member
            and other.header.name == record.header.name
            and record.header.number > other.header.number
        ):
            struck[other.id] = "superseded"
    return struck or None


def _may_revoke(record: AnyRecord, target: AnyRecord, everything: Mapping[bytes, AnyRecord]) -> bool:
    """The organization itself, the key that signed the target, or a key above it in its chain."""
    if record.member != target.member:
        return False
    if record.role == "organization" or record.header.key == target.header.key:
        return True
    above = target.authority
    while above is not None:
        link = everything.get(above)
        if link is None:
            return False
        if isinstance(link.body, Credential) and key_id(link.body.key) == record.header.key:
            return True
        above = link.authority
    return False


def _may_report(record: AnyRecord, target: AnyRecord, observers: frozenset[str]) -> bool:
    """The writer, an owner of the data, or an observer that policy names."""
    entitled = {target.member} | observers
    state = target.header.governance
    if isinstance(target.body, Actuation) and state is not None:
        entitled |= set(state.owners)
    return record.member in entitled
