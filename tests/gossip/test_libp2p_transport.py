"""What the adapter on libp2p promises beyond the port: whom it lets in, how it returns, what it leaves."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID
from multiaddr import Multiaddr

from comity.gossip import libp2p_host, libp2p_transport, streams
from comity.gossip.libp2p_host import (
    CONNECTIONS_PER_PEER_MAX,
    HANDSHAKES_PER_HOST_MAX,
    STREAMS_PER_PEER_MAX,
    MembersSwarm,
    foreign_errors,
    new_host,
    peer_id_of,
    running,
)
from comity.gossip.libp2p_transport import PAUSE_S_MAX, PAUSE_S_MIN, PROTOCOL, Libp2pTransport
from comity.gossip.streams import SILENT_TIMEOUTS_MAX
from comity.gossip.transport import Peer, Reason, RequestError
from comity.protocol.errors import ConfigError, TransportError
from roads import DEADLINE_S, Road, Site, in_key_order, key_of, name_of, seed_of

pytestmark = pytest.mark.trio
HERE = "/ip4/127.0.0.1/tcp/0"


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


def swarm_of(site: Site) -> MembersSwarm:
    assert isinstance(site.transport, Libp2pTransport)
    return site.transport._swarm


def port_of(address: str) -> int:
    return int(address.rsplit("/", 1)[1])


def tcp_sockets(swarm: MembersSwarm) -> list[trio.socket.SocketType]:
    return [held.stream.socket for each in swarm._sockets.values() for held in each]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Bare:
    """A host of the adapter without its transport: a member that keeps no manners."""

    def __init__(self, name: str, members: Iterable[str]) -> None:
        self.host = new_host(seed_of(name), "noise")
        swarm = self.host.get_network()
        assert isinstance(swarm, MembersSwarm)
        self.swarm = swarm
        self.swarm.members = frozenset(peer_id_of(key_of(member)) for member in members)
        self.scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with running(self.host, self.swarm, [HERE]):
                task_status.started()
                await trio.sleep_forever()

    @property
    def address(self) -> str:
        return str(self.host.get_transport_addrs()[0])

    async def connect(self, site: Site) -> None:
        with trio.fail_after(DEADLINE_S):
            await self.swarm.dial(site.peer.addresses[0], peer_id_of(site.key))

    async def stream(self, site: Site, protocol: TProtocol = PROTOCOL) -> INetStream:
        with trio.fail_after(DEADLINE_S):
            return await self.host.new_stream(peer_id_of(site.key), [protocol])


class Relay:
    """A wire between two nodes that can be held: what is on it stays there, and nobody is told."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = port_of(target)
        self._held = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    def hold(self) -> None:
        """Hold the connections that there are. New ones are carried."""
        self._held.set()
        self._held = trio.Event()

    async def _carry(self, near: trio.SocketStream) -> None:
        held = self._held
        async with await trio.open_tcp_stream("127.0.0.1", self._target) as far, trio.open_nursery() as both:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    async for data in source:
                        if held.is_set():
                            await trio.sleep_forever()
                        await sink.send_all(data)
                both.cancel_scope.cancel()

            both.start_soon(pump, near, far)
            both.start_soon(pump, far, near)


@pytest.fixture
async def bare(nursery: trio.Nursery) -> Bare:
    bare = Bare("visitor", ["north"])
    await nursery.start(bare.run)
    return bare


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_the_connection_is_secured_as_asked(nursery: trio.Nursery, security: str) -> None:
    north, south = await Road(security, nursery).pair(echo, echo)
    swarm = swarm_of(north)
    (conn,) = swarm.get_connections(peer_id_of(south.key))
    assert isinstance(conn, SwarmConn)
    assert conn.get_negotiated_security_protocol() == {"noise": "/noise", "tls": "/tls/1.0.0"}[security]
    assert conn.get_negotiated_muxer_protocol() == "/yamux/1.0.0"


async def test_a_node_that_prefers_tls_meets_one_that_knows_noise_only(nursery: trio.Nursery) -> None:
    for first, second in (("noise", "tls"), ("tls", "noise")):
        a, b = in_key_order("north", "south")
        dialler = await Road(first, nursery).start(a, echo)
        dialled = await Road(second, nursery).start(b, echo)
        dialler.transport.set_peers([dialled.peer])
        dialled.transport.set_peers([dialler.peer])
        await dialler.sees(dialled)
        assert await dialler.ask(dialled, b"x") == b"x"
        await dialler.stop()
        await dialled.stop()


