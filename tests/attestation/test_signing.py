"""One rule of verification: libsodium's, for everybody, with keys checked when they are admitted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.signing import (
    ED25519,
    SigningKey,
    add_signature,
    key_id,
    key_problem,
    merge_signatures,
    sign_header,
    verify_signature,
)
from comity.protocol.envelope import assemble, pre_authentication_encoding
from comity.protocol.errors import ConfigError, VerificationError
from comity.protocol.governance import PublicKey
from specimens import NORTH, SOUTH, key, seed_of, specimens

ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19
IDENTITY = (1).to_bytes(32, "little")
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8."""
SEED = bytes(range(32))
MESSAGE = b"admit this"


def public(value: bytes) -> PublicKey:
    return PublicKey(suite=ED25519, value=value)


def scalar_of(seed: bytes) -> int:
    """The secret scalar of a seed (RFC 8032, section 5.1.5)."""
    part = bytearray(hashlib.sha512(seed).digest()[:32])
    part[0] &= 248
    part[31] = part[31] & 127 | 64
    return int.from_bytes(part, "little")


def crafted(point_r: bytes, nonce: int, key_bytes: bytes, secret: int, message: bytes = MESSAGE) -> bytes:
    """A signature whose S fits the equation for these R and A, whatever R and A are."""
    challenge = int.from_bytes(hashlib.sha512(point_r + key_bytes + message).digest(), "little")
    return point_r + ((nonce + challenge * secret) % ORDER).to_bytes(32, "little")


def base_times(scalar: int) -> bytes:
    return nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little"))


def openssl_accepts(key_bytes: bytes, signature: bytes, message: bytes = MESSAGE) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key_bytes).verify(signature, message)
    except InvalidSignature:
        return False
    return True


# The rule


def test_wycheproof_agrees(vectors: Path) -> None:
    suite: dict[str, Any] = json.loads(
        (vectors / "ed25519" / "wycheproof_ed25519_test.json").read_text(encoding="utf-8")
    )
    wrong: list[int] = []
    looked_at = 0
    for group in suite["testGroups"]:
        its_key = public(bytes.fromhex(group["publicKey"]["pk"]))
        for case in group["tests"]:
            looked_at += 1
            found = verify_signature(its_key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            if found != (case["result"] == "valid"):
                wrong.append(case["tcId"])
    assert wrong == []
    assert looked_at == suite["numberOfTests"] == 151


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_is_signed_verifies_here_and_elsewhere(seed: bytes, message: bytes) -> None:
    signer = SigningKey.from_seed(seed)
    signature = signer.sign(message)
    assert verify_signature(signer.public, message, signature)
    assert openssl_accepts(signer.public.value, signature, message)
    assert signer.sign(message) == signature


@given(at=st.integers(0, 63), bit=st.integers(0, 7), in_message=st.booleans())
def test_no_bit_of_a_signature_or_message_can_change(at: int, bit: int, *, in_message: bool) -> None:
    signer = SigningKey.from_seed(SEED)
    message, signature = bytearray(64), bytearray(signer.sign(bytes(64)))
    (message if in_message else signature)[at] ^= 1 << bit
    assert not verify_signature(signer.public, bytes(message), bytes(signature))


def test_s_is_below_the_order_of_the_group() -> None:
    signer = SigningKey.from_seed(SEED)
    signature = signer.sign(MESSAGE)
    more = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify_signature(signer.public, MESSAGE, signature[:32] + more.to_bytes(32, "little"))


def test_r_with_a_part_of_small_order_is_refused() -> None:
    """The equation holds only when it is multiplied by the cofactor; this rule does not multiply."""
    signer = SigningKey.from_seed(SEED)
    point = base_times(12345)
    assert verify_signature(
        signer.public, MESSAGE, crafted(point, 12345, signer.public.value, scalar_of(SEED))
    )
    moved = nacl.bindings.crypto_core_ed25519_add(point, TORSION)
    signature = crafted(moved, 12345, signer.public.value, scalar_of(SEED))
    assert not verify_signature(signer.public, MESSAGE, signature)


def test_r_of_small_order_is_refused_although_openssl_accepts_it() -> None:
    signer = SigningKey.from_seed(SEED)
    signature = crafted(IDENTITY, 0, signer.public.value, scalar_of(SEED))
    assert openssl_accepts(signer.public.value, signature)
    assert not verify_signature(signer.public, MESSAGE, signature)


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 4_096])
def test_a_signature_has_64_bytes(length: int) -> None:
    signer = SigningKey.from_seed(SEED)
    assert not verify_signature(signer.public, MESSAGE, (signer.sign(MESSAGE) * 64)[:length])


# Keys


def test_a_key_that_signs_every_message_for_openssl_is_refused() -> None:
    """The trap: under the identity as key, OpenSSL accepts one signature for every message."""
    signature = crafted(base_times(7), 7, IDENTITY, 0)
    for message in (b"", MESSAGE, b"anything else"):
        assert openssl_accepts(IDENTITY, signature, message)
        assert not verify_signature(public(IDENTITY), message, signature)
    assert key_problem(public(IDENTITY)) is not None


