"""The gossip port on libp2p's GossipSub 1.1, over the connections that the transport keeps.

GossipSub is taken for what it does well, a mesh that forwards; its defaults are lossy or unsafe, and a defect of
it must end neither a node nor its connections. So it is told of peers by the transport and by nobody else, sees
only messages that were looked at before, and is begun anew when it fails. Each departure says which defect it
answers; `tests/gossip/test_gossipsub_defects.py` tells when the defect is gone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeVar

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ValidationError
from libp2p.host.basic_host import BasicHost
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import safe_bytes_from_hex
from libp2p.tools.anyio_service import background_trio_service

from comity.gossip.gossip import Allowance, Heard, Listener
from comity.gossip.libp2p_admission import SEQUENCE_BYTES, Admission, Named
from comity.gossip.libp2p_host import RESET_S, MembersSwarm, PeerId, foreign_errors
from comity.protocol.errors import LocalProtocolError, TransportError
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICES_PER_S

PROTOCOLS: Final = (TProtocol(str(PROTOCOL_ID_V11)),)
"""1.2 doubles messages and CPU to save what notices have not; 1.4 and 2.0 nobody else speaks."""
DEGREE, DEGREE_LOW, DEGREE_HIGH = 6, 4, 12
HEARTBEAT_S: Final = 1
"""libp2p repairs the mesh every 120 s."""
RPC_BYTES_MAX: Final = 65_536
"""What one peer may say at once: a few notices, and the control of one topic."""
CONTROLS_PER_S: Final = 10
"""Control messages of one peer that are looked at: a mesh of one topic needs one for each heartbeat."""
PARTS_MAX: Final = 4
"""Parts of each sort of one control message that are looked at: a mesh of one topic needs one, and 64 kB hold
thousands."""
IDS_MAX: Final = 32
"""Messages that one control message can ask for, or make us ask for: the longest answer is half a megabyte. What is
beyond comes with the next heartbeat, or by pull."""
NAMED_MAX: Final = 8 * IDS_MAX
"""Ids that are looked at to find those that we lack: a peer names what it heard in its last heartbeats, at the pace of
all some 150."""
SUBSCRIPTIONS_MAX: Final = 4
MEET_AGAIN_S: Final = 10.0
"""Whoever is connected and has no stream is tried again: libp2p gives up for good where a peer does not speak
GossipSub at that moment."""
AGAIN_S: Final = 5.0
"""Before GossipSub is begun anew after a failure."""

_log = logging.getLogger(__name__)
Part = TypeVar("Part", rpc_pb2.ControlIHave, rpc_pb2.ControlGraft, rpc_pb2.ControlPrune)


class Members(Named, Protocol):
    """Who is connected, by both names: what the transport knows."""

    def ids_connected(self) -> frozenset[PeerId]: ...


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """What is gossiped about.

    Attributes:
        topic: one for each coalition.
        first_number: greater than any number that an earlier process of this node gave a message; the time in
            nanoseconds is.
    """

    topic: str
    first_number: int


class OneTopicRouter(GossipSub):
    """GossipSub for one topic, without what peers could use it for."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            PROTOCOLS,
            DEGREE,
            DEGREE_LOW,
            DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            # It makes the heartbeat 60 s as soon as the mesh is small.
            adaptive_gossip_enabled=False,
            # It drops what one neighbour forwards of many authors; `Admission` knows better.
            spam_protection_enabled=False,
            # It wants three IP addresses in every mesh; members are known by their keys.
            eclipse_protection_enabled=False,
        )
        self._topic = topic
        self._controls = Allowance(trio.current_time)
        self._answers = Allowance(trio.current_time, IDS_MAX)

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: PeerId) -> None:
        """Look at the control of our topic, as much of it as a mesh needs.

        libp2p keeps something for every topic that a peer names, and answers each message that it names.
        """
        if not self._controls.take(str(sender_peer_id), CONTROLS_PER_S):
            return
        control = rpc.control
        kept = rpc_pb2.RPC()
        for ihave in self._ours(control.ihave):
            ids = [each for each in _distinct(ihave.messageIDs[:NAMED_MAX]) if not self._seen(each)]
            kept.control.ihave.append(rpc_pb2.ControlIHave(topicID=self._topic, messageIDs=_written(ids)))
        for iwant in control.iwant[:1]:
            ids = [each for each in _distinct(iwant.messageIDs[:IDS_MAX]) if each in self.mcache.msgs]
            # Each is an answer, a hundred times as long as what asks for it.
            ids = [each for each in ids if self._answers.take(str(sender_peer_id), NOTICES_PER_S)]
            kept.control.iwant.append(rpc_pb2.ControlIWant(messageIDs=_written(ids)))
        kept.control.graft.extend(self._ours(control.graft))
        for prune in self._ours(control.prune):
            # Without peers: libp2p dials whom they name, whatever `do_px` says.
            kept.control.prune.append(rpc_pb2.ControlPrune(topicID=self._topic, backoff=prune.backoff))
        await super().handle_rpc(kept, sender_peer_id)

    def _ours(self, parts: Sequence[Part]) -> list[Part]:
        """The one part that is about our topic, where it is among the first."""
        return [part for part in parts[:PARTS_MAX] if part.topicID == self._topic][:1]

    def _seen(self, message: bytes) -> bool:
        return self.pubsub is not None and self.pubsub.seen_messages.has(message)

    async def publish(self, msg_forwarder: PeerId, pubsub_msg: rpc_pb2.Message) -> None:
        await super().publish(msg_forwarder, pubsub_msg)
        # libp2p adds to it with every message, for ever, and reads it in the adaptive mode only.
        self.recent_message_deliveries.clear()


