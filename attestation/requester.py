"""The requester: from an intent to a permit, a refusal, or a deferral that goes on by itself.

A machine without IO: `handle(now, event) -> effects`. Only the requester's node opens a new t: when a record
arrives that changes what can be relied on, when a silent member becomes reachable, or when votes timed out.

Laws:
1. Never two asks for one (intent, t).
2. An ask is stored before it is sent; a permit before it is used.
3. Whoever picks the votes gains nothing: the tally alone says what they carry.

Spec: docs/spec/decision.md sections 1 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.case import Fault
from comity.attestation.gathering import gather
from comity.attestation.holdings import Holdings
from comity.attestation.judgement import judge
from comity.attestation.tally import (
    Permitted,
    Refused,
    Undecided,
    VoteRecord,
    could_be_more,
    countable,
    tally,
)
from comity.attestation.voter import build_case
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError
from comity.protocol.execution import Ask, ClassJudgement, Intent, Permit, Refusal, ScopeEpoch, Vote
from comity.protocol.limits import (
    ASK_AGE_S_MAX,
    ASK_AHEAD_S,
    ASK_BACKOFF_S_MAX,
    ASK_BACKOFF_S_MIN,
    ASK_BYTES_MAX,
    ASKS_PER_INTENT_MAX,
    START_MARGIN_S,
)
from comity.protocol.outcome import Cause, Need, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

VOTES_WAIT_S: Final = 5.0
"""How long votes of one ask are waited for before it counts as timed out."""
NEWS_GAP_S: Final = 1.0
"""Least time between two asks of one intent when news arrives: t is a whole second and never used twice."""

HURRIES_MAX: Final = 5
"""Asks of one intent that come early because a member says that it is starting: a liar always says so."""
RETURNS_MAX: Final = 3
"""Asks of one intent that come early because a certain member is back: a liar comes and goes as it likes, and asks are
counted. With 13 members, four of them liars, these are 12 of 50."""

Standing: TypeAlias = Literal["asking", "permitted", "refused", "deferred", "held", "expired"]
"""`held`: fewer than a quorum answered; a local state, under the same intent, that goes on by itself."""


@dataclass(frozen=True, slots=True)
class IntentFiled:
    """An intent of this organization, with records that came with it (a launch ticket, evidence).

    `after` is the last t that it was asked for in a process before this one: no ask is for it or one before it. `asks`
    is how often that was: asks are counted, and pauses grow, over all processes.
    """

    intent: SignedRecord
    offered: tuple[SignedRecord, ...] = ()
    after: int = 0
    asks: int = 0


@dataclass(frozen=True, slots=True)
class VoteArrived:
    ask: bytes
    vote: SignedRecord


@dataclass(frozen=True, slots=True)
class Declined:
    """A voter abstains. `missing` are records that it wants with the ask."""

    member: str
    ask: bytes
    code: str
    missing: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class NewsArrived:
    """Records were admitted, or members became reachable: deferred intents may go on."""

    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Open a new t for an intent now: its permit expired unused, or an operator wants it."""

    intent: bytes


@dataclass(frozen=True, slots=True)
class TimePassed:
    pass


Event: TypeAlias = IntentFiled | VoteArrived | Declined | NewsArrived | AskAgain | TimePassed


@dataclass(frozen=True, slots=True)
class StoreOwn:
    """Keep these own records, committed, before anything that follows."""

    records: tuple[SignedRecord, ...]


