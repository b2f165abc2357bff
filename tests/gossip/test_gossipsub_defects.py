"""The defects of libp2p's GossipSub that the adapter works around, each shown on libp2p itself.

When one of these fails, libp2p has mended the defect: the message says which workaround may go. That ours is
immune is shown in `test_libp2p_gossip.py`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.envelope import seal_record  # pyright: ignore[reportMissingTypeStubs]
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]
from libp2p.peer.peer_record import PeerRecord  # pyright: ignore[reportMissingTypeStubs]
from libp2p.peer.peerstore import PeerStore  # pyright: ignore[reportMissingTypeStubs]
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub import rpc_queue
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from comity.gossip.libp2p_gossip import OneTopicRouter
from comity.gossip.libp2p_host import ClosedPeerStore
from roads import seed_of

pytestmark = pytest.mark.trio
TOPIC = "t"


def mended(what: str) -> str:
    return f"libp2p mended {what}: drop the workaround"


def router() -> GossipSub:
    """A router as it comes."""
    return GossipSub([PROTOCOL_ID_V11], 6, 4, 12)


@asynccontextmanager
async def upstream(name: str = "north", *, ours: GossipSub | None = None) -> AsyncGenerator[Pubsub]:
    """Pubsub of libp2p over a host that is connected to nobody."""
    host = new_host(key_pair=create_new_key_pair(seed_of(name)))
    assert isinstance(host, BasicHost)
    pubsub = Pubsub(host, ours or router())
    async with background_trio_service(pubsub):
        try:
            yield pubsub
        finally:
            pubsub.seen_messages.stop()


def written_by(pubsub: Pubsub, number: int) -> rpc_pb2.Message:
    return rpc_pb2.Message(
        data=b"x", topicIDs=[TOPIC], from_id=pubsub.my_id.to_bytes(), seqno=number.to_bytes(8, "big")
    )


async def test_numbers_of_a_restarted_publisher_are_used_again() -> None:
    async with upstream() as first:
        *_, last = [first._next_seqno() for _ in range(200)]
    async with upstream() as second:
        again = second._next_seqno()
    assert again < last, mended("the numbers of a restarted publisher (first_number)")


async def test_the_heartbeat_comes_every_two_minutes() -> None:
    default = router()
    assert default.heartbeat_interval == 120, mended("the heartbeat (heartbeat_interval)")
    assert default.adaptive_gossip_enabled, mended("the adaptive heartbeat (adaptive_gossip_enabled)")


async def test_the_spam_limit_is_the_forwarders() -> None:
    default = router()
    neighbour = ID(b"neighbour")
    # Twenty authors said one thing each, and one neighbour forwarded them.
    said = [
        rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], from_id=b"author %d" % number, seqno=bytes(8))
        for number in range(20)
    ]
    taken = sum(default._check_spam_protection(neighbour, each) for each in said)
    assert taken == 10, mended("the spam limiter (spam_protection_enabled)")
    ours = OneTopicRouter(TOPIC)
    assert all(ours._check_spam_protection(neighbour, each) for each in said)


async def test_a_burst_is_dropped_by_the_queues() -> None:
    assert rpc_queue.OutBoundQueueSize == 32, mended("the queue to a peer (the pace of publishing)")
    async with upstream() as pubsub:
        subscription = await pubsub.subscribe(TOPIC)
        for number in range(40):
            pubsub.notify_subscriptions(written_by(pubsub, number))
        waiting = subscription.receive_channel.statistics().current_buffer_used  # type: ignore[attr-defined]
    assert waiting == pubsub_module.SUBSCRIPTION_CHANNEL_SIZE == 32, mended("the queue of a subscription")


async def test_an_async_validator_lets_duplicates_pass() -> None:
    async with upstream() as pubsub:
        pubsub.strict_signing = False
        handed: list[rpc_pb2.Message] = []
        pubsub.notify_subscriptions = handed.append  # type: ignore[method-assign, assignment]

        async def slow(_peer: ID, _message: rpc_pb2.Message) -> bool:
            await trio.lowlevel.checkpoint()
            return True

        pubsub.set_topic_validator(TOPIC, slow, is_async_validator=True)
        said = written_by(pubsub, 1)
        said.from_id = b"author"
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pubsub.push_msg, ID(b"neighbour"), said)
    assert len(handed) > 1, mended("asynchronous validators (none are used)")


async def test_a_key_that_is_none_raises_where_messages_are_taken() -> None:
    async with upstream() as pubsub:
        said = rpc_pb2.Message(
            data=b"x", topicIDs=[TOPIC], from_id=b"\x12\x20" + b"q" * 32, seqno=bytes(8), key=b"\xff\xff",
            signature=b"s",
        )  # fmt: skip
        try:
            await pubsub.push_msg(ID(b"neighbour"), said)
        except Exception as exc:  # noqa: BLE001  which one it is, is libp2p's affair
            raised: Exception | None = exc
        else:
            raised = None
    assert raised is not None, mended("keys that are none (OneTopicPubsub.push_msg)")


async def test_a_task_that_fails_ends_pubsub() -> None:
    async def fails(_peer: ID, _message: rpc_pb2.Message) -> None:
        raise KeyError

    ended = False
    try:
        async with upstream() as pubsub:
            pubsub.manager.run_task(fails, ID(b"neighbour"), written_by(pubsub, 1))
            with trio.move_on_after(2):
                await trio.sleep_forever()
    except* KeyError:
        ended = True
    assert ended, mended("failing tasks (Libp2pGossip.run begins anew)")


async def test_peers_of_a_prune_are_dialled_without_peer_exchange() -> None:
    default = router()
    dialled: list[object] = []

    async def noted(peers: object) -> None:
        dialled.append(peers)

    default._do_px = noted  # type: ignore[method-assign, assignment]
    assert not default.do_px
    named = rpc_pb2.ControlPrune(topicID=TOPIC, peers=[rpc_pb2.PeerInfo(peerID=b"p")])
    await default.handle_prune(named, ID(b"neighbour"))
    assert len(dialled) == 1, mended("peers of a PRUNE (OneTopicRouter.handle_rpc)")


async def test_an_id_is_answered_as_often_as_one_message_names_it() -> None:
    async with upstream(ours=(default := router())) as pubsub:
        answers: list[rpc_pb2.RPC] = []
        default.send_rpc = lambda _to, rpc, **_how: answers.append(rpc)  # type: ignore[method-assign]
        said = written_by(pubsub, 1)
        default.mcache.put(said)
        named = (said.from_id + said.seqno).hex().encode()
        await default.handle_iwant(rpc_pb2.ControlIWant(messageIDs=[named] * 100), ID(b"neighbour"))
    assert [len(rpc.publish) for rpc in answers] == [100], mended("IWANT (OneTopicRouter.handle_rpc)")


async def test_something_is_kept_of_every_message_for_ever() -> None:
    async with upstream(ours=(default := router())) as pubsub:
        for number in range(10):
            await default.publish(ID(b"neighbour"), written_by(pubsub, number))
    assert len(default.recent_message_deliveries[TOPIC]) == 10, mended("the leak (OneTopicRouter.publish)")
    async with upstream(ours=(ours := OneTopicRouter(TOPIC))) as pubsub:
        await ours.publish(ID(b"neighbour"), written_by(pubsub, 1))
    assert not ours.recent_message_deliveries


async def test_a_thread_is_left_behind() -> None:
    before = threading.active_count()
    host = new_host(key_pair=create_new_key_pair(seed_of("north")))
    pubsub = Pubsub(host, router())
    async with background_trio_service(pubsub):
        pass
    assert threading.active_count() == before + 1, mended("the thread (Libp2pGossip stops it)")
    pubsub.seen_messages.stop()


async def test_addresses_that_a_peer_claims_are_kept_to_be_dialled() -> None:
    keys = create_new_key_pair(seed_of("liar"))
    peer_id = ID.from_pubkey(keys.public_key)
    claimed = Multiaddr("/ip4/192.0.2.7/tcp/22")
    envelope = seal_record(PeerRecord(peer_id, [claimed]), keys.private_key)
    default, ours = PeerStore(), ClosedPeerStore()
    assert default.consume_peer_record(envelope, 7_200)
    assert default.addrs(peer_id) == [claimed], mended("claimed addresses (ClosedPeerStore)")
    assert ours.consume_peer_record(envelope, 7_200)
    assert peer_id not in ours.peer_ids()
