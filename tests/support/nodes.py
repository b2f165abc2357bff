"""Whole nodes over the in-memory network, on trio's clock: the product's service, core and store port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import trio

from comity.gossip.transport import Peer
from comity.gossip.transport_memory import MemoryNetwork, MemoryTransport
from comity.node.core import Core, Identity
from comity.node.gossiping import Gossiping
from comity.node.service import Service
from comity.node.store_memory import MemoryStore
from comity.protocol.identifiers import sha256
from world import ENGINE, START, Organization, World

T = TypeVar("T")
GOSSIP = True
"""Whether nodes gossip. The fixture `gossip` has every test of a module run both ways: nothing may depend on it."""
CATCH_UP_S = 30.0
"""Where messages are lost, it may take some rounds; a test that is about this looks for itself."""


class TrioClock:
    """The node's clock on trio's time, which a test lets jump."""

    def __init__(self, started: int = START - 3600, zero: float | None = None) -> None:
        self._clock = trio.lowlevel.current_clock()
        self.zero = self._clock.current_time() if zero is None else zero
        self._started = started

    @property
    def started(self) -> int:
        return self._started

    def now(self) -> int:
        return int(self.seconds())

    def seconds(self) -> float:
        return START + self.monotonic()

    def monotonic(self) -> float:
        return self._clock.current_time() - self.zero


class Inline:
    """Runs calls where they are made, so that virtual time never passes meanwhile."""

    async def run(self, function: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return function()


class RunningNode:
    """One organization's node."""

    def __init__(self, organization: Organization, network: MemoryNetwork, clock: TrioClock) -> None:
        self.name = organization.name
        self.organization = organization
        self.network = network
        self._clock = clock
        self.peer = Peer(
            f"spiffe://{organization.name}/node/n1", sha256(f"transport {organization.name}".encode())
        )
        self.store = MemoryStore(sha256(organization.name.encode())[:16])
        identity = Identity(organization.name, self.peer.name, organization.node)
        self.core = Core(identity, self.store, clock, ENGINE, (organization.epoch,), catches_up=True)
        self.service = Service(self.core, Inline())
        self.transport = MemoryTransport(network, self.peer.transport_key, self.service.handle_request)
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    def reborn(self) -> RunningNode:
        """The node of a new process over the same store, not running yet."""
        again = RunningNode(self.organization, self.network, self._clock)
        again.store = self.store
        clock = TrioClock(self._clock.now(), self._clock.zero)
        again.core = Core(
            self.core.identity, self.store, clock, ENGINE, (self.organization.epoch,), catches_up=True
        )
        again.service = Service(again.core, Inline())
        key, handler = self.peer.transport_key, again.service.handle_request
        again.transport = MemoryTransport(self.network, key, handler)
        return again

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.transport.run)
                    await nursery.start(self.service.run, self.transport)
                    if GOSSIP:
                        await nursery.start(Gossiping(self.service, self.transport.gossip).run)
                    task_status.started()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._stopped.wait()


@asynccontextmanager
async def running(
    world: World, *, knows: Sequence[str] | None = None, seed: int = 1, loss_ppm: int = 0
) -> AsyncGenerator[dict[str, RunningNode]]:
    """All members' nodes. Those of `knows` (by default all) begin with the governance records."""
    network = MemoryNetwork(Random(seed), delay_s=(0.001, 0.05), loss_ppm=loss_ppm)
    clock = TrioClock()
    nodes = {name: RunningNode(member, network, clock) for name, member in world.members.items()}
    for name, node in nodes.items():
        if knows is None or name in knows:
            node.core.admit(world.common)
            node.core.drain()
    for node in nodes.values():
        node.transport.set_peers([other.peer for other in nodes.values() if other is not node])
    async with trio.open_nursery() as nursery:
        for node in nodes.values():
            await nursery.start(node.run)
        # As an operator waits after a start: `comity node status --until quorum`.
        with trio.move_on_after(CATCH_UP_S):
            await until(lambda: all(node.core.voter.votes(clock.now()) for node in nodes.values()))
        yield nodes
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any], within_s: float = 120.0) -> None:
    """Let virtual time pass until something holds."""
    with trio.fail_after(within_s):
        while not condition():
            with trio.move_on_after(0.05):
                await trio.sleep_forever()


def still(world: World, name: str, store: MemoryStore | None = None) -> Core:
    """A core of a member whose node does not run."""
    member = world[name]
    identity = Identity(name, f"spiffe://{name}/node/n1", member.node)
    core = Core(identity, store or MemoryStore(bytes(16)), Still(), ENGINE, (world.genesis,))
    core.admit(world.common)
    core.drain()
    return core


@dataclass(frozen=True)
class Still:
    """A clock that stands."""

    started: int = START - 3600

    def now(self) -> int:
        return START

    def seconds(self) -> float:
        return float(START)

    def monotonic(self) -> float:
        return 0.0
