"""The gossip port: small hints to every node of a coalition, from neighbour to neighbour.

What is published may be lost, come twice or come late: nothing may depend on it. Who wrote a message is certain,
by its transport key; what it says is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from comity.gossip.transport import PeerName
from comity.protocol.limits import NOTICES_PER_S

HEARD_MAX: Final = 64
"""Messages that wait to be looked at. What comes beyond is dropped: it is a hint, and the next pull brings it."""
BURST: Final = 8
"""Messages of one author that may come at once, after a silence."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, of at most `NOTICE_BYTES_MAX` bytes, and the node that wrote it."""

    author: PeerName
    payload: bytes


class Gossip(Protocol):
    """What the layers above need of gossip."""

    def publish(self, payload: bytes) -> None:
        """Tell every node that others lead to, as far as they can be reached. Never waits.

        Who publishes more often than `interval_s` allows is not forwarded.

        Raises:
            LocalProtocolError: it is longer than `NOTICE_BYTES_MAX`.
        """
        ...

    def heard(self) -> trio.MemoryReceiveChannel[Heard]:
        """What others publish from now on. There is one listener; an earlier one finds its channel at its end."""
        ...


def topic_of(coalition: bytes) -> str:
    """The topic of a coalition, named by its genesis."""
    return f"/comity/heads/1.0.0/{coalition.hex()}"


def interval_s(nodes: int) -> float:
    """How long a node waits between two messages, in a coalition of so many nodes (DESIGN: 50/n per second)."""
    return max(1, nodes) / NOTICES_PER_S


def pace_taken(nodes: int) -> float:
    """Messages of one author that are taken in a second: twice what it may say, for clocks and roads differ."""
    return 2 / interval_s(nodes)


class Allowance:
    """How many messages of each author, or of each forwarder, are taken: so many in a second, and a burst.

    Args:
        clock: seconds on any clock that only goes forward.
        burst: how many at once, after a silence.
    """

    def __init__(self, clock: Callable[[], float], burst: int = BURST) -> None:
        self._clock = clock
        self._burst = float(burst)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, author: str, per_s: float) -> bool:
        """Whether one more message of this author is taken now."""
        now = self._clock()
        left, at = self._left.get(author, (self._burst, now))
        left = min(self._burst, left + (now - at) * per_s)
        taken = left >= 1
        self._left[author] = (left - 1 if taken else left, now)
        return taken

    def keep(self, authors: frozenset[str]) -> None:
        """Forget all other authors."""
        self._left = {name: left for name, left in self._left.items() if name in authors}


class Listener:
    """The one who hears. The part of the port that every adapter does alike."""

    def __init__(self) -> None:
        self._sending: trio.MemorySendChannel[Heard] | None = None
        self.dropped = 0

    def heard(self) -> trio.MemoryReceiveChannel[Heard]:
        if self._sending is not None:
            self._sending.close()
        self._sending, receiving = trio.open_memory_channel[Heard](HEARD_MAX)
        return receiving

    def tell(self, author: PeerName, payload: bytes) -> None:
        """Hand a message to the listener, or drop it where nobody listens or too many wait."""
        if self._sending is None:
            return
        try:
            self._sending.send_nowait(Heard(author, payload))
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.dropped += 1
