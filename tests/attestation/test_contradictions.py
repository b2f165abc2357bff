"""What an author may say only once, the proof that it said two things, and what verifies such a proof."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import msgspec
import pytest

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.holdings import CONTRADICTIONS_MAX, Holdings
from comity.attestation.signing import sign_record
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import accused_by, contradict, proof_of
from comity.protocol.encoding import decode_value, encode
from comity.protocol.envelope import SignedRecord, assemble, body_reference, decode_record
from comity.protocol.errors import VerificationError
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ACTUATION_BYTES_MAX, ASK_BODY_BYTES_MAX, VOTE_BYTES_MAX
from comity.protocol.verified import VerifiedRecord
from stories import permit_of
from world import BOARD, ENGINE, INSTITUTE, NORTH, SOUTH, START, YEAR, Organization, World


class Said:
    """An intent of the institute that was decided, and a hand that says things twice."""

    def __init__(self) -> None:
        self.world = World()
        self.institute = self.world[INSTITUTE]
        self.pursuit = self.world.decide(self.institute.intent("plain/a"))
        self.vote: VerifiedRecord[Any] = self.pursuit.votes[SOUTH]

    def held(self, record: SignedRecord) -> VerifiedRecord[Any]:
        self.institute.holdings.admit([record])
        found = self.institute.holdings.get(record.id)
        assert found is not None
        return found

    def another_vote(self, by: Author | None = None, **changes: Any) -> SignedRecord:
        body = msgspec.structs.replace(
            self.vote.body, **{"salt": NO_SALT, "expires": self.vote.body.expires - 1, **changes}
        )
        return (by or self.world[SOUTH].node).write("vote", body, START, subject=(body.intent,))

    def another_ask(self, by: Author | None = None, **changes: Any) -> SignedRecord:
        body = msgspec.structs.replace(
            self.pursuit.ask.body, **{"salt": NO_SALT, "relied": (sha256(b"x"),), **changes}
        )
        return (by or self.institute.node).write("ask", body, START, subject=(body.intent,))

    def proof(self, one: SignedRecord, other: SignedRecord, **changes: Any) -> SignedRecord:
        """A proof by the north, whatever it shows."""
        said = sorted((one, other), key=lambda r: r.id)
        rule = {"vote": "two_votes", "ask": "two_asks"}.get(one.header.kind, "two_actuations")
        body = Misbehaviour(salt=NO_SALT, rule=rule, records=tuple(r.encoded() for r in said))
        subject = changes.pop("subject", (one.id, other.id))
        body = msgspec.structs.replace(body, **changes)
        return self.world[NORTH].node.write("misbehaviour", body, START, subject=subject)


def holdings_of(world: World) -> Holdings:
    holdings = Holdings(ENGINE)
    holdings.adopt(world.genesis)
    holdings.admit(world.common)
    return holdings


def reason_of(world: World, record: SignedRecord) -> str:
    ((_, problem),) = holdings_of(world).admit([record]).rejected
    assert isinstance(problem, VerificationError)
    return problem.reason


def test_two_votes_two_asks_and_two_actuations_contradict_each_other() -> None:
    said = Said()
    twins = [
        (said.vote, said.held(said.another_vote())),
        (said.pursuit.ask, said.held(said.another_ask())),
        tuple(
            said.held(
                said.institute.actuate(permit_of(said.world, said.institute.intent("plain/b", run=run)))
            )
            for run in ("one", "two")
        ),
    ]
    for (one, other), rule in zip(twins, ("two_votes", "two_asks", "two_actuations"), strict=True):
        assert contradict(one, other)
        assert contradict(other, one)
        assert not contradict(one, one)
        body = proof_of(one, other)
        assert body is not None
        assert body.rule == rule
        assert proof_of(other, one) == body
        assert accused_by(body) == {one.member}
        proof = said.world[NORTH].node.write("misbehaviour", body, START, subject=(one.id, other.id))
        assert [r.id for r in holdings_of(said.world).admit([proof]).admitted] == [proof.id]
    assert proof_of(said.vote, said.pursuit.ask) is None


@pytest.mark.parametrize("name", ["t", "intent", "scope", "key", "member", "kind"])
def test_what_may_be_said_beside_each_other(name: str) -> None:
    """Another time, intent or scope, another key, another member: each votes for itself."""
    said = Said()
    other_values = {"t": START + 1, "intent": sha256(b"other"), "scope": sha256(b"another scope")}
    changes: dict[str, Any] = {key: value for key, value in other_values.items() if key == name}
    by = None
    if name == "key":
        south = said.world[SOUTH]
        certificate = south.certify("n2")
        said.world.tell(certificate)
        by = south.node_author("n2", certificate)
    elif name == "member":
        by = said.world[NORTH].node
    other = said.another_ask() if name == "kind" else said.another_vote(by, **changes)
    assert not contradict(said.vote, said.held(other))
    if name not in ("key", "kind"):
        assert reason_of(said.world, said.proof(said.vote.record, other)) == "proof_wrong"


def test_a_proof_that_shows_nothing_is_none() -> None:
    said = Said()
    one, other = said.vote.record, said.another_vote()
    broken = assemble(other.header_bytes, other.body_bytes, (replace(other.signatures[0], value=bytes(64)),))
    foreign = Author(
        SOUTH, said.world[SOUTH].node.signer, bytes(32), said.world[SOUTH].certificate.id, sha256(b"x")
    )
    wrong = {
        "the same twice": said.proof(one, one, records=(one.encoded(), one.encoded()), subject=(one.id,)),
        "another rule": said.proof(one, other, rule="two_asks"),
        "no records": said.proof(one, other, records=(b"one", b"two")),
        "a broken signature": said.proof(one, broken),
        "without its body": said.proof(one, assemble(other.header_bytes, None, other.signatures)),
        "of another coalition": said.proof(one, said.another_vote(foreign)),
        "about something else": said.proof(one, other, subject=(one.id, sha256(b"x"))),
        "about one more": said.proof(one, other, subject=(one.id, other.id, sha256(b"x"))),
        "about nothing": said.proof(one, other, subject=()),
        "of proofs": said.proof(
            said.proof(one, other), said.proof(other, one, rule="two_asks"), rule="two_votes"
        ),
    }
    assert {name: reason_of(said.world, proof) for name, proof in wrong.items()} == dict.fromkeys(
        wrong, "proof_wrong"
    )
    assert holdings_of(said.world).admit([said.proof(one, other)]).admitted


def test_a_proof_of_a_rule_of_a_later_version_is_held_and_shows_nothing() -> None:
    said = Said()
    proof = said.proof(said.vote.record, said.another_vote(), rule="two_of_something", records=(b"1", b"2"))
    holdings = holdings_of(said.world)
    (held,) = holdings.admit([proof]).admitted
    assert accused_by(held.body) == frozenset()
    assert holdings.discounted(said.world.genesis.id) == frozenset()


def test_a_proof_waits_for_who_vouches_for_what_it_shows() -> None:
    said = Said()
    proof = said.proof(said.vote.record, said.another_vote())
    holdings = Holdings(ENGINE)
    holdings.adopt(said.world.genesis)
    holdings.admit([r for r in said.world.common if r.header.member != SOUTH])
    assert holdings.admit([proof]).parked == (proof,)
    assert holdings.authorities_wanted() == (said.world[SOUTH].certificate.id,)
    admitted = holdings.admit([said.world[SOUTH].certificate]).admitted
    assert proof.id in {record.id for record in admitted}
    assert holdings.discounted(said.world.genesis.id) == {SOUTH}


def test_what_is_noticed_does_not_depend_on_the_order() -> None:
    said = Said()
    votes = [said.vote.record, said.another_vote()]
    proof = said.proof(*votes)
    everything = [said.pursuit.intent.record, said.pursuit.ask.record, *votes]
    for ordered in permutations(everything):
        holdings = holdings_of(said.world)
        holdings.admit(ordered)
        (pair,) = holdings.take_contradictions()
        assert {record.id for record in pair} == {vote.id for vote in votes}
        assert holdings.take_contradictions() == ()
    for ordered in permutations([proof, *votes]):
        holdings = holdings_of(said.world)
        holdings.admit(ordered)
        assert holdings.take_contradictions() == (), "what is proved needs no other proof"
        assert holdings.discounted(said.world.genesis.id) == {SOUTH}


def test_a_second_actuation_of_a_slot_is_noticed_also_against_the_store() -> None:
    said = Said()
    one, two = (
        said.institute.actuate(permit_of(said.world, said.institute.intent("plain/b", run=run)))
        for run in ("one", "two")
    )
    stored = {one.id: one}
    holdings = Holdings(
        ENGINE, stored.get, load_slot=lambda slot: [one] if slot[1].endswith("plain/b") else []
    )
    holdings.adopt(said.world.genesis)
    holdings.admit([*said.world.common, two])
    (pair,) = holdings.take_contradictions()
    assert {record.id for record in pair} == {one.id, two.id}


def test_who_contradicts_itself_without_end_fills_nothing() -> None:
    said = Said()
    votes = [said.another_vote(expires=START + 1 + number) for number in range(CONTRADICTIONS_MAX + 20)]
    holdings = holdings_of(said.world)
    holdings.admit(votes)
    assert len(holdings.take_contradictions()) == CONTRADICTIONS_MAX
    north = said.world[NORTH]
    other = said.world.decide(north.intent("plain/n")).votes[BOARD]
    body = msgspec.structs.replace(other.body, salt=NO_SALT, expires=other.body.expires - 1)
    twin = said.world[BOARD].node.write("vote", body, START, subject=(body.intent,))
    holdings = holdings_of(said.world)
    holdings.admit([other.record, twin, *votes])
    assert BOARD in {one.member for one, _ in holdings.take_contradictions()}


def test_a_record_that_shows_nothing_is_no_proof_of_anything() -> None:
    """A liar that publishes one of a rule which nobody knows, about its own two votes, is proven all the same."""
    said = Said()
    votes = [said.vote.record, said.another_vote()]
    blank = said.proof(*votes, rule="two_of_something", records=(b"", b""))
    for ordered in permutations([blank, *votes]):
        holdings = holdings_of(said.world)
        holdings.admit(ordered)
        (pair,) = holdings.take_contradictions()
        assert {record.id for record in pair} == {vote.id for vote in votes}


def test_a_key_that_counts_no_more_discounts_nobody() -> None:
    """Neither a vote under another epoch, nor of before it, nor of a key that it does not have."""
    said = Said()
    epoch = said.world.genesis.id
    others: tuple[dict[str, Any], ...] = ({"epoch": sha256(b"other")}, {"t": START - 2 * YEAR})
    for changes in others:
        one, other = (said.another_vote(**changes, expires=START + number) for number in (1, 2))
        holdings = holdings_of(said.world)
        assert holdings.admit([said.proof(one, other)]).admitted
        assert holdings.discounted(epoch) == frozenset(), changes
    lapsed = said.world[SOUTH].certify("n2", not_after=START)
    by = said.world[SOUTH].node_author("n2", lapsed)
    one, other = (said.another_vote(by, expires=START + number) for number in (1, 2))
    holdings = holdings_of(said.world)
    assert holdings.admit([lapsed, said.proof(one, other)]).admitted
    assert holdings.discounted(epoch) == frozenset()
    assert holdings.discounted(sha256(b"no epoch")) == frozenset()


def test_two_of_the_largest_fit_into_a_proof() -> None:
    """Nobody escapes a proof by padding what it says with fields of a later version."""
    said = Said()
    institute = said.institute
    made = institute.holdings.get(institute.actuate(permit_of(said.world, institute.intent("plain/b"))).id)
    assert made is not None
    largest = {
        "vote": (said.vote, said.world[SOUTH]),
        "ask": (said.pursuit.ask, institute),
        "actuation": (made, institute),
    }
    for kind, (record, author) in largest.items():
        twins = [padded(record.record, author, extra) for extra in (0, 1)]
        one, other = (said.held(twin) for twin in twins)
        assert contradict(one, other), kind
        assert proof_of(one, other) is not None, kind
        too_large = padded(record.record, author, -1)
        assert institute.holdings.admit([too_large]).rejected, kind


def padded(record: SignedRecord, author: Organization, extra: int) -> SignedRecord:
    """The record with one field more, so that its body is as long as may be; with -1 a byte longer."""
    limit = {"vote": VOTE_BYTES_MAX, "ask": ASK_BODY_BYTES_MAX, "actuation": ACTUATION_BYTES_MAX}[
        record.header.kind
    ]
    fields: Any = decode_value(record.body_bytes or b"", limit)
    wide = len(encode({**fields, "zz": bytes(70_000)})) - 70_000
    room = limit - wide - (2 if limit == VOTE_BYTES_MAX else 0) + (1 if extra < 0 else 0)
    if limit == VOTE_BYTES_MAX:
        room = limit - len(encode({**fields, "zz": bytes(300)})) + 300 + (1 if extra < 0 else 0)
    body = encode({**fields, "zz": bytes([max(extra, 0)]) * room})
    assert len(body) == limit + (1 if extra < 0 else 0)
    header = msgspec.structs.replace(record.header, body=body_reference(body))
    return sign_record(header, body, author.node.signer)


def test_what_a_proof_shows_is_read_from_its_own_records() -> None:
    """Whoever holds the proof needs neither of both records."""
    said = Said()
    proof = said.proof(said.vote.record, said.another_vote())
    held = holdings_of(said.world)
    (verified,) = held.admit([decode_record(proof.encoded())]).admitted
    assert accused_by(verified.body) == {SOUTH}
    assert held.get(said.vote.id) is None
