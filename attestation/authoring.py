"""Writing records in somebody's name.

Salts are derived, not drawn: an HMAC under a secret of the author over what is said. The same author saying
the same thing at the same time writes the same record, so repeating is harmless and a simulation repeats to
the byte, while nobody else can predict or test a salt.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

import msgspec

from comity.attestation.signing import Signer, sign_record
from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.encoding import Form, encode
from comity.protocol.envelope import Header, SignedRecord, body_reference
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import PRODUCTION
from comity.protocol.kinds import KINDS
from comity.protocol.limits import SALT_BYTES
from comity.protocol.verified import VerifiedRecord

NO_SALT = bytes(SALT_BYTES)
"""What a body carries until it is written: `Author.write` puts the real salt in its place."""


@dataclass(frozen=True, slots=True)
class Author:
    """An organization and one of its keys, with what is needed to write in their name.

    Attributes:
        authority: the node certificate or credential that vouches for the key; None for the organization's own.
        salt_key: a secret of at least 32 bytes.
        coalition: the genesis id; None only to write a genesis.
    """

    member: str
    signer: Signer
    salt_key: bytes = field(repr=False)
    authority: bytes | None = None
    coalition: bytes | None = None

    def write(
        self,
        kind: str,
        body: Form,
        at: int,
        *,
        subject: tuple[bytes, ...] = (),
        outcome: str | None = None,
        name: str = "",
        number: int = 0,
        realm: str = PRODUCTION,
        governance: GovernanceState | None = None,
    ) -> SignedRecord:
        """Sign one record. `body` carries `NO_SALT` as its salt.

        Raises:
            LocalProtocolError, DecodeError: header or body are not of the form of the kind.
        """
        header = self._header(kind, at, realm, subject, outcome, name, number, governance)
        salt = hmac.digest(self.salt_key, encode(header) + encode(body), "sha256")
        return self._sign(header, encode(msgspec.structs.replace(body, salt=salt)))

    def write_exact(self, kind: str, body: Form, at: int, *, name: str = "", number: int = 0) -> SignedRecord:
        """Sign a record whose body has its salt already: what an epoch names by the digest of its body."""
        header = self._header(kind, at, PRODUCTION, (), None, name, number, None)
        return self._sign(header, encode(body))

    def _sign(self, header: Header, body_bytes: bytes) -> SignedRecord:
        return sign_record(
            msgspec.structs.replace(header, body=body_reference(body_bytes)), body_bytes, self.signer
        )

    def _header(
        self,
        kind: str,
        at: int,
        realm: str,
        subject: tuple[bytes, ...],
        outcome: str | None,
        name: str,
        number: int,
        governance: GovernanceState | None,
    ) -> Header:
        return Header(
            v=1,
            kind=KINDS[kind].name,
            member=self.member,
            key=self.signer.key_id,
            at=at,
            realm=realm,
            body=body_reference(b""),
            authority=self.authority,
            coalition=self.coalition,
            scopes=(self.coalition,) if self.coalition is not None else (),
            name=name,
            number=number,
            subject=tuple(sorted(set(subject))),
            outcome=outcome,
            governance=governance,
        )

    def write_verified(
        self, directory: KeyDirectory, kind: str, body: Form, at: int, **header: Any
    ) -> VerifiedRecord[Any]:
        """As `write`, verified like anybody's: a node trusts its own records no more than others'."""
        return verify(self.write(kind, body, at, **header), directory)
