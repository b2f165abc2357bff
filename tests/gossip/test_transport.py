"""The contract of the transport port, on every road."""

from __future__ import annotations

import logging
import os
from random import Random

import pytest
import trio

from comity.gossip.transport import Bounds, Peer, PeerEvent, Reason, RequestError
from comity.protocol.errors import ConfigError
from roads import DEADLINE_S, Road, drain, in_key_order, key_of, name_of

pytestmark = pytest.mark.trio


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


class Gate:
    """A handler that holds every request until it is opened."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self._arrived = trio.Event()
        self._open = trio.Event()

    async def __call__(self, peer: str, payload: bytes) -> bytes:
        self.seen.append((peer, payload))
        self._arrived.set()
        await self._open.wait()
        return payload

    def open(self) -> None:
        self._open.set()

    async def holds(self, count: int) -> None:
        with trio.fail_after(DEADLINE_S):
            while len(self.seen) < count:
                self._arrived = trio.Event()
                await self._arrived.wait()


async def test_a_request_is_answered_and_the_handler_knows_who_asks(road: Road) -> None:
    async def greet(peer: str, payload: bytes) -> bytes:
        return b"%s from %s" % (payload, peer.encode())

    north, south = await road.pair(greet, greet)
    assert await north.ask(south, b"hello") == b"hello from " + north.name.encode()
    assert await south.ask(north, b"") == b" from " + south.name.encode()


async def test_a_mebibyte_goes_both_ways(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    payload = os.urandom(1 << 20)
    assert await north.ask(south, payload) == payload


async def test_many_requests_at_once_are_not_mixed(road: Road) -> None:
    """Large and small, answered in another order than asked, in both directions."""
    gates: dict[bytes, trio.Event] = {bytes([n]): trio.Event() for n in range(24)}
    waiting = 0
    all_there = trio.Event()

    async def scrambled(_peer: str, payload: bytes) -> bytes:
        nonlocal waiting
        waiting += 1
        if waiting == 2 * len(gates):
            all_there.set()
        await gates[payload[:1]].wait()
        return payload[::-1]

    north, south = await road.pair(scrambled, scrambled)
    rng = Random(3)
    answers: dict[tuple[str, bytes], bytes] = {}

    async def one(here: str, payload: bytes) -> None:
        asker, asked = (north, south) if here == "north" else (south, north)
        answers[here, payload] = await asker.ask(asked, payload)

    payloads = [bytes([n]) + rng.randbytes(rng.choice((0, 10, 90_000))) for n in range(24)]
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as asking:
            for payload in payloads:
                asking.start_soon(one, "north", payload)
                asking.start_soon(one, "south", payload)
            await all_there.wait()
            for gate in rng.sample(list(gates.values()), len(gates)):
                gate.set()
                await trio.lowlevel.checkpoint()
    assert len(answers) == 48
    assert all(answer == payload[::-1] for (_, payload), answer in answers.items())


async def test_a_request_times_out_and_its_late_answer_is_no_one_elses(road: Road) -> None:
    gate = Gate()
    north, south = await road.pair(echo, gate)
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"slow", timeout_s=0.05)
    assert (caught.value.reason, caught.value.peer) == (Reason.TIMEOUT, south.name)
    gate.open()
    assert await north.ask(south, b"next") == b"next"
    assert gate.seen == [(north.name, b"slow"), (north.name, b"next")]


async def test_an_unknown_peer_is_not_a_member(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    with pytest.raises(RequestError) as caught:
        await north.transport.request(name_of("nobody"), b"", timeout_s=1)
    assert caught.value.reason is Reason.NOT_A_MEMBER
    assert await north.ask(south, b"still") == b"still"


async def test_a_peer_that_is_down_is_unreachable_at_once(road: Road) -> None:
    north = await road.start("north", echo)
    south = await road.start("south", echo)
    peer = south.peer
    await south.stop()
    north.transport.set_peers([peer])
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"", timeout_s=60)
    assert caught.value.reason is Reason.UNREACHABLE
    assert north.transport.connected() == frozenset()


async def test_a_stranger_is_refused(road: Road) -> None:
    """The stranger dials first, and the others have long met when it is looked at again."""
    stranger_name, north_name, south_name = in_key_order("north", "south", "stranger")
    gate = Gate()
    north = await road.start(north_name, gate)
    south = await road.start(south_name, echo)
    stranger = await road.start(stranger_name, echo)
    stranger.transport.set_peers([north.peer])
    north.transport.set_peers([south.peer])
    south.transport.set_peers([north.peer])
    await south.sees(north)
    with pytest.raises(RequestError) as caught:
        await stranger.ask(north, b"let me in")
    assert caught.value.reason is Reason.UNREACHABLE
    assert stranger.transport.connected() == frozenset()
    assert gate.seen == []
    # It was refused for who it is: named by north, it is let in.
    north.transport.set_peers([south.peer, stranger.peer])
    await stranger.sees(north)
    gate.open()
    assert await stranger.ask(north, b"again") == b"again"


async def test_a_peer_that_restarts_is_connected_again(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    events = north.transport.subscribe()
    assert list(drain(events)) == [PeerEvent(south.name, up=True)]
    await south.stop()
    await north.sees(south, up=False)
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"")
    assert caught.value.reason is Reason.UNREACHABLE
    back = await road.start("south", echo, again=south)
    back.transport.set_peers([north.peer])
    await north.sees(back)
    await back.sees(north)
    assert await north.ask(back, b"welcome") == b"welcome"
    assert await back.ask(north, b"thanks") == b"thanks"
    assert list(drain(events)) == [PeerEvent(south.name, up=False), PeerEvent(south.name, up=True)]


async def test_a_removed_peer_is_disconnected_and_its_requests_end(road: Road) -> None:
    gate = Gate()
    north, south = await road.pair(echo, gate)
    found: list[Reason] = []

    async def ask() -> None:
        with pytest.raises(RequestError) as caught:
            await north.ask(south, b"held")
        found.append(caught.value.reason)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await gate.holds(1)
            north.transport.set_peers([])
            assert north.transport.connected() == frozenset()
    assert found == [Reason.CLOSED]
    await south.sees(north, up=False)
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"")
    assert caught.value.reason is Reason.NOT_A_MEMBER
    north.transport.set_peers([south.peer])
    await north.sees(south)
    await south.sees(north)
    gate.open()
    assert await north.ask(south, b"again") == b"again"


async def test_requests_end_when_the_peer_stops(road: Road) -> None:
    gate = Gate()
    north, south = await road.pair(echo, gate)
    found: list[Reason] = []

    async def ask() -> None:
        with pytest.raises(RequestError) as caught:
            await north.ask(south, b"held")
        found.append(caught.value.reason)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await gate.holds(1)
            await south.stop()
    assert found == [Reason.CLOSED]


async def test_more_than_the_peer_allows_is_answered_busy(road: Road) -> None:
    gate = Gate()
    north, south = await road.pair(echo, gate, bounds=(Bounds(in_flight=5), Bounds(in_flight=2)))
    reasons: list[Reason] = []
    answers: list[bytes] = []

    async def ask(payload: bytes) -> None:
        try:
            answers.append(await north.ask(south, payload))
        except RequestError as exc:
            reasons.append(exc.reason)
            if len(reasons) == 3:
                gate.open()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as asking:
            for number in range(5):
                asking.start_soon(ask, bytes([number]))
    assert reasons == [Reason.BUSY] * 3
    assert len(answers) == len(gate.seen) == 2
    assert await north.ask(south, b"later") == b"later"


async def test_more_than_our_own_window_waits_for_a_place(road: Road) -> None:
    gate = Gate()
    north, south = await road.pair(echo, gate, bounds=(Bounds(in_flight=2), Bounds()))
    answers: list[bytes] = []

    async def ask(payload: bytes) -> None:
        answers.append(await north.ask(south, payload))

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as asking:
            for number in range(5):
                asking.start_soon(ask, bytes([number]))
            await gate.holds(2)
            with pytest.raises(RequestError) as caught:
                await north.ask(south, b"no place", timeout_s=0.05)
            assert caught.value.reason is Reason.TIMEOUT
            assert len(gate.seen) == 2
            gate.open()
    assert sorted(answers) == [bytes([number]) for number in range(5)]
    assert (north.name, b"no place") not in gate.seen


async def test_what_is_larger_than_a_frame_is_refused(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    async def tenfold(_peer: str, payload: bytes) -> bytes:
        return payload * 10

    small = Bounds(frame_bytes=1_000)
    north, south = await road.pair(echo, tenfold, bounds=(small, small))
    assert await north.ask(south, bytes(100)) == bytes(1_000)
    for size in (101, 1_001):
        with pytest.raises(RequestError) as caught:
            await north.ask(south, bytes(size))
        assert caught.value.reason is Reason.TOO_LARGE
    assert await north.ask(south, b"1") == b"1" * 10


async def test_a_handler_that_fails_fails_one_request_only(
    road: Road, caplog: pytest.LogCaptureFixture
) -> None:
    async def picky(_peer: str, payload: bytes) -> bytes:
        if payload == b"bad":
            raise ValueError("secret detail")
        return payload

    north, south = await road.pair(echo, picky)
    with caplog.at_level(logging.CRITICAL), pytest.raises(RequestError) as caught:
        await north.ask(south, b"bad")
    assert caught.value.reason is Reason.FAILED
    assert "secret" not in str(caught.value)
    assert await north.ask(south, b"good") == b"good"


async def test_a_transport_that_does_not_run_reaches_nobody(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    await north.stop()
    assert north.transport.connected() == frozenset()
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"")
    assert caught.value.reason is Reason.UNREACHABLE


async def test_peers_that_would_be_one_are_refused_and_nothing_changes(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    twice = [south.peer, Peer(south.name, key_of("other"))]
    one_key = [south.peer, Peer(name_of("other"), south.key)]
    for wrong in (twice, one_key, [south.peer, north.peer]):
        with pytest.raises(ConfigError):
            north.transport.set_peers(wrong)
    assert await north.ask(south, b"still") == b"still"


async def test_a_new_key_under_an_old_name_is_another_node(road: Road) -> None:
    north, south = await road.pair(echo, echo)
    north.transport.set_peers([Peer(south.name, key_of("other"), south.peer.addresses)])
    assert north.transport.connected() == frozenset()
    await south.sees(north, up=False)
    with pytest.raises(RequestError) as caught:
        await north.ask(south, b"")
    assert caught.value.reason is Reason.UNREACHABLE