def small_order_keys() -> list[bytes]:
    """All eight points of small order, and their spellings that are not canonical."""
    points = {IDENTITY}
    point = TORSION
    for _ in range(7):
        points.add(point)
        point = nacl.bindings.crypto_core_ed25519_add(point, TORSION)
    assert len(points) == 8
    spellings = set(points)
    for canonical in points:
        y = int.from_bytes(canonical, "little") & (1 << 255) - 1
        sign = canonical[31] & 0x80
        for other in (y, y + FIELD):
            if other < 1 << 255:
                for top in (sign, sign ^ 0x80):
                    data = bytearray(other.to_bytes(32, "little"))
                    data[31] |= top
                    spellings.add(bytes(data))
    return sorted(spellings)


@pytest.mark.parametrize("value", small_order_keys(), ids=lambda value: value.hex()[:8] + value.hex()[-4:])
def test_a_key_of_small_order_is_not_admitted(value: bytes) -> None:
    assert key_problem(public(value)) is not None
    assert not verify_signature(public(value), MESSAGE, crafted(base_times(7), 7, value, 0))


def test_a_key_with_a_part_of_small_order_is_not_admitted() -> None:
    mixed = nacl.bindings.crypto_core_ed25519_add(SigningKey.from_seed(SEED).public.value, TORSION)
    assert key_problem(public(mixed)) is not None


@pytest.mark.parametrize("y", [FIELD, FIELD + 3, FIELD + 18, 2**255 - 1])
def test_a_key_that_is_not_written_canonically_is_not_admitted(y: int) -> None:
    for sign in (0, 1 << 255):
        assert key_problem(public((y | sign).to_bytes(32, "little"))) is not None


def test_a_key_that_is_no_point_is_not_admitted() -> None:
    assert key_problem(public((2).to_bytes(32, "little"))) is not None


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_has_32_bytes(length: int) -> None:
    assert "32 bytes" in (key_problem(public(b"\x01" * length)) or "")


def test_an_unknown_suite_is_not_admitted() -> None:
    good = SigningKey.from_seed(SEED).public.value
    assert key_problem(PublicKey(suite="ed25519ph", value=good)) is not None
    assert not verify_signature(
        PublicKey(suite="ml-dsa-65", value=good), MESSAGE, SigningKey(SEED).sign(MESSAGE)
    )


@pytest.mark.parametrize("name", [NORTH, SOUTH, "anybody"])
def test_an_honest_key_is_admitted(name: str) -> None:
    assert key_problem(key(name).public) is None


def test_the_id_of_a_key_names_suite_and_key() -> None:
    its_key = SigningKey.from_seed(SEED).public
    assert key_id(its_key) == hashlib.sha256(b"comity key v1\0ed25519\0" + its_key.value).digest()
    # The zero byte keeps suite and key apart.
    assert key_id(PublicKey("a", b"b" * 4)) != key_id(PublicKey("ab", b"b" * 3))


def test_a_secret_shows_nowhere() -> None:
    signer = SigningKey.from_seed(SEED)
    for text in (repr(signer), str(signer), f"{signer}"):
        assert SEED.hex() not in text
        assert SEED.hex()[:16] not in text
    with pytest.raises(ConfigError) as caught:
        SigningKey.from_seed(SEED[:31])
    assert SEED.hex()[:16] not in str(caught.value)


# Records


def test_a_record_signs_its_pre_authentication_encoding() -> None:
    vote = specimens()["vote"]
    signer = SigningKey.from_seed(seed_of(f"{NORTH}/node/n1"))
    signed = pre_authentication_encoding("application/vnd.comity.record.v1+msgpack", vote.header_bytes)
    assert vote.signatures[0].value == signer.sign(signed)
    assert sign_header(vote.header_bytes, signer) == vote.signatures[0]
    assert not verify_signature(signer.public, vote.header_bytes, vote.signatures[0].value)


def test_signatures_are_added_once_and_in_order() -> None:
    genesis = specimens()["epoch"]
    alone = assemble(genesis.header_bytes, genesis.body_bytes, genesis.signatures[:1])
    both = {name: add_signature(alone, key(name)) for name in (NORTH, SOUTH)}
    assert sorted(len(record.signatures) for record in both.values()) == [1, 2]
    assert add_signature(genesis, key(SOUTH)) == genesis
    third = add_signature(genesis, key("third"))
    assert [s.key for s in third.signatures] == sorted(key(n).key_id for n in (NORTH, SOUTH, "third"))


def test_copies_of_one_record_merge_and_others_do_not() -> None:
    genesis = specimens()["epoch"]
    halves = [assemble(genesis.header_bytes, genesis.body_bytes, (s,)) for s in genesis.signatures]
    assert merge_signatures(*halves) == merge_signatures(*halves[::-1]) == genesis
    with pytest.raises(VerificationError, match="record_foreign"):
        merge_signatures(genesis, specimens()["vote"])
