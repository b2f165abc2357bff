"""Many organizations in one process, on virtual time, over a bad network.

The machines are the product's own (`Voter`, `Requester`, `Holdings`); here are only a clock, a heap of things
to come, and the faults. Everything random comes from one seed, so the same seed is the same run: `trace` is its
digest. Liars are voters whose answers are bent before they are sent.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import msgspec

from comity.attestation.authoring import NO_SALT
from comity.attestation.holdings import Holdings
from comity.attestation.requester import (
    Declined,
    Event,
    IntentFiled,
    NewsArrived,
    SendAsk,
    Settled,
    TimePassed,
    VoteArrived,
    WakeAt,
)
from comity.attestation.tally import full_extents
from comity.attestation.voter import AskArrived, Decline, SendVote
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Permit, Refusal, Vote
from comity.protocol.outcome import Mode, Outcome, execute, extent_within, supports
from world import START, Organization, World

Liar = Callable[["Simulation", Organization, SignedRecord], list[SignedRecord]]


@dataclass(frozen=True)
class Faults:
    """What the network does to messages, as probabilities and seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_min_s: float = 0.001
    delay_max_s: float = 0.2
    slow: float = 0.0
    """Chance that a message takes up to 20 s, so that it overtakes and is overtaken."""


@dataclass
class Simulation:
    """One run.

    Attributes:
        permits, refusals: certificates that came about, with the organization that holds them.
        settled: where each intent stands.
    """

    world: World
    seed: int
    faults: Faults = Faults()
    liars: dict[str, Liar] = field(default_factory=dict)
    down: dict[str, tuple[float, float]] = field(default_factory=dict)
    now: float = float(START)
    votes: list[SignedRecord] = field(default_factory=list)
    settled: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def note(self, *what: object) -> None:
        self._trace.update(repr((round(self.now, 6), *what)).encode())

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._order), act))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = until

    def is_up(self, name: str) -> bool:
        since, until = self.down.get(name, (0.0, 0.0))
        return not since <= self.now < until

    # The network

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """Carry a message, or lose it, or carry it twice, sooner or later."""
        copies = 1 + (self._random.random() < self.faults.duplicate)
        for _ in range(copies):
            if self._random.random() < self.faults.loss:
                continue
            delay = self._random.uniform(self.faults.delay_min_s, self.faults.delay_max_s)
            if self._random.random() < self.faults.slow:
                delay = self._random.uniform(0.0, 20.0)

            def arrive() -> None:
                if self.is_up(source) and self.is_up(target):
                    deliver()

            self.at(self.now + delay, arrive)

    # The machines

    def file(self, intent: SignedRecord, *offered: SignedRecord, at: float = 0.0) -> None:
        name = intent.header.member
        self.at(START + at, lambda: self.request(name, IntentFiled(intent, tuple(offered))))

    def tell(self, record: SignedRecord, at: float, only: tuple[str, ...] | None = None) -> None:
        """A record reaches members by anti-entropy, each at its own time after `at`."""
        for name in only or tuple(self.world.members):

            def arrive(name: str = name) -> None:
                if not self.is_up(name):
                    self.at(self.now + 5.0, arrive)
                    return
                self.world[name].holdings.admit([record])
                self.request(name, NewsArrived())

            self.at(START + at + self._random.uniform(0.0, 3.0), arrive)

    def request(self, name: str, event: Event) -> None:
        if not self.is_up(name):
            return
        organization = self.world[name]
        for effect in organization.requester.handle(self.now, event):
            match effect:
                case SendAsk(ask, attached, members):
                    for member in members:
                        self._ask(name, member, ask, attached)
                case Settled(intent, standing):
                    self.settled[intent] = standing
                    self.note("settled", name, intent.hex(), standing)
                case WakeAt(at):
                    self.at(at, lambda: self.request(name, TimePassed()))
                case _:
                    pass

    def _ask(self, source: str, target: str, ask: SignedRecord, attached: tuple[SignedRecord, ...]) -> None:
        def deliver() -> None:
            organization = self.world[target]
            for effect in organization.voter.handle(int(self.now), AskArrived(ask, attached)):
                match effect:
                    case SendVote(ask_id, vote):
                        liar = self.liars.get(target)
                        for said in liar(self, organization, vote) if liar else [vote]:
                            self._vote(target, source, ask_id, said)
                    case Decline():
                        declined = Declined(target, effect.ask, effect.code, effect.missing)
                        self.note("declined", target, effect.code)
                        self.send(target, source, partial(self.request, source, declined))
                    case _:
                        pass

        if source == target:
            self.at(self.now, deliver)
        else:
            self.send(source, target, deliver)

    def _vote(self, source: str, target: str, ask: bytes, vote: SignedRecord) -> None:
        self.votes.append(vote)
        self.note("vote", source, vote.id.hex())
        self.send(source, target, lambda: self.request(target, VoteArrived(ask, vote)))

    # What must hold

    def check_safety(self) -> None:
        """No permit and refusal of one (intent, t); no permit beyond what each supporter voted for."""
        permits: dict[tuple[bytes, int], Permit] = {}
        refusals: dict[tuple[bytes, int], Refusal] = {}
        for organization in self.world.members.values():
            for pursuit in organization.requester.pursuits():
                if pursuit.permit is not None:
                    permits[pursuit.intent.id, pursuit.permit.body.t] = pursuit.permit.body
                    check_permit(pursuit.permit.body, organization.holdings)
                if pursuit.refusal is not None:
                    refusals[pursuit.intent.id, pursuit.refusal.body.t] = pursuit.refusal.body
        assert not set(permits) & set(refusals), "a permit and a refusal for one (intent, t)"


