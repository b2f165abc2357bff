"""Canonical MessagePack: one value, one spelling."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.protocol.encoding import Form, decode, decode_value, encode, pack
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.identifiers import Int
from comity.protocol.limits import DEPTH_MAX, INT_MAX, INT_MIN, ITEMS_MAX, STRING_BYTES_MAX
from reference_encoding import misspell, misspellings, reference_encode
from strategies import values

MIB = 1_048_576
VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "encoding.json").read_text(encoding="utf-8")
)


class Inner(Form, frozen=True):
    name: str
    note: str = ""


class Outer(Form, frozen=True):
    """Every sort of optional field."""

    size: Annotated[int, msgspec.Meta(ge=0, le=99)]
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    flag: bool = False
    count: Int = 0
    blob: bytes = b""
    table: dict[str, Int] = msgspec.field(default_factory=dict)
    critical: tuple[str, ...] = ()


def plain(value: Any) -> Any:
    """A value of a vector: bytes are written as {"$hex": ...}."""
    if isinstance(value, dict):
        return (
            bytes.fromhex(value["$hex"])
            if set(value) == {"$hex"}
            else {k: plain(v) for k, v in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


# The value model


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["name"])
def test_a_canonical_spelling_is_read(case: dict[str, Any]) -> None:
    data, value = bytes.fromhex(case["hex"]), plain(case["value"])
    assert decode_value(data, MIB) == value
    assert type(decode_value(data, MIB)) is type(value)
    assert encode(value) == data == reference_encode(value)


@pytest.mark.parametrize("case", VECTORS["rejected"], ids=lambda case: case["name"])
def test_any_other_spelling_is_rejected(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode_value(bytes.fromhex(case["hex"]), MIB)


@given(values)
def test_what_is_written_is_read_back(value: Any) -> None:
    data = encode(value)
    assert decode_value(data, MIB) == value
    assert pack(decode_value(data, MIB)) == data


@given(values)
def test_another_writer_writes_the_same_bytes(value: Any) -> None:
    assert encode(value) == reference_encode(value)


@given(values, st.data())
def test_a_longer_spelling_of_one_part_is_rejected(value: Any, data: st.DataObject) -> None:
    places = misspellings(value)
    if not places:  # a boolean has one spelling
        return
    wrong = misspell(value, *data.draw(st.sampled_from(places)))
    with pytest.raises(DecodeError):
        decode_value(wrong, MIB)


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9), min_size=2, max_size=6), st.randoms())
def test_another_order_of_keys_is_rejected(value: dict[str, int], dice: Any) -> None:
    keys = list(value)
    dice.shuffle(keys)
    data = bytes([0x80 | len(keys)]) + b"".join(
        reference_encode(k) + reference_encode(value[k]) for k in keys
    )
    if keys == sorted(value):
        assert decode_value(data, MIB) == value
    else:
        with pytest.raises(DecodeError, match="out of order"):
            decode_value(data, MIB)


@given(values, st.binary(min_size=1, max_size=8))
def test_no_byte_may_follow(value: Any, more: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_value(encode(value) + more, MIB)


@given(values)
def test_no_byte_may_be_missing(value: Any) -> None:
    with pytest.raises(DecodeError):
        decode_value(encode(value)[:-1], MIB)


# What cannot be said


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        math.nan,
        [None],
        {"a": 0.0},
        INT_MAX + 1,
        INT_MIN - 1,
        {1: 2},
        {b"a": 1},
        "\ud800",
        "x" * (STRING_BYTES_MAX + 1),
        "é" * (STRING_BYTES_MAX // 2 + 1),
        "\ud800" * STRING_BYTES_MAX,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_outside_of_the_model_is_not_written(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_both_ways() -> None:
    data = encode(nested(DEPTH_MAX))
    assert decode_value(data, MIB) == nested(DEPTH_MAX)
    with pytest.raises(LocalProtocolError, match="nested"):
        encode(nested(DEPTH_MAX + 1))
    with pytest.raises(DecodeError, match="nested"):
        decode_value(b"\x91" + data, MIB)


@pytest.mark.parametrize("tag", [b"\x91", b"\x81\xa1a"], ids=["arrays", "maps"])
def test_bottomless_nesting_is_an_error_and_no_crash(tag: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_value(tag * 200_000, MIB)


def test_a_text_is_bounded_in_bytes() -> None:
    longest = "é" * (STRING_BYTES_MAX // 2)
    assert decode_value(encode(longest), MIB) == longest
    with pytest.raises(DecodeError):
        decode_value(reference_encode(longest + "x"), MIB)


def test_the_whole_is_bounded() -> None:
    data = encode(b"x" * 100)
    assert decode_value(data, len(data)) == b"x" * 100
    with pytest.raises(DecodeError, match="at most"):
        decode_value(data, len(data) - 1)


def test_an_array_is_bounded() -> None:
    assert decode_value(encode([0] * ITEMS_MAX), MIB) == [0] * ITEMS_MAX
    with pytest.raises(DecodeError):
        decode_value(encode([0] * (ITEMS_MAX + 1)), MIB)
    assert decode_value(encode([0] * (ITEMS_MAX + 1)), MIB, ITEMS_MAX + 1) == [0] * (ITEMS_MAX + 1)


def test_lengths_that_lie_allocate_little() -> None:
    """Each level says that as many items follow as there are bytes: a list of that length, a thousand times."""
    size = 16 * MIB
    liar = b"".join(b"\xdd" + (size - 8).to_bytes(4, "big") for _ in range(1_000))
    before = time.process_time()
    with pytest.raises(DecodeError):
        decode_value(liar + bytes(size - len(liar)), size)
    assert time.process_time() - before < 0.1


# Forms


def spelled(**fields: Any) -> bytes:
    return reference_encode(fields)


def test_an_empty_optional_field_is_absent() -> None:
    assert encode(Outer(size=3)) == spelled(size=3)
    assert encode(Outer(size=3, inner=Inner("a"))) == spelled(size=3, inner={"name": "a"})


@pytest.mark.parametrize(
    "extra",
    [
        {"inner": {"name": "a", "note": ""}},
        {"items": []},
        {"flag": False},
        {"count": 0},
        {"blob": b""},
        {"table": {}},
        {"critical": []},
        {"unknown": ""},
        {"unknown": 0},
        {"unknown": {}},
        {"unknown": False},
        {"items": [{"name": "a"}, {"name": "b", "note": ""}]},
    ],
    ids=repr,
)
def test_a_field_that_is_written_although_it_is_empty_is_rejected(extra: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="although it is empty"):
        decode(spelled(size=3, **extra), Outer, MIB)


@pytest.mark.parametrize(
    "extra",
    [
        {"unknown": 1},
        {"unknown": {"a": []}},
        {"inner": {"name": "a", "unknown": True}},
        {"critical": ["size"]},
        {"items": [{"name": "a", "unknown": b"x"}]},
        {"table": {"critical": 5}, "unknown": 1},
    ],
    ids=repr,
)
def test_an_unknown_field_that_is_not_critical_is_passed_over(extra: dict[str, Any]) -> None:
    assert decode(spelled(size=3, **extra), Outer, MIB).size == 3


@pytest.mark.parametrize(
    "extra",
    [
        {"unknown": 1, "critical": ["unknown"]},
        {"unknown": 1, "critical": ["size", "unknown"]},
        {"inner": {"name": "a", "unknown": 1, "critical": ["unknown"]}},
        {"items": [{"name": "a"}, {"name": "a", "unknown": 1, "critical": ["unknown"]}]},
    ],
    ids=repr,
)
def test_an_unknown_critical_field_is_rejected(extra: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="critical field 'unknown'"):
        decode(spelled(size=3, **extra), Outer, MIB)


@pytest.mark.parametrize("critical", [5, True, "unknown", b"x", [1], [["unknown"]], {"unknown": 1}], ids=repr)
def test_critical_is_a_list_of_names_or_an_error(critical: Any) -> None:
    with pytest.raises(DecodeError):
        decode(spelled(size=3, inner={"name": "a", "unknown": 1, "critical": critical}), Outer, MIB)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": -1},
        {"size": 100},
        {"size": "3"},
        {"size": True},
        {"size": 3, "flag": 1},
        {"size": 3, "blob": "AAAA"},
        {"size": 3, "inner": ["a"]},
        {"size": 3, "table": {"a": "b"}},
    ],
    ids=repr,
)
def test_what_is_not_of_the_form_is_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="not a Outer"):
        decode(spelled(**fields), Outer, MIB)


NOT_VALUES = {
    "nil": b"\xc0",
    "a float": b"\xcb" + bytes(8),
    "2 to the 63rd": b"\xcf\x80" + bytes(7),
    "nothing as an extension": b"\xc7\x00\x05",
    "keys out of order": b"\x82\xa1b\x01\xa1a\x01",
    "a key twice": b"\x82\xa1a\x01\xa1a\x01",
    "bytes as key": b"\x81\xc4\x01a\x01",
    "17 arrays": b"\x91" * 17 + b"\x01",
    "a longer spelling": b"\xcc\x01",
}


@pytest.mark.parametrize("field", ["unknown", "inner", "count", "table"])
@pytest.mark.parametrize("name", NOT_VALUES)
def test_what_is_no_value_stands_in_no_field_known_or_not(field: str, name: str) -> None:
    """Nil is no way to leave a field out, and what this reader passes over is looked at all the same."""
    parts = {"size": b"\x03", field: NOT_VALUES[name]}
    data = bytes([0x80 | 2]) + b"".join(reference_encode(key) + parts[key] for key in sorted(parts))
    with pytest.raises(DecodeError):
        decode(data, Outer, MIB)


def test_many_unknown_fields_under_a_long_critical_list_are_cheap() -> None:
    fields: dict[str, Any] = {f"f{i:05}": 1 for i in range(60_000)}
    fields["critical"] = [f"g{i:05}" for i in range(ITEMS_MAX)]
    data = encode({"size": 3, **fields})
    before = time.process_time()
    assert decode(data, Outer, 2 * MIB).size == 3
    assert time.process_time() - before < 2
