"""From a signed record to a verified one: the only place where `VerifiedRecord` is constructed.

A record verifies under a key that its author answers for: one of the organization's own keys (named by an
epoch), a node's (named by a certificate that the organization signed), or a person's or agent's (named by a
credential). Times are not looked at here; whether a certificate was in force at t is judged with the rest.

Spec: docs/spec/signatures.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from comity.attestation.signing import key_id, key_problem, verify_signature
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import RULES, contradict, contradicting
from comity.protocol.encoding import Form
from comity.protocol.envelope import (
    PAYLOAD_TYPE,
    Header,
    Signature,
    SignedRecord,
    pre_authentication_encoding,
)
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.governance import (
    OWNER_POLICY_NAME,
    Credential,
    Epoch,
    Member,
    NodeCertificate,
    OwnerPolicy,
    PublicKey,
)
from comity.protocol.identifiers import member_of
from comity.protocol.limits import INT_MAX
from comity.protocol.records import decode_body
from comity.protocol.verified import Role, VerifiedRecord


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that a member answers for, since when, until when, and by which of its own keys."""

    member: str
    key: PublicKey
    role: Role
    root_key: bytes
    valid_from: int = 0
    valid_until: int = INT_MAX


_ROLES: Final[dict[str, frozenset[Role]]] = {
    "members": frozenset({"members"}),
    "organization": frozenset({"organization"}),
    "node": frozenset({"node"}),
    "subject": frozenset({"subject"}),
    "any": frozenset({"organization", "node", "subject"}),
}


class KeyDirectory:
    """The keys that members answer for: their own from epochs, others by the record that vouches for them.

    It only grows: a key that was once named still verifies what it signed. Whether it counts at a time and
    under an epoch is judged elsewhere. Every query names its source, so the order of arrival never matters.
    """

    def __init__(self) -> None:
        self._own: dict[tuple[str, bytes], KnownKey] = {}
        self._vouched: dict[bytes, KnownKey] = {}

    def admit_members(self, members: tuple[Member, ...]) -> None:
        """Learn the organizations' own keys from an epoch that was verified."""
        for member in members:
            for key in member.keys:
                own = key_id(key)
                self._own[member.id, own] = KnownKey(member.id, key, "organization", own)

    def admit(self, verified: VerifiedRecord[Any]) -> None:
        """Learn the key that a verified node certificate or credential vouches for."""
        body = verified.body
        if isinstance(body, NodeCertificate | Credential):
            self._vouched[verified.id] = KnownKey(
                member=verified.member,
                key=body.key,
                role="node" if isinstance(body, NodeCertificate) else "subject",
                root_key=verified.root_key,
                valid_from=max(verified.valid_from, body.not_before),
                valid_until=min(verified.valid_until, body.not_after),
            )

    def find(self, header: Header) -> KnownKey | None:
        """The author's key, by the source that the header names."""
        if header.authority is None:
            return self._own.get((header.member, header.key))
        known = self._vouched.get(header.authority)
        if known is None or known.member != header.member or key_id(known.key) != header.key:
            return None
        return known

    def wants(self, record: SignedRecord) -> bytes | None:
        """The authority without which a record cannot be verified; None where all that it takes is held.

        A proof needs those of both records that it shows, too.
        """
        authority = record.header.authority
        if authority is not None and authority not in self._vouched:
            return authority
        return next((i for i in _authorities_shown(record) if i not in self._vouched), None)


def verify(record: SignedRecord, directory: KeyDirectory) -> VerifiedRecord[Any]:
    """Verify a record of any kind but an epoch under the keys of a directory.

    Raises:
        VerificationError: `key_unknown`, `signature_wrong`, `signatures_many`, `author_wrong`, `key_inadmissible`,
            `name_wrong`, `proof_wrong`.
        DecodeError: the body is not of the form of its kind.
    """
    header = record.header
    allowed = _ROLES[record.kind.signer]
    if len(record.signatures) != 1:
        raise VerificationError("signatures_many", f"{len(record.signatures)} where one is due", record.id)
    signature = record.signatures[0]
    if signature.key != header.key:
        raise VerificationError("author_wrong", "the signature's key is not the author's", record.id)
    known = directory.find(header)
    if known is None:
        raise VerificationError("key_unknown", f"{header.member} answers for no such key", record.id)
    if known.role not in allowed:
        detail = f"a {known.role} key signs no record of kind {header.kind}"
        raise VerificationError("author_wrong", detail, record.id)
    _require_signature(record, signature, known.key)
    body = decode_body(record)
    _require_names(record, body)
    if isinstance(body, Misbehaviour):
        _require_proof(record, body, directory)
    return VerifiedRecord(
        record=record,
        body=body,
        role=known.role,
        root_key=known.root_key,
        valid_from=known.valid_from,
        valid_until=known.valid_until,
    )


