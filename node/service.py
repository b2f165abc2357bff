"""The running node: the machines in their thread, the connections and the waiting around it.

Everything that judges or writes happens in the worker's thread (`core`); here are the tasks that carry what
it leaves in its outbox, pull from peers every few seconds, and wake it when it wants to be woken.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog
import trio

from comity.attestation.nodes_in_force import certificates_in_force
from comity.gossip.transport import Peer, PeerName, RequestError, Transport
from comity.node.answering import answer_peer
from comity.node.core import Core
from comity.node.following import admit_few, close_page, feed_request
from comity.node.outgoing import (
    Changed,
    GovernanceChanged,
    News,
    Outgoing,
    OutgoingAsk,
    OutgoingOffer,
    Wake,
)
from comity.node.portions import Brought
from comity.protocol.errors import DecodeError, StoreError
from comity.protocol.frames import (
    FetchFrame,
    HeadFrame,
    ProblemFrame,
    RecordsFrame,
    decode_answer,
    encode_frame,
)
from comity.protocol.governance import NodeCertificate
from comity.protocol.identifiers import member_of
from comity.protocol.limits import FETCH_IDS_MAX, NODES_PER_MEMBER_MAX
from comity.protocol.verified import VerifiedRecord

T = TypeVar("T")

ASK_TIMEOUT_S: Final = 5.0
"""How long a voter may take: as long as a requester waits for votes."""
PULL_TIMEOUT_S: Final = 10.0
PULL_EVERY_S: Final = 3.0
"""Anti-entropy: gossip may shorten it, nothing may need it."""
MAINTAIN_EVERY_S: Final = 5.0
PAGES_PER_ROUND_MAX: Final = 256
"""Pages of one round with one peer, so that one peer's backlog does not starve the others."""
WAIT_S_MAX: Final = 600.0

log = structlog.get_logger("comity.node")


class Runner(Protocol):
    """Where calls run one after the other: the worker's thread, or in tests the caller's own."""

    async def run(self, function: Callable[[], T]) -> T: ...


