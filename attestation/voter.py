"""The voter: from an ask to this organization's vote.

A machine without IO: `handle(now, event) -> effects`. It keeps no timers and no deferred intents (law: only the
requester opens a new t). A vote is an effect to store before the effect to send it; asked again about the
same intent and t it answers with the same bytes.

Laws:
1. At most one vote for one (intent, t), ever, by this key (docs/spec/decision.md section 4).
2. No vote on a t that lies outside of the window around the own clock, or before the own start plus a margin:
   what was forgotten in a crash can therefore never be contradicted. Nor before a node has gone through what others
   hold: its first vote knows what it missed.
3. What cannot be read, or judged without a fault, gets no vote: abstention supports nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from comity.attestation.adverse import authorities_of_inputs
from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.case import Case, Fault, Governance, Judgement
from comity.attestation.holdings import Holdings
from comity.attestation.judgement import judge
from comity.attestation.speaking import is_report, links_above
from comity.protocol.bundle import credentials_of
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Ask, ClassJudgement, Intent, Vote
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ASK_AHEAD_S, ASK_PAST_S, FETCH_IDS_MAX, START_MARGIN_S, VOTE_BYTES_MAX
from comity.protocol.outcome import Cause, Mode, Outcome, full_extent
from comity.protocol.records import decode_body
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

VOTES_REMEMBERED_MAX: Final = 16_384
"""Votes kept to answer again. The window of t is 35 s wide, so this is far more than can still be asked for."""


@dataclass(frozen=True, slots=True)
class AskArrived:
    """An ask arrives, by whatever road. `attached` are records that came in the same frame, `source` who sent it."""

    ask: SignedRecord
    attached: tuple[SignedRecord, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class StoreRecords:
    """Keep these before anything that follows in the list of effects."""

    records: tuple[SignedRecord, ...]


@dataclass(frozen=True, slots=True)
class StoreVote:
    """Keep this vote before it is sent (committed, not fsynced: law 2 covers power loss)."""

    intent: bytes
    t: int
    vote: SignedRecord


@dataclass(frozen=True, slots=True)
class SendVote:
    """Answer the ask."""

    ask: bytes
    vote: SignedRecord


@dataclass(frozen=True, slots=True)
class Decline:
    """Answer the ask without a vote: this voter abstains, and says why.

    `missing` are records that the ask names and that are not here: the requester may send them with the same ask.
    """

    ask: bytes
    code: str
    detail: str = ""
    missing: tuple[bytes, ...] = ()


Effect: TypeAlias = StoreRecords | StoreVote | SendVote | Decline


class Voter:
    """One organization's voter in one coalition.

    Args:
        author: the node's key.
        holdings: what this member holds; asks add to it.
        started: when this process started, in whole seconds.
        catches_up: whether it votes only after it has gone through what others hold (`caught_up_with`), so that it
            knows what came while it was away.
    """

    def __init__(self, author: Author, holdings: Holdings, started: int, *, catches_up: bool = False) -> None:
        self._author = author
        self._holdings = holdings
        self._started = started
        self._gone_through: set[str] | None = set() if catches_up else None
        self._votes: OrderedDict[tuple[bytes, int], tuple[bytes, SignedRecord]] = OrderedDict()

    def caught_up_with(self, member: str) -> None:
        """All governance records of a member were gone through since this process began."""
        if self._gone_through is not None:
            self._gone_through.add(member)

    def votes(self, now: int) -> bool:
        """Whether it votes on what is asked now."""
        return now > self._started + START_MARGIN_S and not self._behind()

    def _behind(self) -> int:
        """Of how many members more it has to go through the records: one less than a quorum, with its own."""
        if self._gone_through is None:
            return 0
        epoch = self._holdings.epoch
        others = set(epoch.members) - {self._author.member}
        return max(min(epoch.quorum - 1, len(others)) - len(others & self._gone_through), 0)

    def handle(self, now: int, event: AskArrived) -> tuple[Effect, ...]:
        """Judge an ask.

        Args:
            now: this node's clock, in whole seconds.
        """
        ask_id = event.ask.id
        admission = self._holdings.admit((*event.attached, event.ask), event.source)
        kept = tuple(r.record for r in admission.admitted)
        effects: list[Effect] = [StoreRecords(kept)] if kept else []
        ask = self._holdings.peek(ask_id)
        if ask is None or not isinstance(ask.body, Ask):
            directory = self._holdings.directory
            missing = tuple(i for r in admission.parked if (i := directory.wants(r)) is not None)
            code = "records_missing" if missing else "ask_unreadable"
            return (*effects, Decline(ask_id, code, missing=missing))
        return (*effects, *self._answer(now, ask))

    def _answer(self, now: int, ask: VerifiedRecord[Ask]) -> tuple[Effect, ...]:
        body = ask.body
        if not now - ASK_PAST_S <= body.t <= now + ASK_AHEAD_S:
            return (Decline(ask.id, "clock", f"t is {body.t - now} s from this clock"),)
        earlier = self._votes.get((body.intent, body.t))
        if earlier is not None:
            if earlier[0] == ask.id:
                # Stored once more: where the store has another vote of before this process, it has the last word.
                return (StoreVote(body.intent, body.t, earlier[1]), SendVote(ask.id, earlier[1]))
            return (Decline(ask.id, "asked_twice", "another ask for this intent and t was answered"),)
        if body.t <= self._started + START_MARGIN_S:
            return (
                Decline(ask.id, "starting", f"this node votes on t after {self._started + START_MARGIN_S}"),
            )
        behind = self._behind()
        if behind:
            return (Decline(ask.id, "starting", f"records of {behind} members were not gone through yet"),)
        case = self._case(ask)
        if isinstance(case, Case) and ask.member != case.intent.member:
            # Before a vote takes this t away from whose intent it is.
            return (Decline(ask.id, "ask_foreign", "an intent is asked for by its own organization"),)
        if isinstance(case, Decline):
            return (case,)
        judgement = judge(case)
        if isinstance(judgement, Fault):
            return (Decline(ask.id, judgement.code, judgement.detail),)
        return self._vote(case, judgement)

    def _case(self, ask: VerifiedRecord[Ask]) -> Case | Decline:
        """Everything that the ask names, and what is held against it."""
        governance = self._holdings.governance()
        if governance is None:
            return Decline(ask.id, "governance_missing", "taxonomy or policies of the epoch have not arrived")
        epoch = governance.epoch
        if not any(e.scope == epoch.coalition and e.epoch == epoch.id for e in ask.body.epochs):
            return Decline(ask.id, "epoch_other", f"this node is in epoch {epoch.number}")
        if ask.body.t < epoch.body.started:
            return Decline(ask.id, "epoch_other", f"epoch {epoch.number} begins after t")
        wanted = (ask.body.intent, *ask.body.relied)
        found = {i: record for i in wanted if (record := self._holdings.get(i)) is not None}
        # Whoever judges again has the credentials of the intents too: one that was taken back marks an input.
        wanted += credentials_of(found[i] for i in ask.body.relied if i in found)
        missing = tuple(i for i in dict.fromkeys(wanted) if i not in found and self._holdings.get(i) is None)
        if missing:
            return Decline(ask.id, "records_missing", f"{len(missing)} records", missing[:FETCH_IDS_MAX])
        intent = found[ask.body.intent]
        if not isinstance(intent.body, Intent):
            return Decline(ask.id, "ask_unreadable", "the intent is no intent")
        relied = {i: record for i, record in found.items() if i != intent.id}
        return build_case(governance, self._holdings, intent, ask, relied)

    def _vote(self, case: Case, judgement: Judgement) -> tuple[Effect, ...]:
        body = vote_body(case, judgement)
        record = self._author.write(
            "vote", body, at=case.ask.body.t, subject=(case.intent.id,), realm=case.intent.header.realm
        )
        try:
            # What no other member could read is no vote.
            decode_body(record)
        except DecodeError as exc:
            return (Decline(case.ask.id, "vote_large", str(exc)),)
        self._votes[case.intent.id, case.ask.body.t] = (case.ask.id, record)
        while len(self._votes) > VOTES_REMEMBERED_MAX:
            self._votes.popitem(last=False)
        return (
            StoreVote(case.intent.id, case.ask.body.t, record),
            SendVote(case.ask.id, record),
        )


def build_case(
    governance: Governance,
    holdings: Holdings,
    intent: VerifiedRecord[Intent],
    ask: VerifiedRecord[Ask],
    relied: dict[bytes, AnyRecord],
) -> Case:
    """A case with the adverse records, rivals and successors that a member holds."""
    authorities = {r.authority for r in (intent, ask, *relied.values()) if r.authority is not None}
    below = authorities_of_inputs(relied, holdings.get)
    authorities |= {i for held in below.values() for i in held}
    concerned = {intent.id, ask.id, *relied, *authorities}
    candidates, links = adverse_to(concerned, holdings)
    reported = links_above(relied.values(), holdings.get)
    for record in relied.values():
        for other in holdings.state.rivals(record):
            candidates[other.id] = other
        for other in holdings.slot_rivals(record):
            candidates[other.id] = other
        if record.header.kind == "owner_policy":
            for other in holdings.state.successors(record):
                candidates[other.id] = other
    for other in holdings.second_runs(intent, relied.values()):
        candidates[other.id] = other
    known = {i: r for i in authorities if (r := holdings.get(i)) is not None}
    return Case(
        governance=governance,
        intent=intent,
        ask=ask,
        relied=relied,
        candidates=tuple(candidates[i] for i in sorted(candidates)),
        known=known,
        links={**links, **reported},
    )


def adverse_to(
    concerned: Iterable[bytes], holdings: Holdings
) -> tuple[dict[bytes, AnyRecord], dict[bytes, AnyRecord]]:
    """What is held against records, with what takes that back; and the credentials above those who report."""
    found = holdings.adverse_about(concerned)
    links = links_above(found, holdings.get)
    reports = (record.id for record in found if is_report(record))
    back = (r for r in holdings.adverse_about({*reports, *links}) if not is_report(r))
    return {record.id: record for record in (*found, *back)}, links


def vote_body(case: Case, judgement: Judgement) -> Vote:
    """The body of the vote that says a judgement."""
    governance, ask = case.governance, case.ask.body
    body = Vote(
        salt=NO_SALT,
        intent=case.intent.id,
        ask=case.ask.id,
        t=ask.t,
        scope=governance.epoch.coalition,
        epoch=governance.epoch.id,
        engine=governance.engine,
        expires=judgement.expires,
        judgements=judgement.classes,
        working=sha256(encode(judgement.working)),
        adverse=judgement.adverse,
    )
    if len(encode(body)) > VOTE_BYTES_MAX:
        # What cannot be said in a vote is refused, for then the requester hears why; silence says nothing.
        body = msgspec.structs.replace(body, judgements=tuple(_unsayable(j) for j in body.judgements))
    return body


def _unsayable(judgement: ClassJudgement) -> ClassJudgement:
    state = msgspec.structs.replace(
        judgement.state,
        owners=judgement.state.owners[:1],
        data_classes=(),
        authority_classes=(),
        restrictions=(),
    )
    outcome = Outcome(mode=Mode.REFUSE, extent=full_extent(0, 0), causes=(Cause(code="vote_large"),))
    return ClassJudgement(outcome=outcome, weight=judgement.weight, state=state)
