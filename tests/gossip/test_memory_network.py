"""The controls of the network in memory."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from comity.gossip.gossip import BURST, pace_taken
from comity.gossip.transport import Reason, RequestError
from comity.gossip.transport_memory import MemoryNetwork, MemoryTransport
from comity.protocol.errors import ConfigError
from ears import Ear, port
from roads import Site, key_of

pytestmark = pytest.mark.trio


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


async def meet(network: MemoryNetwork, nursery: trio.Nursery, *names: str) -> list[Site]:
    sites = [Site(name, MemoryTransport(network, key_of(name), echo), tuple) for name in names]
    for site in sites:
        site.transport.set_peers([other.peer for other in sites if other is not site])
        await nursery.start(site.run)
    return sites


async def test_a_message_takes_the_time_that_it_is_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    network = MemoryNetwork(Random(1), delay_s=(2.0, 3.0))
    a, b = await meet(network, nursery, "a", "b")
    began = trio.current_time()
    assert await a.ask(b, b"x") == b"x"
    assert 4.0 <= trio.current_time() - began <= 6.0


async def test_equal_seeds_lose_and_delay_alike(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def history(seed: int) -> list[tuple[float, bool]]:
        network = MemoryNetwork(Random(seed), delay_s=(0.0, 1.0), loss_ppm=300_000)
        async with trio.open_nursery() as running:
            a, b = await meet(network, running, "a", "b")
            found: list[tuple[float, bool]] = []
            for _ in range(30):
                began = trio.current_time()
                try:
                    await a.ask(b, b"")
                except RequestError:
                    found.append((0.0, False))
                else:
                    found.append((round(trio.current_time() - began, 9), True))
            running.cancel_scope.cancel()
        return found

    first = await history(5)
    assert first == await history(5)
    assert first != await history(6)
    assert 5 < sum(arrived for _, arrived in first) < 25


async def test_a_partition_separates_and_heals(nursery: trio.Nursery) -> None:
    network = MemoryNetwork(Random(1))
    a, b, c = await meet(network, nursery, "a", "b", "c")
    network.partition([a.peer, b.peer])
    await a.sees(c, up=False)
    await c.sees(b, up=False)
    assert await a.ask(b, b"x") == b"x"
    with pytest.raises(RequestError) as caught:
        await c.ask(a, b"")
    assert caught.value.reason is Reason.UNREACHABLE
    network.heal()
    await c.sees(a)
    assert await c.ask(a, b"x") == b"x"


async def test_a_partition_ends_what_is_under_way(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    network = MemoryNetwork(Random(1), delay_s=(1.0, 1.0))
    a, b = await meet(network, nursery, "a", "b")

    async def cut() -> None:
        await trio.testing.wait_all_tasks_blocked()
        network.partition([a.peer])

    nursery.start_soon(cut)
    with pytest.raises(RequestError) as caught:
        await a.ask(b, b"")
    assert caught.value.reason is Reason.CLOSED


async def test_who_floods_by_gossip_is_heard_at_its_pace(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    network = MemoryNetwork(Random(1))
    a, b, c = await meet(network, nursery, "a", "b", "c")
    ear = Ear(c, nursery)
    for count, after_s in ((BURST, 0.0), (BURST + 3, 3 / pace_taken(3))):
        autojump_clock.jump(after_s)
        for _ in range(10 * BURST):
            port(a).publish(b"much")
        await trio.testing.wait_all_tasks_blocked()
        assert len(ear.heard) == count
    # It is one author's, and not everybody's.
    port(b).publish(b"a word")
    await ear.hears(b"a word")


async def test_two_nodes_of_one_key_do_not_run_at_once(nursery: trio.Nursery) -> None:
    network = MemoryNetwork(Random(1))
    await meet(network, nursery, "a")
    with pytest.raises(ExceptionGroup) as caught:
        await MemoryTransport(network, key_of("a"), echo).run()
    assert caught.group_contains(ConfigError)
