"""The gossip port, on both of its adapters: who hears, who does not, and what nobody can do with it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from comity.gossip.gossip import BURST, HEARD_MAX, Allowance, Listener, interval_s, pace_taken
from comity.gossip.transport import Peer
from comity.protocol.errors import LocalProtocolError
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICES_PER_S
from ears import TOPIC, Ear, echo, port, until_heard
from roads import Road, Site


@pytest.fixture(params=["memory", "noise"])
def gossiping(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Road:
    return Road(request.param, nursery)


async def in_line(road: Road, *names: str) -> list[Site]:
    """Nodes that all know each other, of which each is connected to the one before and the one after."""
    sites = [await road.start(name, echo, topic=TOPIC) for name in names]
    for index, site in enumerate(sites):
        peers: list[Peer] = []
        for other_index, other in enumerate(sites):
            near = abs(index - other_index) == 1
            if other is not site:
                peers.append(other.peer if near else Peer(other.name, other.key))
        site.transport.set_peers(peers)
    if road.kind == "memory":
        for index, site in enumerate(sites):
            for other in sites[index + 2 :]:
                road.network.separate(site.peer, other.peer)
    for site, after in pairwise(sites):
        await site.sees(after)
    return sites


async def test_everyone_hears_over_others(gossiping: Road, nursery: trio.Nursery) -> None:
    sites = await in_line(gossiping, "north", "south", "board", "institute")
    ears = [Ear(site, nursery) for site in sites]
    assert sites[3].name not in sites[0].transport.connected()
    said = await until_heard(sites[0], ears[3], b"from the end")
    for ear in ears[1:]:
        assert (await ear.hears(said)).author == sites[0].name
    # Who speaks does not hear itself.
    assert ears[0].heard == []


async def test_words_of_a_stranger_are_not_heard(gossiping: Road, nursery: trio.Nursery) -> None:
    north, south, board = await in_line(gossiping, "north", "south", "board")
    # The board no longer goes by what north is; south does, and forwards.
    board.transport.set_peers([south.peer])
    ear, near = Ear(board, nursery), Ear(south, nursery)
    said = await until_heard(north, near, b"of a stranger")
    later = await until_heard(south, ear, b"of a member")
    assert {message.author for message in ear.heard} == {south.name}
    assert said not in [m.payload for m in ear.heard]
    assert later in [m.payload for m in ear.heard]


async def test_what_is_too_long_is_not_said(gossiping: Road) -> None:
    north, _ = await in_line(gossiping, "north", "south")
    with pytest.raises(LocalProtocolError, match="16384 are allowed"):
        port(north).publish(b"x" * (NOTICE_BYTES_MAX + 1))


async def test_an_earlier_listener_finds_its_channel_at_its_end(gossiping: Road) -> None:
    north, _ = await in_line(gossiping, "north", "south")
    first = port(north).heard()
    port(north).heard()
    with pytest.raises(trio.EndOfChannel):
        await first.receive()


def test_who_does_not_listen_loses_the_newest() -> None:
    listener = Listener()
    listener.tell("a", b"before anybody listens")
    channel = listener.heard()
    for number in range(HEARD_MAX + 3):
        listener.tell("a", b"%d" % number)
    assert listener.dropped == 3
    assert [channel.receive_nowait().payload for _ in range(HEARD_MAX)] == [
        b"%d" % n for n in range(HEARD_MAX)
    ]
    with pytest.raises(trio.WouldBlock):
        channel.receive_nowait()


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 20))
def test_no_author_exceeds_its_allowance(pauses: list[float], nodes: int) -> None:
    now = [0.0]
    allowance = Allowance(lambda: now[0])
    taken = 0
    for pause in pauses:
        now[0] += pause
        taken += allowance.take("a", pace_taken(nodes))
    assert taken <= BURST + now[0] * pace_taken(nodes) + 1e-6


def test_one_authors_flood_costs_no_other_its_word() -> None:
    allowance = Allowance(lambda: 0.0)
    assert [allowance.take("loud", 1.0) for _ in range(BURST + 5)] == [True] * BURST + [False] * 5
    assert allowance.take("quiet", 1.0)


def test_all_together_keep_the_pace() -> None:
    for nodes in (1, 2, 7, 13, 100):
        assert nodes / interval_s(nodes) <= NOTICES_PER_S + 1e-9