def verify_epoch(record: SignedRecord, keys: dict[bytes, PublicKey]) -> VerifiedRecord[Epoch]:
    """Verify every signature on an epoch record under the given keys. Who had to sign is `epochs`'s to say.

    Raises:
        VerificationError, DecodeError: as `verify`.
    """
    for signature in record.signatures:
        key = keys.get(signature.key)
        if key is None:
            raise VerificationError("key_unknown", "a signature by a key of no member", record.id)
        _require_signature(record, signature, key)
    body = decode_body(record)
    if not isinstance(body, Epoch):
        raise VerificationError("author_wrong", "not an epoch", record.id)
    return VerifiedRecord(record=record, body=body, role="members", root_key=record.header.key)


def _require_signature(record: SignedRecord, signature: Signature, key: PublicKey) -> None:
    if signature.suite != key.suite:
        raise VerificationError(
            "signature_wrong", "the signature is of another suite than its key", record.id
        )
    message = pre_authentication_encoding(PAYLOAD_TYPE, record.header_bytes)
    if not verify_signature(key, message, signature.value):
        raise VerificationError("signature_wrong", f"by {record.header.member}", record.id)


def _require_names(record: SignedRecord, body: Form) -> None:
    """Whoever names a key names one of its own, and the key is admissible; an owner policy has its one name."""
    if isinstance(body, OwnerPolicy) and record.header.name != OWNER_POLICY_NAME:
        detail = f"an owner policy is called {OWNER_POLICY_NAME}, not {record.header.name!r}"
        raise VerificationError("name_wrong", detail, record.id)
    if isinstance(body, NodeCertificate):
        named, key = body.node, body.key
    elif isinstance(body, Credential):
        named, key = body.subject, body.key
    else:
        return
    if member_of(named) != record.header.member:
        raise VerificationError("author_wrong", f"{record.header.member} speaks for {named}", record.id)
    problem = key_problem(key)
    if problem is not None:
        raise VerificationError("key_inadmissible", problem, record.id)


def _require_proof(record: SignedRecord, proof: Misbehaviour, directory: KeyDirectory) -> None:
    """Both records of a proof are genuine and contradict each other (docs/spec/accountability.md section 1).

    A rule of a later version is not looked into: the record is held, and shows nothing here.
    """
    kind = RULES.get(proof.rule)
    if kind is None:
        return
    try:
        said = contradicting(proof)
        if any(each.header.kind != kind or each.header.coalition != record.header.coalition for each in said):
            raise VerificationError("proof_wrong", f"{proof.rule} is shown by two records of kind {kind}")
        one, other = (verify(each, directory) for each in said)
    except (VerificationError, DecodeError) as exc:
        raise VerificationError("proof_wrong", str(exc), record.id) from exc
    if not contradict(one, other):
        raise VerificationError("proof_wrong", f"the two records are not {proof.rule}", record.id)
    if record.header.subject != tuple(sorted((one.id, other.id))):
        raise VerificationError("proof_wrong", "its subject is not the two records", record.id)


def _authorities_shown(record: SignedRecord) -> tuple[bytes, ...]:
    """The authorities over the keys of the records that a proof shows.

    None where it cannot be read: that is said when it is verified.
    """
    if record.header.kind != "misbehaviour":
        return ()
    try:
        body = decode_body(record)
        said = contradicting(body) if isinstance(body, Misbehaviour) else ()
    except DecodeError:
        return ()
    return tuple(each.header.authority for each in said if each.header.authority is not None)
