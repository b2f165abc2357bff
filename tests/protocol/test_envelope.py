"""The envelope: what is signed, what the id is, and which parts fit each other."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from comity.attestation.signing import add_signature
from comity.protocol.encoding import decode_value, encode
from comity.protocol.envelope import (
    PAYLOAD_TYPE,
    Signature,
    SignedRecord,
    assemble,
    body_reference,
    decode_record,
    pre_authentication_encoding,
    record_id,
    seal_header,
)
from comity.protocol.errors import DecodeError
from comity.protocol.limits import BODY_BYTES_MAX, HEADER_BYTES_MAX, SIGNATURES_MAX
from comity.protocol.records import BODIES, decode_body
from reference_encoding import reference_encode
from specimens import NORTH, SOUTH, Pen, digest, key, specimens

RECORDS = specimens()
GENESIS = RECORDS["epoch"].id
NODE = Pen(NORTH, f"{NORTH}/node/n1", digest("certificate"), GENESIS)
SOME = (Signature(b"k" * 32, "ed25519", b"s" * 64),)

every_kind = pytest.mark.parametrize("kind", RECORDS)


def test_the_pre_authentication_encoding_is_that_of_dsse() -> None:
    """The vector of DSSE v1, protocol.md."""
    assert (
        pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pre_authentication_encoding("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@every_kind
def test_the_id_is_the_digest_of_what_was_signed(kind: str) -> None:
    record = RECORDS[kind]
    length = str(len(record.header_bytes)).encode()
    signed = b"DSSEv1 40 application/vnd.comity.record.v1+msgpack " + length + b" " + record.header_bytes
    assert record.id == record_id(record.header_bytes) == hashlib.sha256(signed).digest()


@every_kind
def test_a_record_travels_as_it_was_signed(kind: str) -> None:
    record = RECORDS[kind]
    again = decode_record(record.encoded())
    assert again == record
    assert again.encoded() == record.encoded()
    assert (again.header_bytes, again.body_bytes) == (record.header_bytes, record.body_bytes)


def test_every_kind_with_a_form_has_a_specimen() -> None:
    assert set(RECORDS) == set(BODIES)


def parts(record: SignedRecord) -> list[Any]:
    value = decode_value(record.encoded(), 1 << 20)
    assert isinstance(value, list)
    return value


# The body


def test_a_body_that_the_header_does_not_commit_to_is_rejected() -> None:
    vote = RECORDS["vote"]
    assert vote.body_bytes is not None
    changed = bytes([vote.body_bytes[0] ^ 1]) + vote.body_bytes[1:]
    for body in (changed, vote.body_bytes + b"\x00", vote.body_bytes[:-1], RECORDS["ask"].body_bytes):
        with pytest.raises(DecodeError, match="not the one that the header commits to"):
            assemble(vote.header_bytes, body, vote.signatures)


def test_the_size_counts_too() -> None:
    body = b"\x80"
    header = NODE.header("vote", body)
    header = msgspec.structs.replace(header, body=msgspec.structs.replace(header.body, size=2))
    with pytest.raises(DecodeError, match="commits to"):
        assemble(seal_header(header), body, SOME)


@every_kind
def test_an_erased_body_leaves_the_record_standing_in_the_execution_log_only(kind: str) -> None:
    record = RECORDS[kind]
    without = parts(record)
    without[3] = b""
    if record.kind.erasable:
        erased = decode_record(encode(without))
        assert erased.id == record.id
        assert erased.body_bytes is None
        assert erased.header.governance == record.header.governance
        with pytest.raises(DecodeError, match="absent"):
            decode_body(erased)
    else:
        with pytest.raises(DecodeError, match="lost its body"):
            decode_record(encode(without))


def test_a_sealed_body_is_not_read_as_a_clear_one() -> None:
    vote = RECORDS["vote"]
    assert vote.body_bytes is not None
    header = msgspec.structs.replace(vote.header, body=body_reference(vote.body_bytes, "sealed"))
    sealed = assemble(seal_header(header), vote.body_bytes, vote.signatures)
    with pytest.raises(DecodeError, match="sealed"):
        decode_body(sealed)


def test_a_body_of_another_form_is_rejected() -> None:
    body = RECORDS["ask"].body_bytes or b""
    with pytest.raises(DecodeError, match="not a Vote"):
        decode_body(assemble(seal_header(NODE.header("vote", body)), body, SOME))


def test_a_vote_has_its_own_smaller_bound() -> None:
    body = b"\x00" * 65_537
    with pytest.raises(DecodeError, match="65537 bytes where at most 65536"):
        decode_body(assemble(seal_header(NODE.header("vote", body)), body, SOME))
    with pytest.raises(DecodeError, match="malformed"):
        decode_body(assemble(seal_header(NODE.header("permit", body)), body, SOME))


# Signatures


def test_signatures_stand_in_the_order_of_their_keys() -> None:
    genesis = RECORDS["epoch"]
    assert len(genesis.signatures) == 2
    for signatures in (genesis.signatures[::-1], genesis.signatures[:1] * 2, ()):
        with pytest.raises(DecodeError, match="signatures are not sorted"):
            assemble(genesis.header_bytes, genesis.body_bytes, signatures)


def test_more_signatures_than_a_record_may_carry_are_rejected() -> None:
    value = parts(RECORDS["epoch"])
    value[2] = [[i.to_bytes(32, "big"), "ed25519", b"s"] for i in range(SIGNATURES_MAX + 1)]
    with pytest.raises(DecodeError, match="65 signatures"):
        decode_record(encode(value))
    value[2] = value[2][:-1]
    assert len(decode_record(encode(value)).signatures) == SIGNATURES_MAX


@pytest.mark.parametrize(
    "item",
    [
        [b"k" * 31, "ed25519", b""],
        [b"k" * 32, "x" * 33, b""],
        [b"k" * 32, "ed25519", b"s" * 4_097],
        [b"k" * 32],
        ["k", "ed25519", b""],
        {"key": 1},
        [b"k" * 32, "ed25519", b"", 1],
    ],
    ids=lambda item: repr(item)[:30],
)
def test_a_signature_is_three_bounded_parts(item: Any) -> None:
    value = parts(RECORDS["vote"])
    value[2] = [item]
    with pytest.raises(DecodeError, match="signature"):
        decode_record(encode(value))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        1,
        b"",
        ["a"],
        [PAYLOAD_TYPE, b"", [], b"", b""],
        [PAYLOAD_TYPE, "", [], b""],
        [b"", b"", [], b""],
    ],
    ids=repr,
)
def test_a_record_is_an_array_of_four(value: Any) -> None:
    with pytest.raises(DecodeError, match="array of payload type"):
        decode_record(encode(value))


def test_another_payload_type_is_another_format() -> None:
    value = parts(RECORDS["vote"])
    value[0] = "application/vnd.comity.record.v2+msgpack"
    with pytest.raises(DecodeError, match="payload type"):
        decode_record(encode(value))


# The header


def assembled(kind: str, **changes: Any) -> SignedRecord:
    return assemble(seal_header(NODE.header(kind, b"\x80", **changes)), b"\x80", SOME)


def test_only_a_genesis_names_no_coalition() -> None:
    assert assembled("epoch", coalition=None, number=0).header.coalition is None
    assert assembled("epoch", coalition=GENESIS, number=1).header.coalition == GENESIS
    for kind, changes in (
        ("epoch", {"coalition": None, "number": 1}),
        ("epoch", {"coalition": GENESIS, "number": 0}),
        ("vote", {"coalition": None}),
        ("policy", {"coalition": None, "number": 0}),
    ):
        with pytest.raises(DecodeError, match="coalition"):
            assembled(kind, **changes)


@pytest.mark.parametrize("field", ["subject", "scopes"])
def test_lists_of_ids_are_sorted_and_unique(field: str) -> None:
    low, high = sorted((digest("a"), digest("b")))
    assert getattr(assembled("vote", **{field: (low, high)}).header, field) == (low, high)
    for wrong in ((high, low), (low, low)):
        with pytest.raises(DecodeError, match="sorted and unique"):
            assembled("vote", **{field: wrong})


def test_an_outcome_stands_where_the_kind_has_one() -> None:
    assert assembled("observation", outcome="failed").kind.is_adverse("failed")
    with pytest.raises(DecodeError, match="says its outcome"):
        assembled("observation")
    with pytest.raises(DecodeError, match="no outcome"):
        assembled("observation", outcome="promoted")
    with pytest.raises(DecodeError, match="no outcome"):
        assembled("vote", outcome="passed")


def test_the_governance_state_stands_on_an_actuation_only() -> None:
    state = RECORDS["actuation"].header.governance
    assert assembled("actuation", outcome="staged", governance=state).header.governance == state
    for kind, changes in (("actuation", {"outcome": "staged"}), ("vote", {"governance": state})):
        with pytest.raises(DecodeError, match="governance state"):
            assembled(kind, **changes)


def test_an_unknown_kind_is_rejected() -> None:
    with pytest.raises(DecodeError, match="unknown kind"):
        assembled("decree")


def test_a_critical_field_of_the_header_that_is_not_known_rejects_the_record() -> None:
    plain: Any = decode_value(seal_header(NODE.header("vote", b"\x80")), HEADER_BYTES_MAX)
    assert assemble(reference_encode({**plain, "later": 1}), b"\x80", SOME).header.kind == "vote"
    with pytest.raises(DecodeError, match="critical"):
        assemble(reference_encode({**plain, "later": 1, "critical": ["later"]}), b"\x80", SOME)


def test_what_a_reader_does_not_know_is_kept_and_signed() -> None:
    plain: Any = decode_value(seal_header(NODE.header("vote", b"\x80")), HEADER_BYTES_MAX)
    header = reference_encode({**plain, "later": [1, {"a": b"b"}]})
    record = assemble(header, b"\x80", SOME)
    assert decode_record(record.encoded()).header_bytes == header
    assert record.id != assemble(seal_header(record.header), b"\x80", SOME).id


def test_header_and_body_are_bounded() -> None:
    with pytest.raises(DecodeError, match=f"at most {HEADER_BYTES_MAX}"):
        assemble(b"\x00" * (HEADER_BYTES_MAX + 1), b"", SOME)
    header: Any = decode_value(seal_header(NODE.header("vote", b"\x80")), HEADER_BYTES_MAX)
    header["body"] = {**header["body"], "size": BODY_BYTES_MAX + 1}
    with pytest.raises(DecodeError, match="not a Header"):
        assemble(reference_encode(header), b"\x80", SOME)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("v", True),
        ("kind", "Vote"),
        ("kind", "vote\n"),
        ("member", "Clinic.example"),
        ("member", "clinic.example\n"),
        ("at", -1),
        ("realm", "staging"),
        ("realm", "preview/"),
        ("key", b"k"),
    ],
)
def test_a_header_field_outside_of_its_type_is_rejected(field: str, value: Any) -> None:
    header: Any = decode_value(seal_header(NODE.header("vote", b"\x80")), HEADER_BYTES_MAX)
    with pytest.raises(DecodeError, match="not a Header"):
        assemble(reference_encode({**header, field: value}), b"\x80", SOME)


def test_the_id_does_not_depend_on_who_has_signed_so_far() -> None:
    genesis = RECORDS["epoch"]
    alone = assemble(genesis.header_bytes, genesis.body_bytes, genesis.signatures[:1])
    assert alone.id == genesis.id
    assert add_signature(alone, key(SOUTH)).id == add_signature(alone, key(NORTH)).id == genesis.id
