"""A record that is genuine: a type of its own, so that an unverified one cannot stand in its place.

Only `comity.attestation.verification` constructs it; a test reads the source of every other module for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from comity.protocol.encoding import Form
from comity.protocol.envelope import Header, SignedRecord
from comity.protocol.limits import INT_MAX

B_co = TypeVar("B_co", bound=Form, covariant=True)

Role: TypeAlias = Literal["members", "organization", "node", "subject"]


@dataclass(frozen=True, slots=True)
class VerifiedRecord(Generic[B_co]):
    """A record whose signature verified under a key that its author answers for.

    Attributes:
        record: the record as it came.
        body: its body in the form of its kind.
        role: which sort of the author's keys signed it.
        root_key: the id of the organization's key that the authority over the signing key comes from.
        valid_from, valid_until: when the signing key was in force, by every record between it and that root.
    """

    record: SignedRecord
    body: B_co
    role: Role
    root_key: bytes
    valid_from: int = 0
    valid_until: int = INT_MAX

    @property
    def id(self) -> bytes:
        return self.record.id

    @property
    def header(self) -> Header:
        return self.record.header

    @property
    def member(self) -> str:
        return self.record.header.member

    @property
    def authority(self) -> bytes | None:
        return self.record.header.authority

    def in_force(self, t: int) -> bool:
        """Whether the signing key was in force at `t`: from the first second to before the last."""
        return self.valid_from <= t < self.valid_until

    def is_adverse(self) -> bool:
        return self.record.kind.is_adverse(self.record.header.outcome)