def check_permit(body: Permit, holdings: Holdings) -> None:
    """Against a plain reading of the rule, not the product's tally."""
    epoch = holdings.epoch
    voters: dict[str, Vote] = {}
    for vote_id in body.votes:
        vote = holdings.get(vote_id)
        assert vote is not None
        assert (vote.body.intent, vote.body.t, vote.body.ask) == (body.intent, body.t, body.ask)
        assert vote.member not in voters
        voters[vote.member] = vote.body
    assert len(voters) >= 2 * len(epoch.members) // 3 + 1
    for claim in body.claims:
        for said in voters.values():
            own = said.judgements[claim.index].outcome
            assert claim.mode.rank <= own.mode.rank, "a mode above a supporter's own"
            assert extent_within(claim.extent, own.extent), "an extent beyond a supporter's own"
            assert supports(own, claim.outcome())
        assert set(claim.live) <= set(voters), "a live owner did not vote"


# Liars


def yes_man(simulation: Simulation, organization: Organization, vote: SignedRecord) -> list[SignedRecord]:
    """Says execute to everything, whatever was judged."""
    return [_rewrite(organization, vote, execute)]


def naysayer(simulation: Simulation, organization: Organization, vote: SignedRecord) -> list[SignedRecord]:
    return [
        _rewrite(
            organization,
            vote,
            lambda full: Outcome(
                mode=Mode.REFUSE, extent=msgspec.structs.replace(full, items=(), columns=())
            ),
        )
    ]


def two_faced(simulation: Simulation, organization: Organization, vote: SignedRecord) -> list[SignedRecord]:
    """Votes twice, for and against."""
    return yes_man(simulation, organization, vote) + naysayer(simulation, organization, vote)


def mute(simulation: Simulation, organization: Organization, vote: SignedRecord) -> list[SignedRecord]:
    return []


LIARS: dict[str, Liar] = {"yes_man": yes_man, "naysayer": naysayer, "two_faced": two_faced, "mute": mute}


def _rewrite(
    organization: Organization, vote: SignedRecord, outcome: Callable[[Any], Outcome]
) -> SignedRecord:
    from comity.protocol.records import decode_body

    body: Any = decode_body(vote)
    intent = organization.holdings.get(body.intent)
    assert intent is not None
    judgements = tuple(
        msgspec.structs.replace(judgement, outcome=outcome(full))
        for judgement, full in zip(body.judgements, full_extents(intent.body), strict=True)
    )
    bent = msgspec.structs.replace(body, judgements=judgements, salt=NO_SALT)
    return organization.node.write("vote", bent, body.t, subject=(body.intent,))
