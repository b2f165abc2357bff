"""Gossip over real connections: what a hostile member, a restart and a defect of GossipSub cannot do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator
from libp2p.utils import encode_varint_prefixed

from comity.gossip import libp2p_admission, libp2p_gossip
from comity.gossip.gossip import BURST, pace_taken
from comity.gossip.libp2p_admission import FORWARDED_BURST, SEEN_NS
from comity.gossip.libp2p_gossip import RPC_BYTES_MAX, OneTopicRouter
from comity.gossip.libp2p_host import foreign_errors
from comity.gossip.libp2p_transport import Libp2pTransport
from comity.protocol.errors import TransportError
from ears import TOPIC, Ear, echo, port, until_heard
from roads import DEADLINE_S, Road, Site, seed_of

MESHSUB = TProtocol("/meshsub/1.1.0")
NANOSECONDS = 10**18


def transport(site: Site) -> Libp2pTransport:
    assert isinstance(site.transport, Libp2pTransport)
    return site.transport


def know_each_other(*sites: Site) -> None:
    for site in sites:
        site.transport.set_peers([other.peer for other in sites if other is not site])


async def offers(site: Site, other: Site, *protocols: str) -> str | None:
    """What a node agrees to speak of these."""
    host = transport(site)._host
    try:
        with foreign_errors("a stream"):
            stream = await host.new_stream(
                transport(other)._host.get_id(),
                [TProtocol(protocol) for protocol in protocols],
            )
    except TransportError:
        return None
    chosen = stream.get_protocol()
    await stream.reset()
    return chosen


async def test_one_version_is_spoken_and_none_without_gossip(noise: Road) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    silent = await noise.start("silent", echo)
    know_each_other(north, south, silent)
    await north.sees(south)
    await north.sees(silent)
    assert (
        await offers(north, south, "/meshsub/2.0.0", "/meshsub/1.2.0", "/meshsub/1.0.0", "/floodsub/1.0.0")
        is None
    )
    assert await offers(north, south, "/meshsub/2.0.0", "/meshsub/1.1.0") == "/meshsub/1.1.0"
    assert await offers(north, silent, "/meshsub/1.1.0") is None


async def test_a_restarted_publisher_is_heard(noise: Road, nursery: trio.Nursery) -> None:
    north = await noise.start("north", echo, topic=TOPIC, first_number=NANOSECONDS)
    south = await noise.start("south", echo, topic=TOPIC)
    know_each_other(north, south)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    # libp2p's own begin with the seconds since 1970, which who says more than one thing a second overtakes.
    assert int.from_bytes(port(north).running._next_seqno(), "big") > NANOSECONDS
    await north.stop()
    await south.sees(north, up=False)
    again = await noise.start("north", echo, again=north, topic=TOPIC, first_number=2 * NANOSECONDS)
    know_each_other(again, south)
    await south.sees(again)
    await until_heard(again, ear, b"after")


async def meshsub(liar: Site, victim: Site) -> INetStream:
    """A stream on which the liar says what it likes."""
    await liar.sees(victim)
    with trio.fail_after(DEADLINE_S):
        return await transport(liar)._host.new_stream(
            transport(victim)._host.get_id(),
            [MESHSUB],
        )


async def say(stream: INetStream, rpc: rpc_pb2.RPC) -> None:
    await stream.write(encode_varint_prefixed(rpc.SerializeToString()))


def message(**fields: object) -> rpc_pb2.RPC:
    said: dict[str, object] = {"data": b"x", "topicIDs": [TOPIC], "seqno": b"\0" * 8, "signature": b"\0" * 64}
    return rpc_pb2.RPC(publish=[rpc_pb2.Message(**(said | fields))])  # type: ignore[arg-type]


def prune(**fields: object) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    rpc.control.prune.append(rpc_pb2.ControlPrune(topicID=TOPIC, **fields))  # type: ignore[arg-type]
    return rpc


def ihave(topic: str) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    rpc.control.ihave.append(rpc_pb2.ControlIHave(topicID=topic, messageIDs=[b"m" * 20] * 500))
    return rpc


def graft(topic: str) -> rpc_pb2.RPC:
    rpc = rpc_pb2.RPC()
    rpc.control.graft.append(rpc_pb2.ControlGraft(topicID=topic))
    return rpc


def subscriptions(count: int) -> rpc_pb2.RPC:
    topics = [rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"t{number}") for number in range(count)]
    return rpc_pb2.RPC(subscriptions=topics)


LIES: dict[str, Callable[[bytes], list[rpc_pb2.RPC]]] = {
    "a key that is none": lambda liar: [message(from_id=b"\x12\x20" + b"q" * 32, key=b"\xff\xff")],
    "a name that is none": lambda liar: [message(from_id=b"\xff" * 5_000)],
    "a wrong signature": lambda liar: [
        message(from_id=liar, seqno=bytes(7) + bytes([i])) for i in range(200)
    ],
    "another's topic": lambda liar: [message(from_id=liar, topicIDs=[f"t{i}"]) for i in range(200)],
    "a thousand topics": lambda liar: [subscriptions(1_000), *(graft(f"t{i}") for i in range(200))],
    "control without end": lambda liar: [ihave(TOPIC) for _ in range(200)],
    "a record of peers": lambda liar: [rpc_pb2.RPC(senderRecord=b"nonsense")] * 100,
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_member_silences_nobody(noise: Road, nursery: trio.Nursery, lie: str) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, south, liar)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    stream = await meshsub(liar, south)
    for rpc in LIES[lie](transport(liar)._host.get_id().to_bytes()):
        await say(stream, rpc)
    assert await liar.ask(south, b"still") == b"still"
    await until_heard(north, ear, b"after")
    assert {m.author for m in ear.heard} == {north.name}
    assert port(south).failures == 0
    pubsub = port(south).running
    assert set(pubsub.peer_topics) <= {TOPIC}
    assert set(pubsub.router.back_off) <= {TOPIC}
    assert set(pubsub.router.recent_message_deliveries) <= {TOPIC}


def signed_by(
    name: str, number: int, *, topics: tuple[str, ...] = (TOPIC,), data: bytes = b"x"
) -> rpc_pb2.RPC:
    """What a member says with its own key and a signature that holds."""
    keys = create_new_key_pair(seed_of(name))
    author = ID.from_pubkey(keys.public_key).to_bytes()
    said = rpc_pb2.Message(data=data, topicIDs=topics, from_id=author, seqno=number.to_bytes(8, "big"))
    said.signature = keys.private_key.sign(b"libp2p-pubsub:" + said.SerializeToString())
    return rpc_pb2.RPC(publish=[said])


async def test_a_member_that_floods_is_heard_at_its_pace_and_costs_no_other_its_word(
    noise: Road, nursery: trio.Nursery
) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, south, liar)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    stream = await meshsub(liar, south)
    began = trio.current_time()
    for number in range(400):
        await say(stream, signed_by("liar", number))
    assert await liar.ask(south, b"still") == b"still"
    await until_heard(north, ear, b"after")
    taken = [m.payload for m in ear.heard if m.author == liar.name]
    assert 0 < len(taken) <= BURST + (trio.current_time() - began) * pace_taken(3)
    assert len(taken) < 400


@pytest.fixture
def no_more_than_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """No allowance grows again, so that what is left of it can be counted."""
    monkeypatch.setattr(libp2p_admission, "pace_taken", lambda _nodes: 0.0)
    monkeypatch.setattr(libp2p_admission, "FORWARDED_PER_S", 0)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[rpc_pb2.Message]:
    """The messages whose signature was verified, by any node of the test."""
    seen: list[rpc_pb2.Message] = []

    def noted(msg: rpc_pb2.Message) -> bool:
        seen.append(msg)
        return signature_validator(msg)

    monkeypatch.setattr("libp2p.pubsub.pubsub.signature_validator", noted)
    return seen


async def read_so_far(liar: Site, victim: Site, stream: INetStream) -> None:
    """Wait until all was read that the liar has said on a stream: then so was the PRUNE that it says now."""
    backoff = port(victim).running.router.back_off
    own = transport(liar)._host.get_id()
    backoff.get(TOPIC, {}).pop(own, None)
    await say(stream, prune(backoff=60))
    with trio.fail_after(DEADLINE_S):
        while own not in backoff.get(TOPIC, {}):
            await trio.lowlevel.checkpoint()
    # Each message is a task of its own, which has nothing to wait for before it is taken or dropped.
    await trio.testing.wait_all_tasks_blocked()


async def test_who_names_another_as_the_author_uses_up_nothing_of_it(
    noise: Road, nursery: trio.Nursery, no_more_than_a_burst: None
) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, south, liar)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    stream = await meshsub(liar, south)
    author = transport(north)._host.get_id().to_bytes()
    for number in range(FORWARDED_BURST // 2):
        await say(stream, message(from_id=author, seqno=(NANOSECONDS + number).to_bytes(8, "big")))
    await read_so_far(liar, south, stream)
    port(north).publish(b"after")
    await ear.hears(b"after")
    assert b"x" not in [m.payload for m in ear.heard]


async def test_a_forwarders_flood_costs_so_many_signatures_and_no_other_its_word(
    noise: Road, nursery: trio.Nursery, no_more_than_a_burst: None, verified: list[rpc_pb2.Message]
) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, south, liar)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    stream = await meshsub(liar, south)
    author = transport(north)._host.get_id().to_bytes()
    for number in range(4 * FORWARDED_BURST):
        await say(stream, message(from_id=author, seqno=(NANOSECONDS + number).to_bytes(8, "big")))
    await read_so_far(liar, south, stream)
    assert len([m for m in verified if m.data == b"x"]) == FORWARDED_BURST
    port(north).publish(b"after")
    await ear.hears(b"after")


async def test_copies_cost_neither_who_wrote_nor_who_forwarded(
    noise: Road, nursery: trio.Nursery, no_more_than_a_burst: None, verified: list[rpc_pb2.Message]
) -> None:
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(south, liar)
    ear = Ear(south, nursery)
    stream = await meshsub(liar, south)
    for _ in range(4 * FORWARDED_BURST):
        await say(stream, signed_by("liar", 1, data=b"first"))
    await read_so_far(liar, south, stream)
    await say(stream, signed_by("liar", 2, data=b"second"))
    await ear.hears(b"second")
    # Of more than its author may say nothing is heard, and its copies are not verified again.
    for _ in range(2):
        for number in range(3, 3 + 2 * BURST):
            await say(stream, signed_by("liar", number))
        await read_so_far(liar, south, stream)
    assert [m.payload for m in ear.heard] == [b"first", b"second", *[b"x"] * (BURST - 2)]
    assert len(verified) == 2 + 2 * BURST


async def test_old_messages_said_again_cost_their_author_nothing(
    noise: Road, nursery: trio.Nursery, no_more_than_a_burst: None, verified: list[rpc_pb2.Message]
) -> None:
    """A liar has recorded what an honest node has said for an hour, and GossipSub has forgotten it."""
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(south, liar)
    ear = Ear(south, nursery)
    stream = await meshsub(liar, south)
    await say(stream, signed_by("liar", NANOSECONDS + SEEN_NS, data=b"new"))
    await ear.hears(b"new")
    for number in range(2 * BURST):
        await say(stream, signed_by("liar", NANOSECONDS - number, data=b"old"))
    await read_so_far(liar, south, stream)
    # What is late, and not so old, may be new here.
    await say(stream, signed_by("liar", NANOSECONDS + 1, data=b"late"))
    await ear.hears(b"late")
    assert [m.payload for m in ear.heard] == [b"new", b"late"]
    assert len(verified) == 2


async def test_numbers_rise_with_time(
    noise: Road, nursery: trio.Nursery, verified: list[rpc_pb2.Message]
) -> None:
    north = await noise.start("north", echo, topic=TOPIC, first_number=NANOSECONDS)
    south = await noise.start("south", echo, topic=TOPIC)
    know_each_other(north, south)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"first")
    began = trio.current_time()
    await until_heard(north, ear, b"last")
    elapsed = trio.current_time() - began
    first, last = (
        max(int.from_bytes(m.seqno, "big") for m in verified if m.data.startswith(data))
        for data in (b"first", b"last")
    )
    # Each takes a round trip at least.
    assert elapsed > 1e-5
    assert last - first > 1_000


async def test_a_message_of_two_topics_is_of_another_topic_too(noise: Road, nursery: trio.Nursery) -> None:
    south = await noise.start("south", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(south, liar)
    ear = Ear(south, nursery)
    stream = await meshsub(liar, south)
    await say(stream, signed_by("liar", 1, topics=(TOPIC, "other"), data=b"two"))
    await say(stream, signed_by("liar", 2, data=b"one"))
    await ear.hears(b"one")
    assert [m.payload for m in ear.heard] == [b"one"]


async def test_a_message_that_is_too_long_ends_its_stream_only(noise: Road, nursery: trio.Nursery) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, liar)
    stream = await meshsub(liar, north)
    await stream.write(encode_varint_prefixed(b"\0" * (RPC_BYTES_MAX + 1))[: RPC_BYTES_MAX // 2])
    assert await liar.ask(north, b"still") == b"still"
    assert port(north).failures == 0


async def test_peers_named_in_a_prune_are_not_dialled(noise: Road, nursery: trio.Nursery) -> None:
    north = await noise.start("north", echo, topic=TOPIC)
    liar = await noise.start("liar", echo)
    know_each_other(north, liar)
    stream = await meshsub(liar, north)
    dialled: list[object] = []

    async def noted(*arguments: object) -> None:
        dialled.append(arguments)

    port(north).running.router._do_px = noted
    own = transport(liar)._host.get_id().to_bytes()
    await say(stream, prune(peers=[rpc_pb2.PeerInfo(peerID=own)], backoff=60))
    ear = Ear(north, nursery)
    # What is said after it on the same stream has been read: so was the prune.
    with trio.fail_after(DEADLINE_S):
        while ID(own) not in port(north).running.router.back_off.get(TOPIC, {}):
            await trio.lowlevel.checkpoint()
    assert dialled == []
    assert ear.heard == []


async def test_gossip_that_fails_begins_again_and_takes_nothing_with_it(
    noise: Road, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_gossip, "AGAIN_S", 0.1)
    monkeypatch.setattr(libp2p_gossip, "MEET_AGAIN_S", 0.5)
    failed: list[str] = []
    beat = OneTopicRouter.mesh_heartbeat

    def once(self: OneTopicRouter) -> object:
        if self.pubsub is not None and str(self.pubsub.my_id) == victim and not failed:
            failed.append("failed")
            raise KeyError("a defect that nobody has found yet")
        return beat(self)

    monkeypatch.setattr(OneTopicRouter, "mesh_heartbeat", once)
    victim = ""
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    know_each_other(north, south)
    await south.sees(north)
    ear = Ear(south, nursery)
    await until_heard(north, ear, b"before")
    victim = str(transport(south)._host.get_id())
    with trio.fail_after(DEADLINE_S):
        while not port(south).failures:
            await trio.lowlevel.checkpoint()
    assert failed == ["failed"]
    assert await north.ask(south, b"still") == b"still"
    await until_heard(north, ear, b"after")


async def test_no_thread_is_left_behind(noise: Road) -> None:
    before = threading.active_count()
    north = await noise.start("north", echo, topic=TOPIC)
    south = await noise.start("south", echo, topic=TOPIC)
    know_each_other(north, south)
    await south.sees(north)
    with trio.fail_after(DEADLINE_S):
        while port(south).running is None:
            await trio.lowlevel.checkpoint()
    await north.stop()
    await south.stop()
    assert threading.active_count() <= before
