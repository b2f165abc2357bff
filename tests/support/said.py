"""Records for tests of what keeps or carries them: signed, well-formed, and of no meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from comity.attestation.signing import SigningKey, sign_record
from comity.protocol.encoding import encode
from comity.protocol.envelope import Header, SignedRecord, body_reference
from comity.protocol.governance import Epoch, Member
from comity.protocol.identifiers import sha256

MEMBER = "clinic-north.example"
KEY = SigningKey.from_seed(b"\x01" * 32)
COALITION = sha256(b"coalition")


def say(
    kind: str,
    text: str = "",
    *,
    subject: Iterable[bytes] = (),
    coalition: bytes | None = COALITION,
    key: SigningKey = KEY,
    **header: Any,
) -> SignedRecord:
    """A record whose body is just `text`: equal arguments give equal bytes."""
    body = text.encode() or b"-"
    fields: dict[str, Any] = {"member": MEMBER, "at": 1_000, "realm": "production", **header}
    return sign_record(
        Header(
            v=1,
            kind=kind,
            key=key.key_id,
            body=body_reference(body),
            coalition=coalition,
            subject=tuple(sorted(subject)),
            **fields,
        ),
        body,
        key,
    )


def epoch_body(members: Iterable[tuple[str, SigningKey]], *, previous: bytes | None = None) -> Epoch:
    """An epoch of members with one key each."""
    return Epoch(
        salt=b"\x05" * 32,
        coalition_name="lung",
        started=1_000,
        certificate="unanimous",
        members=tuple(
            Member(id=name, keys=(key.public,), namespaces=(name,)) for name, key in sorted(members)
        ),
        suites=("ed25519",),
        engines=(sha256(b"engine"),),
        vectors=sha256(b"vectors"),
        taxonomy=sha256(b"taxonomy"),
        policies=(sha256(b"policy"),),
        previous=previous,
    )


def say_epoch(
    members: dict[str, SigningKey],
    *,
    number: int = 0,
    previous: bytes | None = None,
    coalition: bytes | None = None,
) -> SignedRecord:
    """An epoch record, signed by the first of its members alone."""
    name, key = min(members.items())
    body = encode(epoch_body(members.items(), previous=previous))
    header = Header(
        v=1,
        kind="epoch",
        member=name,
        key=key.key_id,
        at=1_000 + number,
        realm="production",
        body=body_reference(body),
        coalition=coalition,
        number=number,
    )
    return sign_record(header, body, key)
