"""What a node keeps for later and finds again: epochs that have not begun, rivals of a slot, rounds that were asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from comity.attestation.requester import IntentFiled, SendAsk
from comity.node.answering import answer_peer
from comity.node.clock import ManualClock
from comity.node.core import Core, Identity
from comity.node.outgoing import GovernanceChanged, OutgoingAsk, Wake
from comity.node.store import IntentRow, Store
from comity.node.store_memory import MemoryStore
from comity.node.store_sqlite import SqliteStore
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.frames import Answer, AskFrame, PageFrame, VoteFrame, decode_answer, encode_frame
from comity.protocol.limits import ASK_AHEAD_S, START_MARGIN_S
from next_epochs import successor
from nodes import running, until
from stories import permit_of
from world import ENGINE, INSTITUTE, NORTH, START, World

pytestmark = pytest.mark.usefixtures("gossip")

BEGINS = START + 60


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.sqlite3")
    yield made
    made.close()


def core_of(
    world: World, name: str, store: Store, clock: ManualClock, epochs: tuple[SignedRecord, ...] = ()
) -> Core:
    identity = Identity(name, f"spiffe://{name}/node/n1", world[name].node)
    core = Core(identity, store, clock, ENGINE, epochs or (world.genesis,))
    core.admit(world.common)
    return core


def wakes(core: Core) -> list[float]:
    return [item.at for item in core.drain() if isinstance(item, Wake)]


def answered(core: Core, request: bytes) -> Answer:
    data = answer_peer(core, request)
    assert isinstance(data, bytes)
    return decode_answer(data)


# Epochs


def test_epoch_that_begins_later_is_stored_and_waited_for(store: Store) -> None:
    world = World()
    clock = ManualClock(START)
    core = core_of(world, NORTH, store, clock)
    coming = successor(world, BEGINS)
    core.drain()
    assert core.take_epoch(coming)
    assert not core.take_epoch(coming)
    assert core.holdings.epoch.number == 0
    assert [r.id for r in store.of_kind("epoch")] == [coming.id]
    assert wakes(core) == [BEGINS - ASK_AHEAD_S]
    clock.set_now(BEGINS - ASK_AHEAD_S - 1)
    core.tick()
    assert core.holdings.epoch.number == 0
    clock.set_now(BEGINS - ASK_AHEAD_S)
    core.drain()
    core.tick()
    assert core.holdings.epoch.id == coming.id
    assert any(isinstance(item, GovernanceChanged) for item in core.drain())


def test_epoch_is_still_waited_for_after_a_restart(store: Store) -> None:
    world = World()
    core_of(world, NORTH, store, ManualClock(START)).take_epoch(successor(world, BEGINS))
    clock = ManualClock(START + 10)
    again = core_of(world, NORTH, store, clock, (world.genesis, *store.of_kind("epoch")))
    assert again.holdings.epoch.number == 0
    assert wakes(again) == [BEGINS - ASK_AHEAD_S]
    clock.set_now(BEGINS)
    again.tick()
    assert again.holdings.epoch.number == 1
    late = core_of(world, NORTH, store, ManualClock(BEGINS), (world.genesis, *store.of_kind("epoch")))
    assert late.holdings.epoch.number == 1


def test_epoch_that_waits_travels_on(store: Store) -> None:
    """Whoever pulls learns of it before it begins."""
    from comity.protocol.frames import FeedFrame

    world = World()
    core = core_of(world, NORTH, store, ManualClock(START))
    coming = successor(world, BEGINS)
    core.take_epoch(coming)
    page = answered(core, encode_frame(FeedFrame()))
    assert isinstance(page, PageFrame)
    assert [decode_record(data).id for data in page.epochs] == [coming.id]


async def test_nodes_begin_an_epoch_by_themselves_when_it_is_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    coming = successor(world, BEGINS)
    async with running(world) as nodes:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        north = nodes[NORTH]
        await north.service.call(lambda: north.core.take_epoch(coming))
        every = [node.core.holdings for node in nodes.values()]
        await until(lambda: all(held.knows_epoch(coming.id) for held in every))
        assert trio.current_time() < BEGINS - START - ASK_AHEAD_S
        assert {held.epoch.number for held in every} == {0}
        await until(lambda: all(held.epoch.number == 1 for held in every))
        assert trio.current_time() >= BEGINS - START - ASK_AHEAD_S
        assert trio.current_time() < BEGINS - START


# Slots


def twins(world: World) -> tuple[SignedRecord, SignedRecord]:
    institute = world[INSTITUTE]
    one, two = (
        institute.actuate(permit_of(world, institute.intent("plain/own", run=run))) for run in ("one", "two")
    )
    return one, two


def lineage(world: World) -> list[SignedRecord]:
    holdings = world[INSTITUTE].holdings
    return [r.record for i in tuple(holdings._execution) if (r := holdings.get(i)) is not None]


def test_rival_of_a_slot_is_found_after_a_restart(store: Store) -> None:
    """A writer that contradicts itself is not forgiven for a voter's restart."""
    world = World()
    one, two = twins(world)
    core_of(world, NORTH, store, ManualClock(START)).admit(lineage(world))
    again = core_of(world, NORTH, store, ManualClock(START + 60, started=START))
    held = again.holdings.get(one.id)
    assert held is not None
    assert [rival.id for rival in again.holdings.slot_rivals(held)] == [two.id]
    head = store.heads(f"{INSTITUTE}/plain/own")[0].actuation
    assert head in {one.id, two.id}


