"""The bounds on bodies of docs/spec/record.md section 5, at their edges."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from comity.attestation.signing import sign_header
from comity.protocol.encoding import decode_value, encode, pack
from comity.protocol.envelope import SignedRecord, assemble, body_reference, seal_header
from comity.protocol.errors import DecodeError
from comity.protocol.limits import (
    ACTUATION_BYTES_MAX,
    ASK_BODY_BYTES_MAX,
    BODY_BYTES_MAX,
    VOTE_BYTES_MAX,
)
from comity.protocol.records import BODIES, decode_body
from specimens import key, specimens

BOUNDS = {
    "vote": VOTE_BYTES_MAX,
    "ask": ASK_BODY_BYTES_MAX,
    "actuation": ACTUATION_BYTES_MAX,
    "intent": BODY_BYTES_MAX,
    "credential": BODY_BYTES_MAX,
}


def of_size(kind: str, size: int) -> SignedRecord:
    """The golden record of a kind with an unknown field, so that its body has so many bytes."""
    record = specimens()[kind]
    body: Any = decode_value(record.body_bytes or b"", BODY_BYTES_MAX)
    room = size - len(encode({**body, "zzz": bytes(70_000)})) + 70_000
    data = pack({**body, "zzz": bytes(room)}) if room > 65_535 else pack({**body, "zzz": bytes(room + 2)})
    assert len(data) == size
    header = msgspec.structs.replace(record.header, body=body_reference(data))
    header_bytes = seal_header(header)
    return assemble(header_bytes, data, (sign_header(header_bytes, key(record.header.member)),))


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_body_has_the_bound_of_its_kind(kind: str) -> None:
    """The largest is read; one byte more is not, whoever signed it."""
    largest = of_size(kind, BOUNDS[kind])
    assert isinstance(decode_body(largest), BODIES[kind])
    if BOUNDS[kind] < BODY_BYTES_MAX:
        with pytest.raises(DecodeError):
            decode_body(of_size(kind, BOUNDS[kind] + 1))
