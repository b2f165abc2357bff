"""How deep and how large a MessagePack value is, by its heads alone, before anything is built of it.

A map of one byte takes hundreds of bytes in memory once it is built, so a bound on bytes alone bounds little.

Spec: docs/spec/encoding.md section 5.
"""

from __future__ import annotations

from typing import Final

from comity.protocol.errors import DecodeError
from comity.protocol.limits import DEPTH_MAX, VALUES_MAX

_PLAIN, _BYTES, _ARRAY, _MAP, _END = range(5)
_IN_HEAD: Final = -1


def _heads() -> tuple[tuple[int, int, int], ...]:
    """For each first byte: what follows, in how many bytes its size stands, and the mask of a size in the head.

    The width of a plain value is that of the value itself. Extensions and the byte that is never used end the
    walk: the codec rejects them before it builds what follows.
    """
    table = [(_PLAIN, 0, 0)] * 256
    table[0x80:0x90] = [(_MAP, _IN_HEAD, 0x0F)] * 16
    table[0x90:0xA0] = [(_ARRAY, _IN_HEAD, 0x0F)] * 16
    table[0xA0:0xC0] = [(_BYTES, _IN_HEAD, 0x1F)] * 32
    for first in (0xC1, 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)):
        table[first] = (_END, 0, 0)
    for first, kind, width in (
        (0xC4, _BYTES, 1), (0xC5, _BYTES, 2), (0xC6, _BYTES, 4), (0xCA, _PLAIN, 4), (0xCB, _PLAIN, 8),
        (0xCC, _PLAIN, 1), (0xCD, _PLAIN, 2), (0xCE, _PLAIN, 4), (0xCF, _PLAIN, 8), (0xD0, _PLAIN, 1),
        (0xD1, _PLAIN, 2), (0xD2, _PLAIN, 4), (0xD3, _PLAIN, 8), (0xD9, _BYTES, 1), (0xDA, _BYTES, 2),
        (0xDB, _BYTES, 4), (0xDC, _ARRAY, 2), (0xDD, _ARRAY, 4), (0xDE, _MAP, 2), (0xDF, _MAP, 4),
    ):  # fmt: skip
        table[first] = (kind, width, 0)
    return tuple(table)


_HEADS: Final = _heads()


def measure(data: bytes, array_max: int) -> None:
    """Walk over the heads of a value.

    Raises:
        DecodeError: it is nested deeper than `DEPTH_MAX`, holds more than `VALUES_MAX` values, or an array of it is
            longer than `array_max`. Whatever else is wrong is left to the codec.
    """
    position, values, end = 0, 0, len(data)
    # How many values each open array or map still lacks, the innermost last.
    open_: list[int] = []
    left = 1
    while True:
        while not left:
            if not open_:
                return
            left = open_.pop()
        if position >= end:
            return
        left -= 1
        values += 1
        if values > VALUES_MAX:
            raise DecodeError(f"more than {VALUES_MAX} values")
        head = data[position]
        kind, width, mask = _HEADS[head]
        position += 1
        if kind == _PLAIN:
            position += width
            continue
        if width == _IN_HEAD:
            size = head & mask
        else:
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        if kind == _BYTES:
            position += size
            continue
        if kind == _END:
            return
        if kind == _ARRAY and size > array_max:
            raise DecodeError(f"an array of {size} values where at most {array_max} are allowed")
        open_.append(left)
        left = size if kind == _ARRAY else 2 * size
        if len(open_) > DEPTH_MAX:
            raise DecodeError(f"nested deeper than {DEPTH_MAX}")
