"""Rules of docs/spec/peer.md on gossip, at the place where a message is looked at first (section 7)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from comity.gossip.libp2p_admission import SEQUENCE_BYTES, SIGNATURE_BYTES
from comity.gossip.libp2p_host import peer_id_of
from comity.protocol.limits import NOTICE_BYTES_MAX
from ears import TOPIC, echo, port
from roads import DEADLINE_S, Road, key_of

pytestmark = pytest.mark.trio


FLOOD = 10_000


async def admission_of_north(nursery: trio.Nursery) -> Any:
    """What a node that knows two others looks at further."""
    road = Road("noise", nursery)
    north, south, east = [await road.start(name, echo, topic=TOPIC) for name in ("north", "south", "east")]
    north.transport.set_peers([south.peer, east.peer])
    south.transport.set_peers([north.peer])
    await north.sees(south)
    with trio.fail_after(DEADLINE_S):
        while port(north).running is None:
            await trio.lowlevel.checkpoint()
    return port(north)._admission


def message_of(author: str, topics: list[str], size: int) -> rpc_pb2.Message:
    return rpc_pb2.Message(
        from_id=peer_id_of(key_of(author)).to_bytes(),
        data=bytes(size),
        seqno=bytes(SEQUENCE_BYTES),
        signature=bytes(SIGNATURE_BYTES),
        topicIDs=topics,
    )


@pytest.mark.parametrize(
    ("author", "topics", "size", "taken"),
    [
        ("south", [TOPIC], NOTICE_BYTES_MAX, True),
        ("south", [TOPIC], NOTICE_BYTES_MAX + 1, False),
        ("south", [f"{TOPIC}x"], 10, False),
        ("south", [TOPIC, f"{TOPIC}x"], 10, False),
        ("south", [], 10, False),
        ("stranger", [TOPIC], 10, False),
    ],
)
async def test_only_members_words_on_the_one_topic_are_taken(
    nursery: trio.Nursery,
    author: str,
    topics: list[str],
    size: int,
    taken: bool,  # noqa: FBT001
) -> None:
    """What is not taken is neither verified, nor told to anybody, nor forwarded."""
    admission = await admission_of_north(nursery)
    assert admission.well_formed(message_of(author, topics, size)) is taken


async def test_who_says_too_much_costs_no_other_its_word(nursery: trio.Nursery) -> None:
    """It is the author that is counted, whoever forwards its words."""
    admission = await admission_of_north(nursery)
    flood = [admission.at_pace(message_of("south", [TOPIC], 10)) for _ in range(FLOOD)]
    assert flood[0]
    assert not flood[-1]
    assert admission.at_pace(message_of("east", [TOPIC], 10))


async def test_who_forwards_too_much_costs_no_other_its_word(nursery: trio.Nursery) -> None:
    """What is not signed by its author is counted against the forwarder, and against nobody else."""
    admission = await admission_of_north(nursery)
    south, east = peer_id_of(key_of("south")), peer_id_of(key_of("east"))
    flood = [admission.worth_verifying(south) for _ in range(FLOOD)]
    assert flood[0]
    assert not flood[-1]
    assert admission.worth_verifying(east)
    assert admission.at_pace(message_of("south", [TOPIC], 10))
