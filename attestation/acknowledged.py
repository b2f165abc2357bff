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
WAITING_PER_MEMBER_MAX: Final = 1_024
"""Revocations of records that are not held that are remembered of each member. Of what is beyond, its oldest is
acknowledged when the node starts again."""
_Signer: TypeAlias = tuple[str, bytes]
"""A member and the id of one of its keys."""


class Acknowledged:
    """What the acknowledgements say that one member holds, and what it has to acknowledge itself."""

    def __init__(self) -> None:
        # Anybody may name whatever it likes: a subject costs a place here and hardly more.
        self._said: dict[bytes, tuple[_Signer, ...]] = {}
        self._signers: dict[_Signer, _Signer] = {}
        self._new: dict[bytes, None] = {}
        self._waiting: dict[bytes, dict[bytes, str]] = {}
        self._waiting_of: dict[str, dict[tuple[bytes, bytes], None]] = {}

    def add(self, record: AnyRecord) -> None:
        """Take a record as it is held."""
        if isinstance(record.body, Acknowledgement):
            signer = (record.member, record.header.key)
            signer = self._signers.setdefault(signer, signer)
            for subject in record.header.subject:
                said = self._said.get(subject, ())
                if signer not in said:
                    self._said[subject] = (*said, signer)
        elif record.header.kind in TAKING_BACK:
            self._new[record.id] = None
        for waiting, member in self._waiting.pop(record.id, {}).items():
            del self._waiting_of[member][record.id, waiting]
            self._new[waiting] = None

    def keys(self, adverse: bytes, member: str) -> frozenset[bytes]:
        """The keys of a member under which it says to hold an adverse record."""
        return frozenset(key for name, key in self._said.get(adverse, ()) if name == member)

    def take_new(self) -> tuple[bytes, ...]:
        """Ids of what takes back, which arrived since the last call, or whose subject did."""
        new, self._new = tuple(self._new), {}
        return new

    def wait_for(self, subject: bytes, adverse: AnyRecord) -> None:
        """Say it again when its subject is held. Who has much waiting loses its own oldest, and nobody else's."""
        self._waiting.setdefault(subject, {})[adverse.id] = adverse.member
        own = self._waiting_of.setdefault(adverse.member, {})
        own[subject, adverse.id] = None
        if len(own) > WAITING_PER_MEMBER_MAX:
            oldest, forgotten = next(iter(own))
            del own[oldest, forgotten]
            del self._waiting[oldest][forgotten]
            if not self._waiting[oldest]:
                del self._waiting[oldest]
