"""The records that a member holds: verified on the way in, found again by id, subject and name.

Order of arrival never matters: a record whose authority has not arrived yet is parked, within a bound, and
looked at again when it has. What does not verify is rejected with the reason.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from comity.attestation.adverse import slot_of
from comity.attestation.case import Bundle, Governance
from comity.attestation.epochs import EpochState, found, succeed
from comity.attestation.parking import Parking
from comity.attestation.policy_rules import compile_rules
from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, LocalProtocolError, VerificationError
from comity.protocol.governance import Credential, NodeCertificate, OwnerPolicy, Policy, Taxonomy
from comity.protocol.state import State
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

EXECUTION_HELD_MAX: Final = 65_536
"""Execution records kept verified in memory; others are loaded and verified again when they are needed."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of the records that were offered."""

    admitted: tuple[AnyRecord, ...]
    parked: tuple[SignedRecord, ...]
    rejected: tuple[tuple[SignedRecord, VerificationError | DecodeError], ...]


def require_rules(record: AnyRecord) -> None:
    """Rules that do not compile are nobody's policy: the record is rejected, as any other malformed one.

    Raises:
        DecodeError: naming line and column.
    """
    if isinstance(record.body, Policy | OwnerPolicy) and record.body.rules:
        compile_rules(record.body.rules)


