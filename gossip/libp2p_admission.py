"""What a message of gossip has to pass before it costs anything, from the cheapest question to the dearest.

Anybody who is connected may hand over a message that names another as its author. So only what bears the author's
signature is counted against the author; what it costs to find that out is counted against whoever forwarded it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from libp2p.pubsub.pb import rpc_pb2

from comity.gossip.gossip import Allowance, pace_taken
from comity.gossip.libp2p_host import PeerId
from comity.gossip.transport import PeerName
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICES_PER_S

SIGNATURE_BYTES: Final = 64
SEQUENCE_BYTES: Final = 8
ENVELOPE_BYTES_MAX: Final = 512
"""All of a message but its data: names, a topic, a key and a signature take half of it. The key is not signed, and
fields that nobody knows are kept: who forwards could make a message longer."""
FORWARDED_PER_S: Final = 2 * NOTICES_PER_S
"""Messages of one forwarder whose signature is verified in a second: twice what all authors together may say, as
`pace_taken` is for one. An honest node forwards what it has taken, which is no more."""
FORWARDED_BURST: Final = 64
"""... and at once after a silence: what one answer to us holds of `IDS_MAX`, and as much from the mesh."""


SEEN_NS: Final = 120_000_000_000
"""For so long, in nanoseconds, GossipSub remembers what it has seen. Numbers of messages are nanoseconds, too."""


class Named(Protocol):
    """Who is who, and how many: what the transport knows."""

    def name_of(self, peer_id: PeerId) -> PeerName | None: ...
    def nodes(self) -> int: ...


class Admission:
    """What is looked at further, in the order of the methods. Between the first two stands whether it was seen.

    A message that was seen already costs nobody anything: in normal work each comes from several neighbours.

    Args:
        clock: seconds on any clock that only goes forward.
    """

    def __init__(self, topic: str, members: Named, clock: Callable[[], float]) -> None:
        self._topic = topic
        self._members = members
        self._forwarders = Allowance(clock, FORWARDED_BURST)
        self._authors = Allowance(clock)
        self._newest: dict[bytes, int] = {}

    def well_formed(self, msg: rpc_pb2.Message) -> bool:
        """Whether it names a member as its author, and our topic alone, and holds to the bounds."""
        return (
            len(msg.seqno) == SEQUENCE_BYTES
            and len(msg.signature) == SIGNATURE_BYTES
            and len(msg.data) <= NOTICE_BYTES_MAX
            and msg.ByteSize() <= len(msg.data) + ENVELOPE_BYTES_MAX
            and list(msg.topicIDs) == [self._topic]
            and self._members.name_of(PeerId(msg.from_id)) is not None
        )

    def worth_verifying(self, forwarder: PeerId) -> bool:
        """Whether a signature is verified for this neighbour now."""
        return self._forwarders.take(str(forwarder), FORWARDED_PER_S)

    def may_be_new(self, msg: rpc_pb2.Message) -> bool:
        """Whether it is no old message said once more, so old that GossipSub has forgotten it."""
        return int.from_bytes(msg.seqno, "big") > self._newest.get(msg.from_id, 0) - SEEN_NS

    def at_pace(self, msg: rpc_pb2.Message) -> bool:
        """Whether one more of its author is taken now. Asked of messages whose signature holds, and of no other."""
        self._newest[msg.from_id] = max(self._newest.get(msg.from_id, 0), int.from_bytes(msg.seqno, "big"))
        author = self._members.name_of(PeerId(msg.from_id))
        return author is not None and self._authors.take(author, pace_taken(self._members.nodes()))
