"""Records that a peer brings, a few at a time: who waits has a turn between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.protocol.envelope import SignedRecord, decode_record

PORTION_RECORDS_MAX: Final = 16
"""Records that are admitted before whoever waits has a turn: some milliseconds, and one flush to the disk."""
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