async def test_a_stranger_on_the_wire_gets_no_stream(noise: Road, bare: Bare) -> None:
    """The handshake proves that it is a stranger, and the connection ends there."""
    north = await noise.start("north", echo)
    # Whether the dial still succeeds depends on who is quicker: the refusal comes after the handshake.
    with contextlib.suppress(TransportError):
        await bare.connect(north)
    with pytest.raises((SwarmException, StreamFailure, StreamError)):
        await bare.stream(north)
    assert swarm_of(north).connections == {}
    assert tcp_sockets(swarm_of(north)) == []


async def test_a_member_is_known_by_its_key_and_not_by_its_address(noise: Road) -> None:
    """Another node answers at a member's address: nothing is ever said to it."""
    first, second = in_key_order("north", "south")
    north = await noise.start(first, echo)
    impostor = await noise.start("impostor", echo)
    impostor.transport.set_peers([north.peer])
    absent = Peer(name_of(second), key_of(second), impostor.peer.addresses)
    with trio.fail_after(DEADLINE_S), pytest.raises(TransportError, match="failed to upgrade security"):
        await swarm_of(north).dial(absent.addresses[0], peer_id_of(absent.transport_key))
    north.transport.set_peers([absent])
    with pytest.raises(RequestError) as caught:
        await north.transport.request(absent.name, b"", timeout_s=1)
    assert caught.value.reason is Reason.UNREACHABLE


async def test_two_that_dial_each_other_at_once_are_connected(noise: Road) -> None:
    north = await noise.start("north", echo)
    south = await noise.start("south", echo)
    for one, other in ((north, south), (south, north)):
        swarm_of(one).members = frozenset({peer_id_of(other.key)})
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as dialling:
            for one, other in ((north, south), (south, north)):
                address, peer_id = other.peer.addresses[0], peer_id_of(other.key)
                dialling.start_soon(swarm_of(one).dial, address, peer_id)
    assert len(swarm_of(north).get_connections()) == 2
    north.transport.set_peers([south.peer])
    south.transport.set_peers([north.peer])
    await north.sees(south)
    await south.sees(north)
    assert await north.ask(south, b"1") == b"1"
    assert await south.ask(north, b"2") == b"2"


async def test_a_node_that_only_dials_out_can_be_asked(noise: Road, nursery: trio.Nursery) -> None:
    """Whichever of the two has the smaller key."""
    for inner_name, outer_name in (in_key_order("north", "south"), in_key_order("north", "south")[::-1]):
        outer = await noise.start(outer_name, echo)
        transport = Libp2pTransport(seed_of(inner_name), [], echo, Random(1))
        inner = Site(inner_name, transport, tuple)
        await nursery.start(inner.run)
        outer.transport.set_peers([inner.peer])
        inner.transport.set_peers([outer.peer])
        await outer.sees(inner)
        assert await outer.ask(inner, b"x") == b"x"
        await inner.stop()
        await outer.stop()


async def test_a_peer_that_connects_ends_the_pause(
    noise: Road, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_transport, "PAUSE_S_MIN", 60.0)
    monkeypatch.setattr(libp2p_transport, "PAUSE_S_MAX", 60.0)
    monkeypatch.setattr(libp2p_transport, "TURN_S", 0.0)
    outer = await noise.start("north", echo)
    outer.transport.set_peers([Peer(name_of("south"), key_of("south"))])
    await trio.testing.wait_all_tasks_blocked(0.01)
    inner = Site("south", Libp2pTransport(seed_of("south"), [], echo, Random(1)), tuple)
    inner.transport.set_peers([outer.peer])
    await nursery.start(inner.run)
    await outer.sees(inner)


async def test_each_of_several_addresses_is_tried(noise: Road) -> None:
    first, second = in_key_order("north", "south")
    north = await noise.start(first, echo)
    south = await noise.start(second, echo)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        south.transport.set_peers([Peer(north.name, north.key)])
        north.transport.set_peers([Peer(south.name, south.key, (dead, *south.peer.addresses))])
        await north.sees(south)