class Holdings:
    """What one member holds of one coalition.

    Args:
        engine: the id of this member's engine.
        load: finds a record that is stored but not in memory, by its id.
        load_about: finds stored records that name a subject.
    """

    def __init__(
        self,
        engine: bytes,
        load: Callable[[bytes], SignedRecord | None] | None = None,
        load_about: Callable[[bytes], Iterable[SignedRecord]] | None = None,
    ) -> None:
        self.directory = KeyDirectory()
        self.state = State()
        self.engine = engine
        self._load = load
        self._load_about = load_about
        self._epochs: list[EpochState] = []
        self._epoch_records: dict[int, SignedRecord] = {}
        self._execution: OrderedDict[bytes, AnyRecord] = OrderedDict()
        self._about: dict[bytes, set[bytes]] = {}
        self._by_body: dict[tuple[str, bytes], bytes] = {}
        self._parking = Parking()
        self._slots: dict[tuple[str, str, str, int], set[bytes]] = {}
        self._governance: Governance | None = None

    # Epochs

    def adopt(self, record: SignedRecord) -> EpochState:
        """Take the next epoch of the chain, or a genesis where there is none.

        Raises:
            VerificationError, DecodeError: it is no epoch that follows.
        """
        if not self._epochs:
            state = found(record)
        elif record.header.number < len(self._epochs) and self._epochs[record.header.number].id == record.id:
            return self._epochs[record.header.number]
        else:
            state = succeed(self._epochs[-1], record)
        self._epochs.append(state)
        self._epoch_records[state.number] = record
        self.directory.admit_members(state.body.members)
        self._governance = None
        return state

    @property
    def epoch(self) -> EpochState:
        if not self._epochs:
            raise LocalProtocolError("no epoch is known yet")
        return self._epochs[-1]

    @property
    def epochs(self) -> Mapping[bytes, EpochState]:
        return MappingProxyType({state.id: state for state in self._epochs})

    def epoch_records(self) -> tuple[SignedRecord, ...]:
        return tuple(self._epoch_records[number] for number in sorted(self._epoch_records))

    def governance(self) -> Governance | None:
        """What is in force, compiled; None until taxonomy and policies of the epoch have arrived."""
        if self._governance is None and self._epochs:
            self._governance = self.governance_at(self.epoch, self.engine)
        return self._governance

    def missing_bodies(self) -> tuple[bytes, ...]:
        """Digests of bodies that the epoch names and that are not here."""
        if not self._epochs:
            return ()
        body = self.epoch.body
        wanted = [("taxonomy", body.taxonomy), *(("policy", digest) for digest in body.policies)]
        return tuple(digest for kind, digest in wanted if (kind, digest) not in self._by_body)

    def governance_at(self, epoch: EpochState, engine: bytes) -> Governance | None:
        """What was in force under one epoch of the chain, as far as its taxonomy and policies are held."""
        body = epoch.body
        taxonomy = self._body_of("taxonomy", body.taxonomy)
        if not isinstance(taxonomy, Taxonomy):
            return None
        bundles: list[Bundle] = []
        for digest in body.policies:
            policy = self._body_of("policy", digest)
            if not isinstance(policy, Policy):
                return None
            bundles.append(Bundle(digest, policy, compile_rules(policy.rules)))
        return Governance(epoch, self.epochs, taxonomy, tuple(bundles), engine)

    def with_body(self, kind: str, digest: bytes) -> AnyRecord | None:
        """The record of a taxonomy or policy with this body, of several the one with the smallest id."""
        record_id = self._by_body.get((kind, digest))
        return self.get(record_id) if record_id is not None else None

    def _body_of(self, kind: str, digest: bytes) -> Any:
        record = self.with_body(kind, digest)
        return record.body if record is not None else None

    # Records

    def admit(self, records: Iterable[SignedRecord], source: str = "") -> Admission:
        """Verify and hold records, and whatever was parked for want of one of them.

        Args:
            source: who brought them; what waits is bounded for each source.
        """
        admitted: list[AnyRecord] = []
        parked: list[SignedRecord] = []
        rejected: list[tuple[SignedRecord, VerificationError | DecodeError]] = []
        queue = deque((record, source) for record in records)
        while queue:
            record, brought_by = queue.popleft()
            if self.peek(record.id) is not None:
                continue
            problem = self._problem(record)
            if problem is not None:
                rejected.append((record, problem))
                continue
            if not self.directory.knows(record.header):
                self._parking.park(record, brought_by)
                parked.append(record)
                continue
            try:
                verified = verify(record, self.directory)
                require_rules(verified)
            except (VerificationError, DecodeError) as exc:
                rejected.append((record, exc))
                continue
            self._hold(verified)
            admitted.append(verified)
            if isinstance(verified.body, NodeCertificate | Credential):
                self.directory.admit(verified)
                queue.extend(self._parking.unpark(verified.id))
        held = {record.id for record in admitted}
        return Admission(tuple(admitted), tuple(r for r in parked if r.id not in held), tuple(rejected))

    def hold(self, verified: AnyRecord) -> None:
        """Hold a record of the execution log that was verified under this directory already."""
        if self.peek(verified.id) is None:
            self._hold(verified)

    def _problem(self, record: SignedRecord) -> VerificationError | None:
        if record.header.kind == "epoch":
            return VerificationError("author_wrong", "an epoch is adopted, not admitted", record.id)
        if not self._epochs or record.header.coalition != self.epoch.coalition:
            return VerificationError("record_foreign", "of another coalition", record.id)
        return None

    def authorities_wanted(self) -> tuple[bytes, ...]:
        """Ids of the authorities that parked records wait for."""
        return self._parking.wanted()

    def _hold(self, verified: AnyRecord) -> None:
        header = verified.header
        if verified.record.kind.log_of(header.outcome) == "governance":
            self.state.add(verified)
        else:
            self._execution[verified.id] = verified
            while len(self._execution) > EXECUTION_HELD_MAX and self._load is not None:
                self._execution.popitem(last=False)
        slot = slot_of(verified)
        if slot is not None:
            self._slots.setdefault(slot, set()).add(verified.id)
        for subject in header.subject:
            self._about.setdefault(subject, set()).add(verified.id)
        if header.kind in ("taxonomy", "policy"):
            named = (header.kind, header.body.digest)
            self._by_body[named] = min(self._by_body.get(named, verified.id), verified.id)
            self._governance = None

    def peek(self, record_id: bytes) -> AnyRecord | None:
        """A record that is in memory."""
        return self.state.get(record_id) or self._execution.get(record_id)

    def get(self, record_id: bytes) -> AnyRecord | None:
        """A record that is held, loaded and verified again where it is not in memory."""
        known = self.peek(record_id)
        if known is not None or self._load is None:
            return known
        stored = self._load(record_id)
        if stored is None or stored.header.kind == "epoch":
            return None
        self.admit([stored])
        return self.peek(record_id)

    def slot_rivals(self, record: AnyRecord) -> tuple[AnyRecord, ...]:
        """Other promoted actuations of the same slot: with one held, neither is lineage."""
        slot = slot_of(record)
        ids = self._slots.get(slot, set()) if slot is not None else set[bytes]()
        held = (self.get(i) for i in sorted(ids - {record.id}))
        return tuple(rival for rival in held if rival is not None)

    def about(self, subject: bytes) -> tuple[AnyRecord, ...]:
        """Held records that name a subject, in the order of their ids."""
        if self._load_about is not None:
            self.admit(self._load_about(subject))
        held = (self.get(i) for i in sorted(self._about.get(subject, ())))
        return tuple(record for record in held if record is not None)
