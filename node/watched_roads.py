"""What travels between this node and its peers, counted: requests by kind and result, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from comity.gossip.gossip import Gossip
from comity.gossip.transport import Handler, Peer, PeerEvent, PeerName, RequestError, Transport
from comity.node.metrics import Metrics

UNKNOWN: Final = "unknown"
_BEGINNINGS: Final = (
    (b"\xa3ask", "ask"),
    (b"\xa5after", "feed"),
    (b"\xa5asset", "head"),
    (b"\xa5frame\xa5fetch", "fetch"),
    (b"\xa5frame\xa4feed", "feed"),
    (b"\xa5frame\xa5offer", "offer"),
)
"""What follows the first byte of a request: its first key, in the order of canonical MessagePack."""
_UNREADABLE: Final = b"\xa4code\xabframe_wrong"


class RunningTransport(Transport, Protocol):
    """A transport with its lifetime, and where it listens."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...

    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def gossip(self) -> Gossip | None: ...


def kind_of(request: bytes) -> str:
    """The kind that a request begins like. It is not decoded for that: that is the machines' work."""
    return next((kind for start, kind in _BEGINNINGS if request.startswith(start, 1)), UNKNOWN)


def watched_handler(handler: Handler, metrics: Metrics) -> Handler:
    """The handler, counting what it is asked."""

    async def handle(peer: PeerName, payload: bytes) -> bytes:
        result = "failed"
        metrics.bytes.add("received", by=len(payload))
        try:
            answer = await handler(peer, payload)
            result = "unreadable" if answer.startswith(_UNREADABLE, 1) else "answered"
            metrics.bytes.add("sent", by=len(answer))
        finally:
            metrics.received.add(kind_of(payload), result)
        return answer

    return handle


class WatchedTransport:
    """A transport, counting what is asked of others."""

    def __init__(self, transport: RunningTransport, metrics: Metrics) -> None:
        self._transport = transport
        self._metrics = metrics
        self._known = 0

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    @property
    def gossip(self) -> Gossip | None:
        return self._transport.gossip

    @property
    def known(self) -> int:
        """How many peers there are, connected or not."""
        return self._known

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._transport.run(task_status=task_status)

    async def request(self, peer: PeerName, payload: bytes, *, timeout_s: float) -> bytes:
        result = "cancelled"
        try:
            answer = await self._transport.request(peer, payload, timeout_s=timeout_s)
            result = "answered"
            self._metrics.bytes.add("received", by=len(answer))
        except RequestError as exc:
            result = exc.reason.value
            raise
        finally:
            self._metrics.bytes.add("sent", by=len(payload))
            self._metrics.sent.add(kind_of(payload), result)
        return answer

    def connected(self) -> frozenset[PeerName]:
        return self._transport.connected()

    def set_peers(self, peers: Sequence[Peer]) -> None:
        self._transport.set_peers(peers)
        self._known = len(peers)

    def subscribe(self) -> trio.MemoryReceiveChannel[PeerEvent]:
        return self._transport.subscribe()
