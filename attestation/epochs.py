"""The epoch chain: from genesis to now, each link agreed on by those before it.

An epoch is the one thing that a quorum decides (docs/spec/epochs.md). `found` starts a chain, `succeed` goes
one link further; neither accepts a link that lowers the quorum, lists a key twice, or lacks a signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from comity.attestation.signing import SUITES, key_id, key_problem
from comity.attestation.verification import verify_epoch
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import VerificationError
from comity.protocol.governance import Epoch, Member, PublicKey
from comity.protocol.records import decode_body
from comity.protocol.verified import VerifiedRecord


def faults_tolerated(members: int) -> int:
    """f = floor((n-1)/3)."""
    return (members - 1) // 3


def quorum_of(members: int) -> int:
    """q = floor(2n/3)+1: n-f >= q, and two quorums share more than f members."""
    return 2 * members // 3 + 1


@dataclass(frozen=True, slots=True)
class EpochState:
    """A verified epoch, ready to be judged under.

    Attributes:
        id: the id of the epoch record, which asks and votes name.
        coalition: the id of the genesis record, which is also the id of a flat coalition's one scope.
        quorum: votes that a certificate needs.
        faults: liars or absentees that change nothing.
    """

    verified: VerifiedRecord[Epoch]
    coalition: bytes
    number: int
    quorum: int
    members: MappingProxyType[str, Member] = field(repr=False)

    @property
    def id(self) -> bytes:
        return self.verified.id

    @property
    def body(self) -> Epoch:
        return self.verified.body

    @property
    def faults(self) -> int:
        return min(faults_tolerated(len(self.members)), len(self.members) - self.quorum)

    @property
    def is_solo(self) -> bool:
        return len(self.members) == 1

    def writer_of(self, asset: str) -> str | None:
        """The member in whose namespace an asset lies."""
        domain = asset.split("/", 1)[0]
        for member in self.members.values():
            if domain in member.namespaces:
                return member.id
        return None

    def organization_keys(self, member: str) -> frozenset[bytes]:
        found = self.members.get(member)
        return frozenset(key_id(key) for key in found.keys) if found else frozenset()


def successor_of(epoch: EpochState, epochs: Mapping[bytes, EpochState]) -> EpochState | None:
    """The epoch of a chain that came after one, or None for the newest."""
    return next((other for other in epochs.values() if other.number == epoch.number + 1), None)


def found(record: SignedRecord) -> EpochState:
    """Verify a genesis: number 0, signed by every one of its members.

    Raises:
        VerificationError: `epoch_wrong`, `epoch_unsigned`, `key_duplicate`, `quorum_low`, ...
        DecodeError: not an epoch.
    """
    body = _epoch_body(record)
    if record.header.coalition is not None or record.header.number != 0 or body.previous is not None:
        raise VerificationError("epoch_wrong", "a genesis has number 0 and no predecessor", record.id)
    if body.certificate != "unanimous":
        raise VerificationError("epoch_wrong", "a genesis is signed by all of its members", record.id)
    verified = verify_epoch(record, _keys(body.members))
    _require_author(record, body.members)
    _require_all(record, body.members)
    _require_none_idle(record, body.members, ())
    return _state(verified, record.id)


def succeed(current: EpochState, record: SignedRecord) -> EpochState:
    """Verify the successor of an epoch: next number, its predecessor's id, signed by all old and new members.

    Raises:
        VerificationError, DecodeError: as `found`.
    """
    body = _epoch_body(record)
    if record.header.coalition != current.coalition:
        raise VerificationError("epoch_foreign", "an epoch of another coalition", record.id)
    if record.header.number != current.number + 1 or body.previous != current.id:
        raise VerificationError("epoch_wrong", f"not the successor of epoch {current.number}", record.id)
    if body.certificate != "unanimous":
        raise VerificationError(
            "epoch_wrong", "ballot certificates are not accepted in this version", record.id
        )
    if body.started < current.body.started:
        raise VerificationError("epoch_wrong", "starts before its predecessor", record.id)
    keys = {**_keys(current.body.members), **_keys(body.members)}
    verified = verify_epoch(record, keys)
    _require_author(record, current.body.members + body.members)
    _require_all(record, current.body.members)
    _require_all(record, body.members)
    _require_none_idle(record, current.body.members, body.members)
    return _state(verified, current.coalition)


def chain(records: tuple[SignedRecord, ...]) -> tuple[EpochState, ...]:
    """Verify a whole chain from its genesis.

    Raises:
        VerificationError, DecodeError: as `found` and `succeed`.
    """
    if not records:
        raise VerificationError("epoch_missing", "an epoch chain begins with a genesis")
    states = [found(records[0])]
    for record in records[1:]:
        states.append(succeed(states[-1], record))
    return tuple(states)


def signatures_missing(record: SignedRecord, members: tuple[Member, ...]) -> tuple[str, ...]:
    """The members that have not signed an epoch record yet."""
    signed = {signature.key for signature in record.signatures}
    return tuple(m.id for m in members if not signed & {key_id(key) for key in m.keys})


def epoch_problem(body: Epoch) -> tuple[str, str] | None:
    """Why an epoch may not stand, whoever signed it: a code and a sentence, or None."""
    members = body.members
    ids = [member.id for member in members]
    if ids != sorted(set(ids)):
        return "epoch_wrong", "members are not sorted and unique"
    seen: set[bytes] = set()
    domains: set[str] = set()
    for member in members:
        for key in member.keys:
            problem = key_problem(key)
            if problem is not None:
                return "key_inadmissible", f"{member.id}: {problem}"
            if key.suite not in body.suites:
                return "key_inadmissible", f"{member.id}: the epoch does not accept {key.suite}"
            if key_id(key) in seen:
                return "key_duplicate", f"{member.id} has a key that stands for another, too"
            seen.add(key_id(key))
        for domain in member.namespaces:
            if domain in domains:
                return "epoch_wrong", f"the namespace {domain} has two writers"
            domains.add(domain)
    if not set(body.suites) <= SUITES:
        return "suite_unknown", f"of the suites {', '.join(body.suites)} not all are known here"
    if body.quorum and not quorum_of(len(members)) <= body.quorum <= len(members):
        return "quorum_low", f"a quorum of {body.quorum} of {len(members)}"
    if body.council:
        return "epoch_wrong", "councils are not accepted in this version"
    if not set(body.publishers) <= set(ids):
        return "epoch_wrong", "a publisher of reference values is no member"
    return None


def _epoch_body(record: SignedRecord) -> Epoch:
    body: Any = decode_body(record)
    if not isinstance(body, Epoch):
        raise VerificationError("epoch_wrong", "not an epoch record", record.id)
    problem = epoch_problem(body)
    if problem is not None:
        raise VerificationError(problem[0], problem[1], record.id)
    return body


def _keys(members: tuple[Member, ...]) -> dict[bytes, PublicKey]:
    return {key_id(key): key for member in members for key in member.keys}


def _require_author(record: SignedRecord, members: tuple[Member, ...]) -> None:
    """The author that the header names is a member, with a key of its own that signed."""
    header = record.header
    own = {key_id(key) for member in members if member.id == header.member for key in member.keys}
    if header.authority is not None or header.key not in own & {s.key for s in record.signatures}:
        raise VerificationError("author_wrong", f"{header.member} has not signed as its author", record.id)


def _require_all(record: SignedRecord, members: tuple[Member, ...]) -> None:
    missing = signatures_missing(record, members)
    if missing:
        raise VerificationError("epoch_unsigned", f"not signed by {', '.join(missing)}", record.id)


def _require_none_idle(record: SignedRecord, old: tuple[Member, ...], new: tuple[Member, ...]) -> None:
    """No signature may be left out, so that a certificate has one form and no byte that nothing checks."""
    for signature in record.signatures:
        others = {s.key for s in record.signatures} - {signature.key}
        needed = any(
            not others & {key_id(key) for key in member.keys} for members in (old, new) for member in members
        )
        if not needed:
            raise VerificationError("epoch_wrong", "carries a signature that nobody needs", record.id)


def _state(verified: VerifiedRecord[Epoch], coalition: bytes) -> EpochState:
    members = MappingProxyType({member.id: member for member in verified.body.members})
    return EpochState(
        verified=verified,
        coalition=coalition,
        number=verified.header.number,
        quorum=verified.body.quorum or quorum_of(len(members)),
        members=members,
    )
