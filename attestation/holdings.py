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

from comity.attestation.accused import Accused
from comity.attestation.acknowledged import Acknowledged
from comity.attestation.adverse import may_take_back
from comity.attestation.case import Bundle, Governance
from comity.attestation.epochs import EpochState, found, succeed
from comity.attestation.launches import Launches
from comity.attestation.parking import Parking
from comity.attestation.policy_rules import compile_rules
from comity.attestation.speaking import credentials_above
from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import RULES, Round, Slot, round_of, slot_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, LocalProtocolError, VerificationError
from comity.protocol.governance import Credential, NodeCertificate, OwnerPolicy, Policy, Taxonomy
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX, ASK_AHEAD_S
from comity.protocol.state import State
from comity.protocol.tickets import TicketOfMember, is_second_run
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

EXECUTION_HELD_MAX: Final = 65_536
"""Execution records kept verified in memory; others are loaded and verified again when they are needed."""
SLOTS_HELD_MAX: Final = 65_536
"""Slots whose actuations are remembered; of others the store is asked again."""
SLOT_RIVALS_MAX: Final = ADVERSE_PER_VOTE_MAX + 1
"""Actuations of one slot that are remembered, the first by id: of more than these a vote could say no more."""
EPOCHS_COMING_MAX: Final = 16
"""Epochs that all have signed and that have not begun. Each has this organization's own signature, too."""
ROUNDS_HELD_MAX: Final = 65_536
"""Asks and votes among which a second one for the same is noticed."""
CONTRADICTIONS_MAX: Final = 4
"""Contradictions of one member that wait to be proved; who contradicts itself more often is shown by these."""


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
        load_about: finds stored records of the execution log that name a subject.
        load_slot: finds stored promoted actuations of a slot.
        load_launches: finds stored intents under a launch ticket, one for each of the first runs.
        examines: whether rules are compiled, and contradictions looked for, when records arrive. Whoever looks at a
            bundle does both later, for what stays.
    """

    def __init__(
        self,
        engine: bytes,
        load: Callable[[bytes], SignedRecord | None] | None = None,
        load_about: Callable[[bytes], Iterable[SignedRecord]] | None = None,
        load_slot: Callable[[Slot], Iterable[SignedRecord]] | None = None,
        load_launches: Callable[[TicketOfMember], Iterable[SignedRecord]] | None = None,
        *,
        examines: bool = True,
    ) -> None:
        self.directory = KeyDirectory()
        self.state = State()
        self.engine = engine
        self._load = load
        self._load_about = load_about
        self._load_slot = load_slot
        self._examines = examines
        self._epochs: list[EpochState] = []
        self._coming: list[EpochState] = []
        self._epoch_records: dict[int, SignedRecord] = {}
        self._execution: OrderedDict[bytes, AnyRecord] = OrderedDict()
        self._about: dict[bytes, set[bytes]] = {}
        self._by_body: dict[tuple[str, bytes], bytes] = {}
        self._parking = Parking()
        self._slots: OrderedDict[Slot, set[bytes]] = OrderedDict()
        self._rounds: OrderedDict[Round, bytes] = OrderedDict()
        self._contradictions: dict[str, list[tuple[bytes, bytes]]] = {}
        self.launches = Launches(load_launches)
        self.accused = Accused()
        self.acknowledged = Acknowledged()
        self._governance: Governance | None = None

    # Epochs

    def adopt(self, record: SignedRecord, now: int | None = None) -> EpochState:
        """Take the next epoch of the chain, or a genesis where there is none.

        Args:
            now: this node's clock, in whole seconds. An epoch that begins later than `ASK_AHEAD_S` from now is kept
                and not in force until `begin`. Without it time does not matter, as for whoever looks back.

        Raises:
            VerificationError, DecodeError: it is no epoch that follows.
        """
        chain = [*self._epochs, *self._coming]
        number = record.header.number
        if number < len(chain) and chain[number].id == record.id:
            return chain[number]
        state = succeed(chain[-1], record) if chain else found(record)
        early = now is not None and state.body.started > now + ASK_AHEAD_S
        if len(self._coming) >= EPOCHS_COMING_MAX:
            raise VerificationError("epoch_early", "too many epochs before it have not begun", record.id)
        self._epoch_records[state.number] = record
        # What its new members sign verifies from now on; what counts is for the epoch in force to say.
        self.directory.admit_members(state.body.members)
        (self._coming if early or self._coming else self._epochs).append(state)
        self._governance = None
        return state

    def knows_epoch(self, record_id: bytes) -> bool:
        """Whether an epoch is of the chain, in force or coming."""
        return any(state.id == record_id for state in (*self._epochs, *self._coming))

    def begin(self, now: int) -> tuple[EpochState, ...]:
        """Put the epochs in force whose time has come. Returns them."""
        due = [state for state in self._coming if state.body.started <= now + ASK_AHEAD_S]
        if due:
            self._epochs += due
            del self._coming[: len(due)]
            self._governance = None
        return tuple(due)

    @property
    def begins_next(self) -> int | None:
        """The time from which `begin` puts another epoch in force; None where none waits."""
        return self._coming[0].body.started - ASK_AHEAD_S if self._coming else None

    @property
    def epoch(self) -> EpochState:
        if not self._epochs:
            raise LocalProtocolError("no epoch is known yet")
        return self._epochs[-1]

    @property
    def epochs(self) -> Mapping[bytes, EpochState]:
        return MappingProxyType({state.id: state for state in self._epochs})

    def epoch_records(self) -> tuple[SignedRecord, ...]:
        return tuple(self._epoch_records[state.number] for state in self._epochs)

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
            try:
                bundles.append(Bundle(digest, policy, compile_rules(policy.rules)))
            except DecodeError:
                # It came before the epoch that names it, when nobody had to look at it. It is nobody's policy.
                return None
        # Who judges under an epoch knows those before it; whoever judges again later must know no more.
        before = {state.id: state for state in self._epochs[: epoch.number + 1]}
        return Governance(epoch, MappingProxyType(before), taxonomy, tuple(bundles), engine)

    def with_body(self, kind: str, digest: bytes) -> AnyRecord | None:
        """The record of a taxonomy or policy with this body, of several the one with the smallest id."""
        record_id = self._by_body.get((kind, digest))
        return self.get(record_id) if record_id is not None else None

    def _body_of(self, kind: str, digest: bytes) -> Any:
        record = self.with_body(kind, digest)
        return record.body if record is not None else None

    # Records

    def admit(
        self, records: Iterable[SignedRecord], source: str = "", *, examined: bool = False
    ) -> Admission:
        """Verify and hold records, and whatever was parked for want of one of them.

        Args:
            source: who brought them; what waits is bounded for each source.
            examined: their rules compiled when they were admitted, in a process before this one.
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
            wanted = self.directory.wants(record)
            if wanted is not None:
                self._parking.park(record, brought_by, wanted)
                parked.append(record)
                continue
            try:
                verified = verify(record, self.directory)
                if not examined and self._is_to_examine(verified):
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

    def _is_to_examine(self, record: AnyRecord) -> bool:
        """Whether rules have to compile now: an owner's, and those of bundles that an epoch names.

        Any member publishes bundles; what no epoch names binds nobody, and is compiled when one does.
        """
        if not self._examines or not isinstance(record.body, Policy):
            return self._examines
        digest = record.header.body.digest
        return any(digest in state.body.policies for state in (*self._epochs, *self._coming))

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
            for subject in header.subject:
                self._about.setdefault(subject, set()).add(verified.id)
            while len(self._execution) > EXECUTION_HELD_MAX and self._load is not None:
                self._execution.popitem(last=False)
        if self._examines:
            self._compare(verified)
        if header.kind in ("taxonomy", "policy"):
            named = (header.kind, header.body.digest)
            self._by_body[named] = min(self._by_body.get(named, verified.id), verified.id)
            self._governance = None

    def _compare(self, verified: AnyRecord) -> None:
        """Whether its author said something else before; and what a proof shows."""
        round_ = round_of(verified)
        if round_ is not None:
            self._contradicts(verified, self._rounds.setdefault(round_, verified.id))
            if len(self._rounds) > ROUNDS_HELD_MAX:
                self._rounds.popitem(last=False)
        slot = slot_of(verified)
        if slot is not None:
            claims = self._claims(slot)
            claims.add(verified.id)
            self._contradicts(verified, min(claims))
            self._contradicts(verified, max(claims))
        self.launches.add(verified)
        if isinstance(verified.body, Misbehaviour):
            self.accused.add(verified, self.directory)
        self.acknowledged.add(verified)

    def _contradicts(self, verified: AnyRecord, other: bytes) -> None:
        pair = (min(verified.id, other), max(verified.id, other))
        if pair[0] != pair[1]:
            self.put_back(verified.member, pair)

    def put_back(self, member: str, pair: tuple[bytes, bytes]) -> None:
        """Let a contradiction be taken again, later. Of each member the newest few wait, and crowd out no others."""
        waiting = self._contradictions.setdefault(member, [])
        if pair not in waiting:
            waiting.append(pair)
            del waiting[:-CONTRADICTIONS_MAX]

    def take_contradictions(self) -> tuple[tuple[AnyRecord, AnyRecord], ...]:
        """Records of one author that contradict each other and of which no proof is held, since the last call."""
        if not self._contradictions:
            return ()
        pairs, self._contradictions = self._contradictions, {}
        unproved = (pair for member in sorted(pairs) for pair in pairs[member] if not self._is_proved(pair))
        found = [(self.get(one), self.get(other)) for one, other in unproved]
        return tuple((one, other) for one, other in found if one is not None and other is not None)

    def _is_proved(self, pair: tuple[bytes, bytes]) -> bool:
        return any(
            isinstance(record.body, Misbehaviour)
            and record.body.rule in RULES
            and record.header.subject == pair
            for record in self.state.adverse_about(pair)
        )

    def discounted(self, epoch: bytes) -> frozenset[str]:
        """Members that are shown to have cast two votes under an epoch: no quorum is made up with theirs."""
        state = next((state for state in reversed(self._epochs) if state.id == epoch), None)
        return self.accused.discounted(state) if state is not None else frozenset()

    def promoted_in(self, slot: Slot) -> frozenset[bytes]:
        """Ids of the promoted actuations of a slot that are held or stored."""
        return frozenset(self._claims(slot))

    def adverse_about(self, subjects: Iterable[bytes]) -> tuple[AnyRecord, ...]:
        """Adverse records that speak of any of the subjects, in the order of their ids.

        Of revocations and suspensions those of who may take the subject back, as far as it is held: what others say
        is looked at by nobody, and crowds out nothing.
        """
        return self.state.adverse_about(subjects, self._may_take_back)

    def _may_take_back(self, subject: bytes) -> frozenset[tuple[str, bytes]]:
        target = self.get(subject)
        if target is None:
            return frozenset()
        return may_take_back(target, credentials_above([target], self.get))

    def peek(self, record_id: bytes) -> AnyRecord | None:
        """A record that is in memory."""
        # Most are of the execution log.
        return self._execution.get(record_id) or self.state.get(record_id)

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
        """Other promoted actuations of the same slot, held or stored: with one of them, neither is lineage."""
        slot = slot_of(record)
        if slot is None:
            return ()
        held = (self.get(i) for i in sorted(self._claims(slot) - {record.id})[:SLOT_RIVALS_MAX])
        return tuple(rival for rival in held if rival is not None)

    def second_runs(self, intent: AnyRecord, tickets: Iterable[AnyRecord]) -> tuple[AnyRecord, ...]:
        """Intents of other runs under a ticket that an intent is under, where that ticket is for one run alone."""
        others = [found for i in self.launches.others(intent) if (found := self.get(i)) is not None]
        return tuple(other for other in others if any(is_second_run(intent, other, each) for each in tickets))

    def _claims(self, slot: Slot) -> set[bytes]:
        """The promoted actuations of a slot. The store is asked once, and again where the slot was forgotten."""
        claims = self._slots.get(slot)
        if claims is None:
            stored = self._load_slot(slot) if self._load_slot is not None else ()
            claims = self._slots[slot] = {record.id for record in stored}
            while len(self._slots) > SLOTS_HELD_MAX and self._load_slot is not None:
                self._slots.popitem(last=False)
        while len(claims) > SLOT_RIVALS_MAX:
            claims.remove(max(claims))
        return claims

    def about(self, subject: bytes) -> tuple[AnyRecord, ...]:
        """Held records of the execution log that name a subject, in the order of their ids.

        Those that speak against it are the state's to find.
        """
        if self._load_about is not None:
            self.admit(self._load_about(subject))
        held = (self.get(i) for i in sorted(self._about.get(subject, ())))
        return tuple(record for record in held if record is not None)
