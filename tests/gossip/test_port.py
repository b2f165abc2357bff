"""The parts of the port that every adapter shares: names, addresses, events."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from comity.gossip.transport import (
    ADDRESSES_MAX,
    EVENTS_MAX,
    PEERS_MAX,
    Bounds,
    Peer,
    PeerEvent,
    Presence,
    check_peers,
    parse_address,
)
from comity.protocol.errors import ConfigError
from comity.protocol.limits import FRAME_BYTES_MAX, IN_FLIGHT_MAX
from roads import drain, key_of, name_of

NORTH = name_of("north")


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("/ip4/192.0.2.7/tcp/4001", ("ip4", "192.0.2.7", 4001)),
        ("/ip6/2001:db8::7/tcp/65535", ("ip6", "2001:db8::7", 65535)),
        ("/dns4/node.clinic-north.example/tcp/1", ("dns4", "node.clinic-north.example", 1)),
        ("/dns/localhost/tcp/0", ("dns", "localhost", 0)),
    ],
)
def test_an_address_is_parsed(address: str, parsed: tuple[str, str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address",
    [
        "",
        "192.0.2.7:4001",
        "/ip4/192.0.2.7",
        "/ip4/192.0.2.7/tcp/65536",
        "/ip4/192.0.2.7/tcp/01",
        "/ip4/192.0.2.7/tcp/4001\n",
        "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW",
        "/ip4/192.0.2.7/udp/4001/quic-v1",
        "/ip4/192.0.2.256/tcp/4001",
        "/ip4/2001:db8::7/tcp/4001",
        "/ip6/192.0.2.7/tcp/4001",
        "/ip6/fe80::1%eth0/tcp/4001",
        "/dns/-north.example/tcp/4001",
        "/dns/north..example/tcp/4001",
        "/dns/nörth.example/tcp/4001",
        "/unix/tmp/tcp/4001",
    ],
)
def test_what_is_not_a_tcp_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(address)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    for address in (text, f"/ip4/{text}/tcp/1", f"/ip6/{text}/tcp/1", f"/dns/{text}/tcp/1"):
        try:
            kind, host, port = parse_address(address)
        except ConfigError:
            continue
        assert address == f"/{kind}/{host}/tcp/{port}"


def test_a_peer_is_well_formed_by_construction() -> None:
    good = Peer(NORTH, key_of("north"), ("/ip4/192.0.2.7/tcp/4001",))
    assert good.name == NORTH
    for name, key, addresses in (
        ("north", good.transport_key, ()),
        ("spiffe://North.example/node/n1", good.transport_key, ()),
        (NORTH, good.transport_key[:-1], ()),
        (NORTH, good.transport_key, ("/ip4/192.0.2.7/tcp/0",)),
        (NORTH, good.transport_key, ("nowhere",)),
        (NORTH, good.transport_key, good.addresses * (ADDRESSES_MAX + 1)),
    ):
        with pytest.raises(ConfigError):
            Peer(name, key, addresses)


def test_bounds_only_narrow() -> None:
    assert Bounds() == Bounds(FRAME_BYTES_MAX, IN_FLIGHT_MAX)
    for frame_bytes, in_flight in ((0, 1), (1, 0), (FRAME_BYTES_MAX + 1, 1), (1, IN_FLIGHT_MAX + 1)):
        with pytest.raises(ConfigError):
            Bounds(frame_bytes, in_flight)


def test_more_peers_than_a_node_can_hold_are_refused() -> None:
    peers = [Peer(f"spiffe://m{n}.example/node/n", n.to_bytes(32, "big")) for n in range(PEERS_MAX + 1)]
    assert len(check_peers(peers[1:], key_of("north"))) == PEERS_MAX
    with pytest.raises(ConfigError):
        check_peers(peers, key_of("north"))


@pytest.mark.trio
async def test_a_subscriber_begins_with_who_is_there_and_hears_each_change_once() -> None:
    presence = Presence()
    presence.set("b", up=True)
    presence.set("a", up=True)
    events = presence.subscribe()
    presence.set("a", up=True)
    presence.set("c", up=False)
    presence.set("b", up=False)
    assert list(drain(events)) == [PeerEvent("a", up=True), PeerEvent("b", up=True), PeerEvent("b", up=False)]
    assert presence.connected() == {"a"}


@pytest.mark.trio
async def test_a_subscriber_that_falls_behind_is_told_so_and_holds_nobody_up() -> None:
    presence = Presence()
    slow, gone, quick = presence.subscribe(), presence.subscribe(), presence.subscribe()
    gone.close()
    for number in range(EVENTS_MAX + 1):
        presence.set("a", up=number % 2 == 0)
        assert quick.receive_nowait().up == (number % 2 == 0)
    assert len(list(drain(slow))) == EVENTS_MAX
    with pytest.raises(trio.EndOfChannel):
        slow.receive_nowait()
    assert list(drain(presence.subscribe())) == [PeerEvent("a", up=True)]


def test_importing_the_roads_imports_no_libp2p() -> None:
    program = (
        "import sys, comity.gossip, comity.gossip.transport, comity.gossip.framing, comity.gossip.streams, "
        "comity.gossip.transport_memory; sys.exit('libp2p' in sys.modules or 'multiaddr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
