"""Hostile bytes at every parser: whatever comes, it is a value or a DecodeError, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comity.protocol.bundle import Bundle, decode_bundle
from comity.protocol.encoding import decode_value, encode
from comity.protocol.envelope import Signature, assemble, decode_record, seal_header
from comity.protocol.errors import DecodeError
from comity.protocol.frames import (
    AskFrame,
    FetchFrame,
    PageFrame,
    decode_answer,
    decode_request,
    encode_frame,
)
from comity.protocol.identifiers import sha256
from comity.protocol.limits import BODY_BYTES_MAX, BUNDLE_BYTES_MAX, FRAME_BYTES_MAX, RECORD_BYTES_MAX
from comity.protocol.records import BODIES, decode_body
from specimens import NORTH, Pen, digest, specimens
from strategies import values

RECORDS = specimens()
KINDS = sorted(RECORDS)
BUNDLE = Bundle(
    coalition=RECORDS["epoch"].id,
    targets=(RECORDS["permit"].id,),
    epochs=(RECORDS["epoch"],),
    records=tuple(sorted((r for k, r in RECORDS.items() if k != "epoch"), key=lambda r: r.id)),
)
FRAMES = (
    encode_frame(AskFrame(ask=RECORDS["ask"].encoded(), records=(RECORDS["intent"].encoded(),))),
    encode_frame(FetchFrame(ids=(RECORDS["ask"].id,))),
    encode_frame(
        PageFrame(incarnation=b"i" * 16, position=7, records=(RECORDS["credential"].encoded(),), more=True)
    ),
)
EXAMPLES = settings(max_examples=max(200, settings().max_examples))
"""What is hostile hides in few places, so more is tried of it than of a law."""
CPU_S_MAX = 2.0
"""Of processor time, for the worst input of the largest size; a bomb takes minutes."""


def read_record(data: bytes) -> object:
    record = decode_record(data)
    return decode_body(record)


def read_value(data: bytes) -> object:
    return decode_value(data, RECORD_BYTES_MAX)


PARSERS: tuple[Callable[[bytes], object], ...] = (
    read_value,
    read_record,
    decode_bundle,
    decode_request,
    decode_answer,
)


def survives(parse: Callable[[bytes], object], data: bytes) -> object:
    """The value, or None where it is refused. Anything but a DecodeError goes through and fails the test."""
    try:
        return parse(data)
    except DecodeError:
        return None


@given(st.sampled_from(PARSERS), st.binary(max_size=200))
@example(read_record, b"")
def test_noise(parse: Callable[[bytes], object], data: bytes) -> None:
    survives(parse, data)


@EXAMPLES
@given(st.sampled_from(PARSERS), values)
def test_any_value(parse: Callable[[bytes], object], value: Any) -> None:
    survives(parse, encode(value))


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A valid input with a few bytes flipped, cut out, doubled, or taken from another."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(("flip", "set", "cut", "double", "insert", "splice"))):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[at] = draw(
                    st.sampled_from((0x00, 0x80, 0x90, 0xA0, 0xC0, 0xC1, 0xC6, 0xCB, 0xDB, 0xDD, 0xDF, 0xFF))
                )
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                other = draw(st.sampled_from(originals))
                data[at : at + length] = other[at : at + length]
    return bytes(data)


@EXAMPLES
@given(mutated([r.encoded() for r in RECORDS.values()]))
def test_a_mutated_record(data: bytes) -> None:
    """A mutant that is still read has nothing in common with what was signed but what it kept."""
    survives(read_record, data)
    record = survives(decode_record, data)
    if record is not None:
        assert record.encoded() == data  # type: ignore[attr-defined]


@given(mutated([BUNDLE.encoded()]))
def test_a_mutated_bundle(data: bytes) -> None:
    found = survives(decode_bundle, data)
    if found is not None:
        assert found.encoded() == data  # type: ignore[attr-defined]


@given(mutated(list(FRAMES)))
def test_a_mutated_frame(data: bytes) -> None:
    survives(decode_request, data)
    survives(decode_answer, data)


@given(st.sampled_from([r.header_bytes for r in RECORDS.values()]), st.integers(0, 10_000), st.integers(0, 7))
def test_no_bit_of_a_header_can_change_without_the_id(header: bytes, at: int, bit: int) -> None:
    changed = bytearray(header)
    changed[at % len(header)] ^= 1 << bit
    try:
        record = assemble(bytes(changed), None, (Signature(b"k" * 32, "ed25519", b"s"),))
    except DecodeError:
        return
    assert record.id not in {r.id for r in RECORDS.values()}


# Below the envelope: bodies and headers that are canonical and of the wrong shape


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value, the value itself first."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, (*path, index))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return {key: replaced(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
    return [replaced(item, path[1:], new) if index == path[0] else item for index, item in enumerate(value)]


ODD: tuple[Any, ...] = (
    [],
    {},
    "",
    b"",
    0,
    -1,
    2**63 - 1,
    -(2**63),
    "x" * 300,
    "\0",
    "é",
    bytes(32),
    bytes(33),
)
strange = st.one_of(
    values,
    st.sampled_from(ODD),
    st.builds(lambda key, item: {key: item, "critical": [key]}, st.text(max_size=4), values),
    st.builds(lambda critical: {"critical": critical, "strange": 1}, values),
)


@EXAMPLES
@given(st.sampled_from(KINDS), st.data())
def test_a_body_of_which_one_part_is_anything(kind: str, data: st.DataObject) -> None:
    original = RECORDS[kind]
    value = decode_value(original.body_bytes or b"", BODY_BYTES_MAX)
    path = data.draw(st.sampled_from(places(value)), label="place")
    body = encode(replaced(value, path, data.draw(strange, label="new")))
    header = msgspec.structs.replace(
        original.header,
        body=msgspec.structs.replace(original.header.body, digest=sha256(body), size=len(body)),
    )
    record = assemble(seal_header(header), body, original.signatures)
    try:
        form = decode_body(record)
    except DecodeError:
        return
    assert isinstance(form, BODIES[kind])
    # What a body means does not depend on who reads it: written again, it is the same, or longer by what is unknown.
    assert len(encode(form)) <= len(body)


@EXAMPLES
@given(st.sampled_from(KINDS), st.data())
def test_a_header_of_which_one_part_is_anything(kind: str, data: st.DataObject) -> None:
    original = RECORDS[kind]
    value = decode_value(original.header_bytes, BODY_BYTES_MAX)
    path = data.draw(st.sampled_from(places(value)), label="place")
    header = encode(replaced(value, path, data.draw(strange, label="new")))
    try:
        record = assemble(header, original.body_bytes, original.signatures)
    except DecodeError:
        return
    assert record.header_bytes == header


# Slow bytes


def record_with(header: bytes, body: bytes) -> bytes:
    return encode(["application/vnd.comity.record.v1+msgpack", header, [[b"k" * 32, "ed25519", b"s"]], body])


def full_of(part: bytes, size: int) -> bytes:
    """An array of as many equal parts as fit."""
    count = size // len(part)
    return b"\xdd" + count.to_bytes(4, "big") + part * count


# Made where they are used: together they would fill hundreds of megabytes.
BOMBS: dict[str, tuple[Callable[[bytes], object], Callable[[], bytes]]] = {
    "arrays all the way down": (decode_bundle, lambda: b"\x91" * BUNDLE_BYTES_MAX),
    "maps all the way down": (decode_bundle, lambda: b"\x81\xa1a" * (BUNDLE_BYTES_MAX // 3)),
    "more items than an array may have": (decode_bundle, lambda: full_of(b"\x00", BUNDLE_BYTES_MAX - 5)),
    "lengths that lie, in a bundle": (
        decode_bundle,
        lambda: b"\xdd\x03\xff\xff\xff" * 1_000 + bytes(BUNDLE_BYTES_MAX - 5_000),
    ),
    "lengths that lie, in a frame": (
        decode_request,
        lambda: b"\xdd\x00\x3f\xff\xff" * 1_000 + bytes(FRAME_BYTES_MAX - 5_000),
    ),
    "a record of noughts": (read_record, lambda: record_with(b"\x00" * 8_000, bytes(BODY_BYTES_MAX))),
    "empty maps": (read_value, lambda: full_of(b"\x80", 9_999)),
    "a map of many keys": (
        read_value,
        lambda: (
            b"\xdf"
            + (200_000).to_bytes(4, "big")
            + b"".join(b"\xa5" + b"%05x" % i + b"\x00" for i in range(200_000))
        ),
    ),
    "keys that stand twice": (
        read_value,
        lambda: b"\xdf" + (300_000).to_bytes(4, "big") + b"\xa1a\x00" * 300_000,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(name: str) -> None:
    parse, make = BOMBS[name]
    data = make()
    before = time.process_time()
    survives(parse, data)
    assert time.process_time() - before < CPU_S_MAX


def test_a_body_of_many_strange_fields_is_read_soon() -> None:
    names = [f"strange{i:06}" for i in range(40_000)]
    body = encode(
        {
            **dict.fromkeys(names, 1),
            "critical": [f"other{i:05}" for i in range(9_999)],
            "salt": bytes(32),
            "ground": "x",
        }
    )
    record = assemble(
        seal_header(Pen(NORTH, NORTH, None, digest("c")).header("erased", body)),
        body,
        (Signature(b"k" * 32, "ed25519", b"s"),),
    )
    before = time.process_time()
    decode_body(record)
    assert time.process_time() - before < CPU_S_MAX


def test_nothing_over_its_bound_is_even_looked_at() -> None:
    for parse, size in (
        (read_record, RECORD_BYTES_MAX),
        (decode_bundle, BUNDLE_BYTES_MAX),
        (decode_request, FRAME_BYTES_MAX),
    ):
        with pytest.raises(DecodeError, match="at most"):
            parse(bytes(size + 1))
