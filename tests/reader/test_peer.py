"""A peer that was written from docs/spec alone is a member like any other: over real connections, with a real node.

`peer.py` shares no code with the product. Its keys are a member's in the coalition of the tests; its node's
certificate came to the other node as with the coalition's file.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from libp2p.network.stream.exceptions import StreamError
from nacl.signing import SigningKey

from comity.gossip.libp2p_transport import Libp2pTransport
from comity.node.core import Core, Identity
from comity.node.service import Service, peers_from
from comity.node.store_memory import MemoryStore
from comity.protocol.identifiers import sha256
from nodes import Inline, TrioClock, until
from stories import permit_of
from world import ENGINE, NORTH, SOUTH, START, World

HERE = Path(__file__).parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(HERE))
    peer: Any = import_module("peer")
    reader: Any = import_module("reader")
    records: Any = import_module("reader_records")
    forms: Any = import_module("reader_forms")

pytestmark = pytest.mark.trio
WITHIN_S = 20.0
NORTH_SEED, SOUTH_SEED = sha256(b"transport of north"), sha256(b"transport of south")
DAY = 86_400


def transport_key(seed: bytes) -> bytes:
    return bytes(SigningKey(seed).verify_key)


def secret(name: str) -> SigningKey:
    """The key of the tests' coalition that has this name."""
    return SigningKey(sha256(f"test key {name}".encode()))


