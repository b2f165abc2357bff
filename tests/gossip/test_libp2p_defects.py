"""The defects of libp2p 0.8.1 that the adapter works around, each shown on libp2p itself.

When one of these fails, libp2p has mended the defect: the message says which workaround may go. That ours is
immune is shown beside it where it is cheap, and otherwise in `test_libp2p_transport.py`.
"""

from __future__ import annotations

import contextlib
import struct
from itertools import groupby

import pytest
import trio
from libp2p import new_host as new_default_host
from libp2p import new_swarm
from libp2p.abc import IListener, INetStream, IRawConnection, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair, PrivateKey, PublicKey
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.io.abc import Reader
from libp2p.io.trio import TrioTCPStream
from libp2p.io.utils import read_exactly
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import PeerInfo
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.secio import transport as secio
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, TYPE_WINDOW_UPDATE, Yamux, YamuxStream
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from comity.gossip.libp2p_host import (
    BufferedSocket,
    MembersSwarm,
    MuxedByteStream,
    PeerId,
    new_host,
    peer_id_of,
    running,
)
from comity.gossip.libp2p_transport import Libp2pTransport
from comity.gossip.streams import RequestStream
from comity.gossip.transport import Bounds, Peer
from roads import DEADLINE_S, Road, key_of, name_of, seed_of

pytestmark = pytest.mark.trio
HERE = Multiaddr("/ip4/127.0.0.1/tcp/0")


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


def mended(what: str) -> str:
    return f"libp2p mended {what}: drop the workaround"


class TrackedTcp(TCP):
    """libp2p's own, which forgets sockets that it dialled; the test closes what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[IRawConnection] = []

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        self.dialled.append(await super().dial(maddr))
        return self.dialled[-1]


def upstream(name: str, config: ConnectionConfig | None = None) -> tuple[BasicHost, Swarm]:
    """A host of libp2p with noise and yamux, and otherwise as it comes."""
    keys = create_new_key_pair(seed_of(name))
    swarm = new_swarm(
        keys,
        transports=[TrackedTcp()],
        sec_opt={NOISE: NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
    )
    assert isinstance(swarm, Swarm)
    return BasicHost(swarm), swarm


def info_of(host: BasicHost) -> PeerInfo:
    return PeerInfo(host.get_id(), host.get_transport_addrs())


class PosingKey(Ed25519PrivateKey):
    """The attacker's own key, under the public key of somebody else."""

    def __init__(self, victim: bytes) -> None:
        super().__init__(Ed25519PrivateKey.new(seed_of("attacker")).impl)
        self._victim = victim

    def get_public_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_bytes(self._victim)


def impostor_of(victim: bytes) -> BasicHost:
    """A host that knows a victim's public key only, and offers plaintext only."""
    own = create_new_key_pair(seed_of("attacker"))
    posing = InsecureTransport(KeyPair(PosingKey(victim), own.public_key))
    host = new_default_host(
        key_pair=own,
        sec_opt={TProtocol(PLAINTEXT_PROTOCOL_ID): posing},
        muxer_opt={TProtocol(YAMUX): Yamux},
        transports=[TrackedTcp()],
    )
    assert isinstance(host, BasicHost)
    return host


async def agrees_on(channel: str, address: str) -> bool:
    """Whether a node accepts this security protocol from a client that offers no other."""
    port = int(Multiaddr(address).value_for_protocol("tcp") or 0)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        talk = MultiselectCommunicator(RawConnection(TrioTCPStream(stream), initiator=True))
        try:
            return await MultiselectClient().select_one_of([TProtocol(channel)], talk, 5) == channel
        except MultiselectClientError:
            return False


