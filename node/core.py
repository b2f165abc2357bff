"""A node's machines over its store: what one thread does, one call after the other.

Nothing here waits. What has to travel is left in the outbox, which the service empties after every call. What
the machines want stored is stored before anything of theirs is put into the outbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import structlog

from comity.attestation.acknowledging import acknowledge
from comity.attestation.authoring import Author
from comity.attestation.holdings import SLOT_RIVALS_MAX, Admission, Holdings
from comity.attestation.launches import RUNS_PER_TICKET_MAX
from comity.attestation.requester import (
    AskAgain,
    Declined,
    Effect,
    Event,
    IntentFiled,
    NewsArrived,
    Requester,
    SendAsk,
    Settled,
    StoreOwn,
    TimePassed,
    VoteArrived,
    WakeAt,
)
from comity.attestation.voter import AskArrived, Decline, SendVote, StoreRecords, StoreVote, Voter
from comity.attestation.voter import Effect as VoterEffect
from comity.node.accusing import proofs_to_publish
from comity.node.aftermath import Unsettled, aftermath_to_publish
from comity.node.clock import Clock
from comity.node.heads import heads_among, is_for_all
from comity.node.outgoing import (
    Changed,
    GovernanceChanged,
    Outgoing,
    OutgoingAsk,
    OutgoingOffer,
    Wake,
    news_of,
)
from comity.node.past_intents import past_intents
from comity.node.portions import in_frames
from comity.node.store import Head, Store, launch_subject, slot_subject, used_subject
from comity.protocol.contradictions import Slot, slot_of
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError, StoreError, VerificationError
from comity.protocol.frames import (
    DeclineFrame,
    OfferFrame,
    PageFrame,
    ProblemFrame,
    VoteFrame,
    decode_answer,
    encode_frame,
)
from comity.protocol.limits import PAGE_BYTES_MAX, PAGE_RECORDS_MAX
from comity.protocol.tickets import TicketOfMember
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

log = structlog.get_logger("comity.node")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is.

    Attributes:
        member: the organization's trust domain.
        node: the node's SPIFFE id.
        author: the node's key, in this coalition.
    """

    member: str
    node: str
    author: Author


_FILED: Final = frozenset({"actuation", "intent"})
"""Kinds that a process after this one finds by something else than their id."""
_CHANGING: Final = frozenset({"node_certificate", "policy", "revocation", "suspension", "taxonomy"})


