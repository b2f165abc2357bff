"""Attacks by much of something: mentions, words, classes, copies. What is right is decided all the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from comity.attestation import judgement as judgement_module
from comity.attestation import tally as tally_module
from comity.attestation.authoring import NO_SALT
from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import Holdings
from comity.attestation.lineage import read_input
from comity.attestation.offline import verify_bundle
from comity.attestation.parking import PARKED_BYTES_MAX, PARKED_MAX, SOURCES_MAX, Parking
from comity.attestation.requester import AskAgain, NewsArrived
from comity.attestation.roots import Roots
from comity.attestation.tally import Permitted, tally
from comity.attestation.voter import AskArrived, SendVote
from comity.protocol.envelope import SignedRecord, assemble
from comity.protocol.errors import VerificationError
from comity.protocol.execution import Ask, Item, ItemClass, Observation, ScopeEpoch
from comity.protocol.governance import ReferenceValues
from comity.protocol.identifiers import sha256
from comity.protocol.limits import CLASSES_MAX, RELIED_MAX, VOTE_BYTES_MAX
from comity.protocol.outcome import Cause, Mode, Obligation
from stories import permit_of
from world import BOARD, COLUMNS, ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, World

DPO = "data-protection-officer"
THIRTEEN = tuple(sorted((*FOUR, *(f"m{number}.example" for number in range(9)))))


def roots(world: World) -> Roots:
    return Roots(world.genesis.id, 0, world.genesis.id, "x", START)


def test_an_ask_that_mentions_one_input_thousands_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is checked once for the judgement, not once for each mention."""
    world = World()
    north = world[NORTH]
    made = north.actuate(permit_of(world, north.intent("plain/a")))
    items = tuple(Item(generation=1, partition=str(n), inputs=(made.id,) * 64) for n in range(100))
    groups = tuple(
        ItemClass(asset=f"{NORTH}/plain/big-{n}", items=items, inputs=(made.id,), reversible=True)
        for n in range(2)
    )
    intent = north.intent(groups=groups, run="again")
    read: list[bytes] = []

    def counted(actuation_id: bytes, *rest: Any) -> Any:
        read.append(actuation_id)
        return read_input(actuation_id, *rest)

    monkeypatch.setattr(judgement_module, "read_input", counted)
    pursuit = world.decide(intent)
    assert pursuit.standing == "permitted"
    assert read == [made.id] * len(FOUR)


def test_a_vote_that_names_an_intent_as_its_ask() -> None:
    """A stranger's bundle of it is refused with a reason."""
    world = World()
    north = world[NORTH]
    permit = permit_of(world, north.intent("plain/a"))
    vote = north.holdings.get(permit_body(north, permit).votes[0])
    assert vote is not None
    ask, intent = vote.body.ask, vote.body.intent
    for changes in ({"ask": intent}, {"intent": ask}, {"ask": vote.authority}, {"intent": vote.authority}):
        body = msgspec.structs.replace(vote.body, **changes)
        spliced = north.node.write("vote", body, at=START, subject=(intent,))
        north.holdings.admit([spliced])
        bundle = export_bundle((spliced.id,), north.holdings).encoded()
        with pytest.raises(VerificationError, match=r"vote_wrong|record_missing"):
            verify_bundle(bundle, roots(world), ENGINE)


def permit_body(organization: Any, permit: SignedRecord) -> Any:
    held = organization.holdings.get(permit.id)
    assert held is not None
    return held.body


@pytest.mark.parametrize("columns", [(), COLUMNS])
def test_as_many_outputs_as_an_intent_may_have_are_judged(columns: tuple[str, ...]) -> None:
    world = World()
    north = world[NORTH]
    names = [f"plain/asset_number_{n}" for n in range(CLASSES_MAX)]
    pursuit = world.decide(north.intent(*names, columns=columns, purpose="survival_study"))
    assert (pursuit.standing, pursuit.declined) == ("permitted", {})


