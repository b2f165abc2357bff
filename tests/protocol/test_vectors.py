"""The golden vectors: the code writes what it wrote before, and a reader that shares no code with it agrees."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import golden
from comity.protocol.envelope import decode_record
from comity.protocol.records import BODIES, decode_body
from reference_encoding import reference_encode

VECTORS = {path.stem: path for path in sorted(golden.FOLDER.glob("*.json"))}
PAYLOAD_TYPE = "application/vnd.comity.record.v1+msgpack"

every_vector = pytest.mark.parametrize("kind", VECTORS)


def vector(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VECTORS[kind].read_text(encoding="utf-8"))
    return found


def value_of(readable: Any) -> Any:
    if isinstance(readable, dict):
        if set(readable) == {"$hex"}:
            return bytes.fromhex(readable["$hex"])
        return {name: value_of(item) for name, item in readable.items()}
    return [value_of(item) for item in readable] if isinstance(readable, list) else readable


def test_the_code_writes_what_it_wrote_before() -> None:
    """If this is meant: `scripts/vectors --write`, and a change of the protocol's version."""
    assert golden.differences() == []


def test_every_kind_with_a_form_has_a_vector() -> None:
    assert set(VECTORS) == set(BODIES)


@every_vector
def test_a_reader_from_the_specification_alone_agrees(kind: str) -> None:
    """docs/spec/encoding.md, record.md and signatures.md, with hashlib and another Ed25519."""
    case = vector(kind)
    header, body = (reference_encode(value_of(case[part])) for part in ("header", "body"))
    assert header.hex() == case["header_bytes"]
    assert body.hex() == case["body_bytes"]
    committed = value_of(case["header"])["body"]
    assert committed == {"form": "clear", "digest": hashlib.sha256(body).digest(), "size": len(body)}
    signed = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(header)} ".encode() + header
    assert signed.hex() == case["signed_bytes"]
    assert hashlib.sha256(signed).hexdigest() == case["id"]
    signatures: list[list[Any]] = []
    for signature in case["signatures"]:
        public, value = bytes.fromhex(signature["public_key"]), bytes.fromhex(signature["value"])
        identity = hashlib.sha256(
            b"comity key v1\x00" + signature["suite"].encode() + b"\x00" + public
        ).digest()
        assert identity.hex() == signature["key_id"]
        Ed25519PublicKey.from_public_bytes(public).verify(value, signed)
        signatures.append([identity, signature["suite"], value])
    assert signatures == sorted(signatures)
    assert reference_encode([PAYLOAD_TYPE, header, signatures, body]).hex() == case["record"]


@every_vector
def test_the_seeds_make_the_signatures(kind: str) -> None:
    case = vector(kind)
    for signature in case["signatures"]:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(signature["test_only_seed"]))
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert public.hex() == signature["public_key"]
        assert private.sign(bytes.fromhex(case["signed_bytes"])).hex() == signature["value"]


@every_vector
def test_the_product_reads_the_vector(kind: str) -> None:
    case = vector(kind)
    record = decode_record(bytes.fromhex(case["record"]))
    assert record.id.hex() == case["id"]
    assert type(decode_body(record)) is BODIES[kind]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    golden.write(tmp_path)
    return tmp_path


def test_a_difference_is_named(copy: Path) -> None:
    assert golden.differences(copy) == []
    vote = json.loads((copy / "vote.json").read_text(encoding="utf-8"))
    (copy / "vote.json").write_text(json.dumps({**vote, "id": "00"}), encoding="utf-8")
    (copy / "ask.json").unlink()
    (copy / "decree.json").write_text("{}", encoding="utf-8")
    assert golden.differences(copy) == [
        "ask.json: is missing",
        "decree.json: belongs to no kind",
        "vote.json: differs in id",
    ]
    golden.write(copy)
    assert golden.differences(copy) == []


def test_a_checkpoint_and_its_cosignature_verify_by_the_formats_of_c2sp() -> None:
    """Text of a checkpoint (tlog-checkpoint) and message of a cosignature (cosignature/v1), without our record."""
    checkpoint, cosignature = vector("checkpoint"), vector("cosignature")
    body, said = value_of(checkpoint["body"]), value_of(cosignature["body"])
    assert said["checkpoint"].hex() == checkpoint["id"]
    assert cosignature["header"]["subject"] == [{"$hex": checkpoint["id"]}]
    root = base64.b64encode(body["root"]).decode()
    text = f"{body['origin']}\n{body['size']}\n{root}\n".encode()
    (signer,) = checkpoint["signatures"]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer["public_key"]))
    public.verify(body["signature"], text)
    time = cosignature["header"]["at"]
    public.verify(said["signature"], f"cosignature/v1\ntime {time}\n".encode() + text)
