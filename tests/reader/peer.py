"""A member's node that speaks with others by what docs/spec/peer.md says, and nothing else.

It judges nothing, so it declines every ask. It keeps what it verified, hands on what it has, asks others, and
verifies what they answer with the reader beside this file. It shares no code with the product.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from libp2p import new_swarm
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]
from libp2p.peer.peerinfo import PeerInfo  # pyright: ignore[reportMissingTypeStubs]
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr  # pyright: ignore[reportMissingTypeStubs]
from nacl.signing import SigningKey
from reader_forms import TYPE, Bad, decode, encode, fits, key_id  # type: ignore[import-not-found]
from reader_records import (  # type: ignore[import-not-found]
    Key,
    Record,
    check_epoch,
    listed,
    read_body,
    read_record,
    verify_record,
)

NOISE, YAMUX, REQUEST = TProtocol("/noise"), TProtocol("/yamux/1.0.0"), TProtocol("/comity/request/1.0.0")
FRAME_BYTES_MAX, LENGTH_MAX = 4 << 20, (4 << 20) + 17
PAGE_BYTES_MAX, PAGE_RECORDS_MAX, IN_FLIGHT_MAX = 64 << 10, 128, 32
ANSWER_S, CLOSE_S = 10.0, 5.0
ASKING, ANSWERING, FAILING = 1, 2, 3
GOVERNANCE = frozenset(
    {
        *("node_certificate", "address", "taxonomy", "policy", "owner_policy", "credential", "revocation"),
        *("suspension", "acknowledgement", "comment", "reference_values", "endorsement", "transition"),
        *("proposal", "prepare", "commit", "checkpoint", "cosignature", "misbehaviour", "erased"),
    }
)
"""The kinds of the governance log, but the epoch."""
ADVERSE = frozenset(
    ("failed", "disputed", "withdrawn", "contraindicated", "warning", "quarantined", "rolled_back")
)


def is_governance(record: Record) -> bool:
    """Whether it is kept in the governance log (kinds.md): by its kind, or because its outcome is adverse."""
    return record.kind in GOVERNANCE or record.header.get("outcome") in ADVERSE


# Framing (section 2) ----------------------------------------------------------------------------------------


def framed(kind: int, request: int, payload: bytes) -> bytes:
    body: bytes = encode([1, kind, request, payload])
    return len(body).to_bytes(4, "big") + body


@dataclass
class Wire:
    """One stream: whole frames, one reader, writes that do not mix."""

    stream: INetStream
    writing: trio.Lock = field(default_factory=trio.Lock)
    rest: bytes = b""

    async def send(self, kind: int, request: int, payload: bytes) -> None:
        async with self.writing:
            await self.stream.write(framed(kind, request, payload))

    async def exactly(self, count: int) -> bytes:
        while len(self.rest) < count:
            try:
                data = await self.stream.read(65_536)
            except StreamError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self.rest += data
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    async def receive(self) -> tuple[int, int, bytes]:
        length = int.from_bytes(await self.exactly(4), "big")
        if length > LENGTH_MAX:
            raise Bad("malformed")
        value = decode(await self.exactly(length))
        if type(value) is not list or len(value) != 4 or type(value[0]) is not int or value[0] != 1:
            raise Bad("malformed")
        kind, request, payload = value[1:]
        if type(kind) is not int or kind not in (ASKING, ANSWERING, FAILING) or not fits("natural", request):
            raise Bad("malformed")
        if type(payload) is not bytes or len(payload) > FRAME_BYTES_MAX:
            raise Bad("malformed")
        return kind, request, payload


# Records ----------------------------------------------------------------------------------------------------


@dataclass
class Pen:
    """A key with which records are written: an organization's, or with the id of its certificate a node's."""

    member: str
    secret: SigningKey
    coalition: bytes
    authority: bytes | None = None

    @property
    def public(self) -> dict[str, Any]:
        return {"suite": "ed25519", "value": bytes(self.secret.verify_key)}

    def write(self, kind: str, at: int, body: dict[str, Any], **header: Any) -> bytes:
        salt = hashlib.sha256(bytes(self.secret) + encode(body)).digest()
        spelled = encode({**body, "salt": salt})
        said: dict[str, Any] = {
            "v": 1,
            "kind": kind,
            "member": self.member,
            "key": key_id(self.public),
            "at": at,
            "realm": "production",
            "coalition": self.coalition,
            "body": {"form": "clear", "digest": hashlib.sha256(spelled).digest(), "size": len(spelled)},
        }
        if self.authority is not None:
            said["authority"] = self.authority
        head = encode({**said, **header})
        signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(head), head)
        signature = self.secret.sign(signed).signature
        record: bytes = encode([TYPE, head, [[key_id(self.public), "ed25519", signature]], spelled])
        return record


class Library:
    """The records that this peer has verified, and their order of arrival."""

    def __init__(self, genesis: bytes) -> None:
        self.chain: list[Record] = []
        self.own: dict[tuple[str, bytes], Key] = {}
        self.vouched: dict[bytes, Key] = {}
        self.held: dict[bytes, tuple[Record, bytes]] = {}
        self.feed: list[bytes] = []
        self.waiting: dict[bytes, bytes] = {}
        self.take_epoch(genesis)

    @property
    def coalition(self) -> bytes:
        genesis: bytes = self.chain[0].id
        return genesis

    def take_epoch(self, data: bytes) -> bool:
        """The next epoch of the chain; what is known, foreign or unsound changes nothing."""
        try:
            epoch = read_body(read_record(data))
            if epoch.id in self.held:
                return False
            check_epoch(epoch, self.chain[-1] if self.chain else None)
        except Bad:
            return False
        self.chain.append(epoch)
        self.held[epoch.id] = epoch, data
        self.feed.append(epoch.id)
        for known, (member, key) in listed(epoch).items():
            self.own[member, known] = Key(member, "organization", key["suite"], key["value"], known)
        return True

    def take(self, data: bytes) -> bool:
        """Verify and keep a record; one that waits for its authority is kept apart."""
        record = read_record(data)
        if record.id in self.held or record.kind == "epoch":
            return False
        try:
            if record.header.get("coalition") != self.coalition:
                return False
            verified = verify_record(record, self.own, self.vouched)
        except Bad as bad:
            if bad.reason == "authority_missing":
                self.waiting[record.id] = data
            return False
        self.held[verified.id] = verified, data
        self.waiting.pop(verified.id, None)
        if is_governance(verified):
            self.feed.append(verified.id)
        if verified.kind in {"node_certificate", "credential"}:
            for waiting in tuple(self.waiting.values()):
                self.take(waiting)
        return True

    def wanted(self) -> list[bytes]:
        """The authorities that something waits for."""
        needed = {read_record(data).header["authority"] for data in self.waiting.values()}
        return sorted(needed - self.held.keys())

    def records(self, kind: str) -> list[Record]:
        return [record for record, _ in self.held.values() if record.kind == kind]


# The peer ---------------------------------------------------------------------------------------------------


class Failed(Exception):  # noqa: N818  # it is the request that failed
    """A request was answered with a failure: `busy`, `too_large` or `failed`."""


Answer = dict[str, Any]


class Asking:
    """The stream that this peer opened: requests go out, answers come back in any order."""

    def __init__(self, stream: INetStream) -> None:
        self.wire = Wire(stream)
        self.ids = 0
        self.open: dict[int, tuple[trio.Event, list[tuple[int, bytes]]]] = {}

    async def run(self) -> None:
        """Take answers until the stream ends; then no request has one any more."""
        try:
            while True:
                kind, request, payload = await self.wire.receive()
                if kind == ASKING:
                    raise Bad("malformed")
                if request in self.open:
                    event, answers = self.open[request]
                    answers.append((kind, payload))
                    event.set()
        except (Bad, EOFError):
            for event, _ in self.open.values():
                event.set()

    async def payload(self, payload: bytes, within_s: float = ANSWER_S) -> bytes:
        request, self.ids = self.ids, self.ids + 1
        event, answers = self.open[request] = (trio.Event(), list[tuple[int, bytes]]())
        try:
            await self.wire.send(ASKING, request, payload)
            with trio.fail_after(within_s):
                await event.wait()
        finally:
            del self.open[request]
        if not answers:
            raise Failed("closed")
        kind, said = answers[0]
        if kind == FAILING:
            raise Failed(said.decode("ascii"))
        return said

    async def request(self, frame: str, **fields: Any) -> Answer:
        """One request of section 3; fields that are empty are left out."""
        said = {name: value for name, value in fields.items() if value not in (0, "", b"", [])}
        answer = decode(await self.payload(encode({"frame": frame, **said})))
        if type(answer) is not dict or type(answer.get("frame")) is not str:
            raise Bad("answer_unreadable")
        return answer


class PeerNode:
    """One node of a member.

    Args:
        seed: of its transport key.
        library: begins with the genesis, which came with the coalition's file.
        decline: says the decline to an ask.
    """

    def __init__(
        self, seed: bytes, library: Library, decline: Callable[[Record, list[bytes]], Answer]
    ) -> None:
        keys = create_new_key_pair(seed)
        self.library = library
        self.decline = decline
        self.incarnation = hashlib.sha256(b"incarnation" + seed).digest()[:16]
        self.asked: list[Record] = []
        self.requests: list[str] = []
        self.positions: dict[ID, tuple[bytes, int]] = {}
        swarm: Any = new_swarm(
            key_pair=keys,
            sec_opt={NOISE: Noise(keys, noise_privkey=new_noise_key().private_key)},
            muxer_opt={YAMUX: Yamux},
        )
        own = tuple(swarm.notifees)
        self.host = BasicHost(swarm)
        # Nothing is offered, and nobody asked, beside the one protocol: no identify, no ping.
        for protocol in self.host.get_mux().get_protocols():
            if protocol is not None:
                self.host.remove_stream_handler(protocol)
        for notifee in set(swarm.notifees) - set(own):
            swarm.remove_notifee(notifee)
        self.host.set_stream_handler(REQUEST, self._answer_stream)

    @asynccontextmanager
    async def running(self, address: str, transport_key: bytes) -> AsyncGenerator[Asking]:
        """Connected with one node, by its address and the transport key that its certificate names."""
        peer = ID.from_pubkey(Ed25519PublicKey.from_bytes(transport_key))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.host.run(listen_addrs=[]))
            nursery = await stack.enter_async_context(trio.open_nursery())
            await self.host.connect(PeerInfo(peer, [Multiaddr(address)]))
            asking = Asking(await self.host.new_stream(peer, [REQUEST]))
            nursery.start_soon(asking.run)
            try:
                yield asking
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                    for connection in self.host.get_network().get_connections(peer):
                        await connection.close()
                nursery.cancel_scope.cancel()

    # Asking others

    async def pull(self, asking: Asking, peer: bytes) -> None:
        """A round of section 5: page after page, and then the authorities that are waited for."""
        place = ID(peer)
        while True:
            incarnation, position = self.positions.get(place, (b"", 0))
            page = await asking.request("feed", after=position, incarnation=incarnation)
            if page["frame"] != "page":
                raise Bad("answer_unreadable")
            for data in page.get("epochs", []):
                self.library.take_epoch(data)
            for data in page.get("records", []):
                self.library.take(data)
            now = page["incarnation"], page["position"]
            moved = self.positions.get(place) != now
            self.positions[place] = now
            if not (page.get("more") and moved):
                break
        if wanted := self.library.wanted():
            await self.fetch(asking, wanted)

    async def fetch(self, asking: Asking, ids: Iterable[bytes]) -> None:
        answer = await asking.request("fetch", ids=list(ids)[:256])
        self.take_all(answer.get("records", []))

    def take_all(self, records: Iterable[bytes]) -> int:
        return sum(self.library.take(data) for data in records)

    # Answering (section 3.1)

    async def _answer_stream(self, stream: INetStream) -> None:
        wire = Wire(stream)
        try:
            while True:
                kind, request, payload = await wire.receive()
                if kind != ASKING:
                    raise Bad("malformed")
                # One after the other: never more than one at a time, so nothing is ever refused as `busy`.
                await wire.send(ANSWERING, request, encode(self.answer(payload)))
        except (Bad, EOFError, StreamError):
            await stream.reset()

    def answer(self, payload: bytes) -> Answer:
        try:
            request = decode(payload)
            if type(request) is not dict:
                raise Bad("malformed")
            self.requests.append(str(request.get("frame")))
            match request.get("frame"):
                case "ask":
                    return self.on_ask(request)
                case "fetch":
                    held = [self.library.held[i][1] for i in request["ids"] if i in self.library.held]
                    return records_answer(held)
                case "feed":
                    return self.page(request.get("incarnation", b""), request.get("after", 0))
                case "head":
                    return records_answer([])
                case "offer":
                    self.take_all(request["records"])
                    return records_answer([])
                case _:
                    raise Bad("malformed")
        except (Bad, KeyError, TypeError):
            return {"frame": "problem", "code": "frame_wrong"}

    def on_ask(self, request: Answer) -> Answer:
        self.take_all(request.get("records", []))
        asked = read_record(request["ask"])
        self.take(request["ask"])
        verified = self.library.held.get(asked.id)
        if verified is None:
            waits = asked.id in self.library.waiting
            missing = [asked.header["authority"]] if waits else []
            return declined("records_missing" if waits else "ask_unreadable", missing)
        ask = verified[0]
        self.asked.append(ask)
        wanted = [ask.body["intent"], *ask.body["relied"]]
        return self.decline(ask, [i for i in wanted if i not in self.library.held])

    def take(self, data: bytes) -> None:
        self.library.take(data)

    def page(self, incarnation: bytes, after: int) -> Answer:
        feed = self.library.feed
        if incarnation != self.incarnation or after > len(feed):
            after = 0
        records: list[bytes] = []
        epochs: list[bytes] = []
        size, position = 0, after
        for record_id in feed[after : after + PAGE_RECORDS_MAX]:
            record, data = self.library.held[record_id]
            size += len(data)
            if size > PAGE_BYTES_MAX and position > after:
                break
            (epochs if record.kind == "epoch" else records).append(data)
            position += 1
        page: Answer = {"frame": "page", "incarnation": self.incarnation, "position": position}
        if records:
            page["records"] = records
        if epochs:
            page["epochs"] = epochs
        if position < len(feed):
            page["more"] = True
        return page


def records_answer(records: list[bytes]) -> Answer:
    return {"frame": "records", "records": records} if records else {"frame": "records"}


def declined(code: str, missing: list[bytes]) -> Answer:
    said: Answer = {"frame": "decline", "code": code}
    return {**said, "missing": missing[:256]} if missing else said