def test_what_no_vote_has_room_for_is_refused_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence would be `no_quorum` for a week. Whoever judges again arrives at the same vote."""
    monkeypatch.setattr("comity.attestation.voter.VOTE_BYTES_MAX", 2_000)
    world = World()
    north = world[NORTH]
    pursuit = world.decide(
        north.intent(*[f"plain/a{n}" for n in range(8)], columns=COLUMNS, purpose="survival_study")
    )
    assert pursuit.standing == "refused"
    assert {cause.code for cause in pursuit.causes} == {"vote_large"}
    assert pursuit.refusal is not None
    bundle = export_bundle((pursuit.refusal.id,), north.holdings).encoded()
    assert verify_bundle(bundle, roots(world), ENGINE).level == "re-judged"


def test_columns_that_policy_classes_and_an_intent_does_not_declare() -> None:
    """Which columns may be written is not evaded by naming none."""
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("released", columns=(), purpose="survival_study"))
    assert pursuit.standing == "refused"
    assert "columns_undeclared" in {cause.code for cause in pursuit.causes}
    declared = world.decide(north.intent("released", columns=COLUMNS, purpose="survival_study", run="run-2"))
    assert declared.standing == "permitted"


def notes_of(pursuit: Any) -> list[Cause]:
    return [
        cause
        for vote in pursuit.votes.values()
        for judgement in vote.body.judgements
        for cause in judgement.outcome.causes
        if cause.code == "approval_not_counted"
    ]


def approved(world: World, flood: list[SignedRecord]) -> str:
    """How an intent that needs an approval stands after it, where somebody has published a flood."""
    north, board = world[NORTH], world[BOARD]
    world.tell(board.credential("operator/dpo", classes=(DPO,), actions=("approve",), assets=("*/**",)))
    world.tell(*flood)
    intent = north.intent("pooled")
    assert world.decide(intent).standing == "deferred"
    world.tell(board.approve("operator/dpo", intent))
    for at, event in ((START + 20, NewsArrived()), (START + 40, AskAgain(intent.id))):
        world.carry(north.requester, north.requester.handle(at, event), at, frozenset())
    pursuit = north.requester.pursuit(intent.id)
    assert pursuit is not None
    return pursuit.standing


def test_reference_values_of_one_member_crowd_nothing_out_of_an_ask() -> None:
    for publishers in ((), (SOUTH,)):
        world = World(publishers=publishers)
        flood = [
            world[SOUTH].owner.write(
                "reference_values",
                ReferenceValues(salt=NO_SALT, code=(sha256(str(n).encode()),)),
                START - 9,
                name=str(n),
            )
            for n in range(RELIED_MAX + 4)
        ]
        quiet = approved(World(publishers=publishers), [])
        assert approved(world, flood) == quiet == "permitted"


def test_approvals_of_one_member_crowd_no_other_out_of_an_ask() -> None:
    world = World()
    south = world[SOUTH]
    north_intent = world[NORTH].intent("pooled")
    body = Observation(salt=NO_SALT, claim="approval", shown=north_intent.header.body.digest)
    flood = [
        south.node.write("observation", body, START - n, subject=(north_intent.id,), outcome="approved")
        for n in range(RELIED_MAX)
    ]
    world.tell(north_intent)
    assert approved(world, flood) == "permitted"


def test_worthless_approvals_of_a_liar_say_little_in_honest_votes() -> None:
    """They are noted where something waits for approvals, once for each member, and never where nothing does."""
    world = World()
    north, south = world[NORTH], world[SOUTH]
    waiting = north.intent("pooled")
    right = north.intent(*[f"plain/a{n}" for n in range(10)], columns=COLUMNS, purpose="survival_study")
    for intent in (waiting, right):
        world.tell(intent)
        for number in range(8):
            body = Observation(salt=NO_SALT, claim="approval", not_after=number)
            world.tell(south.node.write("observation", body, START, subject=(intent.id,), outcome="approved"))
    permitted = world.decide(right)
    assert permitted.standing == "permitted"
    assert notes_of(permitted) == []
    deferred = world.decide(waiting)
    assert [note.parameters["member"] for note in notes_of(deferred)] == [SOUTH] * len(deferred.votes)


def test_a_vote_that_differs_costs_its_counting_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thirteen votes there are more than a thousand subsets that are a quorum; with one liar, three are tried."""
    world = World(THIRTEEN)
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/a"))
    assert pursuit.ask is not None
    votes: list[Any] = []
    for member in world.members.values():
        for effect in member.voter.handle(START, AskArrived(pursuit.ask.record, pursuit.attached)):
            if isinstance(effect, SendVote):
                north.holdings.admit([effect.vote])
                votes.append(north.holdings.get(effect.vote.id))
    outcome = votes[0].body.judgements[0].outcome
    lie = msgspec.structs.replace(
        outcome, mode=Mode.RESTRICT, causes=(Cause(code="x"),), obligations=(Obligation(code="o"),)
    )
    judgement = msgspec.structs.replace(votes[0].body.judgements[0], outcome=lie)
    liar = pursuit_vote(world, pursuit, judgement)
    tried = 0
    real = tally_module._claim

    def counted(*rest: Any) -> Any:
        nonlocal tried
        tried += 1
        return real(*rest)

    monkeypatch.setattr(tally_module, "_claim", counted)
    result = tally([liar, *votes[1:]], pursuit.ask, pursuit.intent, north.holdings.epoch)
    assert isinstance(result, Permitted)
    assert result.claims[0].mode is Mode.EXECUTE
    assert liar not in result.votes
    assert tried <= 3


