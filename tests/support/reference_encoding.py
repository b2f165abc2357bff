"""A second writer of canonical MessagePack, from docs/spec/encoding.md alone.

It shares no code with the product, so that both must be wrong in the same way for a test to pass. It can also
misspell on purpose: every value has spellings that MessagePack reads alike and that Comity rejects.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Spelling = Callable[[], bytes]


def reference_encode(value: Any) -> bytes:
    """The one canonical spelling."""
    return b"".join(node[0]() for node in nodes(value))


def nodes(value: Any) -> list[list[Spelling]]:
    """The parts that a value is written as, in order; of each its spellings, the canonical one first."""
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda item: item[0].encode())
        parts = [_heads(len(items), (0x80, 16), (0xDE, ">H"), (0xDF, ">I"))]
        for key, item in items:
            parts += [*nodes(key), *nodes(item)]
        return parts
    if isinstance(value, (list, tuple)):
        parts = [_heads(len(value), (0x90, 16), (0xDC, ">H"), (0xDD, ">I"))]
        for item in value:
            parts += nodes(item)
        return parts
    return [_scalars(value)]


def _scalars(value: Any) -> list[Spelling]:
    if isinstance(value, bool):
        return [lambda: b"\xc3" if value else b"\xc2"]
    if isinstance(value, int):
        return _integers(value)
    if isinstance(value, str):
        data = value.encode()
        heads = _heads(len(data), (0xA0, 32), (0xD9, ">B"), (0xDA, ">H"), (0xDB, ">I"))
        return [partial(_follow, head, data) for head in heads]
    if isinstance(value, bytes):
        heads = _heads(len(value), None, (0xC4, ">B"), (0xC5, ">H"), (0xC6, ">I"))
        return [partial(_follow, head, value) for head in heads]
    raise TypeError(type(value).__name__)


def _follow(head: Spelling, data: bytes) -> bytes:
    return head() + data


def _tagged(tag: int, form: str, number: int) -> bytes:
    return bytes([tag]) + struct.pack(form, number)


def _heads(length: int, fixed: tuple[int, int] | None, *wide: tuple[int, str]) -> list[Spelling]:
    found: list[Spelling] = []
    if fixed is not None and length < fixed[1]:
        found.append(lambda: bytes([fixed[0] | length]))
    for tag, form in wide:
        if length < 1 << (8 * struct.calcsize(form)):
            found.append(partial(_tagged, tag, form, length))
    return found


def _integers(value: int) -> list[Spelling]:
    found: list[Spelling] = []
    if -32 <= value < 128:
        found.append(lambda: struct.pack("b", value))
    unsigned = [(0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q")]
    signed = [(0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q")]
    for tag, form in [*unsigned, *signed] if value >= 0 else signed:
        try:
            data = bytes([tag]) + struct.pack(form, value)
        except struct.error:
            continue
        found.append(partial(bytes, data))
    return found


def misspellings(value: Any) -> list[tuple[int, int]]:
    """Where a value can be written in another way: part and spelling."""
    return [(i, j) for i, part in enumerate(nodes(value)) for j in range(1, len(part))]


def misspell(value: Any, part: int, spelling: int) -> bytes:
    parts: Sequence[list[Spelling]] = nodes(value)
    return b"".join(p[spelling if i == part else 0]() for i, p in enumerate(parts))
