"""The quick way to read a record says what the close look says, of every record and of bytes that are nearly one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.protocol import envelope
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError
from specimens import specimens

RECORDS = {kind: record.encoded() for kind, record in specimens().items()}


def read(data: bytes) -> SignedRecord | str:
    try:
        return decode_record(data)
    except DecodeError as exc:
        return str(exc)


def read_closely(data: bytes) -> SignedRecord | str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "decode_plain", lambda *_: None)
        return read(data)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_read_plainly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("looked at closely")

    monkeypatch.setattr(envelope, "decode_value", never)
    assert isinstance(read(RECORDS[kind]), SignedRecord)


@given(
    kind=st.sampled_from(sorted(RECORDS)),
    at=st.integers(min_value=0),
    bit=st.integers(1, 255),
    near=st.booleans(),
)
def test_changed_bytes_are_read_alike(kind: str, at: int, bit: int, *, near: bool) -> None:
    data = bytearray(RECORDS[kind])
    # Near the beginning stand the types and lengths.
    at %= min(len(data), 64) if near else len(data)
    data[at] ^= bit
    assert read(bytes(data)) == read_closely(bytes(data))


@given(kind=st.sampled_from(sorted(RECORDS)), end=st.integers(min_value=0), more=st.binary(max_size=4))
def test_cut_and_lengthened_bytes_are_read_alike(kind: str, end: int, more: bytes) -> None:
    data = RECORDS[kind]
    data = data[: end % (len(data) + 1)] + more
    assert read(data) == read_closely(data)