def _distinct(named: Iterable[bytes]) -> list[bytes]:
    """The ids that a control message names, each once. One id can be written in many ways, of which hex is one."""
    read = (safe_bytes_from_hex(each) for each in named)
    return list(dict.fromkeys(each for each in read if each is not None))


def _written(ids: Iterable[bytes]) -> list[bytes]:
    """The ids in the way that libp2p reads without a doubt."""
    return [each.hex().encode() for each in islice(ids, IDS_MAX)]


class OneTopicPubsub(Pubsub):
    """The service around a router: who may publish, and to whom it is handed."""

    def __init__(
        self,
        host: BasicHost,
        swarm: MembersSwarm,
        router: OneTopicRouter,
        topic: str,
        next_number: Callable[[], int],
        admission: Admission,
        deliver: Callable[[PeerId, bytes], None],
    ) -> None:
        before = tuple(swarm.notifees)
        super().__init__(
            host,
            router,
            max_inbound_rpc_size=RPC_BYTES_MAX,
            max_subscriptions_per_rpc=SUBSCRIPTIONS_MAX,
            max_subscriptions_per_peer=SUBSCRIPTIONS_MAX,
            allowed_topics={topic},
        )
        for notifee in tuple(swarm.notifees):
            # Every connection would wait for pubsub to hear of it, also when that has failed.
            if notifee not in before:
                swarm.remove_notifee(notifee)
        self._next_number = next_number
        self._admission = admission
        self._deliver = deliver
        self._inbound: set[INetStream] = set()

    def meet(self, peer_id: PeerId) -> None:
        """A peer is connected: open a stream to it, as long as it is."""
        self.manager.run_task(self._handle_new_peer_with_retry, peer_id)

    def forget(self, peer_id: PeerId) -> None:
        """A peer has gone."""
        self._handle_dead_peer(peer_id)

    async def stream_handler(self, stream: INetStream) -> None:
        self._inbound.add(stream)
        try:
            await super().stream_handler(stream)
        finally:
            self._inbound.discard(stream)

    async def abandon(self) -> None:
        """End every stream: on one that nobody reads a peer would go on as if it were heard."""
        for stream in (*self._inbound, *self.peers.values()):
            with (
                trio.move_on_after(RESET_S, shield=True),
                contextlib.suppress(TransportError),
                foreign_errors("a stream"),
            ):
                await stream.reset()

    def _next_seqno(self) -> bytes:
        """libp2p counts on from whole seconds: who says more than one thing a second is not heard after a restart."""
        return self._next_number().to_bytes(SEQUENCE_BYTES, "big")

    async def push_msg(self, msg_forwarder: PeerId, msg: rpc_pb2.Message) -> None:
        """Take a message, or drop it before anything is kept or verified.

        An exception here would end pubsub, and a peer can cause one: by a key that is none.
        """
        if msg_forwarder != self.my_id and (
            not self._admission.well_formed(msg)
            or self._is_msg_seen(msg)
            or not self._admission.may_be_new(msg)
            or not self._admission.worth_verifying(msg_forwarder)
        ):
            return
        try:
            with foreign_errors("a message"):
                await super().push_msg(msg_forwarder, msg)
        except TransportError as exc:
            _log.debug("gossip_failed", extra={"detail": str(exc)})

    async def validate_msg(self, msg_forwarder: PeerId, msg: rpc_pb2.Message) -> None:
        """Take a message whose signature was found to hold, as long as its author keeps to its pace.

        What is dropped here counts as seen, so that its copies by other roads cost nothing.
        """
        if msg_forwarder != self.my_id and not self._admission.at_pace(msg):
            self._mark_msg_seen(msg)
            raise ValidationError("its author says more than it may")

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Hand it over at once: libp2p's own queue of 32 drops what comes in a burst."""
        author = PeerId(publish_message.from_id)
        if author != self.my_id:
            self._deliver(author, publish_message.data)


