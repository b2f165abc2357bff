"""Nodes on every road, with one way to start and stop them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Protocol

import trio
from nacl.signing import SigningKey

from comity.gossip.transport import Bounds, Handler, Peer, PeerEvent, PeerName, Transport
from comity.gossip.transport_memory import MemoryNetwork, MemoryTransport

DEADLINE_S = 8.0


class Runnable(Transport, Protocol):
    """A transport with its lifetime."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def key_of(name: str) -> bytes:
    return bytes(SigningKey(seed_of(name)).verify_key)


def name_of(name: str) -> PeerName:
    return f"spiffe://{name}.example/node/n1"


def in_key_order(*names: str) -> tuple[str, ...]:
    """The same nodes, the one that dials first at the front."""
    return tuple(sorted(names, key=key_of))


class Site:
    """A node of a test that runs until it is stopped."""

    def __init__(self, name: str, transport: Runnable, addresses: Callable[[], tuple[str, ...]]) -> None:
        self.name = name_of(name)
        self.key = key_of(name)
        self.transport = transport
        self._addresses = addresses
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    @property
    def peer(self) -> Peer:
        return Peer(self.name, self.key, self._addresses())

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                await self.transport.run(task_status=task_status)
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self._stopped.wait()

    async def ask(self, other: Site, payload: bytes, timeout_s: float = DEADLINE_S) -> bytes:
        return await self.transport.request(other.name, payload, timeout_s=timeout_s)

    async def sees(self, other: Site, *, up: bool = True) -> None:
        """Wait until the other is connected, or is not."""
        events = self.transport.subscribe()
        with trio.fail_after(DEADLINE_S):
            while (other.name in self.transport.connected()) != up:
                await events.receive()
        events.close()


class Road:
    """Where nodes are started."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        self.kind = kind
        self._nursery = nursery
        self.network = MemoryNetwork(Random(7))

    async def start(
        self,
        name: str,
        handler: Handler,
        *,
        bounds: Bounds | None = None,
        again: Site | None = None,
        topic: str = "",
        first_number: int = 1,
    ) -> Site:
        """Start a node; `again` gives it the addresses of its earlier life, `topic` something to gossip about."""
        if self.kind == "memory":
            memory = MemoryTransport(self.network, key_of(name), handler, bounds=bounds)
            site = Site(name, memory, tuple)
        else:
            from comity.gossip.libp2p_gossip import GossipSettings
            from comity.gossip.libp2p_transport import Libp2pTransport

            listen = again.peer.addresses if again is not None else ("/ip4/127.0.0.1/tcp/0",)
            libp2p = Libp2pTransport(
                seed_of(name),
                listen,
                handler,
                Random(name),
                security="tls" if self.kind == "tls" else "noise",
                bounds=bounds,
                gossip=GossipSettings(topic, first_number) if topic else None,
            )
            taken: list[tuple[str, ...]] = []

            def addresses() -> tuple[str, ...]:
                # A node that has stopped listens nowhere, and its restart needs to know where it did.
                if libp2p.addresses:
                    taken[:] = [libp2p.addresses]
                return taken[0]

            site = Site(name, libp2p, addresses)
        await self._nursery.start(site.run)
        _ = site.peer.addresses
        return site

    async def pair(
        self, left: Handler, right: Handler, *, bounds: tuple[Bounds, Bounds] | None = None
    ) -> tuple[Site, Site]:
        """Two nodes that know each other and can be asked."""
        a = await self.start("north", left, bounds=bounds and bounds[0])
        b = await self.start("south", right, bounds=bounds and bounds[1])
        a.transport.set_peers([b.peer])
        b.transport.set_peers([a.peer])
        await a.sees(b)
        await b.sees(a)
        return a, b


def drain(events: trio.MemoryReceiveChannel[PeerEvent]) -> Iterator[PeerEvent]:
    """The events that have happened."""
    while True:
        try:
            yield events.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return
