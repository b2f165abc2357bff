"""Cores that die at a chosen boundary, by a kill or by a loss of power, and come back from what their store has.

Everything runs in one thread, messages are carried one after the other, and time is told: the same boundary is the same
run. What leaves a node is heard by an auditor that holds everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from comity.attestation.holdings import Holdings
from comity.node import drafts, steps, work
from comity.node.answering import answer_peer, head_records
from comity.node.core import Core, Identity
from comity.node.forms import ActuationForm, OutputForm, StartForm, StepAnswer, StepForm
from comity.node.outgoing import OutgoingAsk, OutgoingOffer, Wake
from comity.node.portions import Brought
from comity.node.problems import Refused
from comity.node.store_memory import MemoryStore
from comity.protocol.envelope import decode_record
from comity.protocol.errors import StoreError
from comity.protocol.frames import AskFrame, OfferFrame, VoteFrame, decode_answer, decode_request
from comity.protocol.identifiers import sha256
from world import ENGINE, START, World

T = TypeVar("T")
Death = Literal["kill", "power", "set_back", "disk"]
"""`disk`: a write fails, and the node stops, as its service does. `set_back`: a kill, after which the node's clock is
found to have been fast and is set back."""
BACK_S = 9
"""By so much: what was asked before lies behind the new process's start and margin, and soon in its window."""
STEPS_MAX = 400
"""Messages and wakes of one story: far more than any needs."""


class Killed(BaseException):
    """The process is gone. No handler of the product's may stop it."""


class MortalStore(MemoryStore):
    """A store that tells of each commit before and after it, and knows what a loss of power leaves."""

    def __init__(self, boundary: Callable[[], None]) -> None:
        super().__init__(bytes(16))
        self._boundary = boundary
        self._safe = self._copy()

    def _copy(self) -> dict[str, Any]:
        tables = {name: value for name, value in self.__dict__.items() if isinstance(value, dict)}
        return {
            name: {k: dict(v) if isinstance(v, dict) else v for k, v in table.items()}
            for name, table in tables.items()
            if name != "_safe"
        }

    @contextmanager
    def batch(self, *, durable: bool = False) -> Generator[None, None, None]:
        outermost = not self._depth
        with super().batch(durable=durable):
            yield
            if outermost:
                # Inside: whatever dies here has its batch taken back.
                self._boundary()
        if outermost:
            if durable:
                self._safe = self._copy()
            self._boundary()

    def reborn(self, death: Death) -> MortalStore:
        """What the next process finds."""
        again = MortalStore(self._boundary)
        again.__dict__.update(self._safe if death == "power" else self._copy())
        again._safe = again._copy()
        return again


@dataclass
class Clock:
    """The one time of a story, as a process sees it."""

    seconds_: list[float]
    started: int
    behind: int = 0

    def now(self) -> int:
        return int(self.seconds())

    def seconds(self) -> float:
        return self.seconds_[0] - self.behind

    def monotonic(self) -> float:
        return self.seconds_[0] - START