async def test_a_name_is_resolved_by_the_system(noise: Road) -> None:
    first, second = in_key_order("north", "south")
    north = await noise.start(first, echo)
    south = await noise.start(second, echo)
    south.transport.set_peers([Peer(north.name, north.key)])
    address = f"/dns4/localhost/tcp/{port_of(south.peer.addresses[0])}"
    north.transport.set_peers([Peer(south.name, south.key, (address,))])
    await north.sees(south)


async def test_a_new_address_is_used_at_the_next_dial(noise: Road) -> None:
    first, second = in_key_order("north", "south")
    north = await noise.start(first, echo)
    south = await noise.start(second, echo)
    south.transport.set_peers([Peer(north.name, north.key)])
    north.transport.set_peers([Peer(south.name, south.key)])
    north.transport.set_peers([south.peer])
    await north.sees(south)


async def test_the_pause_before_redialling_grows_and_is_spread() -> None:
    def pauses(seed: int) -> list[float]:
        transport = Libp2pTransport(seed_of("north"), [], echo, Random(seed))
        return [transport._pause(failures) for failures in range(20)]

    assert pauses(1) == pauses(1) != pauses(2)
    for failures, pause in enumerate(pauses(1)):
        longest = min(PAUSE_S_MAX, PAUSE_S_MIN * 2**failures)
        assert longest / 2 <= pause <= longest


async def test_a_peer_that_comes_back_often_costs_nothing_lasting(noise: Road, bare: Bare) -> None:
    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("visitor"), key_of("visitor"))])
    swarm = swarm_of(north)
    visitor = peer_id_of(key_of("visitor"))

    async def visit() -> None:
        await bare.connect(north)
        stream = await bare.stream(north)
        await stream.write(b"\x00\x00\x00")
        bare.swarm.sever(peer_id_of(north.key))
        with trio.fail_after(DEADLINE_S):
            while swarm.get_connections(visitor) or bare.swarm.get_connections():
                await trio.testing.wait_all_tasks_blocked(0.005)

    await visit()
    with trio.fail_after(DEADLINE_S):
        await trio.testing.wait_all_tasks_blocked(0.25)
    before = trio.lowlevel.current_statistics().tasks_living, descriptors()
    for _ in range(5):
        await visit()
    with trio.fail_after(DEADLINE_S):
        await trio.testing.wait_all_tasks_blocked(0.25)
    after = trio.lowlevel.current_statistics().tasks_living, descriptors()
    assert after == before
    assert swarm._inbound_limiter.borrowed_tokens == 0
    assert swarm._handshakes == {}
    assert swarm._streams == {}


async def test_a_peer_has_no_more_connections_than_allowed_and_the_newest_stay(
    noise: Road, nursery: trio.Nursery, bare: Bare
) -> None:
    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("visitor"), key_of("visitor"))])
    bare.swarm.connection_config.max_connections_per_peer = 100
    dialled: list[INetConn] = []
    with trio.fail_after(DEADLINE_S):
        for _ in range(CONNECTIONS_PER_PEER_MAX + 2):
            address = Multiaddr(north.peer.addresses[0])
            dialled.append(await bare.swarm.dial_addr(address, peer_id_of(north.key)))
        while len(bare.swarm.get_connections()) > CONNECTIONS_PER_PEER_MAX:
            await trio.testing.wait_all_tasks_blocked(0.005)
    assert bare.swarm.get_connections() == dialled[-CONNECTIONS_PER_PEER_MAX:]
    assert len(swarm_of(north).get_connections()) == CONNECTIONS_PER_PEER_MAX


async def test_the_connection_of_a_removed_peer_is_closed(noise: Road) -> None:
    north, south = await noise.pair(echo, echo)
    north.transport.set_peers([])
    assert tcp_sockets(swarm_of(north)) == []
    with trio.fail_after(DEADLINE_S):
        while swarm_of(south).get_connections():
            await trio.testing.wait_all_tasks_blocked(0.005)
    assert swarm_of(north).get_connections() == []
    # And nobody goes on dialling it.
    assert isinstance(north.transport, Libp2pTransport)
    assert north.transport._nursery is not None
    with trio.fail_after(DEADLINE_S):
        while north.transport._nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked(0.005)


