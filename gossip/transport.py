"""The transport port: requests and answers between the nodes of members, as opaque bytes.

Who may connect is said by `set_peers` and by nothing else. A connection is authorised by the transport key of
its other end; what a peer says over it is judged elsewhere, by its own signatures.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

import msgspec
import trio

from comity.protocol.errors import ConfigError, TransportError
from comity.protocol.identifiers import SpiffeId
from comity.protocol.limits import FRAME_BYTES_MAX, IN_FLIGHT_MAX

PeerName: TypeAlias = str
"""A node's name, e.g. `spiffe://clinic-north.example/node/n1`."""

Handler: TypeAlias = Callable[[PeerName, bytes], Awaitable[bytes]]
"""Answers one request of one peer. It is cancelled at an await when the peer's connection ends."""

TRANSPORT_KEY_BYTES: Final = 32
"""An Ed25519 public key (RFC 8032), or the seed of a private one."""
ADDRESSES_MAX: Final = 8
"""Addresses of one peer: each costs a dial that may take its whole time."""
PEERS_MAX: Final = 256
"""Peers of one node: each holds a task, two streams and their buffers."""
EVENTS_MAX: Final = 1_024
"""Events that a subscriber may leave unread: four changes of every peer."""

_PORT_MAX: Final = 65_535
_ADDRESS: Final = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/]{1,253})/tcp/(0|[1-9][0-9]{0,4})")
_HOST_NAME: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


class Reason(StrEnum):
    """Why a request got no answer."""

    UNREACHABLE = "unreachable"
    """No connection to the peer at this moment. Nothing was sent."""
    TIMEOUT = "timeout"
    """No answer in time. The peer may have acted on the request."""
    BUSY = "busy"
    """The peer already works on as many requests of ours as it allows. It did not act on this one."""
    TOO_LARGE = "too_large"
    """The request, or the answer to it, is longer than a frame may be."""
    CLOSED = "closed"
    """The connection ended while the answer was awaited. The peer may have acted on the request."""
    FAILED = "failed"
    """The peer's handler failed. Its own log says why."""
    NOT_A_MEMBER = "not_a_member"
    """The name is not among the peers. Nothing was sent."""


class RequestError(TransportError):
    """A request got no answer.

    Attributes:
        reason: the stable code.
        peer: who was asked.
    """

    def __init__(self, reason: Reason, peer: PeerName, detail: str = "") -> None:
        super().__init__(f"{reason}: {peer}{': ' if detail else ''}{detail}")
        self.reason = reason
        self.peer = peer


@dataclass(frozen=True)
class Peer:
    """A node that may connect and be connected to.

    Attributes:
        name: its SPIFFE id.
        transport_key: its Ed25519 public key for connections, 32 bytes; never the key that signs records.
        addresses: where it listens, e.g. `/ip4/192.0.2.7/tcp/4001` or `/dns4/node.clinic-a.example/tcp/4001`,
            tried in this order. Empty for a node that only dials out.

    Raises:
        ConfigError: one of them is malformed.
    """

    name: PeerName
    transport_key: bytes
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            msgspec.convert(self.name, SpiffeId)
        except msgspec.ValidationError as exc:
            raise ConfigError(f"peer name {self.name!r} is not a SPIFFE id in lower case") from exc
        if len(self.transport_key) != TRANSPORT_KEY_BYTES:
            raise ConfigError(
                f"transport key of {self.name} has {len(self.transport_key)} bytes, not {TRANSPORT_KEY_BYTES}"
            )
        if len(self.addresses) > ADDRESSES_MAX:
            raise ConfigError(
                f"{self.name} has {len(self.addresses)} addresses; at most {ADDRESSES_MAX} are allowed"
            )
        for address in self.addresses:
            if parse_address(address)[2] == 0:
                raise ConfigError(f"address {address!r} of {self.name} has port 0")