class Core:
    """One node in one coalition.

    Args:
        identity: who this node is.
        store: what it keeps. Its epochs and governance records are read at once.
        clock: the only clock.
        engine: the id of this node's engine.
        epochs: the epoch chain to begin with, from the coalition file.
        catches_up: whether it votes only after it has gone through what others hold, as a node does that has a service.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        clock: Clock,
        engine: bytes,
        epochs: Iterable[SignedRecord],
        *,
        catches_up: bool = False,
    ) -> None:
        self.identity = identity
        self.store = store
        self.clock = clock
        self.outbox: list[Outgoing] = []
        self._untold = False
        self._unsettled = Unsettled()
        self.holdings = Holdings(engine, self._load, self._load_about, self._load_slot, self._load_launches)
        for number, record in enumerate(epochs):
            # A genesis is waited for by nobody: without it there is nothing to begin with.
            self.holdings.adopt(record, clock.now() if number else None)
        self._wake_for_epoch()
        self.coalition = self.holdings.epoch.coalition
        self._read_governance()
        self.voter = Voter(identity.author, self.holdings, clock.started, catches_up=catches_up)
        self.requester = Requester(identity.author, self.holdings, clock.started)

    def _load(self, record_id: bytes) -> SignedRecord | None:
        found = self.store.get([record_id])
        return found[0] if found else None

    def _load_slot(self, slot: Slot) -> list[SignedRecord]:
        return self.store.about(slot_subject(self.coalition, *slot), limit=SLOT_RIVALS_MAX)

    def _load_launches(self, ticket: TicketOfMember) -> list[SignedRecord]:
        return self.store.about(launch_subject(self.coalition, *ticket), limit=RUNS_PER_TICKET_MAX)

    def _load_about(self, subject: bytes) -> list[SignedRecord]:
        return self.store.about(subject, execution=True)

    def _read_governance(self) -> None:
        """Everything of the governance logs, once, in bounded pages."""
        position = 0
        while True:
            page = self.store.feed(
                self.coalition, position, records_max=PAGE_RECORDS_MAX, bytes_max=PAGE_BYTES_MAX
            )
            if not page.records:
                return
            read = self.holdings.admit((r for r in page.records if r.header.kind != "epoch"), examined=True)
            self._note(read.admitted)
            position = page.next

    def _note(self, records: Iterable[AnyRecord]) -> None:
        for record in records:
            self._unsettled.add(record, self.holdings.peek)

    def drain(self) -> list[Outgoing]:
        """What has to travel since the last call, with the proofs of what came to light since then.

        What was taken back is acknowledged here, too: it is on disk since the call that admitted it. So is said what
        follows for versions that were found wrong, a few at a time.
        """
        author, now = self.identity.author, self.clock.now()
        said = (
            *proofs_to_publish(self.holdings, author, now),
            *acknowledge(self.holdings, author, now),
            *aftermath_to_publish(self._unsettled, self.holdings, self.store, author, now),
        )
        if said:
            self.publish(said)
        if self._unsettled and self.holdings.governance() is not None:
            self.outbox.append(Wake(self.clock.seconds()))
        outgoing, self.outbox = self.outbox, []
        return outgoing

    # Peers

    def vote_for_self(self, asked: OutgoingAsk) -> None:
        """Judge an ask of this node's own: its organization votes like any other, and nothing travels for it."""
        with self.store.batch():
            said = self.judge(AskArrived(asked.ask, asked.attached))
            if isinstance(said, SignedRecord):
                self.request(VoteArrived(asked.ask.id, said))
            elif isinstance(said, DeclineFrame):
                self.request(Declined(self.identity.member, asked.ask.id, said.code, said.missing))

    def judge(self, event: AskArrived) -> SignedRecord | DeclineFrame | ProblemFrame:
        """Hear an ask. What a vote rests on, and the vote, are stored before they are returned."""
        effects = self.voter.handle(self.clock.now(), event)
        # One commit for all: what the vote rests on, and the vote, before it is sent.
        with self.store.batch():
            return self._carry_out(effects)

    def _carry_out(self, effects: tuple[VoterEffect, ...]) -> SignedRecord | DeclineFrame | ProblemFrame:
        answer: SignedRecord | DeclineFrame | ProblemFrame = ProblemFrame(code="no_answer")
        for effect in effects:
            match effect:
                case StoreRecords(records):
                    self.store.put(records)
                    self._note(r for record in records if (r := self.holdings.peek(record.id)) is not None)
                    self._file_under(self.holdings.peek(r.id) for r in records if r.header.kind in _FILED)
                case StoreVote(intent, t, vote):
                    kept = self.store.vote_once(intent, t, vote)
                    if kept.id != vote.id:
                        # Voted on before this process began. The voter's margin rules it out; the disk has
                        # the last word.
                        return DeclineFrame(code="voted_before")
                case SendVote(_, vote):
                    answer = vote
                case Decline():
                    answer = DeclineFrame(
                        code=effect.code, detail=effect.detail[:200], missing=effect.missing
                    )
        return answer

    def receive_answer(self, member: str, ask: bytes, payload: bytes) -> None:
        """A peer answered an ask."""
        try:
            answer = decode_answer(payload)
            vote = decode_record(answer.vote) if isinstance(answer, VoteFrame) else None
        except DecodeError:
            self.request(Declined(member, ask, "answer_unreadable"))
            return
        if vote is not None and vote.header.kind == "vote":
            self.request(VoteArrived(ask, vote))
        elif isinstance(answer, DeclineFrame):
            self.request(Declined(member, ask, answer.code, answer.missing))
        else:
            self.request(Declined(member, ask, "answer_unreadable"))

    def receive_silence(self, member: str, ask: bytes) -> None:
        """A peer could not be reached, or did not answer in time: the tick at the ask's end settles it."""
        del member, ask
        self.tick()

    def open_page(self, payload: bytes) -> PageFrame:
        """Read one page of a peer's governance records and take its epochs.

        Raises:
            DecodeError: no page.
        """
        page = decode_answer(payload)
        if not isinstance(page, PageFrame):
            raise DecodeError("not a page")
        for data in page.epochs:
            self.adopt(decode_record(data))
        return page

    def tell_news(self) -> None:
        """Let deferred intents look again, if anything was admitted since they last did."""
        if self._untold:
            self._untold = False
            self.request(NewsArrived())

    # Records

    def adopt(self, record: SignedRecord) -> None:
        """Take the next epoch, if that is what it is; an epoch that is known or foreign changes nothing."""
        try:
            self.take_epoch(record)
        except (VerificationError, DecodeError):
            return

    def take_epoch(self, record: SignedRecord) -> bool:
        """Store the next epoch, and look at everything anew under it once it begins. Returns whether it was new.

        Raises:
            VerificationError, DecodeError: it is no epoch that follows.
        """
        if self.holdings.knows_epoch(record.id):
            return False
        self.holdings.adopt(record, self.clock.now())
        self.store.put([record], durable=True)
        if record.id in self.holdings.epochs:
            self._epoch_began()
        else:
            log.info("epoch_waits", epoch=record.header.number, begins=self.holdings.begins_next)
            self._wake_for_epoch()
        return True

    def _epoch_began(self) -> None:
        self.outbox.append(GovernanceChanged())
        self.request(NewsArrived())

    def _wake_for_epoch(self) -> None:
        begins = self.holdings.begins_next
        if begins is not None:
            self.outbox.append(Wake(float(begins)))

    def _begin_epochs(self) -> None:
        """Put the epochs in force whose time has come."""
        if self.holdings.begins_next is None:
            return
        if self.holdings.begin(self.clock.now()):
            self._epoch_began()
        self._wake_for_epoch()

    def admit(
        self,
        records: Iterable[SignedRecord],
        *,
        own: bool = False,
        source: str = "",
        tell: bool = True,
        durable: bool = False,
    ) -> Admission:
        """Verify and keep records, raise heads, and let deferred intents look again.

        Args:
            durable: whether they are on disk when this returns. What speaks against something always is.
            tell: whether they look at once; otherwise at `tell_news`.
        """
        offered = list(records)
        admission = self._admission(offered, source)
        kept = [record.record for record in admission.admitted]
        # One that was held already may have come with somebody's ask, and be a head that nobody has raised.
        held = (self.holdings.peek(record.id) for record in offered if record.header.kind == "actuation")
        made = {record.id: record for record in (*admission.admitted, *held) if record is not None}
        heads: list[Head] = []
        if kept or made:
            durable = durable or any(record.is_adverse() for record in admission.admitted)
            heads = list(heads_among(self.holdings, self.coalition, made.values()))
            with self.store.batch(durable=durable):
                self.store.put(kept, own=own)
                for head in heads:
                    self.store.raise_head(head)
                self._file_under((*made.values(), *admission.admitted))
        self._note(admission.admitted)
        if kept:
            if any(record.header.kind in _CHANGING for record in admission.admitted):
                self.outbox.append(GovernanceChanged())
            if own:
                self.outbox.append(news_of(kept, filter(is_for_all, heads)))
            self._untold = True
        if tell:
            self.tell_news()
        return admission

    def _admission(self, offered: list[SignedRecord], source: str) -> Admission:
        """Admit all, or all but those that nobody can look at: one record must not keep out the others."""
        try:
            return self.holdings.admit(offered, source)
        except StoreError:
            # The disk, and no record: the node stops.
            raise
        except Exception:
            log.exception("record_unbearable")
        parts: list[Admission] = []
        for record in offered:
            try:
                parts.append(self.holdings.admit([record], source))
            except StoreError:
                raise
            except Exception:
                log.exception("record_unbearable", record=record.id.hex(), member=record.header.member)
        # What the first try held is held; it is kept, too.
        held = [h for record in offered if (h := self.holdings.peek(record.id)) is not None]
        admitted = {r.id: r for r in (*held, *(a for part in parts for a in part.admitted))}
        return Admission(
            tuple(admitted.values()),
            tuple(r for part in parts for r in part.parked),
            tuple(r for part in parts for r in part.rejected),
        )

    def _file_under(self, records: Iterable[AnyRecord | None]) -> None:
        """Let the store find, for a process after this one, what was made by its slot, and runs by their ticket."""
        for record in records:
            slot = slot_of(record) if record is not None else None
            if record is not None and slot is not None:
                self.store.file_under(slot_subject(self.coalition, *slot), record.id)
                for used in record.body.inputs:
                    self.store.file_under(used_subject(self.coalition, used), record.id)
            ticket = self.holdings.launches.add(record) if record is not None else None
            if record is not None and ticket is not None:
                self.store.file_under(launch_subject(self.coalition, *ticket), record.id)

    def publish(self, records: Iterable[SignedRecord], members: Iterable[str] | None = None) -> Admission:
        """Keep records of this organization and offer them to other members at once (anti-entropy follows)."""
        wanted = list(records)
        admission = self.admit(wanted, own=True)
        others = tuple(
            sorted(
                set(members if members is not None else self.holdings.epoch.members) - {self.identity.member}
            )
        )
        for offered in in_frames(r.record.encoded() for r in admission.admitted) if others else ():
            self.outbox.append(OutgoingOffer(encode_frame(OfferFrame(records=offered)), others))
        return admission

    # Intents

    def file(self, intent: SignedRecord, offered: tuple[SignedRecord, ...]) -> None:
        self.request(IntentFiled(intent, offered))

    def _keep(self, records: Iterable[SignedRecord]) -> bool:
        """Keep what the requester wants kept: its own records in this node's logs, others' votes beside them.

        Returns whether all may be used. An ask for a round in which another was kept before may not.
        """
        usable = True
        own: list[SignedRecord] = []
        others: list[SignedRecord] = []
        for record in records:
            mine = record.header.key == self.identity.author.signer.key_id
            ask = self.holdings.peek(record.id) if record.header.kind == "ask" else None
            if mine and ask is not None:
                kept = self.store.ask_once(ask.body.intent, ask.body.t, record)
                usable = usable and kept.id == record.id
            else:
                (own if mine else others).append(record)
        if others:
            self.store.put(others)
        if own:
            self.store.put(own, own=True)
            self._file_under(self.holdings.peek(r.id) for r in own if r.header.kind in _FILED)
        return usable

    def _remember(self, intent: bytes, standing: str) -> None:
        """Keep where an intent stands, so that a restart goes on from there."""
        row = self.store.intent(intent)
        if row is not None and row.status != standing:
            self.store.save_intent(replace(row, status=standing, updated=self.clock.now()))

    def resume(self) -> int:
        """Take up this node's intents from before this process. Returns how many."""
        count = 0
        for past in past_intents(self.store, self.holdings, self.identity.author):
            if not self.requester.resume(
                past.intent, past.offered, past.certificate, past.asked_last, past.asks
            ):
                offered = tuple(record.record for record in past.offered)
                self.request(IntentFiled(past.intent.record, offered, past.asked_last, past.asks))
            count += 1
        return count

    def ask_again(self, intent: bytes) -> None:
        self.request(AskAgain(intent))

    def tick(self) -> None:
        self._begin_epochs()
        self.request(TimePassed())

    def members_up(self, members: tuple[str, ...]) -> None:
        self.request(NewsArrived(members))

    def request(self, event: Event) -> None:
        """Run the requester and do what it wants done here; the rest goes into the outbox."""
        effects = self.requester.handle(self.clock.seconds(), event)
        if any(isinstance(effect, StoreOwn | Settled) for effect in effects):
            # One commit for all, and nothing leaves the outbox before it.
            with self.store.batch():
                self._do(effects)
        else:
            self._do(effects)

    def _do(self, effects: tuple[Effect, ...]) -> None:
        usable = True
        for effect in effects:
            match effect:
                case StoreOwn(records):
                    usable = self._keep(records)
                case SendAsk(ask, attached, members):
                    if usable:
                        self.outbox.append(OutgoingAsk(ask, attached, members))
                    else:
                        # Asked in a process before this one. Nobody answers it, so it is asked anew, later.
                        log.warning("asked_before", ask=ask.id.hex())
                case Settled(intent, standing):
                    self._remember(intent, standing)
                    self.outbox.append(Changed(intent))
                case WakeAt(at):
                    self.outbox.append(Wake(at))
