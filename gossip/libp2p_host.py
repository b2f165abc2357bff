"""A libp2p host that does what we ask of it and nothing else.

libp2p is pinned to 0.8.1, and its defaults are unsafe or lossy for a closed coalition. So the host is put
together here from its parts: what is not named is not offered. Each departure from libp2p's own way says
which defect it answers; `tests/gossip/test_libp2p_defects.py` tells when the defect is gone.

Importing this module imports libp2p, which takes seconds: only `libp2p_transport` does.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Literal, TypeAlias
from weakref import WeakSet

import trio
from libp2p.abc import IMuxedConn, INetStream, IRawConnection
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.envelope import Envelope  # pyright: ignore[reportMissingTypeStubs]
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]  a folder without __init__
from libp2p.peer.peerstore import PeerStore  # pyright: ignore[reportMissingTypeStubs]
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, Yamux, YamuxStream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr  # pyright: ignore[reportMissingTypeStubs]  it has types, and does not say so

from comity.gossip.transport import PEERS_MAX, parse_address
from comity.protocol.errors import ConfigError, LocalProtocolError, TransportError

Security: TypeAlias = Literal["noise", "tls"]
"""What is proposed first. `tls` works between Python nodes only; noise is always offered beside it."""

PeerId: TypeAlias = ID
"""What libp2p calls a peer: a digest of its public key, or the key itself where it is as short as ours."""

_LISTEN_HINTS: Final = {
    errno.EADDRINUSE: "; another program, perhaps another node, does: choose another port in `listen`",
    errno.EADDRNOTAVAIL: "; it is no address of this machine: `listen` takes one that is, or 0.0.0.0 for all",
}
SEED_BYTES: Final = 32
HANDSHAKE_S: Final = 5.0
"""For each step of connecting: reaching the socket, securing it, agreeing on a muxer, opening a stream."""
HANDSHAKES_MAX: Final = 128
"""Connections that are being secured at once: what strangers can make a node hold."""
HANDSHAKES_PER_HOST_MAX: Final = 32
"""Of these, from one IP address: so that one stranger does not take the places of all others."""
CONNECTIONS_PER_PEER_MAX: Final = 2
"""Two that dial each other at once end with two connections, and both are good. The newest stay."""
STREAMS_PER_PEER_MAX: Final = 8
"""Streams that a peer may have open towards us: one that we answer, and some that it is about to replace."""
READ_BYTES: Final = 65_536
WINDOW_BYTES: Final = 1_048_576
"""What a peer may send on a stream before we have read it: an ask with its records, in one go."""
SILENCE_S: Final = 20
"""A connection on which the kernel of the other end answers nothing for so long is broken."""
RESET_S: Final = 1.0
"""Time that the farewell to a stream may take, from a peer that does not read."""
CLOSE_S: Final = 5.0
"""Time that stopping may take before what is left is abandoned."""

_log = logging.getLogger(__name__)


class BufferedSocket(TrioTCPStream):
    """A TCP stream that reads ahead.

    libp2p reads a secured message as two bytes and a body, and a body by its parts; straight from the socket
    each of these is a system call. After the end of the stream libp2p asks a hundred times more; here the
    second time fails.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._ahead = b""
        self._taken = 0
        self._ended = False
        _watch(stream.socket)

    async def read(self, n: int | None = None) -> bytes:
        if self._taken == len(self._ahead):
            if self._ended:
                raise ConnectionClosedError("read after the end of the stream", transport="tcp")
            self._ahead = await super().read(READ_BYTES)
            self._taken = 0
            self._ended = not self._ahead
        end = len(self._ahead) if n is None else self._taken + n
        data = self._ahead[self._taken : end]
        self._taken += len(data)
        return data

    def sever(self) -> None:
        """Close at once, without a farewell that a peer which does not read could hold up."""
        self.stream.socket.close()


class ClosedTcp(TCP):
    """TCP, with names resolved by the system and with sockets that read ahead."""

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        try:
            _, host, port = parse_address(str(maddr).partition("/p2p/")[0])
            return RawConnection(BufferedSocket(await trio.open_tcp_stream(host, port)), initiator=True)
        except (OSError, ConfigError) as exc:
            raise OpenConnectionError(f"cannot reach {maddr}: {exc}") from exc