@dataclass
class Meeting:
    """A node of the product, of one member, and a peer by the pages, of the other."""

    world: World = field(default_factory=lambda: World((NORTH, SOUTH)))
    missing: list[bytes] = field(default_factory=list)
    code: str = "governance_missing"

    def __post_init__(self) -> None:
        north, south = self.world[NORTH], self.world[SOUTH]
        self.certificates = [
            north.certify("n2", transport_key=transport_key(NORTH_SEED)),
            south.certify("n2", transport_key=transport_key(SOUTH_SEED)),
        ]
        self.world.tell(*self.certificates)
        north.node = north.node_author("n2", self.certificates[0])
        self.automation = north.credential("automation/two", kind="automation", held_by="node/n2")
        self.clock = TrioClock()
        identity = Identity(NORTH, f"spiffe://{NORTH}/node/n2", north.node)
        self.store = MemoryStore(b"incarnation of north")
        self.core = Core(identity, self.store, self.clock, ENGINE, (self.world.genesis,), catches_up=True)
        self.core.admit((*self.world.common, *self.certificates, self.automation))
        self.core.store.put([self.world.genesis])
        self.core.drain()
        self.service = Service(self.core, Inline())
        self.transport = Libp2pTransport(
            NORTH_SEED, ("/ip4/127.0.0.1/tcp/0",), self.service.handle_request, Random(1)
        )
        self.transport.set_peers(peers_from(self.core, {}))
        genesis = self.world.genesis.encoded()
        self.peer = peer.PeerNode(SOUTH_SEED, peer.Library(genesis), self.decline)
        self.library = self.peer.library
        self.take(self.certificates[1].encoded())
        self.organization = peer.Pen(SOUTH, secret(SOUTH), self.library.coalition)
        self.node = peer.Pen(
            SOUTH, secret(f"{SOUTH}/node/n2"), self.library.coalition, self.certificates[1].id
        )

    def take(self, data: bytes) -> None:
        """The peer's own records, which it has before anybody asks."""
        assert self.library.take(data)

    def decline(self, _ask: Any, missing: list[bytes]) -> Any:
        self.missing += missing
        return peer.declined("records_missing", missing) if missing else peer.declined(self.code, [])

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Any]:
        """The stream on which the peer asks, while the node asks on its own."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.run)
            await nursery.start(self.service.run, self.transport)
            with trio.fail_after(WITHIN_S):
                async with self.peer.running(
                    self.transport.addresses[0], transport_key(NORTH_SEED)
                ) as asking:
                    yield asking
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition, WITHIN_S)


async def test_it_gets_what_a_node_holds_and_verifies_it() -> None:
    """`feed` to its end, `fetch`, and `head` with the certificate of what was made."""
    meeting = Meeting()
    north = meeting.world[NORTH]
    meeting.world.tell(meeting.automation)
    permit = permit_of(meeting.world, north.intent("plain/a", who="automation/two"))
    made = north.actuate(permit)
    needed = [r for r in (north.holdings.get(i) for i in north.holdings._execution) if r is not None]
    meeting.core.admit(r.record for r in needed)
    async with meeting.connected() as asking:
        await meeting.peer.pull(asking, b"north")
        library = meeting.library
        assert not library.waiting
        assert {r.id for r in (*meeting.world.common, *meeting.certificates)} <= library.held.keys()
        page = await asking.request("feed", incarnation=b"incarnation of north", after=10**6)
        assert page["records"], "a position behind the end begins at the beginning"

        answer = await asking.request("fetch", ids=[made.id, sha256(b"nothing"), permit.id])
        said = [records.read_record(data).id for data in answer["records"]]
        assert said == [made.id, permit.id]

        answer = await asking.request("head", asset=f"{NORTH}/plain/a")
        meeting.peer.take_all(answer["records"])
        assert not library.waiting
        held = {i: record for i, (record, _) in library.held.items()}
        epochs = {epoch.id: epoch for epoch in library.chain}
        bundle = reader.Bundle(
            library.coalition, [made.id], library.chain, held, epochs, vouched=library.vouched
        )
        reader.check_actuation(bundle, held[made.id])
        reader.check_permit(bundle, held[permit.id], held[held[permit.id].body["intent"]], library.chain[0])
        assert await asking.request("head", asset=f"{NORTH}/plain/b") == {"frame": "records"}


async def test_a_node_pulls_from_it_and_then_votes() -> None:
    """A node that begins goes through its pages first; what it says there is held."""
    meeting = Meeting()
    policy = meeting.organization.write(
        "owner_policy", START, {"consents": [{"data_class": "*", "mode": "live"}]}, name="owner", number=1
    )
    meeting.take(policy)
    assert not meeting.core.voter.votes(meeting.clock.now())
    async with meeting.connected():
        await meeting.until(lambda: meeting.core.voter.votes(meeting.clock.now()))
        assert "feed" in meeting.peer.requests
        assert meeting.core.holdings.get(records.read_record(policy).id) is not None


async def test_its_vote_is_asked_for_and_its_decline_is_heard() -> None:
    """It names what it lacks, is sent that with the same ask, and declines by a code."""
    meeting = Meeting()
    meeting.take(meeting.certificates[0].encoded())
    async with meeting.connected():
        await meeting.until(lambda: "feed" in meeting.peer.requests)
        intent = meeting.world[NORTH].intent("plain/a", who="automation/two")
        await meeting.service.call(lambda: meeting.core.file(intent, ()))
        # It has gone through no page yet: what the ask relies on is missing, and comes with the second.
        await meeting.until(lambda: len(meeting.peer.asked) == 2)
        first, second = meeting.peer.asked
        assert first.id == second.id
        assert meeting.automation.id in meeting.missing
        assert meeting.automation.id in meeting.library.held
        pursuit = meeting.core.requester.pursuit(intent.id)
        assert pursuit is not None
        await meeting.until(lambda: pursuit.declined)
        assert pursuit.declined == {SOUTH: meeting.code}


async def test_what_it_offers_is_held() -> None:
    meeting = Meeting()
    revoked = meeting.world[SOUTH].certificate
    said = {"reason": "key_lost"}
    revocation = meeting.organization.write("revocation", START, said, subject=[revoked.id])
    async with meeting.connected() as asking:
        assert await asking.request("offer", records=[revocation]) == {"frame": "records"}
        held = meeting.core.holdings.get(records.read_record(revocation).id)
        assert held is not None
        assert held.is_adverse()


def asked_by_the_peer(meeting: Meeting) -> tuple[bytes, bytes, bytes]:
    """Credential, intent and ask, written by the pages."""
    credential = meeting.organization.write(
        "credential",
        START - 500,
        {
            "subject": f"spiffe://{SOUTH}/automation/two",
            "subject_kind": "automation",
            "key": meeting.node.public,
            "classes": ["data-steward"],
            "actions": ["materialize"],
            "assets": [f"{SOUTH}/**"],
            "realms": ["production"],
            "not_before": START - DAY,
            "not_after": START + DAY,
        },
    )
    intent = meeting.node.write(
        "intent",
        START,
        {
            "requester": f"spiffe://{SOUTH}/automation/two",
            "credential": records.read_record(credential).id,
            "purpose": "care",
            "code": {"digest": sha256(b"code")},
            "run": {"orchestrator": "dagster", "run": "run-1", "step": "step", "job": "job"},
            "classes": [{"asset": f"{SOUTH}/plain/a", "items": [{"generation": 1}], "reversible": True}],
            "expires": START + DAY,
            "attempts_max": 1,
        },
    )
    intent_id = records.read_record(intent).id
    epoch = meeting.library.chain[-1].id
    # Later than the node's start, by more than t may lie ahead.
    t = max(meeting.clock.now(), meeting.clock.started + 6)
    ask = meeting.node.write(
        "ask",
        t,
        {
            "intent": intent_id,
            "t": t,
            "epochs": [{"scope": meeting.library.coalition, "epoch": epoch}],
            "relied": [records.read_record(credential).id],
        },
        subject=[intent_id],
    )
    return credential, intent, ask


async def test_a_node_votes_on_what_it_asks() -> None:
    """Intent and ask by the pages: the node names what it lacks, and its vote counts by the pages."""
    meeting = Meeting()
    async with meeting.connected() as asking:
        await meeting.peer.pull(asking, b"north")
        await meeting.until(lambda: meeting.core.voter.votes(meeting.clock.now()))
        credential, intent, ask = asked_by_the_peer(meeting)
        answer = await asking.request("ask", ask=ask, records=[intent])
        wanted = [records.read_record(credential).id]
        assert answer == {
            "frame": "decline",
            "code": "records_missing",
            "detail": answer["detail"],
            "missing": wanted,
        }
        answer = await asking.request("ask", ask=ask, records=[intent, credential])
        assert answer["frame"] == "vote", answer
        assert await asking.request("ask", ask=ask) == answer, "asked again it answers with the same bytes"
        library = meeting.library
        assert meeting.peer.take_all([credential, intent, ask, answer["vote"]]) == 4
        held = {i: record for i, (record, _) in library.held.items()}
        vote_id, intent_id = (records.read_record(data).id for data in (answer["vote"], intent))
        epoch = library.chain[0]
        bundle = reader.Bundle(
            library.coalition, [], [epoch], held, {epoch.id: epoch}, vouched=library.vouched
        )
        asked = held[records.read_record(ask).id]
        as_named = records.Record(
            asked.id, asked.header, [], b"", b"", {"ask": asked.id, "intent": intent_id, "t": asked.body["t"]}
        )
        vote = reader.check_vote(bundle, vote_id, as_named, held[intent_id], epoch)
        assert (vote.header["member"], vote.header["at"]) == (NORTH, asked.body["t"])
        assert vote.body["judgements"][0]["outcome"]["mode"] == "execute"
        decline = await asking.request("ask", ask=ask, records=[b"no record"])
        assert (decline["frame"], decline["code"]) == ("problem", "frame_wrong")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        forms.encode({"frame": "unheard"}),
        forms.encode({"frame": "vote", "vote": b""}),
        forms.encode({"frame": "offer", "records": [b"no record"]}),
        forms.encode({"frame": "fetch", "ids": [b"short"]}),
        b"\x82" + forms.encode({"frame": "feed"})[1:] + forms.encode("after") + b"\xcc\x01",
    ],
)
async def test_what_is_no_request_is_a_problem(payload: bytes) -> None:
    meeting = Meeting()
    async with meeting.connected() as asking:
        answer = forms.decode(await asking.payload(payload))
        assert (answer["frame"], answer["code"]) == ("problem", "frame_wrong")
        # The stream is as good as before; a field that is not known is passed over.
        assert (await asking.request("feed", unheard=1))["frame"] == "page"


async def test_more_requests_than_a_node_answers_at_once_are_busy() -> None:
    meeting = Meeting()
    async with meeting.connected() as asking:
        count = 2 * peer.IN_FLIGHT_MAX
        feed = forms.encode({"frame": "feed"})
        said: dict[int, tuple[trio.Event, list[tuple[int, bytes]]]] = {
            n: (trio.Event(), []) for n in range(1_000, 1_000 + count)
        }
        asking.open.update(said)
        await asking.wire.stream.write(b"".join(peer.framed(peer.ASKING, n, feed) for n in said))
        for event, _ in said.values():
            await event.wait()
        answers = [answer[0] for _, answer in said.values()]
        busy = [answer for answer in answers if answer == (peer.FAILING, b"busy")]
        assert busy
        assert len(answers) - len(busy) >= peer.IN_FLIGHT_MAX


@pytest.mark.parametrize(
    "data",
    [
        (peer.LENGTH_MAX + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x01\x90",
        peer.framed(peer.ANSWERING, 1, b""),
        peer.framed(peer.ASKING, 1, b"").replace(b"\x94\x01", b"\x94\x02", 1),
    ],
    ids=["too long", "no array of four", "an answer", "another version"],
)
async def test_a_stream_that_breaks_the_rules_is_ended(data: bytes) -> None:
    meeting = Meeting()
    async with meeting.connected() as asking:
        stream = await meeting.peer.host.new_stream(asking.wire.stream.muxed_conn.peer_id, [peer.REQUEST])
        await stream.write(data)
        with contextlib.suppress(StreamError):
            assert await stream.read(1) == b""