async def test_a_peer_has_no_more_streams_than_allowed(noise: Road, bare: Bare) -> None:
    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("visitor"), key_of("visitor"))])
    await bare.connect(north)
    held = [await bare.swarm.new_stream(peer_id_of(north.key)) for _ in range(STREAMS_PER_PEER_MAX)]
    for stream in held:
        assert await stream.read(1)
    with pytest.raises((StreamFailure, StreamError)):
        await bare.stream(north)
    await held[0].reset()
    with trio.fail_after(DEADLINE_S):
        while swarm_of(north)._streams[peer_id_of(key_of("visitor"))] == STREAMS_PER_PEER_MAX:
            await trio.testing.wait_all_tasks_blocked(0.005)
    assert (await bare.stream(north)).get_protocol() == PROTOCOL


async def test_a_stranger_that_never_finishes_does_not_take_every_place(
    noise: Road, caplog: pytest.LogCaptureFixture
) -> None:
    north, south = await noise.pair(echo, echo)
    port = port_of(north.peer.addresses[0])
    slow = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(HANDSHAKES_PER_HOST_MAX)]
    with trio.fail_after(DEADLINE_S):
        while sum(swarm_of(north)._handshakes.values()) < HANDSHAKES_PER_HOST_MAX:
            await trio.testing.wait_all_tasks_blocked(0.005)
        refused = await trio.open_tcp_stream("127.0.0.1", port)
        assert await refused.receive_some(1) == b""
    assert await north.ask(south, b"still") == b"still"
    for stream in [*slow, refused]:
        await stream.aclose()
    with trio.fail_after(DEADLINE_S):
        while swarm_of(north)._handshakes:
            await trio.testing.wait_all_tasks_blocked(0.005)


async def test_a_second_stream_takes_over_from_the_first(noise: Road, bare: Bare) -> None:
    """A peer that asks on a new stream has given up the old one, whether we know of its end or not."""
    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("visitor"), key_of("visitor"))])
    await bare.connect(north)
    first = await bare.stream(north)
    second = await bare.stream(north)
    with trio.fail_after(DEADLINE_S), contextlib.suppress(StreamError):
        while await first.read(1_000):
            pass
    await second.write(bytes.fromhex("0000000694010107c400"))
    with trio.fail_after(DEADLINE_S):
        assert b"\x94\x01\x02\x07\xc4\x00" in await second.read(1_000)


