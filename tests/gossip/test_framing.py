"""Frames: any cut of the stream gives the same frames, and hostile bytes give one kind of error."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.gossip.framing import ENVELOPE_BYTES_MAX, Frame, FrameKind, FrameReader, encode_frame
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.limits import FRAME_BYTES_MAX, INT_MAX

frames = st.builds(
    Frame, st.sampled_from(FrameKind), st.integers(min_value=0, max_value=INT_MAX), st.binary(max_size=300)
)


def framed(value: object) -> bytes:
    body = bytes(msgpack.Packer().pack(value))
    return len(body).to_bytes(4, "big") + body


@given(st.lists(frames, max_size=8), st.data())
def test_any_split_of_the_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12), label="cuts"))
    reader = FrameReader()
    read: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:end])
    assert read == sent


@given(st.lists(frames, min_size=1, max_size=4))
def test_single_bytes_give_the_same_frames(sent: list[Frame]) -> None:
    reader = FrameReader()
    stream = b"".join(map(encode_frame, sent))
    assert [frame for i in range(len(stream)) for frame in reader.feed(stream[i : i + 1])] == sent


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_hostile_bytes_raise_decode_errors_only(chunks: list[bytes]) -> None:
    reader = FrameReader(64)
    try:
        for chunk in chunks:
            reader.feed(chunk)
    except DecodeError:
        with pytest.raises(DecodeError):
            reader.feed(b"")


@given(frames, st.data())
def test_a_changed_frame_is_another_or_none(frame: Frame, data: st.DataObject) -> None:
    """A flipped bit never yields the same frame again, nor any other error."""
    stream = bytearray(encode_frame(frame))
    place = data.draw(st.integers(0, len(stream) * 8 - 1), label="bit")
    stream[place // 8] ^= 1 << place % 8
    try:
        read = FrameReader(1_000).feed(bytes(stream))
    except DecodeError:
        return
    assert read != [frame]


@pytest.mark.parametrize(
    "hostile",
    [
        framed(None),
        framed(7),
        framed([1, 1, 0]),
        framed([1, 1, 0, b"", b""]),
        framed([2, 1, 0, b""]),
        framed([True, 1, 0, b""]),
        framed([1, 0, 0, b""]),
        framed([1, 4, 0, b""]),
        framed([1, True, 0, b""]),
        framed([1, 1, -1, b""]),
        framed([1, 1, 1 << 63, b""]),
        framed([1, 1, True, b""]),
        framed([1, 1, 0, "text"]),
        framed([1, 1, 0, [b""]]),
        framed({"version": 1}),
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x06\xdc\x00\x04\x01\x01\x00",
        b"\x00\x00\x00\x07\x94\x01\x01\x00\xc5\x00\x00",
        b"\xff\xff\xff\xff",
    ],
    ids=lambda hostile: hostile.hex(),
)
def test_what_is_not_a_canonical_frame_is_refused(hostile: bytes) -> None:
    with pytest.raises(DecodeError):
        FrameReader().feed(hostile)


def test_a_frame_beyond_the_bound_is_refused_before_it_is_buffered() -> None:
    largest = encode_frame(Frame(FrameKind.REQUEST, INT_MAX, bytes(100)))
    assert len(FrameReader(100).feed(largest)) == 1
    with pytest.raises(DecodeError):
        FrameReader(99).feed(largest)
    with pytest.raises(DecodeError):
        FrameReader(100).feed((100 + ENVELOPE_BYTES_MAX + 1).to_bytes(4, "big"))
    reader = FrameReader(100)
    assert reader.feed(b"\x00\x00") == []
    with pytest.raises(DecodeError):
        reader.feed(b"\x10\x00")


def test_the_largest_payload_fits_and_no_larger_is_written() -> None:
    payload = bytes(FRAME_BYTES_MAX)
    (read,) = FrameReader().feed(encode_frame(Frame(FrameKind.RESPONSE, INT_MAX, payload)))
    assert read.payload == payload
    for wrong in (Frame(FrameKind.REQUEST, 0, payload + b"\x00"), Frame(FrameKind.REQUEST, -1, b"")):
        with pytest.raises(LocalProtocolError):
            encode_frame(wrong)
    with pytest.raises(LocalProtocolError):
        encode_frame(Frame(FrameKind.REQUEST, INT_MAX + 1, b""))


def test_a_frame_is_these_bytes() -> None:
    """The format, by hand: what another implementation has to write."""
    assert encode_frame(Frame(FrameKind.REQUEST, 300, b"ask")) == bytes.fromhex(
        "0000000b940101cd012cc40361736b"
    )
