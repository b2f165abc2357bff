"""Records that a peer brings, a few at a time: who waits has a turn between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.limits import FRAME_BYTES_MAX

PORTION_RECORDS_MAX: Final = 16
"""Records that are admitted before whoever waits has a turn: some milliseconds, and one flush to the disk."""
FRAME_RECORDS_BYTES_MAX: Final = FRAME_BYTES_MAX - 65_536
"""Room in a frame for records, beside everything else in it."""
_RULED: Final = frozenset({"owner_policy", "policy"})
"""Kinds whose records are compiled: the dearest to admit, up to a fifth of a second."""


@dataclass(frozen=True, slots=True)
class Brought:
    """A request that brings records, to be admitted a few at a time before it is answered.

    Attributes:
        answer: what is then answered; without it, the request is to be answered once more.
    """

    records: tuple[bytes, ...]
    answer: bytes | None


def in_frames(records: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Records in lists, each of which a frame has room for."""
    portion: list[bytes] = []
    size = 0
    for record in records:
        if portion and size + len(record) > FRAME_RECORDS_BYTES_MAX:
            yield tuple(portion)
            portion, size = [], 0
        portion.append(record)
        size += len(record) + 8
    if portion:
        yield tuple(portion)


def are_dear(records: Iterable[SignedRecord]) -> bool:
    """Whether some of the records are so dear to admit that nobody should wait for all of them."""
    return any(record.header.kind in _RULED for record in records)


def next_portion(records: Sequence[bytes], position: int) -> tuple[list[SignedRecord], int]:
    """The next few records, and where to go on. One with rules is the last of its portion.

    Raises:
        DecodeError: one of them is no record.
    """
    portion: list[SignedRecord] = []
    while position < len(records) and len(portion) < PORTION_RECORDS_MAX:
        portion.append(decode_record(records[position]))
        position += 1
        if are_dear(portion[-1:]):
            break
    return portion, position