class NoAutoConnector(AutoConnector):
    """Dials nobody. libp2p's own dials whom it has heard of, even with a low watermark of 0."""

    async def start(self) -> None:
        """Stay stopped: a stopped one does nothing when it is asked to."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Look at nothing every ten seconds."""


class ClosedPeerStore(PeerStore):
    """What is known of peers, without what they say of themselves.

    GossipSub carries in every message a signed list of the sender's addresses, which libp2p would dial.
    """

    def consume_peer_record(self, envelope: Envelope, ttl: int) -> bool:
        del envelope, ttl
        return True


class MembersSwarm(Swarm):
    """A swarm in which only members have connections, and no peer can use up what the others need.

    Attributes:
        members: who may connect.
        on_inbound: told of every connection that a member has opened to us.
    """

    def __init__(self, seed: bytes, security: Security) -> None:
        keys = create_new_key_pair(seed)
        peer_id = PeerId.from_pubkey(keys.public_key)
        store = ClosedPeerStore()
        store.add_key_pair(peer_id, keys)
        # Named, never the defaults: those offer plaintext and secio, and plaintext believes any name.
        secure = OrderedDict[TProtocol, NoiseTransport | TLSTransport]()
        if security == "tls":
            secure[TLS] = TLSTransport(keys)
        secure[NOISE] = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
        super().__init__(
            peer_id,
            store,
            TransportUpgrader(dict(secure), {TProtocol(YAMUX): Yamux}, negotiate_timeout=int(HANDSHAKE_S)),
            [ClosedTcp()],
            # Redialling is ours.
            RetryConfig(max_retries=0),
            ConnectionConfig(
                max_connections=PEERS_MAX * (CONNECTIONS_PER_PEER_MAX + 1),
                high_watermark=PEERS_MAX * (CONNECTIONS_PER_PEER_MAX + 1),
                min_connections=0,
                low_watermark=0,
                max_connections_per_peer=CONNECTIONS_PER_PEER_MAX,
                inbound_upgrade_timeout=HANDSHAKE_S,
                outbound_upgrade_timeout=HANDSHAKE_S,
                inbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
                outbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
            ),
        )
        self.auto_connector = NoAutoConnector(self)
        self.members: frozenset[PeerId] = frozenset()
        self.on_inbound: Callable[[PeerId], None] = lambda _peer: None
        self._sockets: dict[PeerId, WeakSet[BufferedSocket]] = {}
        self._handshakes: dict[str, int] = {}
        self._streams: dict[PeerId, int] = {}

    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        """Secure a connection and keep it until it ends.

        libp2p's own keeps the task, and one of 250 places, until the swarm ends: a node that was connected to
        250 times accepts nobody any more. The listener closes the socket when this returns, and logs what it
        raises.
        """
        if not isinstance(read_write_closer, TrioTCPStream):
            raise LocalProtocolError("a listener that is not TCP")
        # From the socket: libp2p knows no address of a peer on IPv6.
        host = str(read_write_closer.stream.socket.getpeername()[0])
        if (
            sum(self._handshakes.values()) >= HANDSHAKES_MAX
            or self._handshakes.get(host, 0) >= HANDSHAKES_PER_HOST_MAX
        ):
            _log.debug("connection_refused", extra={"detail": f"too many from {host} are being secured"})
            return
        self._handshakes[host] = self._handshakes.get(host, 0) + 1
        try:
            raw = RawConnection(BufferedSocket(read_write_closer.stream), initiator=False)
            muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        finally:
            self._handshakes[host] -= 1
            if not self._handshakes[host]:
                del self._handshakes[host]
        if isinstance(muxed, Yamux):
            await muxed.event_closed.wait()

    async def upgrade_inbound_raw_conn(self, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
        muxed = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        self._keep(muxed.peer_id, raw_conn)
        return muxed

    async def upgrade_outbound_raw_conn(
        self, raw_conn: IRawConnection, peer_id: PeerId, pre_scope: object = None
    ) -> SwarmConn:
        conn = await super().upgrade_outbound_raw_conn(raw_conn, peer_id, pre_scope)
        self._keep(peer_id, raw_conn)
        return conn

    async def add_conn(self, muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        """Take a connection whose other end has proven its key. libp2p has a gate for addresses only."""
        peer_id = muxed_conn.peer_id
        if peer_id not in self.members:
            raise SwarmException(f"{peer_id} is not a member")
        conn = await super().add_conn(muxed_conn, direction)
        if peer_id not in self.members:
            await conn.close()
            raise SwarmException(f"{peer_id} is no longer a member")
        if direction == "inbound":
            self.on_inbound(peer_id)
        return conn

    def set_stream_handler(self, stream_handler: StreamHandlerFn) -> None:
        """Contain what a stream can do.

        An exception that leaves the handler of a stream ends the whole swarm in libp2p, and a peer can cause
        one: by a protocol name that is not UTF-8.
        """

        async def contained(stream: INetStream) -> None:
            peer_id = stream.muxed_conn.peer_id
            open_streams = self._streams.get(peer_id, 0)
            if peer_id not in self.members or open_streams >= STREAMS_PER_PEER_MAX:
                await stream.reset()
                return
            self._streams[peer_id] = open_streams + 1
            try:
                with foreign_errors(f"a stream of {peer_id}"):
                    await stream_handler(stream)
            except TransportError as exc:
                _log.debug("stream_failed", extra={"detail": str(exc)})
                with trio.move_on_after(RESET_S):
                    await stream.reset()
            finally:
                self._streams[peer_id] -= 1
                if not self._streams[peer_id]:
                    del self._streams[peer_id]

        super().set_stream_handler(contained)

    async def dial(self, address: str, peer_id: PeerId) -> None:
        """Connect to one address of a peer.

        By address, because dialling by peer has three defects: who was down is not dialled again for 60 s,
        each dial takes 0.25 s, and of several addresses only one is tried.

        Raises:
            TransportError: it is not reached, or is another.
        """
        with foreign_errors(address):
            await self.dial_addr(Multiaddr(address), peer_id)

    def sever(self, peer_id: PeerId) -> None:
        """Close every connection of one peer, at once. What hangs on them ends by itself."""
        for held in self._sockets.pop(peer_id, ()):
            held.sever()

    def sever_all(self) -> None:
        """Close every connection, at once, and forget it.

        libp2p closes one after the other, with two pauses of 0.1 s each and a farewell that can block.
        """
        for peer_id in tuple(self._sockets):
            self.sever(peer_id)
        self.connections.clear()

    def _keep(self, peer_id: PeerId, raw_conn: IRawConnection) -> None:
        held = raw_conn.stream if isinstance(raw_conn, RawConnection) else None
        if isinstance(held, BufferedSocket):
            self._sockets.setdefault(peer_id, WeakSet()).add(held)

    def _trim_connections(self, peer_id: PeerId) -> None:
        """Keep the newest connections: the older ones are those of a peer that has gone and come back.

        libp2p spares every connection for 20 s and then closes those with the fewest streams.
        """
        for conn in self.connections[peer_id][:-CONNECTIONS_PER_PEER_MAX]:
            self.manager.run_task(self._close_connection_async, conn)


class MuxedByteStream:
    """A stream of a connection, as `streams.ByteStream`.

    It goes past libp2p's own reading in one thing: credit. That sends a window update, which is a frame with
    its own encryption and system call, after nearly every read; this one when half of the window is used.
    """

    def __init__(self, stream: INetStream) -> None:
        muxed = getattr(stream, "muxed_stream", None)
        if not isinstance(muxed, YamuxStream):
            raise LocalProtocolError("a stream that is not of yamux")
        self._stream = stream
        self._muxed = muxed
        self._read = 0

    async def widen(self) -> None:
        """Let the peer send `WINDOW_BYTES` ahead. Until then it is yamux's 256 KiB.

        Raises:
            TransportError: the stream is broken.
        """
        with foreign_errors("a stream"):
            await self._credit(WINDOW_BYTES - DEFAULT_WINDOW_SIZE)

    async def read(self) -> bytes:
        with foreign_errors("a stream"):
            try:
                data = await self._muxed.conn.read_stream(self._muxed.stream_id, READ_BYTES)
            except MuxedStreamEOF:
                return b""
            self._read += len(data)
            if self._read >= WINDOW_BYTES // 2:
                credit, self._read = self._read, 0
                await self._credit(credit)
            return data

    async def write(self, data: bytes) -> None:
        with foreign_errors("a stream"):
            await self._muxed.write(data)

    async def abandon(self) -> None:
        """End the stream in both directions. Never fails, and takes no longer than `RESET_S`."""
        with trio.move_on_after(RESET_S, shield=True):
            await self._stream.reset()

    async def _credit(self, count: int) -> None:
        self._muxed.recv_window += count
        await self._muxed.send_window_update(count)


def new_host(seed: bytes, security: Security) -> BasicHost:
    """A host that is not yet running.

    Args:
        seed: 32 bytes, the seed of the Ed25519 transport key; never of a key that signs records.
        security: what to propose first.

    Raises:
        ConfigError: the seed has another length.
    """
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"the seed of the transport key has {len(seed)} bytes, not {SEED_BYTES}")
    swarm = MembersSwarm(seed, security)
    own = tuple(swarm.notifees)
    host = BasicHost(swarm, disable_identify_address_discovery=True)
    # Peers are named by the epoch. What they say of themselves in identify is neither asked nor answered.
    for protocol in host.get_mux().get_protocols():
        if protocol is not None:
            host.remove_stream_handler(protocol)
    for notifee in tuple(swarm.notifees):
        if notifee not in own:
            swarm.remove_notifee(notifee)
    return host


@asynccontextmanager
async def running(host: BasicHost, swarm: MembersSwarm, listen: Sequence[str]) -> AsyncGenerator[None, None]:
    """Run a host that listens on these addresses.

    libp2p's own way out leaves the listeners accepting and their sockets open; so the host is closed by name,
    while whatever cancelled us waits.

    Raises:
        ConfigError: one of the addresses cannot be bound.
    """
    for address in listen:
        _refuse_shared_port(address)
    try:
        async with host.run([Multiaddr(address) for address in listen]):
            try:
                if len(host.get_transport_addrs()) < len(listen):
                    raise ConfigError(f"cannot listen on all of {', '.join(listen)}")
                yield
            finally:
                with trio.move_on_after(CLOSE_S, shield=True):
                    swarm.sever_all()
                    await host.close()
    except BaseExceptionGroup as group:
        # What arrives while libp2p stops is started in a nursery that is closed already.
        late, rest = group.split(_is_late_arrival)
        if late is None:
            raise
        if rest is not None:
            raise rest from None


def peer_id_of(transport_key: bytes) -> PeerId:
    """The libp2p name of a transport key.

    Raises:
        ConfigError: it is no Ed25519 public key.
    """
    try:
        return PeerId.from_pubkey(Ed25519PublicKey.from_bytes(transport_key))
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"not an Ed25519 public key: {transport_key.hex()}") from exc


