"""The transport port on libp2p: TCP, noise or TLS, yamux, one long-lived stream per ordered pair of nodes.

For every peer one task keeps the stream on which we ask: it dials where there is no connection, opens the
stream, and begins again, after a growing pause, when the stream breaks. Of two nodes the one with the smaller
transport key dials first and the other a moment later, so that they rarely dial at once; when they do, both
connections are good.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from random import Random
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from comity.gossip.libp2p_gossip import GossipSettings, Libp2pGossip
from comity.gossip.libp2p_host import (
    HANDSHAKE_S,
    MembersSwarm,
    MuxedByteStream,
    PeerId,
    Security,
    foreign_errors,
    new_host,
    peer_id_of,
    running,
)
from comity.gossip.streams import AnswerStream, RequestStream
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
from comity.protocol.errors import LocalProtocolError, TransportError

PROTOCOL: Final = TProtocol("/comity/request/1.0.0")
TURN_S: Final = 0.5
"""The head start of the node with the smaller key: longer than a handshake takes between continents."""
DIAL_S: Final = 3 * HANDSHAKE_S
"""One address, from the socket to the muxer. libp2p bounds only parts of it."""
PAUSE_S_MIN: Final = 0.2
PAUSE_S_MAX: Final = 30.0
"""Before redialling, doubling: who restarts is back at once, and who is gone costs two dials a minute."""
STEADY_S: Final = 5.0
"""A stream that held so long was a good one: the pause begins at its shortest again."""
_DOUBLINGS_MAX: Final = 10

_log = logging.getLogger(__name__)


class _Contact:
    """What is held of one peer."""

    def __init__(self, peer: Peer, peer_id: PeerId) -> None:
        self.peer = peer
        self.peer_id = peer_id
        self.asking: RequestStream | None = None
        self.answering: trio.CancelScope | None = None
        self.arrived = trio.Event()
        self.scope = trio.CancelScope()

    async def arrival(self, timeout_s: float) -> None:
        """Wait for a new connection of this peer, or for the time to pass."""
        with trio.move_on_after(timeout_s):
            await self.arrived.wait()


class Libp2pTransport:
    """A node's end of the network. It works while `run` runs, once.

    Args:
        seed: 32 bytes, the seed of the Ed25519 transport key; never of a key that signs records.
        listen: addresses to listen on, e.g. `/ip4/0.0.0.0/tcp/4001`; port 0 takes a free one. May be empty.
        handler: answers requests; at most `bounds.in_flight` of one peer at once.
        rng: spreads the redialling. It decides nothing else.
        security: what to propose first.
        gossip: whether there is gossip, and about what.

    Attributes:
        gossip: the gossip port, where there is gossip.

    Raises:
        ConfigError: the seed or an address is malformed.
    """

    def __init__(
        self,
        seed: bytes,
        listen: Sequence[str],
        handler: Handler,
        rng: Random,
        *,
        security: Security = "noise",
        bounds: Bounds | None = None,
        gossip: GossipSettings | None = None,
    ) -> None:
        self._host = new_host(seed, security)
        network = self._host.get_network()
        if not isinstance(network, MembersSwarm):
            raise LocalProtocolError("a host without a swarm of members")
        self._swarm = network
        self._swarm.on_inbound = self._on_inbound
        self._host.set_stream_handler(PROTOCOL, self._accept)
        self._key = self._host.get_public_key().to_bytes()
        self._listen = tuple(listen)
        self._handler = handler
        self._rng = rng
        self._bounds = bounds if bounds is not None else Bounds()
        self._contacts: dict[PeerName, _Contact] = {}
        self._by_id: dict[PeerId, _Contact] = {}
        self._presence = Presence()
        self._nursery: trio.Nursery | None = None
        self.gossip = None if gossip is None else Libp2pGossip(self._host, self._swarm, gossip, self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, and keep a connection to every peer, until cancelled.

        Raises:
            ConfigError: an address cannot be bound.
        """
        async with running(self._host, self._swarm, self._listen), trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for contact in self._contacts.values():
                    nursery.start_soon(self._keep, contact)
                if self.gossip is not None:
                    nursery.start_soon(self.gossip.run)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, with the ports that were taken."""
        return tuple(str(address) for address in self._host.get_transport_addrs())

    def connected(self) -> frozenset[PeerName]:
        return self._presence.connected()

    def name_of(self, peer_id: PeerId) -> PeerName | None:
        """The peer of this libp2p name, connected or not."""
        contact = self._by_id.get(peer_id)
        return None if contact is None else contact.peer.name

    def ids_connected(self) -> frozenset[PeerId]:
        """The libp2p names of the peers that can be asked at this moment."""
        return frozenset(self._contacts[name].peer_id for name in self.connected() if name in self._contacts)

    def nodes(self) -> int:
        """How many nodes the coalition has, as far as this one knows: the peers and itself."""
        return 1 + len(self._contacts)

    def subscribe(self) -> trio.MemoryReceiveChannel[PeerEvent]:
        return self._presence.subscribe()

    async def request(self, peer: PeerName, payload: bytes, *, timeout_s: float) -> bytes:
        contact = self._contacts.get(peer)
        if contact is None:
            raise RequestError(Reason.NOT_A_MEMBER, peer)
        if contact.asking is None:
            raise RequestError(Reason.UNREACHABLE, peer)
        return await contact.asking.request(payload, timeout_s)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        wanted = check_peers(peers, self._key)
        ids = {name: peer_id_of(peer.transport_key) for name, peer in wanted.items()}
        for name, contact in tuple(self._contacts.items()):
            if ids.get(name) != contact.peer_id:
                self._forget(name, contact)
        for name, peer in wanted.items():
            held = self._contacts.get(name)
            if held is not None:
                held.peer = peer
                continue
            contact = _Contact(peer, ids[name])
            self._contacts[name] = contact
            self._by_id[contact.peer_id] = contact
            if self._nursery is not None:
                self._nursery.start_soon(self._keep, contact)
        self._swarm.members = frozenset(self._by_id)

    def _set(self, name: PeerName, *, up: bool) -> None:
        self._presence.set(name, up=up)
        if self.gossip is not None:
            self.gossip.look_again()

    def _forget(self, name: PeerName, contact: _Contact) -> None:
        del self._contacts[name]
        del self._by_id[contact.peer_id]
        self._set(name, up=False)
        self._swarm.members -= {contact.peer_id}
        contact.scope.cancel()
        if contact.answering is not None:
            contact.answering.cancel()
        self._swarm.sever(contact.peer_id)

    def _on_inbound(self, peer_id: PeerId) -> None:
        contact = self._by_id.get(peer_id)
        if contact is not None:
            contact.arrived.set()

    async def _accept(self, stream: INetStream) -> None:
        """Answer on a stream that a peer opened: on the newest, for the peer gave up the older."""
        contact = self._by_id.get(stream.muxed_conn.peer_id)
        pipe = MuxedByteStream(stream)
        try:
            if contact is None:
                return
            if contact.answering is not None:
                contact.answering.cancel()
            with trio.CancelScope() as scope:
                contact.answering = scope
                await pipe.widen()
                await AnswerStream(contact.peer.name, pipe, self._handler, self._bounds).run()
            if contact.answering is scope:
                contact.answering = None
        finally:
            await pipe.abandon()

    async def _keep(self, contact: _Contact) -> None:
        """Keep the stream on which this peer is asked, until it is a peer no longer."""
        failures = 0
        with contact.scope:
            while True:
                contact.arrived = trio.Event()
                began = trio.current_time()
                try:
                    await self._connect(contact)
                    with foreign_errors(contact.peer.name):
                        stream = await self._host.new_stream(contact.peer_id, [PROTOCOL])
                    await self._ask_on(contact, MuxedByteStream(stream))
                except TransportError as exc:
                    _log.debug("no_stream", extra={"peer": contact.peer.name, "detail": str(exc)})
                failures = 0 if trio.current_time() - began >= STEADY_S else failures + 1
                await contact.arrival(self._pause(failures))

    async def _connect(self, contact: _Contact) -> None:
        """Have a connection: theirs if they come, or else by one address after the other.

        Raises:
            TransportError: there is none.
        """
        if not self._swarm.get_connections(contact.peer_id) and self._key > contact.peer.transport_key:
            await contact.arrival(TURN_S)
        if self._swarm.get_connections(contact.peer_id):
            return
        reasons: list[str] = []
        for address in contact.peer.addresses:
            try:
                with trio.fail_after(DIAL_S):
                    await self._swarm.dial(address, contact.peer_id)
            except (TransportError, trio.TooSlowError) as exc:
                reasons.append(str(exc))
            else:
                return
        raise TransportError("; ".join(reasons) or "it has no address, and has not connected")

    async def _ask_on(self, contact: _Contact, stream: MuxedByteStream) -> None:
        name = contact.peer.name
        asking = RequestStream(name, stream, self._bounds)
        try:
            await stream.widen()
            contact.asking = asking
            self._set(name, up=True)
            await asking.run()
        finally:
            contact.asking = None
            if self._contacts.get(name) is contact:
                self._set(name, up=False)
            if asking.silent:
                self._swarm.sever(contact.peer_id)
            await stream.abandon()

    def _pause(self, failures: int) -> float:
        longest = min(PAUSE_S_MAX, PAUSE_S_MIN * 2.0 ** min(failures, _DOUBLINGS_MAX))
        return longest * self._rng.uniform(0.5, 1.0)