def test_rival_that_came_with_an_ask_is_found_after_a_restart(store: Store) -> None:
    world = World()
    institute = world[INSTITUTE]
    one, two = twins(world)
    core = core_of(world, NORTH, store, ManualClock(START, started=START - 60))
    for number, made in enumerate((one, two)):
        intent = institute.intent("plain/x", inputs=(made.id,), run=f"x-{number}")
        effects = institute.requester.handle(START, IntentFiled(intent))
        (sent,) = [effect for effect in effects if isinstance(effect, SendAsk)]
        frame = AskFrame(ask=sent.ask.encoded(), records=tuple(r.encoded() for r in sent.attached))
        assert isinstance(answered(core, encode_frame(frame)), VoteFrame)
    again = core_of(world, NORTH, store, ManualClock(START + 60, started=START))
    held = again.holdings.get(two.id)
    assert held is not None
    assert [rival.id for rival in again.holdings.slot_rivals(held)] == [one.id]


def test_slots_that_were_forgotten_are_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.attestation import holdings as module

    monkeypatch.setattr(module, "SLOTS_HELD_MAX", 1)
    world = World()
    one, two = twins(world)
    institute = world[INSTITUTE]
    institute.actuate(permit_of(world, institute.intent("plain/another")))
    core = core_of(world, NORTH, store, ManualClock(START))
    core.admit(lineage(world))
    held = core.holdings.get(one.id)
    assert held is not None
    assert [rival.id for rival in core.holdings.slot_rivals(held)] == [two.id]
    assert len(core.holdings._slots) == 1


def test_of_many_rivals_the_first_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.attestation import holdings as module

    monkeypatch.setattr(module, "SLOT_RIVALS_MAX", 3)
    world = World()
    institute = world[INSTITUTE]
    made = sorted(
        institute.actuate(permit_of(world, institute.intent("plain/own", run=str(n)))).id for n in range(6)
    )
    last = institute.holdings.get(made[-1])
    assert last is not None
    assert [rival.id for rival in institute.holdings.slot_rivals(last)] == made[:3]


# Runs


