"""Who says to hold what was taken back: by the acknowledgements that are held, in whatever order they came.

Spec: docs/spec/decision.md section 8.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from comity.protocol.governance import Acknowledgement
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

TAKING_BACK: Final = frozenset({"revocation", "suspension"})
"""The kinds that are acknowledged. What else is adverse is about one intent, or proves itself."""
WAITING_MAX: Final = 4_096
"""Revocations of records that are not held that are remembered. Of what is beyond, the oldest is acknowledged when the
node starts again."""


class Acknowledged:
    """What the acknowledgements say that one member holds, and what it has to acknowledge itself."""

    def __init__(self) -> None:
        self._keys: dict[bytes, dict[str, set[bytes]]] = {}
        self._new: dict[bytes, None] = {}
        self._waiting: dict[bytes, dict[bytes, None]] = {}
        self._waiting_count = 0

    def add(self, record: AnyRecord) -> None:
        """Take a record as it is held."""
        if isinstance(record.body, Acknowledgement):
            for subject in record.header.subject:
                self._keys.setdefault(subject, {}).setdefault(record.member, set()).add(record.header.key)
        elif record.header.kind in TAKING_BACK:
            self._new[record.id] = None
        for waiting in self._waiting.pop(record.id, {}) if self._waiting else ():
            self._waiting_count -= 1
            self._new[waiting] = None

    def keys(self, adverse: bytes, member: str) -> frozenset[bytes]:
        """The keys of a member under which it says to hold an adverse record."""
        return frozenset(self._keys.get(adverse, {}).get(member, ()))

    def take_new(self) -> tuple[bytes, ...]:
        """Ids of what takes back, which arrived since the last call, or whose subject did."""
        new, self._new = tuple(self._new), {}
        return new

    def wait_for(self, subject: bytes, adverse: bytes) -> None:
        """Say it again when its subject is held."""
        waiting = self._waiting.setdefault(subject, {})
        if adverse not in waiting:
            waiting[adverse] = None
            self._waiting_count += 1
        while self._waiting_count > WAITING_MAX:
            self._waiting_count -= len(self._waiting.pop(next(iter(self._waiting))))
