"""Which nodes of others are connected, and since when: what people look at first when a decision does not come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comity.gossip.transport import PeerName, Transport
from comity.node.clock import Clock


@dataclass(frozen=True, slots=True)
class Seen:
    """One node of another member.

    Attributes:
        since: when it connected, or when it was lost, in whole seconds since 1970.
    """

    connected: bool
    since: int


class Attendance:
    """Notes who comes and who goes. It knows nothing of the time before this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[PeerName, Seen] = {}

    def seen(self) -> Mapping[PeerName, Seen]:
        """Every node that was connected at some time since this process began; no more than there are peers."""
        return dict(self._seen)

    async def watch(self, transport: Transport) -> None:
        """Note every change until cancelled."""
        while True:
            async with transport.subscribe() as events:
                # Whoever left while this was not listening is told by nobody.
                for name in self._seen.keys() - transport.connected():
                    self._note(name, up=False)
                async for event in events:
                    self._note(event.peer, up=event.up)

    def _note(self, name: PeerName, *, up: bool) -> None:
        known = self._seen.get(name)
        if known is None or known.connected != up:
            self._seen[name] = Seen(up, self._clock.now())
