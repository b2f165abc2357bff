"""Frames on a byte stream: a length of four bytes, big-endian, and a canonical MessagePack array.

    [version, kind, request id, payload]

Pure. Several frames may stand in one write, and one frame may arrive in many pieces.

Spec: docs/spec/peer.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from comity.protocol.encoding import decode_value, pack
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.limits import FRAME_BYTES_MAX, INT_MAX

FRAME_VERSION: Final = 1
LENGTH_BYTES: Final = 4
ENVELOPE_BYTES_MAX: Final = 17
"""Array head, version, kind, an integer of nine bytes, and the five bytes before a long byte string."""

_FIELDS: Final = 4


class FrameKind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    RESPONSE = 2
    FAILURE = 3
    """Its payload is the reason's code in ASCII."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. The id ties an answer to its request and means nothing beyond its stream."""

    kind: FrameKind
    request_id: int
    payload: bytes


_KINDS: Final = {int(kind): kind for kind in FrameKind}


def encode_frame(frame: Frame) -> bytes:
    """Write a frame with its length.

    Raises:
        LocalProtocolError: the request id or the payload is outside of its bounds.
    """
    if not 0 <= frame.request_id <= INT_MAX:
        raise LocalProtocolError(f"request id {frame.request_id}")
    if len(frame.payload) > FRAME_BYTES_MAX:
        raise LocalProtocolError(
            f"a payload of {len(frame.payload)} bytes; at most {FRAME_BYTES_MAX} are allowed"
        )
    body = pack([FRAME_VERSION, int(frame.kind), frame.request_id, frame.payload])
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class FrameReader:
    """Cuts a byte stream into frames. After an error the stream has no next frame: it must be closed.

    Args:
        payload_bytes_max: longest payload that is accepted; nothing longer is ever buffered.
    """

    def __init__(self, payload_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._body_max = payload_bytes_max + ENVELOPE_BYTES_MAX
        self._payload_max = payload_bytes_max
        self._rest = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in order.

        Raises:
            DecodeError: a length beyond the bound, or a body that is not a canonical frame of this version;
                and on every later call.
        """
        if self._broken:
            raise DecodeError("the stream was already broken")
        if self._rest:
            self._rest += data
            # Most reads end where a frame ends; only a frame in pieces pays for this copy, and once complete.
            if not self._complete():
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames: list[Frame] = []
        start = 0
        try:
            while len(data) - start >= LENGTH_BYTES:
                body = start + LENGTH_BYTES
                end = body + self._length(data, start)
                if len(data) < end:
                    break
                frames.append(self._decode(data[body:end]))
                start = end
        except DecodeError:
            self._broken = True
            raise
        self._rest += data[start:]
        return frames

    def _complete(self) -> bool:
        if len(self._rest) < LENGTH_BYTES:
            return False
        try:
            return len(self._rest) - LENGTH_BYTES >= self._length(self._rest, 0)
        except DecodeError:
            self._broken = True
            raise

    def _length(self, data: bytes | bytearray, start: int) -> int:
        length = int.from_bytes(data[start : start + LENGTH_BYTES], "big")
        if length > self._body_max:
            raise DecodeError(f"a frame of {length} bytes; at most {self._body_max} are allowed")
        return length

    def _decode(self, body: bytes) -> Frame:
        value = decode_value(body, self._body_max)
        if type(value) is not list or len(value) != _FIELDS:
            raise DecodeError("a frame is an array of four")
        version, kind, request_id, payload = value
        if type(version) is not int or version != FRAME_VERSION:
            raise DecodeError(f"frame version {version!r}; {FRAME_VERSION} is known")
        if type(kind) is not int or kind not in _KINDS:
            raise DecodeError(f"frame kind {kind!r}")
        if type(request_id) is not int or request_id < 0:
            raise DecodeError("a request id is a natural number")
        if type(payload) is not bytes or len(payload) > self._payload_max:
            raise DecodeError("a payload is a byte string within its bound")
        return Frame(_KINDS[kind], request_id, payload)