@contextmanager
def foreign_errors(what: str) -> Generator[None, None, None]:
    """The one place where errors of libp2p become ours.

    It raises ssl, key, value, runtime and other errors, and groups of them, for nothing worse than a peer
    that has gone.
    """
    try:
        yield
    except TransportError:
        raise
    except Exception as exc:
        raise TransportError(f"{what}: {type(exc).__name__}: {exc}") from exc


def _is_late_arrival(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "Nursery is closed to new arrivals" in str(error)


def _watch(sock: trio.socket.SocketType) -> None:
    """Let the kernel find a peer that has vanished: nothing above does before the next request times out.

    trio has set TCP_NODELAY already.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", SILENCE_S // 2),
        ("TCP_KEEPINTVL", SILENCE_S // 4),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", SILENCE_S * 1_000),
    ):
        number = getattr(socket, option, None)
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)


def _refuse_shared_port(address: str) -> None:
    """Make a second node on one port an error: libp2p listens with SO_REUSEPORT, and both would get a share.

    Raises:
        ConfigError: the port is in use, or the address is not ours to bind.
    """
    kind, host, port = parse_address(address)
    if kind not in ("ip4", "ip6"):
        raise ConfigError(f"listen address {address!r}: an IP address is needed, not a name")
    if port == 0:
        return
    with socket.socket(socket.AF_INET if kind == "ip4" else socket.AF_INET6) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            hint = _LISTEN_HINTS.get(exc.errno or 0, "")
            raise ConfigError(f"cannot listen on {address}: {exc.strerror}{hint}") from exc
