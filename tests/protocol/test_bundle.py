"""Bundles: one encoding, in one order, and closed under what their targets depend on."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.bundle import Bundle, close, decode_bundle, dependencies, governing_bodies
from comity.protocol.encoding import decode_value, encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.governance import Epoch
from comity.protocol.limits import BUNDLE_BYTES_MAX
from comity.protocol.records import decode_body
from comity.protocol.state import AnyRecord
from specimens import NORTH, SOUTH, certificate, digest, specimens

RECORDS = specimens()
GENESIS = RECORDS["epoch"]
OTHERS = tuple(sorted((r for kind, r in RECORDS.items() if kind != "epoch"), key=lambda r: r.id))


def bundle(**changes: Any) -> Bundle:
    parts: dict[str, Any] = {
        "coalition": GENESIS.id,
        "targets": (RECORDS["permit"].id,),
        "epochs": (GENESIS,),
        "records": OTHERS,
    }
    return Bundle(**{**parts, **changes})


def verified() -> dict[bytes, AnyRecord]:
    directory = KeyDirectory()
    epoch = decode_body(GENESIS)
    assert isinstance(epoch, Epoch)
    directory.admit_members(epoch.members)
    for record in (certificate(NORTH, GENESIS.id), certificate(SOUTH, GENESIS.id), RECORDS["credential"]):
        directory.admit(verify(record, directory))
    return {record.id: verify(record, directory) for record in OTHERS}


def test_a_bundle_is_read_as_it_was_written() -> None:
    data = bundle().encoded()
    again = decode_bundle(data)
    assert again == bundle()
    assert again.encoded() == data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"records": OTHERS[::-1]}, "records are not in the order"),
        ({"records": (OTHERS[0], OTHERS[0])}, "records are not in the order"),
        (
            {"targets": tuple(sorted((digest("a"), digest("b")), reverse=True))},
            "targets are not in the order",
        ),
        ({"targets": (digest("a"), digest("a"))}, "targets are not in the order"),
        ({"epochs": (RECORDS["vote"],)}, "no epoch stands among the epochs"),
        ({"records": (GENESIS,)}, "an epoch stands among the records"),
        ({"targets": ()}, "not a BundleForm"),
        ({"epochs": ()}, "not a BundleForm"),
    ],
)
def test_another_order_is_another_file_and_no_bundle(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_bundle(bundle(**changes).encoded())


def test_a_bundle_has_no_byte_that_nothing_authenticates() -> None:
    value: Any = decode_value(bundle().encoded(), BUNDLE_BYTES_MAX)
    for extra in ({"note": "trust me"}, {"critical": ["v"]}, {"note": 1, "critical": ["note"]}):
        with pytest.raises(DecodeError):
            decode_bundle(encode({**value, **extra}))


def test_a_record_that_is_malformed_is_named() -> None:
    value: Any = decode_value(bundle().encoded(), BUNDLE_BYTES_MAX)
    value["records"][3] = value["records"][3][:-1]
    with pytest.raises(DecodeError, match="record 3: "):
        decode_bundle(encode(value))
    value["epochs"][0] = b""
    with pytest.raises(DecodeError, match="epoch 0: "):
        decode_bundle(encode(value))


def test_more_records_than_items_of_an_intent_fit() -> None:
    """The bound of a bundle's array is its own; that of an intent's would cut it at ten thousand."""
    value: Any = decode_value(bundle().encoded(), BUNDLE_BYTES_MAX)
    value["records"] = [b""] * 10_001
    with pytest.raises(DecodeError, match="record 0: "):
        decode_bundle(encode(value))
    value["records"] = [b""] * 100_001
    with pytest.raises(DecodeError, match="an array of 100001"):
        decode_bundle(encode(value))


# What depends on what

WANTED: dict[str, set[str]] = {
    "intent": {"node_certificate"},
    "ask": {"node_certificate", "intent", "attestation", "credential", "launch_ticket", "observation"},
    "vote": {"node_certificate", "intent", "ask"},
    "permit": {"node_certificate", "intent", "ask", "vote"},
    "refusal": {"node_certificate", "intent", "ask"},
    "start": {"node_certificate", "intent", "permit"},
    "actuation": {"node_certificate", "intent", "permit", "start", "attestation"},
    "launch_ticket": {"credential"},
    "attestation": {"node_certificate"},
    "policy": set(),
}


@pytest.mark.parametrize("kind", WANTED)
def test_what_a_record_depends_on(kind: str) -> None:
    names = {record.id: name for name, record in RECORDS.items()}
    found = dependencies(verified()[RECORDS[kind].id])
    assert {names[i] for i in found if i in names} == WANTED[kind]
    assert list(found) == sorted(set(found))


def test_a_closure_holds_everything_or_names_what_is_missing() -> None:
    held = verified()
    found, missing = close([RECORDS["actuation"].id], held.get)
    reached = {record.header.kind for record in found.values()}
    assert reached == {
        *("actuation", "start", "permit", "intent", "ask", "vote", "attestation"),
        *("credential", "launch_ticket", "observation", "node_certificate"),
    }
    # The other organization's vote and the input are not among the specimens.
    assert digest("actuation of patients") in missing
    assert len(missing) == 2
    assert list(missing) == sorted(missing)


def test_nothing_is_reached_without_a_target() -> None:
    assert close([], verified().get) == ({}, ())
    assert close([digest("x")], verified().get) == ({}, (digest("x"),))


def test_the_bodies_that_govern_are_those_of_the_epochs_in_use() -> None:
    epoch = decode_body(GENESIS)
    assert isinstance(epoch, Epoch)

    def body_digest(record: SignedRecord) -> bytes:
        return record.header.body.digest

    assert governing_bodies({GENESIS.id: epoch}, [GENESIS.id, digest("unknown")]) == {
        ("taxonomy", body_digest(RECORDS["taxonomy"])),
        ("policy", body_digest(RECORDS["policy"])),
    }
    assert governing_bodies({GENESIS.id: epoch}, []) == frozenset()
