"""An intent that no quorum answers is held: by itself, with growing pauses, so often and so long as its bounds say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from comity.attestation.requester import (
    RETURNS_MAX,
    VOTES_WAIT_S,
    AskAgain,
    Effect,
    Event,
    IntentFiled,
    NewsArrived,
    Pursuit,
    Requester,
    SendAsk,
    Settled,
    StoreOwn,
    TimePassed,
    WakeAt,
)
from comity.attestation.voter import Voter
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask
from comity.protocol.limits import ASK_AGE_S_MAX, ASK_BACKOFF_S_MAX, ASK_BACKOFF_S_MIN, ASKS_PER_INTENT_MAX
from comity.protocol.records import decode_body
from world import BOARD, NORTH, SOUTH, START, World

PAUSES = (10, 20, 40, 80, 160, 320, 600)
"""After silence. The last one is that of all that follow."""


class Waiting:
    """One intent of the north on virtual time, with nothing else that happens."""

    def __init__(self, *down: str) -> None:
        self.world = World()
        self.down = frozenset(down)
        self.now = float(START)
        self.wakes: list[float] = []
        self.asked: list[float] = []
        self.stored: list[SignedRecord] = []
        self.settled: list[str] = []
        self.requester = self.world[NORTH].requester
        self.intent = self.world[NORTH].intent("plain/a")

    def file(self, intent: SignedRecord | None = None) -> None:
        self.intent = intent or self.intent
        self.tell(IntentFiled(self.intent))

    def tell(self, event: Event) -> None:
        self.note(self.requester.handle(self.now, event))

    def note(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case StoreOwn(records):
                    self.stored.extend(records)
                case WakeAt(at):
                    self.wakes.append(at)
                case Settled(_, standing):
                    self.settled.append(standing)
                case SendAsk():
                    self.asked.append(self.now - START)
                    carried = self.requester
                    self.world.carry(carried, (effect,), self.now, self.down)

    def past(self, until: Callable[[], bool]) -> None:
        """Let time pass from wake to wake, until something holds or nothing wakes it any more."""
        while not until() and self.wakes:
            at = min(self.wakes)
            self.wakes.remove(at)
            self.now = max(self.now, at)
            self.tell(TimePassed())

    @property
    def pursuit(self) -> Pursuit:
        found = self.requester.pursuit(self.intent.id)
        assert found is not None
        return found

    def asks(self) -> list[int]:
        bodies = [decode_body(record) for record in self.stored if record.header.kind == "ask"]
        return [body.t for body in bodies if isinstance(body, Ask)]

    def restart(self) -> None:
        """A new process, an hour later: what it knows of the intent is what was stored."""
        self.now += 3600
        organization = self.world[NORTH]
        started = int(self.now) - 60
        organization.requester = self.requester = Requester(organization.node, organization.holdings, started)
        organization.voter = Voter(organization.node, organization.holdings, started)
        self.wakes = []
        self.tell(IntentFiled(self.intent, after=max(self.asks()), asks=len(self.asks())))


def schedule(count: int) -> Iterator[float]:
    """When an intent is asked for that nobody answers: each ask is waited for, and then there is a pause."""
    at = 0.0
    for index in range(count):
        yield at
        at += VOTES_WAIT_S + PAUSES[min(index, len(PAUSES) - 1)]


def test_two_stopped_members_hold_an_intent_and_are_named() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    assert held.pursuit.standing == "asking"
    held.past(lambda: held.pursuit.standing != "asking")
    assert (held.pursuit.standing, held.now) == ("held", START + VOTES_WAIT_S)
    (cause,) = held.pursuit.causes
    assert (cause.code, dict(cause.parameters)) == ("no_quorum", {"votes": 2, "quorum": 3})
    assert set(held.world.members) - set(held.pursuit.votes) == {SOUTH, BOARD}


def test_a_held_intent_is_asked_for_with_growing_pauses_and_fifty_times() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: held.pursuit.standing == "expired")
    assert held.asked == list(schedule(ASKS_PER_INTENT_MAX))
    assert (PAUSES[0], PAUSES[-1]) == (ASK_BACKOFF_S_MIN, ASK_BACKOFF_S_MAX)
    # It says so when the last ask was not answered, and not a pause later.
    assert held.now == START + held.asked[-1] + VOTES_WAIT_S
    assert held.settled[-1] == "expired"
    assert "held" in held.settled
    assert [cause.code for cause in held.pursuit.causes] == ["no_quorum"]
    # Nothing opens it again.
    for event in (NewsArrived((SOUTH, BOARD)), AskAgain(held.intent.id), TimePassed()):
        held.now += 10_000
        held.tell(event)
    assert len(held.asked) == ASKS_PER_INTENT_MAX


def test_a_held_intent_goes_on_by_itself_at_the_next_ask() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: len(held.asked) == 4)
    held.past(lambda: held.pursuit.standing == "held")
    held.down = frozenset({SOUTH})
    held.past(lambda: held.pursuit.standing not in ("held", "asking"))
    assert held.pursuit.standing == "permitted"
    assert held.asked == list(schedule(5))


def test_a_member_that_becomes_reachable_is_asked_at_once_under_the_same_intent() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: len(held.asked) == 8)
    held.past(lambda: held.pursuit.standing == "held")
    held.now += 100
    held.down = frozenset({BOARD})
    held.tell(NewsArrived((SOUTH,)))
    assert held.asked[-1] == held.now - START
    assert held.pursuit.standing == "permitted"
    assert held.pursuit.permit is not None
    assert held.pursuit.permit.body.intent == held.intent.id


def test_who_is_back_and_does_not_vote_shortens_no_pause() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: len(held.asked) == 4)
    held.past(lambda: held.pursuit.standing == "held")
    held.now += 30
    held.tell(NewsArrived((SOUTH,)))
    assert len(held.asked) == 5
    held.past(lambda: len(held.asked) == 6)
    assert held.asked[5] - held.asked[4] == VOTES_WAIT_S + PAUSES[4]


def test_a_member_that_comes_and_goes_uses_up_no_asks() -> None:
    """A liar that connects again every minute and never votes costs an intent a few asks, and not all of them."""
    held = Waiting(SOUTH, BOARD)
    held.file()
    for _ in range(300):
        held.now += 60
        held.past(lambda: min(held.wakes, default=0.0) > held.now)
        held.tell(NewsArrived((SOUTH,)))
    assert len(held.asked) <= 300 * 60 / ASK_BACKOFF_S_MAX + len(PAUSES) + RETURNS_MAX
    assert held.pursuit.returns == {SOUTH: RETURNS_MAX}
    # Another one is waited for none the less.
    held.past(lambda: held.pursuit.standing == "held")
    held.down = frozenset({SOUTH})
    held.now += 2
    held.tell(NewsArrived((BOARD,)))
    (pursuit,) = held.requester.pursuits()
    assert pursuit.standing == "permitted"


def test_an_intent_that_all_have_voted_on_expires_after_seven_days() -> None:
    """Nobody is silent, so nobody is asked again; nothing but its age ends it."""
    held = Waiting()
    held.file(held.world[NORTH].intent("pooled"))
    assert held.pursuit.standing == "deferred"
    held.past(lambda: held.pursuit.standing == "expired")
    assert (held.settled[-1], held.now) == ("expired", START + ASK_AGE_S_MAX + 1)
    assert held.asked == [0.0]
    # What it waited for is still said.
    assert [need.code for need in held.pursuit.needs] == ["approval"]


def test_news_after_seven_days_opens_nothing() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: held.pursuit.standing == "held")
    held.now = START + ASK_AGE_S_MAX + 1.0
    held.tell(NewsArrived((SOUTH, BOARD)))
    assert (held.pursuit.standing, len(held.asked)) == ("expired", 1)


@pytest.mark.parametrize("asks", [1, 3, 7])
def test_a_restart_keeps_the_count_of_asks_and_the_length_of_pauses(asks: int) -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    held.past(lambda: len(held.asked) == asks)
    held.past(lambda: held.pursuit.standing == "held")
    held.restart()
    # It asks at once: what the members had said is forgotten.
    assert held.asked[-1] == held.now - START
    assert held.pursuit.asks == asks + 1
    assert len(set(held.asks())) == asks + 1
    held.past(lambda: held.pursuit.standing == "expired")
    gaps = [later - earlier for earlier, later in zip(held.asked, held.asked[1:], strict=False)]
    wanted = [VOTES_WAIT_S + PAUSES[min(i, len(PAUSES) - 1)] for i in range(len(gaps))]
    assert gaps[asks:] == wanted[asks:]
    assert len(held.asked) == ASKS_PER_INTENT_MAX


def test_who_restarts_again_and_again_asks_fifty_times_in_all() -> None:
    held = Waiting(SOUTH, BOARD)
    held.file()
    for _ in range(2 * ASKS_PER_INTENT_MAX):
        held.past(lambda: held.pursuit.standing != "asking")
        held.restart()
    assert held.pursuit.standing == "expired"
    assert len(held.asked) == ASKS_PER_INTENT_MAX


def test_an_approval_that_an_unmet_need_named_opens_a_new_t() -> None:
    held = Waiting()
    world = held.world
    officer = world[SOUTH].credential(
        "operator/dpo",
        classes=("data-protection-officer",),
        actions=("approve",),
        assets=(f"{NORTH}/**",),
    )
    world.tell(officer)
    held.file(world[NORTH].intent("pooled"))
    assert [need.code for need in held.pursuit.needs] == ["approval"]
    held.now += 3600
    held.tell(NewsArrived())
    assert len(held.asked) == 1
    world.tell(world[SOUTH].approve("operator/dpo", held.intent), only=(NORTH,))
    held.tell(NewsArrived())
    assert (held.pursuit.standing, len(held.asked)) == ("permitted", 2)
