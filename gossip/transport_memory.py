"""A network in memory with the transport port: for tests of what stands above it.

Delay and loss are drawn from the given generator in the order of the sends, partitions are set and healed by
hand, and time is trio's. Nothing is encoded: the frames of the real road have tests of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from comity.gossip.gossip import Allowance, Heard, Listener, pace_taken
from comity.gossip.transport import (
    Bounds,
    Handler,
    Peer,
    PeerEvent,
    PeerName,
    Presence,
    Reason,
    RequestError,
    check_peers,
)
from comity.protocol.errors import ConfigError, LocalProtocolError
from comity.protocol.limits import NOTICE_BYTES_MAX

_MILLION: Final = 1_000_000
_log = logging.getLogger(__name__)


@dataclass
class MemoryNetwork:
    """Who runs, and what happens to what they send.

    Attributes:
        rng: the only source of chance.
        delay_s: the shortest and the longest time that a message takes one way, in seconds.
        loss_ppm: messages lost one way, in parts per million.
    """

    rng: Random
    delay_s: tuple[float, float] = (0.0, 0.0)
    loss_ppm: int = 0
    _running: dict[bytes, MemoryTransport] = field(default_factory=dict[bytes, "MemoryTransport"])
    _side: dict[bytes, int] = field(default_factory=dict[bytes, int])
    _apart: set[frozenset[bytes]] = field(default_factory=set[frozenset[bytes]])

    def partition(self, *sides: Iterable[Peer]) -> None:
        """Only nodes of one side reach each other. Nodes that are not named form one more side."""
        self._side = {peer.transport_key: index for index, side in enumerate(sides, 1) for peer in side}
        self.settle()

    def separate(self, left: Peer, right: Peer) -> None:
        """These two reach each other no more; both may reach others."""
        self._apart.add(frozenset((left.transport_key, right.transport_key)))
        self.settle()

    def heal(self) -> None:
        self._apart.clear()
        self.partition()

    def start(self, transport: MemoryTransport) -> None:
        """Raises: ConfigError: a node with this key runs already."""
        if transport.key in self._running:
            raise ConfigError("a node with this transport key runs already")
        self._running[transport.key] = transport
        self.settle()

    def stop(self, transport: MemoryTransport) -> None:
        del self._running[transport.key]
        self.settle()

    def settle(self) -> None:
        """Connect every two that run, name each other and share a side; disconnect all others."""
        for transport in self._running.values():
            transport.settle(self._running)

    def joined(self, left: bytes, right: bytes) -> bool:
        same_side = self._side.get(left, 0) == self._side.get(right, 0)
        return same_side and frozenset((left, right)) not in self._apart

    def reached_from(self, start: MemoryTransport) -> list[MemoryTransport]:
        """Everyone whom gossip of a node reaches, over others where there is no connection; without itself."""
        reached = {start.key: start}
        waiting = [start]
        while waiting:
            for other in waiting.pop().neighbours():
                if other.key not in reached:
                    reached[other.key] = other
                    waiting.append(other)
        return [other for key, other in reached.items() if key != start.key]

    async def carry(self) -> bool:
        """One way of one message: how long it takes, and whether it arrives."""
        lost = self.rng.randrange(_MILLION) < self.loss_ppm
        await trio.sleep(self.rng.uniform(*self.delay_s))
        return not lost


@dataclass(eq=False)
class _Call:
    """A request whose answer is awaited; an empty outcome says that the connection ended."""

    outcome: bytes | Reason | None = None
    done: trio.Event = field(default_factory=trio.Event)

    def end(self, outcome: bytes | Reason | None) -> None:
        if not self.done.is_set():
            self.outcome = outcome
            self.done.set()


class MemoryGossip:
    """The gossip port on the network in memory."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self.listener = Listener()

    def publish(self, payload: bytes) -> None:
        if len(payload) > NOTICE_BYTES_MAX:
            raise LocalProtocolError(
                f"a message of {len(payload)} bytes; at most {NOTICE_BYTES_MAX} are allowed"
            )
        self._transport.spread(payload)

    def heard(self) -> trio.MemoryReceiveChannel[Heard]:
        return self.listener.heard()


