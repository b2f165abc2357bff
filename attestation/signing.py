"""Keys, and the one function that verifies a signature.

OpenSSL and libsodium disagree about crafted Ed25519 keys, and OpenSSL accepts a small-order key under which one
signature fits every message. The whole network therefore verifies with one function under one written rule:
libsodium's, through PyNaCl (docs/spec/signatures.md). Keys are checked when they are admitted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Protocol

import nacl.bindings
import nacl.exceptions

from comity.protocol.envelope import (
    PAYLOAD_TYPE,
    Header,
    Signature,
    SignedRecord,
    assemble,
    pre_authentication_encoding,
    seal_header,
)
from comity.protocol.errors import ConfigError, VerificationError
from comity.protocol.governance import PublicKey
from comity.protocol.identifiers import sha256

ED25519: Final = "ed25519"
SUITES: Final = frozenset({ED25519})
"""The suites that this version verifies. A signature names its suite; an epoch lists those that it accepts."""

_ED25519_KEY_BYTES: Final = 32
_ED25519_SIGNATURE_BYTES: Final = 64
_KEYS_REMEMBERED_MAX: Final = 4_096
"""Keys whose check and id are remembered: a check costs as much as a signature, and a coalition has few keys."""
_KEY_ID_DOMAIN: Final = b"comity key v1\x00"


@lru_cache(maxsize=_KEYS_REMEMBERED_MAX)
def key_id(key: PublicKey) -> bytes:
    """SHA-256 over domain, suite, a zero byte and the public key."""
    return sha256(_KEY_ID_DOMAIN + key.suite.encode() + b"\x00" + key.value)


@lru_cache(maxsize=_KEYS_REMEMBERED_MAX)
def key_problem(key: PublicKey) -> str | None:
    """Why a key may not be admitted, or None.

    An Ed25519 key is a canonical encoding of a point of the prime-order group other than the identity.
    """
    if key.suite not in SUITES:
        return f"the suite {key.suite!r} is not known here"
    if len(key.value) != _ED25519_KEY_BYTES:
        return f"an Ed25519 key has {_ED25519_KEY_BYTES} bytes, not {len(key.value)}"
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(key.value):
        return "the key is not a canonical point of the prime-order group"
    return None


def verify_signature(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the key's over `message`. Never raises for what a stranger may have sent."""
    if key_problem(key) is not None or len(signature) != _ED25519_SIGNATURE_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, key.value)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError):
        return False
    return True


class Signer(Protocol):
    """Whoever holds a private key: a file, an agent, a hardware token."""

    @property
    def public(self) -> PublicKey: ...

    @property
    def key_id(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class SigningKey:
    """An Ed25519 private key in memory. Its secret appears in no repr, log or error."""

    __slots__ = ("_key_id", "_public", "_secret")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _ED25519_KEY_BYTES:
            raise ConfigError(f"an Ed25519 seed has {_ED25519_KEY_BYTES} bytes, not {len(seed)}")
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self._public = PublicKey(suite=ED25519, value=public)
        self._key_id = key_id(self._public)

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of a seed of 32 bytes (RFC 8032, section 5.1.5)."""
        return cls(seed)

    @property
    def public(self) -> PublicKey:
        return self._public

    @property
    def key_id(self) -> bytes:
        return self._key_id

    def sign(self, message: bytes) -> bytes:
        """A deterministic signature of 64 bytes (RFC 8032, section 5.1.6)."""
        return nacl.bindings.crypto_sign(message, self._secret)[:_ED25519_SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self._key_id.hex()[:16]})"


def sign_header(header_bytes: bytes, signer: Signer) -> Signature:
    """One signature over the pre-authentication encoding of a header."""
    message = pre_authentication_encoding(PAYLOAD_TYPE, header_bytes)
    return Signature(key=signer.key_id, suite=signer.public.suite, value=signer.sign(message))


def sign_record(header: Header, body_bytes: bytes, signer: Signer) -> SignedRecord:
    """Sign a record with the key that its header names.

    Raises:
        LocalProtocolError, DecodeError: header or body are not of a form that this version writes.
    """
    header_bytes = seal_header(header)
    return assemble(header_bytes, body_bytes, (sign_header(header_bytes, signer),))


def add_signature(record: SignedRecord, signer: Signer) -> SignedRecord:
    """The record with one more signature (an epoch carries one per member)."""
    others = tuple(s for s in record.signatures if s.key != signer.key_id)
    signatures = tuple(sorted((*others, sign_header(record.header_bytes, signer))))
    return assemble(record.header_bytes, record.body_bytes, signatures)


def merge_signatures(left: SignedRecord, right: SignedRecord) -> SignedRecord:
    """One record with the signatures of both copies.

    Raises:
        VerificationError: they are not copies of one record.
    """
    if left.id != right.id:
        raise VerificationError("record_foreign", "two different records have no common signatures", right.id)
    both = {s.key: s for s in (*left.signatures, *right.signatures)}
    return assemble(left.header_bytes, left.body_bytes, tuple(both[key] for key in sorted(both)))
