"""Records that wait for who vouches for their keys.

Nothing of them is verified yet, so whoever brings them could bring anything: each source has a share of its own,
in records and in bytes, and fills nobody else's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from comity.protocol.envelope import Signature, SignedRecord

PARKED_MAX: Final = 512
"""Records of one source that wait; its oldest gives way, and is pulled again with what vouches for it."""
PARKED_BYTES_MAX: Final = 4 * 1_048_576
"""Bytes of them: one answer of a peer."""
SOURCES_MAX: Final = 256
"""Sources with records that wait: more than there are members with a node each."""

_Copy: TypeAlias = tuple[bytes, tuple[Signature, ...], bool]
"""An id says nothing of signatures, and a body may be left out: a bad copy must not take a good one's place."""


class Parking:
    """The records that wait, by source and by the authority that they wait for."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, OrderedDict[_Copy, tuple[SignedRecord, bytes]]] = OrderedDict()
        self._bytes: dict[str, int] = {}

    def park(self, record: SignedRecord, source: str, wanted: bytes) -> None:
        """Let a record wait for an authority."""
        share = self._sources.setdefault(source, OrderedDict())
        copy = _copy(record)
        if copy in share:
            return
        share[copy] = (record, wanted)
        self._bytes[source] = self._bytes.get(source, 0) + _size(record)
        while len(share) > PARKED_MAX or self._bytes[source] > PARKED_BYTES_MAX:
            _, (oldest, _) = share.popitem(last=False)
            self._bytes[source] -= _size(oldest)
        while len(self._sources) > SOURCES_MAX:
            forgotten, _ = self._sources.popitem(last=False)
            del self._bytes[forgotten]

    def unpark(self, authority: bytes) -> list[tuple[SignedRecord, str]]:
        """The records that waited for an authority, with their sources; they wait no more."""
        found: list[tuple[SignedRecord, str]] = []
        for source, share in self._sources.items():
            for copy in [c for c, (_, wanted) in share.items() if wanted == authority]:
                record, _ = share.pop(copy)
                self._bytes[source] -= _size(record)
                found.append((record, source))
        return sorted(found, key=lambda pair: (pair[0].id, pair[1]))

    def wanted(self) -> tuple[bytes, ...]:
        """Ids of the authorities that are waited for, those of each source in turn: none crowds out another's."""
        turns = [
            list(OrderedDict.fromkeys(wanted for _, wanted in share.values()))
            for share in self._sources.values()
        ]
        longest = max(map(len, turns), default=0)
        ordered = (turn[i] for i in range(longest) for turn in turns if i < len(turn))
        return tuple(OrderedDict.fromkeys(ordered))


def _copy(record: SignedRecord) -> _Copy:
    return record.id, record.signatures, record.body_bytes is None


def _size(record: SignedRecord) -> int:
    return (
        len(record.header_bytes)
        + len(record.body_bytes or b"")
        + sum(len(s.value) for s in record.signatures)
    )