class MemoryTransport:
    """A node's end of the network. It works while `run` runs."""

    def __init__(
        self, network: MemoryNetwork, key: bytes, handler: Handler, *, bounds: Bounds | None = None
    ) -> None:
        self.key = key
        self._network = network
        self._handler = handler
        self._bounds = bounds if bounds is not None else Bounds()
        self._peers: dict[PeerName, Peer] = {}
        self._links: dict[PeerName, MemoryTransport] = {}
        self._calls: dict[PeerName, set[_Call]] = {}
        self._places: dict[PeerName, trio.CapacityLimiter] = {}
        self._working: dict[bytes, int] = {}
        self._presence = Presence()
        self._nursery: trio.Nursery | None = None
        self._authors = Allowance(trio.current_time)
        self.gossip = MemoryGossip(self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be part of the network until cancelled.

        Raises:
            ConfigError: a node with this key runs already.
        """
        async with trio.open_nursery() as nursery:
            self._network.start(self)
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._network.stop(self)
                self.settle({})

    def neighbours(self) -> list[MemoryTransport]:
        return list(self._links.values())

    def spread(self, payload: bytes) -> None:
        """Bring a message to all who can be reached, each after a time of its own, or not at all."""
        if self._nursery is not None:
            for other in self._network.reached_from(self):
                self._nursery.start_soon(self._bring, other, payload)

    async def _bring(self, other: MemoryTransport, payload: bytes) -> None:
        if await self._network.carry():
            other.hear(self.key, payload)

    def hear(self, author: bytes, payload: bytes) -> None:
        """A message has arrived. That of somebody who is no peer is dropped, and what is beyond its author's pace.

        Nobody forwards here, and nobody can name another as the author: there is nothing else to count.
        """
        pace = pace_taken(1 + len(self._peers))
        for name, peer in self._peers.items():
            if peer.transport_key == author and self._authors.take(name, pace):
                self.gossip.listener.tell(name, payload)

    def connected(self) -> frozenset[PeerName]:
        return self._presence.connected()

    def subscribe(self) -> trio.MemoryReceiveChannel[PeerEvent]:
        return self._presence.subscribe()

    def set_peers(self, peers: Sequence[Peer]) -> None:
        self._peers = check_peers(peers, self.key)
        self._network.settle()

    async def request(self, peer: PeerName, payload: bytes, *, timeout_s: float) -> bytes:
        if peer not in self._peers:
            raise RequestError(Reason.NOT_A_MEMBER, peer)
        if len(payload) > self._bounds.frame_bytes:
            raise RequestError(Reason.TOO_LARGE, peer, f"a request of {len(payload)} bytes")
        remote = self._links.get(peer)
        if remote is None:
            raise RequestError(Reason.UNREACHABLE, peer)
        call = _Call()
        calls = self._calls.setdefault(peer, set())
        calls.add(call)
        places = self._places.setdefault(peer, trio.CapacityLimiter(self._bounds.in_flight))
        try:
            with trio.move_on_after(max(0.0, timeout_s)) as deadline:
                async with places:
                    remote.receive(self, call, payload)
                    await call.done.wait()
        finally:
            calls.discard(call)
        if deadline.cancelled_caught:
            raise RequestError(Reason.TIMEOUT, peer, f"no answer in {timeout_s:g} s")
        if call.outcome is None:
            raise RequestError(Reason.CLOSED, peer)
        if isinstance(call.outcome, Reason):
            raise RequestError(call.outcome, peer, "said by the peer")
        return call.outcome

    def receive(self, sender: MemoryTransport, call: _Call, payload: bytes) -> None:
        """Take a request of another node of the network."""
        if self._nursery is None:
            call.end(None)
        else:
            self._nursery.start_soon(self._serve, sender, call, payload)

    def settle(self, running: dict[bytes, MemoryTransport]) -> None:
        """Compare the connections with what they should be now. Called by the network."""
        links: dict[PeerName, MemoryTransport] = {}
        for name, peer in self._peers.items():
            remote = running.get(peer.transport_key)
            if remote is not None and remote.knows(self.key) and self._network.joined(self.key, remote.key):
                links[name] = remote
        for name, remote in tuple(self._links.items()):
            if links.get(name) is not remote:
                for call in self._calls.pop(name, set()):
                    call.end(None)
                self._presence.set(name, up=False)
        self._links = links
        for name in self._links:
            self._presence.set(name, up=True)

    def knows(self, key: bytes) -> bool:
        return any(peer.transport_key == key for peer in self._peers.values())

    async def _serve(self, sender: MemoryTransport, call: _Call, payload: bytes) -> None:
        name = next((peer.name for peer in self._peers.values() if peer.transport_key == sender.key), None)
        if not await self._network.carry() or name is None or self._links.get(name) is not sender:
            return
        if self._working.get(sender.key, 0) >= self._bounds.in_flight:
            outcome: bytes | Reason = Reason.BUSY
        else:
            outcome = await self._work(name, sender.key, payload)
        if await self._network.carry():
            call.end(outcome)

    async def _work(self, name: PeerName, key: bytes, payload: bytes) -> bytes | Reason:
        self._working[key] = self._working.get(key, 0) + 1
        try:
            answer = await self._handler(name, payload)
        except Exception:  # noqa: BLE001  as on the real road: a handler's fault ends one request and no more
            _log.exception("handler_failed", extra={"peer": name})
            return Reason.FAILED
        finally:
            self._working[key] -= 1
        return answer if len(answer) <= self._bounds.frame_bytes else Reason.TOO_LARGE