class Libp2pGossip:
    """The gossip port over a host. It works while `run` runs.

    Args:
        members: who is connected.

    Attributes:
        failures: how often GossipSub has failed, and was begun anew.
        running: GossipSub, while it runs.
    """

    def __init__(
        self, host: BasicHost, swarm: MembersSwarm, settings: GossipSettings, members: Members
    ) -> None:
        self._host = host
        self._swarm = swarm
        self._topic = settings.topic
        self._first_number = self._number = settings.first_number
        self._began: float | None = None
        self._members = members
        self._listener = Listener()
        self._admission = Admission(self._topic, members, trio.current_time)
        self._outgoing: bytes | None = None
        self._something = trio.Event()
        self._changed = trio.Event()
        self.failures = 0
        self.running: OneTopicPubsub | None = None

    def heard(self) -> trio.MemoryReceiveChannel[Heard]:
        return self._listener.heard()

    def publish(self, payload: bytes) -> None:
        if len(payload) > NOTICE_BYTES_MAX:
            raise LocalProtocolError(
                f"a message of {len(payload)} bytes; at most {NOTICE_BYTES_MAX} are allowed"
            )
        # One place: who publishes at the pace of the port finds it empty.
        self._outgoing = payload
        self._something.set()

    def look_again(self) -> None:
        """A peer was connected, or has gone."""
        self._changed.set()

    def _next_number(self) -> int:
        """Nanoseconds since 1970, and greater than any before: so others can tell what is old from what is new."""
        now = trio.current_time()
        self._began = now if self._began is None else self._began
        self._number = max(self._number + 1, self._first_number + int((now - self._began) * 1e9))
        return self._number

    async def run(self) -> None:
        """Gossip until cancelled. Where GossipSub fails, it is begun anew: nothing else may fail with it."""
        while True:
            try:
                with foreign_errors("gossip"):
                    await self._run_once()
            except TransportError as exc:
                self.failures += 1
                _log.warning("gossip_ended", extra={"detail": str(exc)})
            await trio.sleep(AGAIN_S)

    async def _run_once(self) -> None:
        router = OneTopicRouter(self._topic)
        pubsub = OneTopicPubsub(
            self._host,
            self._swarm,
            router,
            self._topic,
            self._next_number,
            self._admission,
            self._deliver,
        )
        try:
            async with background_trio_service(router), background_trio_service(pubsub):
                await pubsub.wait_until_ready()
                await pubsub.subscribe(self._topic)
                self.running = pubsub
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow, pubsub)
                    await self._publish_always(pubsub)
        finally:
            self.running = None
            for protocol in PROTOCOLS:
                self._host.remove_stream_handler(protocol)
            await pubsub.abandon()
            # A thread of its own that nobody else ends.
            pubsub.seen_messages.stop()

    async def _publish_always(self, pubsub: OneTopicPubsub) -> None:
        while True:
            await self._something.wait()
            self._something = trio.Event()
            payload, self._outgoing = self._outgoing, None
            if payload is not None:
                await pubsub.publish(self._topic, payload)

    async def _follow(self, pubsub: OneTopicPubsub) -> None:
        """Tell pubsub who is connected."""
        while True:
            self._changed = trio.Event()
            connected = self._members.ids_connected()
            for peer_id in tuple(pubsub.peers):
                if peer_id not in connected:
                    pubsub.forget(peer_id)
            for peer_id in connected - frozenset(pubsub.peers):
                pubsub.meet(peer_id)
            with trio.move_on_after(MEET_AGAIN_S):
                await self._changed.wait()

    def _deliver(self, author: PeerId, payload: bytes) -> None:
        name = self._members.name_of(author)
        if name is not None:
            self._listener.tell(name, payload)