@dataclass
class Story:
    """A coalition that makes one asset, while one of its nodes dies once.

    Args:
        victim: whose node dies.
        dies_at: the boundary at which it does, counted from 0; None for a run in which nobody dies.
    """

    world: World
    victim: str
    dies_at: int | None
    death: Death
    time: list[float] = field(default_factory=lambda: [float(START)])
    cores: dict[str, Core] = field(default_factory=dict)
    stores: dict[str, MortalStore] = field(default_factory=dict)
    passed: int = 0
    died: bool = False
    begun: bool = False
    wakes: list[tuple[float, str]] = field(default_factory=list)
    carried: deque[tuple[str, Any]] = field(default_factory=deque)
    asked: list[OutgoingAsk] = field(default_factory=list)
    behind: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.auditor = Holdings(ENGINE)
        self.auditor.adopt(self.world.genesis)
        self.auditor.admit(self.world.common)
        for name in self.world.members:
            self.stores[name] = MortalStore(lambda name=name: self.boundary(name))  # type: ignore[misc]
            self.cores[name] = self.core(name, START - 3600)
            self.cores[name].admit(self.world.common)
            self.cores[name].drain()
        self.begun = True

    def core(self, name: str, started: int, behind: int = 0) -> Core:
        member = self.world[name]
        identity = Identity(name, f"spiffe://{name}/node/n1", member.node)
        return Core(
            identity, self.stores[name], Clock(self.time, started, behind), ENGINE, (self.world.genesis,)
        )

    def boundary(self, name: str) -> None:
        """Something is about to take effect, or just did."""
        if name != self.victim or not self.begun or self.died:
            return
        self.passed += 1
        if self.dies_at is not None and self.passed > self.dies_at:
            self.died = True
            raise StoreError("no space is left") if self.death == "disk" else Killed

    def at(self, name: str, call: Callable[[Core], T]) -> T | None:
        """Call into a node and carry what it leaves; None where that killed it."""
        try:
            result = call(self.cores[name])
            left = self.cores[name].drain()
        except (Killed, StoreError):
            self.come_back(name)
            return None
        for item in left:
            if isinstance(item, Wake):
                self.wakes.append((item.at + self.behind.get(name, 0), name))
            else:
                self.carried.append((name, item))
        return result

    def come_back(self, name: str) -> None:
        """Two seconds later a new process takes up what the store has. What was to be sent is gone."""
        self.carried = deque(entry for entry in self.carried if entry[0] != name)
        self.wakes = [wake for wake in self.wakes if wake[1] != name]
        self.time[0] += 2
        self.stores[name] = self.stores[name].reborn(self.death)
        behind = self.behind[name] = BACK_S if self.death == "set_back" else 0
        self.cores[name] = self.core(name, int(self.time[0]) - behind, behind)
        # The coalition's file and anti-entropy bring governance back.
        self.at(name, lambda core: core.admit(self.world.common))
        self.at(name, lambda core: core.resume())
        if behind:
            self.time[0] += 3
        self.tempt(name)

    def tempt(self, name: str) -> None:
        """Whatever was asked is asked once more, after something came that makes another vote of it."""
        for item in tuple(self.asked):
            asker = item.ask.header.member
            if asker == name:
                # Its own intent is not taken away from it.
                continue
            (intent,) = item.ask.header.subject
            disputed = self.world[asker].observe(intent, "disputed")
            self.at(name, lambda core, record=disputed: core.admit([record]))  # type: ignore[misc]
            answer = self.request(name, item.frame(), asker)
            if answer is not None:
                self.hear_answer(answer)

    def until(self, done: Callable[[], bool]) -> None:
        """Carry messages, and let time pass where there are none."""
        for _ in range(STEPS_MAX):
            if done():
                return
            if self.carried:
                sender, item = self.carried.popleft()
                self.carry(sender, item)
            elif self.wakes:
                at, name = min(self.wakes)
                self.wakes.remove((at, name))
                self.time[0] = max(self.time[0], at)
                self.at(name, lambda core: core.tick())
            else:
                self.time[0] += 1
        raise AssertionError(f"it does not come to an end: {self.victim} {self.death} at {self.dies_at}")

    def carry(self, sender: str, item: Any) -> None:
        """One message to all that it is for, each answer back. The sender may die between two of them."""
        match item:
            case OutgoingAsk():
                self.hear(item.frame())
                self.asked.append(item)
                for member in item.members:
                    if not self.lives(sender):
                        return
                    self.ask(sender, member, item)
            case OutgoingOffer():
                self.hear(item.frame)
                for member in item.members:
                    if not self.lives(sender):
                        return
                    self.request(member, item.frame, sender)
            case _:
                pass

    def lives(self, name: str) -> bool:
        """Whether a node goes on after the next thing that it sends."""
        try:
            self.boundary(name)
        except (Killed, StoreError):
            self.come_back(name)
            return False
        return True

    def ask(self, sender: str, member: str, item: OutgoingAsk) -> None:
        if member == sender:
            self.at(sender, lambda core: core.vote_for_self(item))
            return
        answer = self.request(member, item.frame(), sender)
        if answer is not None and self.lives(member):
            self.hear_answer(answer)
            self.at(sender, lambda core: core.receive_answer(member, item.ask.id, answer))
            self.lives(member)

    def request(self, member: str, frame: bytes, sender: str) -> bytes | None:
        answer = self.at(member, lambda core: answer_peer(core, frame, sender))
        if isinstance(answer, Brought):
            brought = answer
            self.at(member, lambda core: core.admit(map(decode_record, brought.records)))
            if brought.answer is not None:
                return brought.answer
            answer = self.at(member, lambda core: answer_peer(core, frame, sender, admitted=True))
        return answer if isinstance(answer, bytes) else None

    def hear(self, frame: bytes) -> None:
        request = decode_request(frame)
        if isinstance(request, AskFrame):
            self.auditor.admit(map(decode_record, (*request.records, request.ask)))
        elif isinstance(request, OfferFrame):
            self.auditor.admit(map(decode_record, request.records))

    def hear_answer(self, payload: bytes) -> None:
        answer = decode_answer(payload)
        if isinstance(answer, VoteFrame):
            self.auditor.admit([decode_record(answer.vote)])

    def make(self, name: str, asset: str, run: str) -> None:
        """Ask for a step, start it and say what it made, as the bridge does: again whatever got no answer."""
        form = StepForm(
            orchestrator="dagster",
            run=run,
            step=asset,
            job="job",
            code=sha256(b"code").hex(),
            outputs=[OutputForm(asset=asset)],
        )
        defaults = drafts.Defaults("care", self.world[name].credentials["automation/main"][1].id)
        for _ in range(20):
            answer = self.at(name, lambda core: steps.submit(core, form, defaults))
            if answer is None:
                continue
            self.until(lambda answer=answer: self.stands(name, answer) != "asking")  # type: ignore[misc]
            if self.stands(name, answer) != "permitted":
                self.until(lambda answer=answer: self.stands(name, answer) in ("permitted", ""))  # type: ignore[misc]
            if self.work(name, answer):
                return
        raise AssertionError(f"it is never made: {self.victim} {self.death} at {self.dies_at}")

    def stands(self, name: str, answer: StepAnswer) -> str:
        """Where an intent stands; empty where its node has forgotten it."""
        pursuit = self.cores[name].requester.pursuit(bytes.fromhex(answer.intent))
        return pursuit.standing if pursuit is not None else ""

    def work(self, name: str, answer: StepAnswer) -> bool:
        """Whether the output is made. What was forgotten, or is another's, is asked for again."""
        try:
            current = self.at(name, lambda core: steps.answer(core, bytes.fromhex(answer.intent)))
            if current is None or not current.outputs:
                return False
            output = current.outputs[0]
            begun = self.at(name, lambda core: work.start(core, StartForm(answer.intent, output.asset, "")))
            if begun is None:
                return False
            form = ActuationForm(
                intent=answer.intent,
                start=begun.start,
                asset=output.asset,
                partition="",
                # No two runs make the same bytes.
                digest=sha256(f"{begun.start} at {self.time[0]}".encode()).hex(),
                size=7,
                media_type="text/csv",
            )
            done = self.at(name, lambda core: work.actuate(core, form))
        except Refused as exc:
            # Made before the crash, and recorded: the bridge finds that out at its next read.
            return exc.code in ("permit_used", "slot_taken")
        if done is None:
            return False
        # A partner sees it, and after that its writer may die.
        self.auditor.admit(head_records(self.cores[name], output.asset, ""))
        self.lives(name)
        return True
