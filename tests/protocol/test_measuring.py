"""What a value would take is counted before anything is built of it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.protocol.encoding import decode, decode_value, encode, pack
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Ask, Vote
from comity.protocol.limits import DEPTH_MAX, ITEMS_MAX, VALUES_MAX
from comity.protocol.measuring import measure
from strategies import values

MIB = 1_048_576


def count(value: Any) -> int:
    """Values in a value, keys and the whole counted."""
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    return 1


def array(size: int) -> bytes:
    return b"\xdd" + size.to_bytes(4, "big")


@given(values)
def test_the_walk_ends_with_the_value(value: Any) -> None:
    """Appended bytes are not looked at, and a value that lacks its last byte is left to the codec."""
    data = pack(value)
    measure(data + array(ITEMS_MAX + 1), ITEMS_MAX)
    measure(data[:-1], ITEMS_MAX)
    longest = max((len(v) for v in _arrays(value)), default=0)
    if longest:
        with pytest.raises(DecodeError, match="an array of"):
            measure(data, longest - 1)


def _arrays(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in _arrays(item)]
    if isinstance(value, list):
        return [value, *(found for item in value for found in _arrays(item))]
    return []


@given(values)
def test_both_writers_spell_alike(value: Any) -> None:
    """A form that is read straight into its type is compared with what msgspec writes: it has to be what we write."""
    assert msgspec.msgpack.Encoder(order="sorted").encode(value) == encode(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_both_writers_spell_integers_alike(number: int) -> None:
    assert msgspec.msgpack.encode(number) == msgpack.packb(number)


def test_every_value_is_counted() -> None:
    rows = [[0] * 9_999 for _ in range(26)]
    full: list[Any] = [*rows, [0] * (VALUES_MAX - count([*rows, []]))]
    assert count(full) == VALUES_MAX
    assert decode_value(encode(full), MIB) == full
    full[-1].append(0)
    with pytest.raises(DecodeError, match=f"more than {VALUES_MAX} values"):
        decode_value(encode(full), MIB)


@pytest.mark.parametrize("inner", [b"\x81\xa0", b"\x91", b"\xdc\x00\x01", b"\xde\x00\x01\xa0"])
def test_depth_is_seen_before_it_is_built(inner: bytes) -> None:
    with pytest.raises(DecodeError, match=f"nested deeper than {DEPTH_MAX}"):
        decode_value(inner * (DEPTH_MAX + 1) + b"\x00", MIB)


@pytest.mark.parametrize(
    "data",
    [
        array(9_900) + (b"\x81\xa0" * 500 + b"\x80") * 9_900,
        array(9_900) + (array(1_000) + b"\x80" * 1_000) * 9_900,
        array(10_000) * 1_000 + b"\x00" * MIB,
    ],
    ids=["chains", "empties", "lengths that lie"],
)
def test_bytes_of_a_stranger_never_take_a_hundred_times_their_size(data: bytes) -> None:
    tracemalloc.start()
    try:
        for read in (lambda: decode_value(data, 16 * MIB), lambda: decode(data, Vote, 16 * MIB)):
            with pytest.raises(DecodeError):
                read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_what_a_form_has_no_place_for_is_not_built() -> None:
    """An unknown field of a short record is counted like everything else."""
    ask = {"unknown": [[{}] * 900] * 5, "v": 1}
    with pytest.raises(DecodeError, match="not a Ask"):
        decode(encode(ask), Ask, MIB)