@dataclass(frozen=True, slots=True)
class SendAsk:
    """Ask these members (the own one among them). `attached` are the execution records that the ask names."""

    ask: SignedRecord
    attached: tuple[SignedRecord, ...]
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """An intent's standing changed."""

    intent: bytes
    standing: Standing


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send `TimePassed` at this time, in seconds."""

    at: float


Effect: TypeAlias = StoreOwn | SendAsk | Settled | WakeAt


@dataclass(slots=True)
class Pursuit:
    """One intent on its way to a decision."""

    intent: VerifiedRecord[Intent]
    offered: tuple[AnyRecord, ...]
    after: int = 0
    standing: Standing = "asking"
    ask: VerifiedRecord[Ask] | None = None
    attached: tuple[SignedRecord, ...] = ()
    considered: frozenset[bytes] = frozenset()
    votes: dict[str, VoteRecord] = field(default_factory=dict[str, VoteRecord])
    declined: dict[str, str] = field(default_factory=dict[str, str])
    asks: int = 0
    asked_at: float = 0.0
    ask_next: float | None = None
    backoff: float = ASK_BACKOFF_S_MIN
    hurries: int = 0
    returns: dict[str, int] = field(default_factory=dict[str, int])
    permit: VerifiedRecord[Permit] | None = None
    refusal: VerifiedRecord[Refusal] | None = None
    causes: tuple[Cause, ...] = ()
    needs: tuple[Need, ...] = ()
    resent: set[str] = field(default_factory=set[str])


class Requester:
    """One organization's requester in one coalition.

    Args:
        author: the node's key.
        holdings: what this member holds.
        started: when this process started, in whole seconds. No t lies before it plus the margin that t may lie
            ahead: an ask that was forgotten in a crash can therefore never be contradicted.
    """

    def __init__(self, author: Author, holdings: Holdings, started: int) -> None:
        self._author = author
        self._holdings = holdings
        self._started = started
        self._pursuits: dict[bytes, Pursuit] = {}
        self._by_ask: dict[bytes, bytes] = {}

    def pursuit(self, intent: bytes) -> Pursuit | None:
        """Where an intent stands, for those who show it."""
        return self._pursuits.get(intent)

    def pursuits(self) -> tuple[Pursuit, ...]:
        return tuple(self._pursuits[i] for i in sorted(self._pursuits))

    def resume(
        self,
        intent: AnyRecord,
        offered: tuple[AnyRecord, ...],
        certificate: AnyRecord | None,
        after: int = 0,
        asks: int = 0,
    ) -> bool:
        """Take up an intent from before this process, with its permit or refusal where there is one.

        Args:
            after: the last t that it was asked for.
            asks: how often it was asked for.

        Returns whether it stands; one without a certificate has to be filed again.
        """
        if certificate is None or intent.id in self._pursuits:
            return False
        ask = self._holdings.get(certificate.body.ask)
        if ask is None:
            return False
        pursuit = Pursuit(
            intent=intent, offered=offered, after=after, ask=ask, asks=asks, backoff=_pause_after(asks)
        )
        votes = [v for i in certificate.body.votes if (v := self._holdings.get(i)) is not None]
        pursuit.votes = {vote.member: vote for vote in votes}
        causes = (c for vote in votes for j in vote.body.judgements for c in j.outcome.causes)
        pursuit.causes = union(tuple(causes))
        if isinstance(certificate.body, Permit):
            pursuit.standing, pursuit.permit = "permitted", certificate
        else:
            pursuit.standing, pursuit.refusal = "refused", certificate
        self._pursuits[intent.id] = pursuit
        return True

    def handle(self, now: float, event: Event) -> tuple[Effect, ...]:
        match event:
            case IntentFiled():
                return self._file(now, event)
            case VoteArrived():
                return self._count(now, event)
            case Declined():
                return self._declined(now, event)
            case NewsArrived():
                return self._news(now, event.members)
            case AskAgain():
                return self._again(now, event.intent)
            case TimePassed():
                return self._tick(now)

    def _file(self, now: float, event: IntentFiled) -> tuple[Effect, ...]:
        admission = self._holdings.admit((*event.offered, event.intent))
        if admission.rejected:
            raise admission.rejected[0][1]
        intent = self._holdings.get(event.intent.id)
        if intent is None or not isinstance(intent.body, Intent):
            raise LocalProtocolError("an intent that was filed here does not verify")
        known = self._pursuits.get(intent.id)
        if known is not None:
            return (Settled(intent.id, known.standing),)
        offered = tuple(r for o in event.offered if (r := self._holdings.get(o.id)) is not None)
        pursuit = Pursuit(
            intent=intent,
            offered=offered,
            after=event.after,
            asks=event.asks,
            backoff=_pause_after(event.asks),
        )
        self._pursuits[intent.id] = pursuit
        others = (r.record for r in admission.admitted if r.record not in event.offered)
        stored = StoreOwn((*event.offered, *(r for r in others if r.id != intent.id), event.intent))
        # Also where nothing else ever wakes it, for all have voted and nothing arrives, it ends.
        ends = WakeAt(float(intent.header.at + ASK_AGE_S_MAX + 1))
        return (stored, *self._ask(now, pursuit), ends)

    def _ask(self, now: float, pursuit: Pursuit) -> tuple[Effect, ...]:
        """Open a new t."""
        if pursuit.asks >= ASKS_PER_INTENT_MAX or _is_old(pursuit, now):
            return self._expire(pursuit)
        last = max(pursuit.ask.body.t if pursuit.ask is not None else 0, pursuit.after)
        # No vote on a t before the epoch counts.
        begun = self._holdings.epoch.body.started
        t = max(int(now), last + 1, self._started + START_MARGIN_S + 1, begun)
        if t > now + ASK_AHEAD_S - 1:
            pursuit.standing = "held"
            pursuit.ask_next = float(t - ASK_AHEAD_S + 1)
            return (WakeAt(pursuit.ask_next),)
        relied = gather(pursuit.intent, self._holdings, pursuit.offered)
        epoch = self._holdings.epoch
        ask = self._ask_of(pursuit, relied, t)
        self._holdings.hold(ask)
        pursuit.attached = _attached(pursuit.intent, relied)
        if pursuit.ask is not None:
            self._by_ask.pop(pursuit.ask.id, None)
        pursuit.ask, pursuit.considered = ask, frozenset(relied)
        pursuit.votes, pursuit.declined, pursuit.resent = {}, {}, set()
        pursuit.asks += 1
        pursuit.asked_at = now
        pursuit.ask_next = None
        pursuit.standing = "asking"
        self._by_ask[ask.id] = pursuit.intent.id
        return (
            StoreOwn((ask.record,)),
            SendAsk(ask.record, pursuit.attached, tuple(sorted(epoch.members))),
            WakeAt(now + VOTES_WAIT_S),
        )

    def _ask_of(self, pursuit: Pursuit, relied: dict[bytes, AnyRecord], t: int) -> VerifiedRecord[Ask]:
        epoch = self._holdings.epoch
        body = Ask(
            salt=NO_SALT,
            intent=pursuit.intent.id,
            t=t,
            epochs=(ScopeEpoch(scope=epoch.coalition, epoch=epoch.id),),
            relied=tuple(sorted(relied)),
        )
        return self._author.write_verified(
            self._holdings.directory,
            "ask",
            body,
            at=t,
            subject=(pursuit.intent.id,),
            realm=pursuit.intent.header.realm,
        )

    def _find(self, ask: bytes) -> Pursuit | None:
        intent = self._by_ask.get(ask)
        return self._pursuits.get(intent) if intent is not None else None

    def _count(self, now: float, event: VoteArrived) -> tuple[Effect, ...]:
        pursuit = self._find(event.ask)
        if pursuit is None or pursuit.standing != "asking" or pursuit.ask is None:
            return ()
        if event.vote.header.kind != "vote":
            # Held and not stored, it would be taken from nobody else.
            return ()
        self._holdings.admit((event.vote,))
        vote = self._holdings.get(event.vote.id)
        if vote is None or not isinstance(vote.body, Vote):
            return ()
        if not countable((vote,), pursuit.ask, pursuit.intent, self._holdings.epoch):
            pursuit.declined.setdefault(vote.member, "vote_wrong")
            return self._conclude(now, pursuit)
        pursuit.votes.setdefault(vote.member, vote)
        return self._conclude(now, pursuit)

    def _declined(self, now: float, event: Declined) -> tuple[Effect, ...]:
        pursuit = self._find(event.ask)
        if pursuit is None or pursuit.standing != "asking" or pursuit.ask is None:
            return ()
        wanted = [r for i in event.missing if (r := self._holdings.get(i)) is not None]
        if wanted and event.member not in pursuit.resent:
            # Once more with what the voter lacks: the same ask, so the same t.
            pursuit.resent.add(event.member)
            attached = tuple({r.id: r for r in (*pursuit.attached, *(w.record for w in wanted))}.values())
            return (SendAsk(pursuit.ask.record, attached, (event.member,)),)
        pursuit.declined[event.member] = event.code
        return self._conclude(now, pursuit)

    def _conclude(self, now: float, pursuit: Pursuit) -> tuple[Effect, ...]:
        """Settle as soon as nothing better can come, or everybody has answered, or had the time to."""
        if pursuit.ask is None:
            return ()
        epoch = self._holdings.epoch
        votes = tuple(pursuit.votes.values())
        answered = set(pursuit.votes) | set(pursuit.declined)
        waited = now >= pursuit.asked_at + VOTES_WAIT_S
        final = waited or answered >= set(epoch.members)
        if len(votes) < epoch.quorum and not final:
            return ()
        doubted = self._holdings.discounted(epoch.id)
        result = tally(votes, pursuit.ask, pursuit.intent, epoch, doubted)
        if isinstance(result, Permitted):
            silent = frozenset(epoch.members) - answered
            if final or not could_be_more(result, votes, pursuit.ask, pursuit.intent, epoch, silent, doubted):
                return self._permit(pursuit, result)
            return ()
        if isinstance(result, Refused):
            return self._refuse(pursuit, result)
        if not final:
            return ()
        return self._defer(now, pursuit, result, epoch.quorum)

    def _permit(self, pursuit: Pursuit, result: Permitted) -> tuple[Effect, ...]:
        ask = _asked(pursuit)
        epoch = self._holdings.epoch
        body = Permit(
            salt=NO_SALT,
            intent=pursuit.intent.id,
            ask=ask.id,
            t=ask.body.t,
            scope=epoch.coalition,
            epoch=epoch.id,
            claims=result.claims,
            votes=tuple(sorted(vote.id for vote in result.votes)),
            expires=result.expires,
        )
        pursuit.permit = self._write(pursuit, "permit", body)
        causes = (c for v in result.votes for j in v.body.judgements for c in j.outcome.causes)
        pursuit.causes = union(tuple(causes))
        pursuit.needs = ()
        stored = (*(vote.record for vote in result.votes), pursuit.permit.record)
        return (StoreOwn(stored), *self._settle(pursuit, "permitted"))

    def _refuse(self, pursuit: Pursuit, result: Refused) -> tuple[Effect, ...]:
        ask = _asked(pursuit)
        epoch = self._holdings.epoch
        body = Refusal(
            salt=NO_SALT,
            intent=pursuit.intent.id,
            ask=ask.id,
            t=ask.body.t,
            scope=epoch.coalition,
            epoch=epoch.id,
            votes=tuple(sorted(vote.id for vote in result.votes)),
        )
        pursuit.refusal = self._write(pursuit, "refusal", body)
        pursuit.causes, pursuit.needs = result.causes, ()
        stored = (*(vote.record for vote in result.votes), pursuit.refusal.record)
        return (StoreOwn(stored), *self._settle(pursuit, "refused"))

    def _write(self, pursuit: Pursuit, kind: str, body: Permit | Refusal) -> AnyRecord:
        record = self._author.write_verified(
            self._holdings.directory,
            kind,
            body,
            at=body.t,
            subject=(pursuit.intent.id,),
            realm=pursuit.intent.header.realm,
        )
        self._holdings.hold(record)
        return record

    def _defer(self, now: float, pursuit: Pursuit, result: Undecided, quorum: int) -> tuple[Effect, ...]:
        pursuit.causes, pursuit.needs = result.causes, result.needs
        if pursuit.asks >= ASKS_PER_INTENT_MAX:
            # That was the last ask; what it lacked is still told.
            return self._expire(pursuit)
        standing: Standing = "held" if len(result.votes) < quorum else "deferred"
        silent = len(pursuit.votes) < len(self._holdings.epoch.members)
        wake: tuple[Effect, ...] = ()
        if silent:
            # Somebody did not answer: try again by itself. Where all answered only news can change anything.
            if "starting" in pursuit.declined.values() and pursuit.hurries < HURRIES_MAX:
                # It is back, and votes on what is asked a few seconds later.
                pursuit.hurries += 1
                pursuit.ask_next = now + START_MARGIN_S + 1
            else:
                pursuit.ask_next = now + pursuit.backoff
                pursuit.backoff = min(pursuit.backoff * 2, ASK_BACKOFF_S_MAX)
            wake = (WakeAt(pursuit.ask_next),)
        return (*self._settle(pursuit, standing), *wake)

    def _settle(self, pursuit: Pursuit, standing: Standing) -> tuple[Effect, ...]:
        pursuit.standing = standing
        return (Settled(pursuit.intent.id, standing),)

    def _expire(self, pursuit: Pursuit) -> tuple[Effect, ...]:
        """No ask of it follows. What it lacked last stays to be seen."""
        pursuit.ask_next = None
        return self._settle(pursuit, "expired")

    def _news(self, now: float, members: Iterable[str]) -> tuple[Effect, ...]:
        """Ask again where something new can be relied on, a silent member is back, or the epoch is another."""
        back = set(members)
        effects: list[Effect] = []
        for pursuit in self.pursuits():
            if pursuit.standing not in ("deferred", "held"):
                continue
            returned = self._has_returned(pursuit, back)
            if returned or self._is_outdated(pursuit) or self._is_news(now, pursuit):
                effects.extend(self._soon(now, pursuit))
        return tuple(effects)

    def _has_returned(self, pursuit: Pursuit, back: set[str]) -> bool:
        """Whether one of these did not vote, and did not come back too often for this intent."""
        silent = (set(self._holdings.epoch.members) - set(pursuit.votes)) & back
        counted = {name for name in silent if pursuit.returns.get(name, 0) < RETURNS_MAX}
        for name in counted:
            pursuit.returns[name] = pursuit.returns.get(name, 0) + 1
        return bool(counted)

    def _is_news(self, now: float, pursuit: Pursuit) -> bool:
        """Whether what has arrived changes this organization's own judgement.

        Others' judgement is the same function of the same records. Who publishes what changes nothing makes nobody
        ask, for asks are counted.
        """
        relied = gather(pursuit.intent, self._holdings, pursuit.offered)
        if relied.keys() <= pursuit.considered:
            return False
        pursuit.considered |= relied.keys()
        own = pursuit.votes.get(self._author.member)
        governance = self._holdings.governance()
        if own is None or governance is None:
            return True
        ask = self._ask_of(pursuit, relied, int(now))
        judgement = judge(build_case(governance, self._holdings, pursuit.intent, ask, relied))
        return isinstance(judgement, Fault) or _said(judgement.classes) != _said(own.body.judgements)

    def _is_outdated(self, pursuit: Pursuit) -> bool:
        """Whether it was last asked under an epoch that another has followed: what was asked for may be no more."""
        return pursuit.ask is not None and all(
            said.epoch != self._holdings.epoch.id for said in pursuit.ask.body.epochs
        )

    def _soon(self, now: float, pursuit: Pursuit) -> tuple[Effect, ...]:
        at = pursuit.asked_at + NEWS_GAP_S
        if now >= at:
            return self._ask(now, pursuit)
        pursuit.ask_next = at if pursuit.ask_next is None else min(pursuit.ask_next, at)
        return (WakeAt(pursuit.ask_next),)

    def _again(self, now: float, intent: bytes) -> tuple[Effect, ...]:
        pursuit = self._pursuits.get(intent)
        if pursuit is None or pursuit.standing in ("asking", "refused", "expired"):
            return ()
        return self._soon(now, pursuit)

    def _tick(self, now: float) -> tuple[Effect, ...]:
        effects: list[Effect] = []
        for pursuit in self.pursuits():
            if pursuit.standing == "asking" and now >= pursuit.asked_at + VOTES_WAIT_S:
                effects.extend(self._conclude(now, pursuit))
            elif pursuit.standing in ("deferred", "held") and _is_old(pursuit, now):
                effects.extend(self._expire(pursuit))
            elif pursuit.ask_next is not None and now >= pursuit.ask_next and pursuit.standing != "asking":
                effects.extend(self._ask(now, pursuit))
        return tuple(effects)


def _is_old(pursuit: Pursuit, now: float) -> bool:
    return now - pursuit.intent.header.at > ASK_AGE_S_MAX


def _pause_after(asks: int) -> float:
    """The pause after the next ask that is not answered, where so many were asked before it."""
    pause: float = ASK_BACKOFF_S_MIN
    for _ in range(min(asks, ASKS_PER_INTENT_MAX)):
        pause = min(pause * 2, ASK_BACKOFF_S_MAX)
    return pause


def _said(judgements: Iterable[ClassJudgement]) -> tuple[tuple[object, ...], ...]:
    """What judgements come to. A note or a weight alone lifts nothing."""
    return tuple(
        (j.outcome.mode, j.outcome.extent, j.outcome.obligations, j.outcome.needs, j.live) for j in judgements
    )


def _asked(pursuit: Pursuit) -> VerifiedRecord[Ask]:
    if pursuit.ask is None:
        raise LocalProtocolError("an intent is settled that was never asked for")
    return pursuit.ask


def _attached(intent: VerifiedRecord[Intent], relied: dict[bytes, AnyRecord]) -> tuple[SignedRecord, ...]:
    """The execution records that an ask names, with the intent, up to the size of a frame.

    Governance records are everywhere already; a voter that lacks one asks for it.
    """
    chosen: list[SignedRecord] = [intent.record]
    size = len(intent.record.header_bytes) + len(intent.record.body_bytes or b"")
    for record_id in sorted(relied):
        record = relied[record_id].record
        if record.kind.log != "execution":
            continue
        size += len(record.header_bytes) + len(record.body_bytes or b"") + 256
        if size > ASK_BYTES_MAX:
            break
        chosen.append(record)
    return tuple(chosen)