def pursuit_vote(world: World, pursuit: Any, judgement: Any) -> Any:
    """A vote of the first member that says something else."""
    name = THIRTEEN[0]
    vote = next(v for v in pursuit.votes.values())
    body = msgspec.structs.replace(vote.body, judgements=(judgement,))
    record = world[name].node.write("vote", body, at=START, subject=(pursuit.intent.id,))
    holdings = world[NORTH].holdings
    holdings.admit([record])
    return holdings.get(record.id)


# Records that nobody vouches for yet


def orphan(world: World, number: int, size: int = 10) -> SignedRecord:
    """A record by a key that no record here vouches for."""
    author = world[SOUTH].node
    stray = type(author)(
        author.member, author.signer, author.salt_key, sha256(str(number).encode()), author.coalition
    )
    ask = Ask(salt=NO_SALT, intent=bytes(32), t=START, epochs=(ScopeEpoch(bytes(32), bytes(32)),), relied=())
    relied = tuple(sorted(sha256(bytes([i])) for i in range(size)))
    return stray.write("ask", msgspec.structs.replace(ask, relied=relied), START)


def test_a_peer_fills_no_other_peers_place_for_what_waits() -> None:
    world = World()
    parking = Parking()
    honest = orphan(world, 0)
    parking.park(honest, "honest", sha256(b"0"))
    for number in range(1, PARKED_MAX + 50):
        parking.park(waiting := orphan(world, number), "flood", waiting.header.authority or b"")
    assert (honest, "honest") in parking.unpark(sha256(b"0"))
    assert len(parking.wanted()) == PARKED_MAX
    big = [orphan(world, n, size=250) for n in range(1_000, 1_600)]
    for record in big:
        parking.park(record, "bytes", record.header.authority or b"")
    held = [r for r in big if parking.unpark(r.header.authority or b"")]
    assert 0 < sum(len(r.header_bytes) + len(r.body_bytes or b"") for r in held) < PARKED_BYTES_MAX
    for number in range(SOURCES_MAX + 1):
        parking.park(honest, f"source {number}", sha256(b"0"))
    assert len(parking.unpark(sha256(b"0"))) == SOURCES_MAX


def test_a_copy_with_a_wrong_signature_takes_no_good_ones_place() -> None:
    """An id says nothing of signatures: what waits is the copy, and the good one verifies when its time comes."""
    world = World()
    north = world[NORTH]
    leaf = north.credential("operator/late", kind="person")
    spoken = north.credential("operator/below", under="operator/late", kind="person")
    wrong = tuple(forged(s) for s in spoken.signatures)
    bad = assemble(spoken.header_bytes, spoken.body_bytes, wrong)
    holdings: Holdings = world[SOUTH].holdings
    assert holdings.admit([spoken], "honest").parked == (spoken,)
    holdings.admit([bad], "liar")
    holdings.admit([bad], "honest")
    assert [r.id for r in holdings.admit([leaf], "honest").admitted] == [leaf.id, spoken.id]


def forged(signature: Any) -> Any:
    return type(signature)(signature.key, signature.suite, bytes(64))


def test_the_bound_of_a_vote_is_met() -> None:
    world = World()
    pursuit = world.decide(world[INSTITUTE].intent("plain/a"))
    assert all(
        len(v.record.body_bytes or b"") < VOTE_BYTES_MAX // CLASSES_MAX for v in pursuit.votes.values()
    )