class Service:
    """One node, running.

    Args:
        core: the machines; only the worker's thread touches them from now on.
        runner: that thread.
    """

    def __init__(self, core: Core, runner: Runner) -> None:
        self._core = core
        self._runner = runner
        self._transport: Transport | None = None
        self._changed: dict[bytes, trio.Event] = {}
        self._wakes: list[float] = []
        self._woken = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._asking = 0
        self._turns: dict[PeerName, trio.Lock] = {}
        self._idle = trio.Event()
        self._governance = trio.Event()
        self._failure: StoreError | None = None
        self._failed = trio.Event()
        self.on_news: Callable[[News], None] | None = None
        self.read_to_end: dict[str, int] = {}
        """When a node of a member was last gone through to the end, by this clock; no more than there are peers."""

    # What the connections call

    async def handle_request(self, peer: PeerName, payload: bytes) -> bytes:
        """Answer one request of a peer (the transport's handler)."""
        # The peer's name says nothing of what is in the request. It takes its turn by it: one of its requests at
        # a time is before the machines, so that who asks much, or dearly, holds up itself.
        turn = self._turns.setdefault(peer, trio.Lock())
        try:
            turn.acquire_nowait()
        except trio.WouldBlock:
            await turn.acquire()
        try:
            answer = await self.call(lambda: answer_peer(self._core, payload, peer))
            if isinstance(answer, Brought):
                answer = await self._answer_after(answer, payload, peer)
            return answer
        finally:
            turn.release()

    # What programs beside the node call

    async def call(self, function: Callable[[], T]) -> T:
        """Run something in the worker's thread and carry what it leaves to be carried."""

        def run() -> tuple[T, list[Outgoing]]:
            result = function()
            return result, self._core.drain()

        try:
            result, outgoing = await self._runner.run(run)
        except StoreError as exc:
            # Whoever called hears of it, and the node stops: what it would do next could not be kept.
            if not self._failed.is_set():
                log.error("store_failed", detail=str(exc))  # noqa: TRY400  the sentence names the file and why
            self._failure = exc
            self._failed.set()
            raise
        self._carry(outgoing)
        return result

    @property
    def core(self) -> Core:
        return self._core

    async def wait_for(self, intent: bytes, done: Callable[[], bool], wait_s: float) -> None:
        """Wait until `done` (run in the worker's thread) is true, at most so long."""
        with trio.move_on_after(min(max(wait_s, 0.0), WAIT_S_MAX)):
            while True:
                event = self.changed(intent)
                if await self.call(done):
                    return
                await event.wait()

    def changed(self, intent: bytes) -> trio.Event:
        """An event that is set when the intent's standing changes next."""
        return self._changed.setdefault(intent, trio.Event())

    async def fetch_head(self, asset: str, partition: str) -> None:
        """Ask an asset's writer for its newest promoted actuation; without an answer nothing changes."""
        writer = await self.call(lambda: self._core.holdings.epoch.writer_of(asset))
        if writer is not None and writer != self._core.identity.member:
            await self.fetch_head_from(asset, partition, self._names_of(writer))

    async def fetch_head_from(self, asset: str, partition: str, nodes: Iterable[PeerName]) -> None:
        """Ask these nodes, one after the other until one answers, for a slot's newest promoted actuation."""
        await self._take_from(nodes, encode_frame(HeadFrame(asset=asset, partition=partition)))

    async def fetch(self, ids: tuple[bytes, ...], nodes: Iterable[PeerName]) -> bool:
        """Ask these nodes, one after the other until none is missing, for records by their ids.

        Returns whether none is missing.
        """
        for node in nodes:
            name = await self._take_from([node], encode_frame(FetchFrame(ids=ids)))
            if name is not None:
                await self._fetch_authorities(name)
            if await self.call(lambda: all(self._core.holdings.peek(i) is not None for i in ids)):
                return True
        return False

    async def _take_from(self, nodes: Iterable[PeerName], payload: bytes) -> PeerName | None:
        """Admit what the first of these nodes that answers has. Returns who that was."""
        for name in nodes:
            data = await self._ask_peer(name, payload, PULL_TIMEOUT_S)
            if data is not None:
                await self._take_records(name, data)
                return name
        return None

    async def bring(self, missing: Callable[[], tuple[bytes, ...]], within_s: float) -> tuple[bytes, ...]:
        """Fetch records of others from whoever is connected, until none is missing or nobody has more.

        Args:
            missing: says, in the worker's thread, what is missing now. It is asked again after every answer.

        Returns what is still missing.
        """
        wanted = await self.call(missing)
        with trio.move_on_after(within_s):
            progress = True
            while wanted and progress:
                progress = False
                for name in sorted(self.connected_nodes()):
                    payload = encode_frame(FetchFrame(ids=wanted[:FETCH_IDS_MAX]))
                    data = await self._ask_peer(name, payload, PULL_TIMEOUT_S)
                    if data is None:
                        continue
                    await self._take_records(name, data)
                    left = await self.call(missing)
                    progress = progress or left != wanted
                    wanted = left
                    if not wanted:
                        break
        return wanted

    def governance_changed(self) -> trio.Event:
        """An event that is set when an epoch, a certificate, a policy or a revocation arrives next."""
        return self._governance

    def connected(self) -> frozenset[str]:
        """The members of whom a node is connected."""
        names = self._transport.connected() if self._transport is not None else frozenset[str]()
        return frozenset(member_of(name) for name in names)

    def connected_nodes(self) -> frozenset[str]:
        return self._transport.connected() if self._transport is not None else frozenset[str]()

    # Running

    async def run(
        self, transport: Transport, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry, pull and wake until cancelled.

        Raises:
            StoreError: the disk failed.
        """
        self._transport = transport
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._wake)
            nursery.start_soon(self._pull_always)
            nursery.start_soon(self._watch_peers)
            nursery.start_soon(self._maintain)
            await self.call(lambda: None)
            task_status.started()
            await self._failed.wait()
            if self._failure is not None:
                raise self._failure

    def _carry(self, outgoing: Sequence[Outgoing]) -> None:
        for item in outgoing:
            match item:
                case Wake(at):
                    # All are kept: the next is not the only one, and nobody says the others again.
                    heapq.heappush(self._wakes, at)
                    self._woken.set()
                case Changed(intent):
                    event = self._changed.pop(intent, None)
                    if event is not None:
                        event.set()
                case GovernanceChanged():
                    self._governance.set()
                    self._governance = trio.Event()
                case News():
                    if self.on_news is not None:
                        self.on_news(item)
                case OutgoingAsk():
                    self._start(self._send_ask, item)
                case OutgoingOffer():
                    self._start(self._send_offer, item)

    def _start(self, function: Callable[..., object], item: OutgoingAsk | OutgoingOffer) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(function, item)  # type: ignore[arg-type]

    def _names_of(self, member: str) -> list[PeerName]:
        """The nodes of a member that are connected, in the order of their names."""
        return sorted(name for name in self.connected_nodes() if member_of(name) == member)

    async def idle(self) -> None:
        """Wait until no ask waits for anybody's answer."""
        if self._asking:
            await self._idle.wait()

    async def _send_ask(self, item: OutgoingAsk) -> None:
        self._asking += 1
        frame = item.frame()
        try:
            async with trio.open_nursery() as nursery:
                # The others first: while they judge, so does this node.
                for member in item.members:
                    if member != self._core.identity.member:
                        nursery.start_soon(self._ask_member, member, item.ask.id, frame)
                if self._core.identity.member in item.members:
                    nursery.start_soon(self._ask_self, item)
        finally:
            self._asking -= 1
            if not self._asking:
                self._idle.set()
                self._idle = trio.Event()

    async def _ask_self(self, item: OutgoingAsk) -> None:
        await self.unharmed(
            self._core.identity.node, lambda: self.call(lambda: self._core.vote_for_self(item))
        )

    async def _ask_member(self, member: str, ask: bytes, frame: bytes) -> None:
        for name in self._names_of(member):
            data = await self._ask_peer(name, frame, ASK_TIMEOUT_S)
            if data is not None:
                receive = partial(self._core.receive_answer, member, ask, data)
                await self.unharmed(name, partial(self.call, receive))
                return
        await self.unharmed(member, lambda: self.call(lambda: self._core.receive_silence(member, ask)))

    async def unharmed(self, whose: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do something with what came from another member. If it is more than we can bear, that ends here.

        Every parser and judge answers for what it is given; this is for the defect in one that nobody has found
        yet, which must not be a switch that turns off every node but the liar's.

        Raises:
            StoreError: the disk failed, which is no peer's doing.
        """
        try:
            await work()
        except StoreError:
            raise
        except Exception:
            log.exception("peer_unbearable", peer=whose)

    async def _send_offer(self, item: OutgoingOffer) -> None:
        for member in item.members:
            for name in self._names_of(member):
                if await self._ask_peer(name, item.frame, PULL_TIMEOUT_S) is not None:
                    break

    async def _ask_peer(self, name: PeerName, payload: bytes, timeout_s: float) -> bytes | None:
        if self._transport is None:
            return None
        try:
            return await self._transport.request(name, payload, timeout_s=timeout_s)
        except RequestError as exc:
            log.debug("peer_silent", peer=name, reason=str(exc.reason))
            return None

    async def _answer_after(self, brought: Brought, payload: bytes, peer: PeerName) -> bytes:
        """Answer a request that brings many records, or dear ones, when those are admitted."""
        try:
            await self._admit(peer, brought.records)
        except DecodeError as exc:
            return encode_frame(ProblemFrame(code="frame_wrong", detail=str(exc)[:200]))
        if brought.answer is not None:
            return brought.answer
        answer = await self.call(lambda: answer_peer(self._core, payload, peer, admitted=True))
        return answer if isinstance(answer, bytes) else encode_frame(ProblemFrame(code="no_answer"))

    async def _admit(self, name: PeerName, records: Sequence[bytes]) -> None:
        """Admit records a few at a time: an ask that arrives meanwhile waits for a few, and not for all.

        Raises:
            DecodeError: one of them is no record; those before it are admitted.
        """
        if not records:
            return
        position = 0
        try:
            while position < len(records):
                position = await self.call(partial(admit_few, self._core, records, position, name))
        finally:
            await self.call(self._core.tell_news)

    async def _take_records(self, name: PeerName, data: bytes) -> None:
        async def taken() -> None:
            try:
                answer = await self.call(lambda: decode_answer(data))
                if isinstance(answer, RecordsFrame):
                    await self._admit(name, answer.records)
            except DecodeError as exc:
                log.warning("records_unreadable", peer=name, detail=str(exc))

        await self.unharmed(name, taken)

    # Anti-entropy

    async def _watch_peers(self) -> None:
        """Pull at once from whoever becomes reachable."""
        while self._transport is not None:
            async with self._transport.subscribe() as events:
                async for event in events:
                    log.info("peer_up" if event.up else "peer_down", peer=event.peer)
                    if event.up:
                        await self._pull(event.peer)
                        member = member_of(event.peer)
                        up = partial(self._core.members_up, (member,))
                        await self.unharmed(event.peer, partial(self.call, up))

    async def _pull_always(self) -> None:
        while True:
            for name in sorted(self.connected_nodes()):
                await self._pull(name)
            await trio.sleep(PULL_EVERY_S)

    async def _pull(self, name: PeerName) -> None:
        """One round of anti-entropy with one peer."""
        await self.unharmed(name, lambda: self._pull_pages(name))

    async def _pull_pages(self, name: PeerName) -> None:
        """Page by page to the end."""
        for _ in range(PAGES_PER_ROUND_MAX):
            payload = await self.call(lambda: feed_request(self._core, name))
            data = await self._ask_peer(name, payload, PULL_TIMEOUT_S)
            if data is None:
                return
            try:
                page = await self.call(partial(self._core.open_page, data))
                await self._admit(name, page.records)
                if not await self.call(partial(close_page, self._core, name, page)):
                    await self._fetch_authorities(name)
                    await self.call(partial(self._core.voter.caught_up_with, member_of(name)))
                    self.read_to_end[member_of(name)] = self._core.clock.now()
                    return
            except DecodeError as exc:
                log.warning("page_unreadable", peer=name, detail=str(exc))
                return
        await self._fetch_authorities(name)

    async def _fetch_authorities(self, name: PeerName) -> None:
        """Records wait for who vouches for their keys: ask whoever we are talking to."""
        wanted = await self.call(lambda: self._core.holdings.authorities_wanted()[:64])
        if wanted:
            data = await self._ask_peer(name, encode_frame(FetchFrame(ids=wanted)), PULL_TIMEOUT_S)
            if data is not None:
                await self._take_records(name, data)

    async def _maintain(self) -> None:
        """Let the store do between writes what some write would else pay for."""
        while True:
            await trio.sleep(MAINTAIN_EVERY_S)
            await self._runner.run(self._core.store.maintain)

    async def _wake(self) -> None:
        """Call `tick` when the machines asked for it, and never before: a tick that comes early changes nothing."""
        while True:
            self._woken = trio.Event()
            now = self._core.clock.seconds()
            delay = (self._wakes[0] if self._wakes else math.inf) - now
            if delay <= 0:
                while self._wakes and self._wakes[0] <= now:
                    heapq.heappop(self._wakes)
                await self.unharmed("this node", lambda: self.call(self._core.tick))
                continue
            # The clock of the day and that of the deadlines are two: what is left then is waited for again.
            with trio.move_on_after(delay):
                await self._woken.wait()


def peers_from(core: Core, addresses: dict[str, tuple[str, ...]]) -> list[Peer]:
    """The other members' nodes, by their newest certificates, with the addresses that are known for them.

    What one member certifies too much, or with another's transport key, costs no other its connection.

    Args:
        addresses: node name to addresses, from the coalition file and the configuration.
    """
    certificates = certificates_in_force(core.holdings, core.clock.now())
    own = {r.body.transport_key for r in certificates if r.member == core.identity.member}
    nodes: dict[str, dict[str, VerifiedRecord[NodeCertificate]]] = {}
    for record in certificates:
        of_member = nodes.setdefault(record.member, {})
        if record.member != core.identity.member and len(of_member) < NODES_PER_MEMBER_MAX:
            of_member.setdefault(record.body.node, record)
    chosen = [record for of_member in nodes.values() for record in of_member.values()]
    # Of two that claim one transport key, the one that the operators know of, then the older: who copies a key
    # has read it in a certificate.
    chosen.sort(key=lambda r: (r.body.node not in addresses, r.header.at, r.id))
    peers: dict[bytes, Peer] = {}
    for record in chosen:
        body = record.body
        if body.transport_key not in own:
            peer = Peer(body.node, body.transport_key, addresses.get(body.node, ()))
            peers.setdefault(body.transport_key, peer)
    return sorted(peers.values(), key=lambda peer: peer.name)