@pytest.mark.parametrize("by", ["ask", "own", "record"])
def test_the_first_run_under_a_ticket_is_known_after_a_restart(store: Store, by: str) -> None:
    """However its intent came: with another member's ask, by this node itself, or as a record."""
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a")
    world.tell(institute.credentials["operator/a"][1])
    ticket = institute.ticket("operator/a", ["plain/**"], run="")
    intent = institute.intent("plain/x", who="operator/a", run="run-1", under=ticket)
    name = INSTITUTE if by == "own" else NORTH
    core = core_of(world, name, store, ManualClock(START, started=START - 60))
    core.admit([institute.credentials["operator/a"][1]])
    if by == "own":
        core.file(intent, (ticket,))
    elif by == "record":
        core.admit([ticket, intent])
    else:
        (sent,) = [
            effect
            for effect in institute.requester.handle(START, IntentFiled(intent, (ticket,)))
            if isinstance(effect, SendAsk)
        ]
        frame = AskFrame(ask=sent.ask.encoded(), records=tuple(r.encoded() for r in sent.attached))
        assert isinstance(answered(core, encode_frame(frame)), VoteFrame)
    again = core_of(world, name, store, ManualClock(START + 60, started=START))
    second = institute.intent("plain/y", who="operator/a", run="run-2", under=ticket)
    again.admit([institute.credentials["operator/a"][1], ticket, second])
    held = [again.holdings.get(record.id) for record in (second, ticket)]
    assert held[0] is not None
    assert held[1] is not None
    assert [r.id for r in again.holdings.second_runs(held[0], [held[1]])] == [intent.id]
    assert again.holdings.launches.first_run(INSTITUTE, ticket.id) == "run-1"


# Rounds


def test_a_round_that_was_asked_before_a_restart_is_not_asked_again(store: Store) -> None:
    """Also where the clock was set back meanwhile, so that the process seems to have begun earlier."""
    world = World()
    intent = world[NORTH].intent("plain/a")
    core = core_of(world, NORTH, store, ManualClock(START, started=START - 60))
    store.save_intent(IntentRow(intent.id, "run-1", "step", b"d", "asking", b"", START))
    core.file(intent, ())
    (first,) = asks(core)
    again = core_of(world, NORTH, store, ManualClock(START - 1, started=START - 100))
    again.resume()
    (second,) = asks(again)
    t = [again.holdings.get(ask.id).body.t for ask in (first, second)]  # type: ignore[union-attr]
    assert t[0] < t[1]
    rounds = [(r.body.intent, r.body.t) for r in again.holdings.about(intent.id) if r.header.kind == "ask"]
    assert len(rounds) == len(set(rounds)) == 2


def test_an_ask_for_a_round_that_the_store_knows_never_leaves(store: Store) -> None:
    world = World()
    north = world[NORTH]
    intent = north.intent("plain/a")
    clock = ManualClock(START, started=START - 60)
    core = core_of(world, NORTH, store, clock)
    (sent,) = [e for e in north.requester.handle(START, IntentFiled(intent)) if isinstance(e, SendAsk)]
    other = _asked_otherwise(north, sent.ask)
    assert store.ask_once(intent.id, START, other).id == other.id
    core.file(intent, ())
    assert asks(core) == []
    pursuit = core.requester.pursuit(intent.id)
    assert pursuit is not None
    assert pursuit.ask is not None
    assert store.holds([pursuit.ask.id]) == frozenset()
    clock.advance(START_MARGIN_S + 1)
    core.tick()
    assert pursuit.standing == "held"
    clock.advance(60)
    core.tick()
    (anew,) = asks(core)
    assert core.holdings.get(anew.id).body.t > START  # type: ignore[union-attr]


def asks(core: Core) -> list[SignedRecord]:
    return [item.ask for item in core.drain() if isinstance(item, OutgoingAsk)]


def _asked_otherwise(north: Any, ask: SignedRecord) -> SignedRecord:
    import msgspec

    from comity.attestation.authoring import NO_SALT
    from comity.protocol.records import decode_body

    body: Any = decode_body(ask)
    record: SignedRecord = north.node.write(
        "ask", msgspec.structs.replace(body, relied=(), salt=NO_SALT), START, subject=ask.header.subject
    )
    return record
