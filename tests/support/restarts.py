"""Whole cores in one process, on virtual time, whose nodes die, lose power, fill their disks and hear one way only.

The machines and the store's rules are the product's; here are a clock, a heap of things to come, and the faults. All
that is random comes from one seed. What leaves a node is written down by an onlooker that no fault reaches, and is
compared by plain reading, not by the product's own search for contradictions.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar

from comity.node import drafts, steps, work
from comity.node.answering import answer_peer
from comity.node.core import Core, Identity
from comity.node.forms import ActuationForm, OutputForm, StartForm, StepForm
from comity.node.outgoing import OutgoingAsk, OutgoingOffer, Wake
from comity.node.portions import Brought
from comity.node.problems import Refused
from comity.protocol.contradictions import slot_of
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import StoreError
from comity.protocol.execution import Intent
from comity.protocol.frames import AskFrame, OfferFrame, VoteFrame, decode_answer, decode_request
from comity.protocol.identifiers import sha256
from comity.protocol.records import decode_body
from crashing import BACK_S, Clock, Death, Killed, MortalStore
from simulation import check_permit
from world import ENGINE, START, World

T = TypeVar("T")
STORM_S = 90.0
"""So long there are faults. After that messages get through and everybody comes back."""
DEADLINE_S = 1_300.0
"""When all that is right has to be made: after the longest pause of a requester, and the asks that follow."""
REPLAY_S = 25.0
"""How long after it was said an ask may come once more."""


@dataclass(frozen=True)
class Storm:
    """What happens to nodes and roads while it lasts, as probabilities.

    Args:
        death: that a node dies at a boundary: before or after a commit, or a message.
        power: that a death is a loss of power, so that what was not fsynced is gone.
        set_back: that a node's clock is found to have been fast and is set back as it comes.
        full: that a commit finds the disk full, and for some time each after it.
        deaf: how many directions between two members carry nothing, for some time each.
        loss, replay: that a message is lost, or an ask is carried once more a while later.
    """

    death: float = 0.02
    power: float = 0.5
    set_back: float = 0.2
    full: float = 0.01
    deaf: int = 3
    loss: float = 0.05
    replay: float = 0.3


@dataclass
class Onlooker:
    """What was ever said, by what there may be one of."""

    said: dict[tuple[Any, ...], bytes] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    promised: dict[str, set[bytes]] = field(default_factory=dict)

    def see(self, record: SignedRecord) -> None:
        place = _place(record)
        if place is not None and self.said.setdefault(place, record.id) != record.id:
            self.twice.append(
                f"{record.header.member} says two things of one {record.header.kind}: {place[1:]}"
            )


def _place(record: SignedRecord) -> tuple[Any, ...] | None:
    """What an author may say one thing of."""
    body: Any = decode_body(record)
    kind, author = record.header.kind, record.header.key
    if kind in ("vote", "ask"):
        return kind, author, body.intent, body.t
    if kind == "start":
        return kind, author, body.permit, body.asset, body.partition, body.attempt
    if kind == "actuation" and record.header.outcome == "promoted":
        return kind, author, body.asset, body.partition, body.generation
    return None


@dataclass
class Town:
    """A coalition in a storm.

    Attributes:
        wanted: what each member makes; those that are refused, and those that are disputed, are named so.
    """

    seed: int
    storm: Storm = Storm()
    world: World = field(default_factory=World)
    time: list[float] = field(default_factory=lambda: [float(START)])
    cores: dict[str, Core | None] = field(default_factory=dict)
    stores: dict[str, MortalStore] = field(default_factory=dict)
    onlooker: Onlooker = field(default_factory=Onlooker)
    made: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._trace = hashlib.sha256()
        self._lives = dict.fromkeys(self.world.members, 0)
        self._full_until = dict.fromkeys(self.world.members, 0.0)
        self._behind = dict.fromkeys(self.world.members, 0)
        self._begun = False
        self._asked: list[tuple[float, OutgoingAsk]] = []
        for name in self.world.members:
            self.stores[name] = MortalStore(lambda name=name: self.boundary(name))  # type: ignore[misc]
            self.cores[name] = self.core(name, START - 3600)
            self.at(name, lambda core: core.admit(self.world.common))
        self._begun = True
        names = sorted(self.world.members)
        self._deaf: list[tuple[str, str, float, float]] = []
        for _ in range(self.storm.deaf):
            since = self._random.uniform(0, STORM_S - 30)
            source, target = self._random.sample(names, 2)
            self._deaf.append((source, target, since, since + self._random.uniform(5, 30)))
        self.later(STORM_S, self.set_clocks_right)

    def set_clocks_right(self) -> None:
        """With clocks that are wrong by more than the window of t nothing is decided, as is right."""
        for name, core in self.cores.items():
            self._behind[name] = 0
            if core is not None and isinstance(core.clock, Clock):
                core.clock.behind = 0

    # Time

    @property
    def now(self) -> float:
        return self.time[0] - START

    @property
    def stormy(self) -> bool:
        return self._begun and self.now < STORM_S

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.time[0] + max(seconds, 0.0), next(self._order), act))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= START + until:
            self.time[0], _, act = heapq.heappop(self._heap)
            act()
        self.time[0] = START + until

    def run_until(self, done: Callable[[], bool], deadline: float) -> None:
        """Let time pass until something holds, or until the deadline."""
        while not (done() and not self.stormy) and self.now < deadline:
            self.run(min(self.now + 10.0, deadline))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # Nodes

    def core(self, name: str, started: int, behind: int = 0) -> Core:
        identity = Identity(name, f"spiffe://{name}/node/n1", self.world[name].node)
        clock = Clock(self.time, started, behind)
        return Core(identity, self.stores[name], clock, ENGINE, (self.world.genesis,))

    def boundary(self, name: str) -> None:
        """Something takes effect now, or just did."""
        if not self.stormy:
            return
        committing = bool(self.stores[name]._depth)
        if committing and self._random.random() < self.storm.full:
            self._full_until[name] = self.time[0] + self._random.uniform(5, 30)
        if committing and self.time[0] < self._full_until[name]:
            self.count("full")
            raise StoreError("no space is left")
        if self._random.random() < self.storm.death:
            raise Killed

    def at(self, name: str, call: Callable[[Core], T]) -> T | None:
        """Call into a node and carry what it leaves; None where it is down, or that ended it."""
        core = self.cores[name]
        if core is None:
            return None
        try:
            result = call(core)
            left = core.drain()
        except Killed:
            self.count("killed")
            self.die(name, "power" if self._random.random() < self.storm.power else "kill")
            return None
        except StoreError:
            # As the service does: a disk that fails ends the node.
            self.die(name, "disk")
            return None
        life = self._lives[name]
        for item in left:
            if life == self._lives[name]:
                self.carry(name, item)
        return result

    def die(self, name: str, death: Death) -> None:
        self.count(death)
        self._trace.update(f"{self.now:.3f} {name} {death}".encode())
        self.cores[name] = None
        self._lives[name] += 1
        if death == "power":
            # What was fsynced is what was promised; the others' margin covers the rest.
            self.onlooker.promised[name] = set()
        self.stores[name] = self.stores[name].reborn(death)
        self.later(self._random.uniform(0.5, 8.0), lambda: self.come_back(name))

    def come_back(self, name: str) -> None:
        if self.time[0] < self._full_until[name]:
            self.later(self._random.uniform(1.0, 8.0), lambda: self.come_back(name))
            return
        if self.stormy and self._random.random() < self.storm.set_back:
            self._behind[name] = BACK_S if not self._behind[name] else 0
        behind = self._behind[name]
        self.cores[name] = self.core(name, int(self.time[0]) - behind, behind)
        self.at(name, lambda core: core.admit(self.world.common))
        self.at(name, lambda core: core.resume())
        if self.stormy:
            self.tempt(name)

    def tempt(self, name: str) -> None:
        """What was asked lately is asked again, after something came that makes another vote of it."""
        for at, item in tuple(self._asked):
            asker, (intent,) = item.ask.header.member, item.ask.header.subject
            if self.time[0] - at <= REPLAY_S and asker != name and intent in self._disputed():
                said = self.world[asker].observe(intent, "disputed")
                self.at(name, lambda core, said=said: core.admit([said]))  # type: ignore[misc]
                self.replay(name, item.frame(), asker)

    def _disputed(self) -> set[bytes]:
        """The intents that their own organization disputes, as far as anybody filed them."""
        found: set[bytes] = set()
        for store in self.stores.values():
            for record in store.of_kind("intent"):
                body = decode_body(record)
                if isinstance(body, Intent) and body.classes[0].asset.endswith("/disputed"):
                    found.add(record.id)
        return found

    # Messages

    def send(self, source: str, target: str, act: Callable[[], None], *, lives: int | None = None) -> None:
        """Carry something, or not. `lives` is in which of its lives the target waits for it."""
        if self.stormy and any(
            (source, target) == (s, t) and since <= self.now < until for s, t, since, until in self._deaf
        ):
            self.count("deaf")
            return
        if self.stormy and self._random.random() < self.storm.loss:
            return

        def arrive() -> None:
            if self.cores[target] is not None and lives in (None, self._lives[target]):
                act()

        self.later(self._random.uniform(0.001, 0.3), arrive)

    def lives_on(self, name: str) -> bool:
        """Whether a node goes on at a message that it sends."""

        def at_message(_: Core) -> bool:
            self.boundary(name)
            return True

        return self.at(name, at_message) is not None

    def carry(self, name: str, item: Any) -> None:
        life = self._lives[name]
        match item:
            case Wake(at):

                def wake() -> None:
                    if life == self._lives[name]:
                        self.at(name, lambda core: core.tick())

                self.later(at + self._behind[name] - self.time[0], wake)
            case OutgoingAsk():
                self.hear(name, item.frame())
                self._asked.append((self.time[0], item))
                for member in item.members:
                    if life == self._lives[name] and self.lives_on(name):
                        self.ask(name, member, item)
            case OutgoingOffer():
                self.hear(name, item.frame)
                for member in item.members:
                    if life == self._lives[name] and self.lives_on(name):
                        self.send(name, member, partial(self.offered, member, item.frame, name))
            case _:
                pass

    def ask(self, name: str, member: str, item: OutgoingAsk) -> None:
        life, frame = self._lives[name], item.frame()
        if member == name:

            def own() -> None:
                if life == self._lives[name]:
                    self.at(name, lambda core: core.vote_for_self(item))

            self.later(0.0, own)
            return

        def arrive() -> None:
            answer = self.answer(member, frame, name)
            if answer is not None and self.lives_on(member):
                self.hear_answer(member, answer)
                receive = lambda core: core.receive_answer(member, item.ask.id, answer)  # noqa: E731
                self.send(member, name, lambda: self.at(name, receive), lives=life)

        self.send(name, member, arrive)
        if self.stormy and self._random.random() < self.storm.replay:
            self.later(self._random.uniform(0.0, REPLAY_S), lambda: self.replay(member, frame, name))

    def replay(self, member: str, frame: bytes, name: str) -> None:
        """An ask comes once more, perhaps to another life of the voter. What it says to it counts."""
        answer = self.answer(member, frame, name)
        if answer is not None:
            self.hear_answer(member, answer)

    def offered(self, member: str, frame: bytes, sender: str) -> None:
        """Records come that nobody asked for; what is answered is of no use to anybody."""
        self.answer(member, frame, sender)

    def answer(self, member: str, frame: bytes, sender: str) -> bytes | None:
        answer = self.at(member, lambda core: answer_peer(core, frame, sender))
        if isinstance(answer, Brought):
            brought = answer
            self.at(member, lambda core: core.admit(map(decode_record, brought.records)))
            if brought.answer is not None:
                return brought.answer
            answer = self.at(member, lambda core: answer_peer(core, frame, sender, admitted=True))
        return answer if isinstance(answer, bytes) else None

    def hear(self, name: str, frame: bytes) -> None:
        request = decode_request(frame)
        if isinstance(request, AskFrame):
            self.note(name, decode_record(request.ask))
        elif isinstance(request, OfferFrame):
            for data in request.records:
                self.note(name, decode_record(data))

    def hear_answer(self, name: str, payload: bytes) -> None:
        answer = decode_answer(payload)
        if isinstance(answer, VoteFrame):
            self.note(name, decode_record(answer.vote))

    def note(self, name: str, record: SignedRecord) -> None:
        """Something left a node: from now on it is bound by it."""
        self._trace.update(record.id)
        self.onlooker.see(record)
        if record.header.member == name:
            self.onlooker.promised.setdefault(name, set()).add(record.id)

    # What people do

    def want(self, name: str, asset: str, at: float) -> None:
        """Somebody runs a step until it is made, or refused, as an orchestrator does."""
        form = StepForm(
            orchestrator="dagster",
            run=f"run-{asset}",
            step=asset,
            job="job",
            code=sha256(b"code").hex(),
            outputs=[OutputForm(asset=asset)],
        )
        defaults = drafts.Defaults("care", self.world[name].credentials["automation/main"][1].id)

        def look() -> None:
            if (name, asset) in self.made or (name, asset) in self.refused:
                return
            self.later(self._random.uniform(1.0, 3.0) * (1 if self.stormy else 5), look)
            answer = self.at(name, lambda core: steps.submit(core, form, defaults))
            if answer is not None and answer.outcome == "refuse":
                self.refused.add((name, asset))
            elif answer is not None and answer.outputs:
                self.work(name, asset, answer.intent)

        self.later(at, look)

    def work(self, name: str, asset: str, intent: str) -> None:
        try:
            begun = self.at(name, lambda core: work.start(core, StartForm(intent, asset, "")))
            if begun is None:
                return
            self.see_stored(name, bytes.fromhex(begun.start))
            content = sha256(f"{begun.start} at {self.time[0]}".encode()).hex()
            form = ActuationForm(intent, begun.start, asset, content, 7, "text/csv")
            done = self.at(name, lambda core: work.actuate(core, form))
        except Refused as exc:
            if exc.code in ("permit_used", "slot_taken"):
                # Made, and the answer was lost as the node died.
                self.made.add((name, asset))
            return
        if done is not None:
            self.see_stored(name, bytes.fromhex(done.actuation))
            self.made.add((name, asset))

    def see_stored(self, name: str, record_id: bytes) -> None:
        """The orchestrator was told of it. Starts and actuations outlast a loss of power."""
        (record,) = self.stores[name].get([record_id])
        self.onlooker.see(record)
        self.onlooker.promised.setdefault(f"{name} for good", set()).add(record_id)

    def dispute(self, name: str, at: float) -> None:
        """A member disputes intents, and some hear of it: what these vote from then on is another."""

        def look() -> None:
            for intent in sorted(self._disputed()):
                said = self.world[name].observe(intent, "disputed")
                for member in sorted(self.world.members):
                    if self._random.random() < 0.5:
                        self.at(member, lambda core, said=said: core.admit([said]))  # type: ignore[misc]

        self.later(at, look)

    # What must hold

    def check(self) -> None:
        assert not self.onlooker.twice, self.onlooker.twice
        permits: set[tuple[bytes, int]] = set()
        refusals: set[tuple[bytes, int]] = set()
        for name, core in self.cores.items():
            assert core is not None, f"{name} never came back"
            store = self.stores[name]
            for kept in (name, f"{name} for good"):
                lost = self.onlooker.promised.get(kept, set()) - store.holds(
                    self.onlooker.promised.get(kept, set())
                )
                assert not lost, f"{name} sent what it does not hold: {len(lost)} records"
            for kind in ("vote", "ask", "start", "actuation"):
                for record in store.of_kind(kind):
                    self.onlooker.see(record)
            assert core.holdings.state.of_kind("misbehaviour") == [], (
                "somebody was shown to contradict itself"
            )
            for kind, found in (("permit", permits), ("refusal", refusals)):
                for record in store.of_kind(kind):
                    body: Any = decode_body(record)
                    found.add((body.intent, body.t))
                    if kind == "permit":
                        check_permit(body, core.holdings)
        assert not self.onlooker.twice, self.onlooker.twice
        assert not permits & refusals, "a permit and a refusal of one round"

    def check_slots(self) -> None:
        """No slot has two promoted actuations, whoever wrote them."""
        slots: dict[Any, bytes] = {}
        for core in self.cores.values():
            assert core is not None
            for record in core.store.of_kind("actuation"):
                held = core.holdings.get(record.id)
                slot = slot_of(held) if held is not None else None
                if slot is not None:
                    assert slots.setdefault(slot, record.id) == record.id, f"two actuations of {slot}"
