"""Control messages of GossipSub: what one of them can make a node do has a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]
from libp2p.pubsub.pb import rpc_pb2

from comity.gossip import libp2p_gossip
from comity.gossip.libp2p_gossip import IDS_MAX, NAMED_MAX, PARTS_MAX
from comity.gossip.libp2p_host import peer_id_of
from ears import TOPIC, echo, port
from roads import DEADLINE_S, Road, key_of

LIAR = peer_id_of(key_of("liar"))
AUTHOR = peer_id_of(key_of("north"))


class Router:
    """The router of a running node, and what it would say to others."""

    def __init__(self, router: Any) -> None:
        self.router = router
        self.said: list[tuple[ID, rpc_pb2.RPC]] = []
        router.send_rpc = self._send

    def _send(self, to: ID, rpc: rpc_pb2.RPC, **_how: object) -> None:
        self.said.append((to, rpc))

    def knows(self, count: int) -> list[bytes]:
        """Messages that it could forward now. Returns their ids."""
        said = [
            rpc_pb2.Message(
                data=b"x", topicIDs=[TOPIC], from_id=AUTHOR.to_bytes(), seqno=n.to_bytes(8, "big")
            )
            for n in range(count)
        ]
        for each in said:
            self.router.mcache.put(each)
        return [each.from_id + each.seqno for each in said]

    async def hears(self, control: rpc_pb2.ControlMessage) -> None:
        await self.router.handle_rpc(rpc_pb2.RPC(control=control), LIAR)

    @property
    def forwarded(self) -> list[bytes]:
        return [msg.from_id + msg.seqno for _, rpc in self.said for msg in rpc.publish]

    @property
    def wanted(self) -> list[bytes]:
        return [each for _, rpc in self.said for iwant in rpc.control.iwant for each in iwant.messageIDs]


@pytest.fixture
async def router(noise: Road, monkeypatch: pytest.MonkeyPatch) -> Router:
    # What may be forwarded for one peer does not grow while a test counts it.
    monkeypatch.setattr(libp2p_gossip, "NOTICES_PER_S", 0)
    monkeypatch.setattr(libp2p_gossip, "HEARTBEAT_S", 3_600)
    site = await noise.start("south", echo, topic=TOPIC)
    with trio.fail_after(DEADLINE_S):
        while port(site).running is None:
            await trio.lowlevel.checkpoint()
    return Router(port(site).running.router)


def iwant(*ids: bytes) -> rpc_pb2.ControlMessage:
    return rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant(messageIDs=ids)])


def ihave(*ids: bytes, topic: str = TOPIC) -> rpc_pb2.ControlMessage:
    return rpc_pb2.ControlMessage(ihave=[rpc_pb2.ControlIHave(topicID=topic, messageIDs=ids)])


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda said: said.hex().encode(),
    "capitals": lambda said: said.hex().upper().encode(),
    "spaced": lambda said: said.hex(" ").encode(),
}


async def test_a_message_is_forwarded_once_however_often_it_is_asked_for(router: Router) -> None:
    (known,) = router.knows(1)
    asked = [spell(known) for spell in SPELLINGS.values()]
    await router.hears(iwant(*asked * 500))
    assert router.forwarded == [known]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_each_spelling_of_an_id_is_read(router: Router, spelling: str) -> None:
    (known,) = router.knows(1)
    await router.hears(iwant(SPELLINGS[spelling](known)))
    assert router.forwarded == [known]


async def test_one_peer_is_forwarded_so_many(router: Router) -> None:
    known = router.knows(3 * IDS_MAX)
    await router.hears(iwant(b"unknown", *known))
    assert router.forwarded == known[: IDS_MAX - 1]
    # Several times that, in as many control messages, is more than it may have at once.
    await router.hears(iwant(*known[IDS_MAX:]))
    await router.hears(iwant(*known[IDS_MAX:]))
    assert len(router.forwarded) == IDS_MAX


async def test_of_what_a_peer_announces_so_much_is_asked_for(router: Router) -> None:
    ids = [number.to_bytes(46, "big") for number in range(2 * NAMED_MAX)]
    await router.hears(ihave(*[each for each in ids for _ in range(2)]))
    assert len(router.wanted) == len(set(router.wanted)) == IDS_MAX
    assert {to for to, _ in router.said} == {LIAR}


async def test_what_is_known_hides_nothing_that_is_lacking(router: Router) -> None:
    ids = [number.to_bytes(46, "big") for number in range(NAMED_MAX + 1)]
    for each in ids[: NAMED_MAX - 1]:
        router.router.pubsub.seen_messages.add(each)
    await router.hears(ihave(*ids))
    assert router.wanted == [ids[NAMED_MAX - 1]]


async def test_parts_without_end_are_not_looked_at(router: Router) -> None:
    other = rpc_pb2.ControlMessage(
        ihave=[rpc_pb2.ControlIHave(topicID="other")] * PARTS_MAX,
        graft=[rpc_pb2.ControlGraft(topicID="other")] * PARTS_MAX,
        prune=[rpc_pb2.ControlPrune(topicID="other")] * PARTS_MAX,
    )
    other.MergeFrom(ihave(b"i" * 46))
    other.graft.add(topicID=TOPIC)
    other.prune.add(topicID=TOPIC)
    await router.hears(other)
    assert router.said == []
    assert LIAR not in router.router.mesh[TOPIC]
    assert router.router.back_off == {}