@dataclass(frozen=True)
class Bounds:
    """What one connection may cost.

    Attributes:
        frame_bytes: longest request and longest answer.
        in_flight: requests that one peer may have open with us, and we with it.
    """

    frame_bytes: int = FRAME_BYTES_MAX
    in_flight: int = IN_FLIGHT_MAX

    def __post_init__(self) -> None:
        if not 1 <= self.frame_bytes <= FRAME_BYTES_MAX:
            raise ConfigError(f"frame_bytes is {self.frame_bytes}; allowed are 1 to {FRAME_BYTES_MAX}")
        if not 1 <= self.in_flight <= IN_FLIGHT_MAX:
            raise ConfigError(f"in_flight is {self.in_flight}; allowed are 1 to {IN_FLIGHT_MAX}")


@dataclass(frozen=True)
class PeerEvent:
    """A peer can be asked from now on (`up`), or cannot."""

    peer: PeerName
    up: bool


class Transport(Protocol):
    """What the layers above need of the network."""

    async def request(self, peer: PeerName, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask one peer.

        It fails at once where there is no connection: who wants to wait listens to the events. Where as many
        requests as allowed are open with this peer, it waits for one to end, within the same time.

        Raises:
            RequestError: there was no answer; `reason` says why.
        """
        ...

    def connected(self) -> frozenset[PeerName]:
        """The peers that can be asked at this moment."""
        ...

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Replace the peers. Whoever is no longer among them is disconnected, and its open requests end.

        Raises:
            ConfigError: a name or a key occurs twice, a key is our own, or there are too many.
        """
        ...

    def subscribe(self) -> trio.MemoryReceiveChannel[PeerEvent]:
        """What changes from now on, after an `up` for every peer connected at this moment.

        A subscriber that leaves `EVENTS_MAX` events unread finds its channel at its end, and may subscribe
        again.
        """
        ...


class Presence:
    """Who is connected, and who wants to know. The part of the port that every adapter does alike."""

    def __init__(self) -> None:
        self._up: set[PeerName] = set()
        self._subscribers: list[trio.MemorySendChannel[PeerEvent]] = []

    def connected(self) -> frozenset[PeerName]:
        return frozenset(self._up)

    def subscribe(self) -> trio.MemoryReceiveChannel[PeerEvent]:
        sending, receiving = trio.open_memory_channel[PeerEvent](EVENTS_MAX)
        for name in sorted(self._up):
            sending.send_nowait(PeerEvent(name, up=True))
        self._subscribers.append(sending)
        return receiving

    def set(self, peer: PeerName, *, up: bool) -> None:
        """Record a change and tell the subscribers; without a change nothing happens."""
        if up == (peer in self._up):
            return
        (self._up.add if up else self._up.discard)(peer)
        event = PeerEvent(peer, up)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber.send_nowait(event)
            except (trio.WouldBlock, trio.BrokenResourceError):
                # Too slow, or gone. An end that it sees is better than a change that it misses.
                subscriber.close()
                self._subscribers.remove(subscriber)


def parse_address(address: str) -> tuple[str, str, int]:
    """The kind of name (`ip4`, `ip6`, `dns`, `dns4`, `dns6`), the host and the port of a TCP multiaddress.

    Raises:
        ConfigError: it is of another form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > _PORT_MAX:
        raise ConfigError(f"address {address!r} is not of the form /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT")
    kind, host = found[1], found[2]
    if kind.startswith("dns"):
        valid = _HOST_NAME.fullmatch(host) is not None
    else:
        try:
            # A scope ("%eth0") names an interface of one machine and means nothing to another.
            valid = f"ip{ipaddress.ip_address(host).version}" == kind and "%" not in host
        except ValueError:
            valid = False
    if not valid:
        raise ConfigError(f"address {address!r}: {host!r} is not a host of kind {kind}")
    return kind, host, int(found[3])


def check_peers(peers: Sequence[Peer], own_key: bytes) -> dict[PeerName, Peer]:
    """The peers by name.

    Raises:
        ConfigError: as `Transport.set_peers`.
    """
    if len(peers) > PEERS_MAX:
        raise ConfigError(f"{len(peers)} peers; at most {PEERS_MAX} are allowed")
    by_name = {peer.name: peer for peer in peers}
    if len(by_name) != len(peers):
        raise ConfigError("a peer's name occurs twice")
    keys = {peer.transport_key for peer in peers}
    if len(keys) != len(peers):
        raise ConfigError("a transport key occurs twice: two nodes with one key are one node to every peer")
    if own_key in keys:
        raise ConfigError("our own transport key is among the peers")
    return by_name