class Shutter:
    """Runs libp2p hosts for the length of a test and really closes them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def start(self, host: BasicHost, address: Multiaddr = HERE) -> None:
        await self._nursery.start(self._run, host, address)

    async def _run(self, host: BasicHost, address: Multiaddr, *, task_status: trio.TaskStatus[None]) -> None:
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        async with host.run([address]):
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await host.close()
                    for transport in swarm.transport_manager.get_transports():
                        assert isinstance(transport, TrackedTcp)
                        for conn in transport.dialled:
                            await conn.close()


@pytest.fixture
def hosts(nursery: trio.Nursery) -> Shutter:
    return Shutter(nursery)


async def test_plaintext_is_never_negotiable(nursery: trio.Nursery, hosts: Shutter) -> None:
    insecure = [str(PLAINTEXT_PROTOCOL_ID), str(secio.ID)]
    default = new_default_host(key_pair=create_new_key_pair(seed_of("north")), transports=[TrackedTcp()])
    assert isinstance(default, BasicHost)
    await hosts.start(default)
    for channel in insecure:
        offered = await agrees_on(channel, str(default.get_transport_addrs()[0]))
        assert offered, mended(f"the offer of {channel}")
    for kind in ("noise", "tls"):
        (address,) = (await Road(kind, nursery).start("north", echo)).peer.addresses
        assert await agrees_on("/noise", address)
        assert await agrees_on("/tls/1.0.0", address) == (kind == "tls")
        for channel in insecure:
            assert not await agrees_on(channel, address)


async def test_a_public_key_is_enough_to_be_its_owner(noise: Road, hosts: Shutter) -> None:
    victim = peer_id_of(key_of("south"))
    default = new_default_host(key_pair=create_new_key_pair(seed_of("west")), transports=[TrackedTcp()])
    attacker = impostor_of(key_of("south"))
    assert isinstance(default, BasicHost)
    await hosts.start(default)
    await hosts.start(attacker)
    with trio.fail_after(DEADLINE_S):
        await attacker.connect(info_of(default))
    assert default.get_connected_peers() == [victim], mended("the belief in plaintext")

    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("south"), key_of("south"))])
    ours = PeerInfo(peer_id_of(north.key), [Multiaddr(address) for address in north.peer.addresses])
    with trio.fail_after(DEADLINE_S), pytest.raises(SwarmException):
        await attacker.connect(ours)
    assert isinstance(north.transport, Libp2pTransport)
    assert north.transport._swarm.connections == {}


async def test_a_dial_takes_a_quarter_of_a_second(hosts: Shutter) -> None:
    (a, swarm), (b, _) = upstream("a"), upstream("b")
    await hosts.start(a)
    await hosts.start(b)
    a.get_peerstore().add_addrs(b.get_id(), b.get_transport_addrs(), 60)
    began = trio.current_time()
    await swarm.dial_peer(b.get_id())
    assert trio.current_time() - began >= 0.24, mended("the pause after a dial by peer")
    await swarm.close_peer(b.get_id())
    began = trio.current_time()
    await swarm.dial_addr(b.get_transport_addrs()[0], b.get_id())
    assert swarm.get_connections(b.get_id())


async def test_a_peer_that_was_down_is_not_dialled_again(hosts: Shutter) -> None:
    (a, swarm), (b, _) = upstream("a"), upstream("b")
    await hosts.start(a)
    await hosts.start(b)
    dead = Multiaddr("/ip4/127.0.0.1/tcp/1")
    a.get_peerstore().add_addrs(b.get_id(), [dead], 60)
    with pytest.raises(SwarmException, match="no addresses established"):
        await swarm.dial_peer(b.get_id())
    a.get_peerstore().clear_addrs(b.get_id())
    a.get_peerstore().add_addrs(b.get_id(), b.get_transport_addrs(), 60)
    refused = None
    try:
        await swarm.dial_peer(b.get_id())
    except SwarmException as exc:
        refused = str(exc)
    assert refused, mended("the negative cache")
    assert "negative cache" in refused
    await swarm.dial_addr(b.get_transport_addrs()[0], b.get_id())


async def test_of_several_addresses_one_is_dialled(hosts: Shutter) -> None:
    (a, swarm), (b, _) = upstream("a"), upstream("b")
    await hosts.start(a)
    await hosts.start(b)
    a.get_peerstore().add_addrs(b.get_id(), [Multiaddr("/ip4/127.0.0.1/tcp/1"), *b.get_transport_addrs()], 60)
    try:
        await swarm.dial_peer(b.get_id())
    except SwarmException:
        return
    pytest.fail(mended("the one address per transport"))


async def test_an_inbound_place_is_never_given_back(hosts: Shutter) -> None:
    """In libp2p 250 places by default; here one, so that the second connection is refused."""
    (a, dialling), (b, swarm) = upstream("a"), upstream("b", ConnectionConfig(2, 1, 1, 2))
    await hosts.start(a)
    await hosts.start(b)
    address = b.get_transport_addrs()[0]
    await dialling.dial_addr(address, b.get_id())
    await dialling.close_peer(b.get_id())
    with trio.fail_after(DEADLINE_S):
        while swarm.get_connections():
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert swarm._inbound_limiter.borrowed_tokens == 1, mended("the leak of inbound places and tasks")
    with trio.fail_after(DEADLINE_S), pytest.raises(SwarmException):
        await dialling.dial_addr(address, b.get_id())


async def test_leaving_a_host_leaves_it_listening() -> None:
    host, swarm = upstream("a")
    listeners: list[IListener] = []
    address = HERE
    with trio.move_on_after(DEADLINE_S) as scope:
        async with host.run([HERE]):
            listeners += swarm.listeners.values()
            address = host.get_transport_addrs()[0]
            scope.cancel()
    port = int(address.value_for_protocol("tcp") or 0)
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        pytest.fail(mended("the listener that outlives its host"))
    await stream.aclose()
    for listener in listeners:
        await listener.close()


async def test_a_host_that_cannot_listen_runs_on(hosts: Shutter) -> None:
    host, _ = upstream("a")
    await hosts.start(host, Multiaddr("/ip4/192.0.2.1/tcp/0"))
    assert host.get_transport_addrs() == [], mended("the listener that fails in silence")


async def test_two_hosts_listen_on_one_port(hosts: Shutter) -> None:
    (a, _), (b, _) = upstream("a"), upstream("b")
    await hosts.start(a)
    await hosts.start(b, a.get_transport_addrs()[0])
    assert b.get_transport_addrs() == a.get_transport_addrs(), mended("the shared port")


async def test_a_watermark_of_zero_dials_whom_it_has_heard_of(hosts: Shutter) -> None:
    (a, swarm), (b, _) = upstream("a", ConnectionConfig(min_connections=0, low_watermark=0)), upstream("b")
    await hosts.start(a)
    await hosts.start(b)
    a.get_peerstore().add_addrs(b.get_id(), b.get_transport_addrs(), 60)
    with trio.fail_after(DEADLINE_S):
        await swarm.auto_connector.maybe_connect()
    assert swarm.get_connections(b.get_id()), mended("the dials below no watermark")

    host = new_host(seed_of("north"), "noise")
    ours = host.get_network()
    assert isinstance(ours, MembersSwarm)
    ours.members = frozenset({b.get_id()})
    async with running(host, ours, []):
        # Let its own round at the start pass: it knows nobody yet.
        await trio.testing.wait_all_tasks_blocked()
        host.get_peerstore().add_addrs(b.get_id(), b.get_transport_addrs(), 60)
        await ours.auto_connector.maybe_connect()
        assert ours.get_connections() == []


async def test_closing_a_connection_takes_a_fifth_of_a_second(hosts: Shutter) -> None:
    (a, swarm), (b, _) = upstream("a"), upstream("b")
    await hosts.start(a)
    await hosts.start(b)
    conn = await swarm.dial_addr(b.get_transport_addrs()[0], b.get_id())
    began = trio.current_time()
    await conn.close()
    assert trio.current_time() - began >= 0.19, mended("the pauses in closing")


async def test_too_many_connections_of_one_peer_stay_for_twenty_seconds(hosts: Shutter) -> None:
    (a, dialling), (b, swarm) = upstream("a"), upstream("b", ConnectionConfig(max_connections_per_peer=1))
    await hosts.start(a)
    await hosts.start(b)
    for _ in range(2):
        await dialling.dial_addr(b.get_transport_addrs()[0], b.get_id())
    with trio.fail_after(DEADLINE_S):
        while len(swarm.get_connections(a.get_id())) < 2:
            await trio.testing.wait_all_tasks_blocked(0.01)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(swarm.get_connections(a.get_id())) == 2, mended("the connections beyond the bound")


async def speak_no_utf8(swarm: Swarm, address: Multiaddr, peer_id: PeerId) -> INetStream:
    await swarm.dial_addr(address, peer_id)
    stream = await swarm.new_stream(peer_id)
    await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
    return stream


async def test_a_protocol_name_that_is_not_utf8_ends_the_whole_host(noise: Road, hosts: Shutter) -> None:
    (attacker, dialling), (victim, _) = upstream("visitor"), upstream("b")
    await hosts.start(attacker)

    async def fall() -> None:
        async with victim.run([HERE]):
            await speak_no_utf8(dialling, victim.get_transport_addrs()[0], victim.get_id())
            await victim.get_network().get_manager().wait_finished()
            await victim.close()

    with trio.fail_after(DEADLINE_S), pytest.raises(ExceptionGroup) as caught:
        await fall()
    assert caught.group_contains(UnicodeDecodeError), mended("the exceptions of streams")

    north, south = await noise.pair(echo, echo)
    visitor = Peer(name_of("visitor"), key_of("visitor"))
    north.transport.set_peers([south.peer, visitor])
    ours = peer_id_of(north.key)
    stream = await speak_no_utf8(dialling, Multiaddr(north.peer.addresses[0]), ours)
    with trio.fail_after(DEADLINE_S), contextlib.suppress(StreamError):
        while await stream.read(100):
            pass
    assert await north.ask(south, b"still") == b"still"
    with pytest.raises(StreamFailure):
        await attacker.new_stream(ours, [TProtocol("/none")])


class Tape(ISecureConn):
    """A secured connection that takes down what yamux writes."""

    def __init__(self) -> None:
        self.is_initiator = True
        self.frames: list[tuple[int, bytes]] = []

    async def write(self, data: bytes) -> None:
        _, kind, _, _, _ = struct.unpack("!BBHII", data[:12])
        self.frames.append((kind, data[12:]))
        await trio.lowlevel.checkpoint()

    def count(self, kind: int) -> int:
        return sum(1 for each, _ in self.frames if each == kind)

    def runs(self) -> int:
        """How often the writer changes in what was sent. Each writer writes one byte value."""
        sent = b"".join(body for kind, body in self.frames if kind == TYPE_DATA)
        return len(list(groupby(byte for byte in sent if byte in b"AB")))

    async def read(self, n: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def close(self) -> None: ...
    def get_remote_address(self) -> tuple[str, int] | None:
        return None

    def get_local_peer(self) -> PeerId:
        raise NotImplementedError

    def get_local_private_key(self) -> PrivateKey:
        raise NotImplementedError

    def get_remote_peer(self) -> PeerId:
        raise NotImplementedError

    def get_remote_public_key(self) -> PublicKey:
        raise NotImplementedError

    def get_transport_addresses(self) -> list[Multiaddr]:
        raise NotImplementedError

    def get_connection_type(self) -> ConnectionType:
        raise NotImplementedError


def taped() -> tuple[Tape, YamuxStream]:
    tape = Tape()
    conn = Yamux(tape, peer_id_of(key_of("south")))
    stream = YamuxStream(1, conn, is_initiator=True)
    stream.send_window = 1 << 20
    conn.streams[1] = stream
    conn.stream_buffers[1] = bytearray()
    conn.stream_events[1] = trio.Event()
    return tape, stream


async def test_nearly_every_read_sends_a_window_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PY_YAMUX_RELEASE_ON_READ", raising=False)
    tape, stream = taped()

    def arrive() -> None:
        stream.conn.stream_buffers[1] += bytes(1_000)
        stream.recv_window -= 1_000

    for _ in range(50):
        arrive()
        assert await stream.read(65_536) == bytes(1_000)
    assert tape.count(TYPE_WINDOW_UPDATE) >= 45, mended("the window update after each read")

    tape, stream = taped()
    ours = MuxedByteStream(NetStream(stream, None, None))
    await ours.widen()
    for _ in range(1_100):
        arrive()
        assert await ours.read() == bytes(1_000)
    # One to widen the window, and two for the two halves that were read; and the credit is not lost.
    assert tape.count(TYPE_WINDOW_UPDATE) == 3
    assert stream.recv_window + 1_100 * 1_000 - 2 * 525_000 <= (1 << 20)
    assert stream.recv_window > (1 << 19)


async def test_concurrent_writes_to_one_stream_interleave() -> None:
    tape, stream = taped()
    async with trio.open_nursery() as writing:
        for letter in (b"A", b"B"):
            writing.start_soon(stream.write, letter * 200_000)
    assert tape.runs() > 2, mended("the writes that interleave")

    tape, stream = taped()
    asking = RequestStream(name_of("south"), MuxedByteStream(NetStream(stream, None, None)), Bounds())
    with trio.move_on_after(DEADLINE_S):
        async with trio.open_nursery() as writing:
            writing.start_soon(asking.run)
            for letter in (b"A", b"B"):
                writing.start_soon(asking.request, letter * 200_000, 60)
            while sum(len(body) for _, body in tape.frames) < 400_000:
                await trio.lowlevel.checkpoint()
            writing.cancel_scope.cancel()
    assert tape.runs() == 2


async def test_the_end_of_a_stream_is_read_a_hundred_times() -> None:
    class Ended(Reader):
        reads = 0

        async def read(self, n: int | None = None) -> bytes:
            self.reads += 1
            return b""

    ended = Ended()
    with pytest.raises(Exception, match="Connection closed"):
        await read_exactly(ended, 2)
    assert ended.reads > 100, mended("the reads after the end")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    far = await listener.accept()
    await near.send_all(b"abcde")
    await near.aclose()
    held = BufferedSocket(far)
    assert [await held.read(2) for _ in range(4)] == [b"ab", b"cd", b"e", b""]
    with pytest.raises(Exception, match="after the end"):
        await held.read(2)
    await held.close()
    await listener.aclose()
