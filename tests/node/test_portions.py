"""What a peer brings is admitted a few records at a time: nobody else waits for all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from comity.attestation.authoring import NO_SALT
from comity.node.answering import answer_peer
from comity.node.clock import ManualClock
from comity.node.core import Core, Identity
from comity.node.following import close_page
from comity.node.portions import PORTION_RECORDS_MAX
from comity.node.service import Service
from comity.node.store import Cursor
from comity.node.store_memory import MemoryStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Observation
from comity.protocol.frames import AskFrame, FeedFrame, OfferFrame, PageFrame, encode_frame
from world import BOARD, ENGINE, NORTH, SOUTH, START, World

T = TypeVar("T")
LIAR, HONEST = f"spiffe://{SOUTH}/node/n1", f"spiffe://{BOARD}/node/n1"


class OneAtATime:
    """A runner that takes a second for each call, one after the other."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        async with self._turn:
            with trio.move_on_after(1):
                await trio.sleep_forever()
            return function()


class CountingStore(MemoryStore):
    """Counts what a disk would flush."""

    flushes = 0

    def batch(self, *, durable: bool = False) -> Any:
        self.flushes += durable
        return super().batch(durable=durable)


class Counted(Core):
    """North's machines; they remember how many records were admitted in each call."""

    def __init__(self, world: World) -> None:
        self.store: CountingStore
        self.calls: list[int] = []
        identity = Identity(NORTH, f"spiffe://{NORTH}/node/n1", world[NORTH].node)
        super().__init__(identity, CountingStore(), ManualClock(START), ENGINE, (world.genesis,))
        self.admit(world.common)
        self.calls.clear()
        self.store.flushes = 0

    def admit(self, records: Iterable[SignedRecord], **options: Any) -> Any:
        offered = list(records)
        self.calls.append(len(offered))
        return super().admit(offered, **options)


def policies(world: World, count: int) -> list[SignedRecord]:
    return [world[SOUTH].owner_policy(n + 1) for n in range(count)]


def reports(world: World, count: int) -> list[SignedRecord]:
    return [
        world[SOUTH].node.write(
            "observation",
            Observation(salt=NO_SALT, claim="check", parameters={"n": n}),
            START,
            subject=(bytes(32),),
            outcome="failed",
        )
        for n in range(count)
    ]


def encoded(records: Iterable[SignedRecord]) -> tuple[bytes, ...]:
    return tuple(record.encoded() for record in records)


async def test_a_page_of_dear_records_lets_a_vote_through(autojump_clock: trio.testing.MockClock) -> None:
    """A peer's page, offer, or ask with forty policies: another's ask has its vote after one or two of them."""
    world = World()
    brought = encoded(policies(world, 40))
    page = encode_frame(PageFrame(incarnation=b"i" * 16, position=40, records=brought))
    ask = encode_frame(AskFrame(ask=brought[0], records=brought))

    async def pages(service: Service) -> None:
        opened = await service.call(lambda: service.core.open_page(page))
        await service._admit(LIAR, opened.records)
        assert service.core.store.cursor(LIAR, service.core.coalition) is None
        await service.call(lambda: close_page(service.core, LIAR, opened))

    async def offers(service: Service) -> None:
        await service.handle_request(LIAR, encode_frame(OfferFrame(records=brought)))

    async def asks(service: Service) -> None:
        await service.handle_request(LIAR, ask)

    for flood in (pages, offers, asks):
        core = Counted(world)
        service = Service(core, OneAtATime())
        waited = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, service)
            with trio.move_on_after(5):
                await trio.sleep_forever()
            began = trio.current_time()
            await service.handle_request(HONEST, encode_frame(FeedFrame()))
            waited = trio.current_time() - began
        assert waited <= 3, flood.__name__
        assert len(core.holdings.state.of_kind("owner_policy")) == 40
        assert max(core.calls) == 1, "a record with rules is the last of its portion"


async def test_a_flood_of_reports_is_flushed_by_the_portion(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    core = Counted(world)
    service = Service(core, OneAtATime())
    count = 4 * PORTION_RECORDS_MAX
    await service._admit(LIAR, encoded(reports(world, count)))
    assert core.calls == [PORTION_RECORDS_MAX] * 4
    assert core.store.flushes == 4
    assert len(core.holdings.state.of_kind("observation")) == count


async def test_a_page_that_breaks_off_is_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    """What came before is kept, the position is not, and whoever waits for what came hears of it."""
    world = World()
    core = Counted(world)
    service = Service(core, OneAtATime())
    told: list[int] = []
    real = core.request

    def heard(event: Any) -> None:
        told.append(len(core.calls))
        real(event)

    core.request = heard  # type: ignore[method-assign]
    whole = encoded(reports(world, 3 * PORTION_RECORDS_MAX))
    with pytest.raises(DecodeError):
        await service._admit(LIAR, (*whole[: 2 * PORTION_RECORDS_MAX], b"no record"))
    assert len(core.holdings.state.of_kind("observation")) == 2 * PORTION_RECORDS_MAX
    assert told == [2], "once for all"
    page = PageFrame(incarnation=b"i" * 16, position=9, records=whole)
    await service._admit(LIAR, page.records)
    assert told == [2, 5]
    assert not close_page(core, LIAR, page)
    assert core.store.cursor(LIAR, core.coalition) == Cursor(b"i" * 16, 9)


def test_an_ask_with_records_that_are_known_is_answered_at_once() -> None:
    world = World()
    core = Counted(world)
    intent = world[NORTH].intent("plain/a")
    pursuit = world.decide(intent)
    frame = AskFrame(ask=pursuit.ask.record.encoded(), records=encoded(pursuit.attached))
    assert isinstance(answer_peer(core, encode_frame(frame), HONEST), bytes)
    assert core.calls == []