@pytest.mark.parametrize("protocol", ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", ""])
async def test_nothing_is_offered_but_our_protocol(noise: Road, bare: Bare, protocol: str) -> None:
    north = await noise.start("north", echo)
    north.transport.set_peers([Peer(name_of("visitor"), key_of("visitor"))])
    await bare.connect(north)
    with pytest.raises(StreamFailure):
        await bare.stream(north, TProtocol(protocol))
    assert (await bare.stream(north)).get_protocol() == PROTOCOL


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_host_offers_secure_channels_only(security: libp2p_host.Security) -> None:
    swarm = new_host(seed_of("north"), security).get_network()
    assert isinstance(swarm, MembersSwarm)
    offered = list(swarm.upgrader.security_multistream.transports)
    assert offered == (["/noise"] if security == "noise" else ["/tls/1.0.0", "/noise"])
    assert list(swarm.upgrader.muxer_multistream.transports) == ["/yamux/1.0.0"]
    assert PLAINTEXT_PROTOCOL_ID not in offered


async def test_sockets_do_not_wait_to_send_and_notice_a_silent_peer(noise: Road) -> None:
    north, south = await noise.pair(echo, echo)
    for site in (north, south):
        (sock,) = tcp_sockets(swarm_of(site))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


async def test_stopping_leaves_no_listener_task_or_descriptor(noise: Road) -> None:
    await noise.pair(echo, echo)
    before = trio.lowlevel.current_statistics().tasks_living, descriptors()
    third = await noise.start("east", echo)
    fourth = await noise.start("west", echo)
    third.transport.set_peers([fourth.peer])
    fourth.transport.set_peers([third.peer])
    await third.sees(fourth)
    await fourth.sees(third)
    port = port_of(third.peer.addresses[0])
    await third.stop()
    await fourth.stop()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert (trio.lowlevel.current_statistics().tasks_living, descriptors()) == before


async def through_a_relay(noise: Road, nursery: trio.Nursery) -> tuple[Site, Site, Relay]:
    """Two nodes, of which the first dials the second over a relay."""
    first, second = in_key_order("north", "south")
    north = await noise.start(first, echo)
    south = await noise.start(second, echo)
    relay = Relay(south.peer.addresses[0])
    await nursery.start(relay.run)
    south.transport.set_peers([Peer(north.name, north.key)])
    north.transport.set_peers([Peer(south.name, south.key, (relay.address,))])
    await north.sees(south)
    await south.sees(north)
    return north, south, relay


async def test_a_silent_connection_is_replaced(
    noise: Road, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SILENT_S_MIN", 0.0)
    north, south, relay = await through_a_relay(noise, nursery)
    relay.hold()
    reasons: list[Reason] = []
    for _ in range(SILENT_TIMEOUTS_MAX):
        with pytest.raises(RequestError) as caught:
            await north.ask(south, b"", timeout_s=0.02)
        reasons.append(caught.value.reason)
    assert reasons == [Reason.TIMEOUT] * SILENT_TIMEOUTS_MAX
    await north.sees(south, up=False)
    await north.sees(south)
    assert await north.ask(south, b"x") == b"x"


async def test_stopping_is_quick_with_a_peer_that_does_not_read(noise: Road, nursery: trio.Nursery) -> None:
    """The socket is full, so that every farewell would block."""
    north, _, relay = await through_a_relay(noise, nursery)
    relay.hold()
    (sock,) = tcp_sockets(swarm_of(north))
    with trio.move_on_after(0.2):
        while True:
            await sock.send(bytes(1 << 20))
    began = trio.current_time()
    await north.stop()
    assert trio.current_time() - began < libp2p_host.CLOSE_S / 2


async def test_a_port_in_use_is_an_error(noise: Road) -> None:
    north = await noise.start("north", echo)
    second = Libp2pTransport(seed_of("south"), north.peer.addresses, echo, Random(1))
    with trio.fail_after(DEADLINE_S), pytest.raises(ConfigError, match="cannot listen on"):
        await second.run()


async def test_an_address_of_another_machine_is_an_error() -> None:
    for address in ("/ip4/192.0.2.1/tcp/0", "/ip4/192.0.2.1/tcp/4001"):
        transport = Libp2pTransport(seed_of("north"), [address], echo, Random(1))
        with trio.fail_after(DEADLINE_S), pytest.raises((ConfigError, ExceptionGroup)) as caught:
            await transport.run()
        assert caught.type is ConfigError or caught.group_contains(ConfigError)
    with pytest.raises(ConfigError):
        await Libp2pTransport(seed_of("north"), ["/dns4/localhost/tcp/0"], echo, Random(1)).run()


async def test_late_arrivals_at_a_closed_nursery_are_no_failure() -> None:
    async def stop_with(*errors: Exception) -> None:
        host = new_host(seed_of("north"), "noise")
        swarm = host.get_network()
        assert isinstance(swarm, MembersSwarm)
        async with running(host, swarm, []):
            raise ExceptionGroup("as libp2p stops", list(errors))

    late = RuntimeError("Nursery is closed to new arrivals")
    await stop_with(late)
    with pytest.raises(ExceptionGroup) as caught:
        await stop_with(late, RuntimeError("another"))
    assert caught.group_contains(RuntimeError, match="another")
    assert not caught.group_contains(RuntimeError, match="closed")


async def test_errors_of_libp2p_are_translated_and_cancellation_is_not() -> None:
    for error in (KeyError("x"), RuntimeError("x"), ExceptionGroup("x", [ValueError("y")])):
        with pytest.raises(TransportError), foreign_errors("here"):
            raise error
    with trio.move_on_after(0) as scope, foreign_errors("here"):
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_keys_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError):
        new_host(b"short", "noise")
    with pytest.raises(ConfigError):
        peer_id_of(b"short")
    assert isinstance(new_host(seed_of("north"), "noise"), BasicHost)
    logging.getLogger(__name__).debug("the key that peers know us by is %s", key_of("north").hex())
    assert new_host(seed_of("north"), "noise").get_public_key().to_bytes() == key_of("north")
