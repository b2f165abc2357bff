"""Attacks by members that say two things: what a proof does, to whom, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from comity.attestation.authoring import NO_SALT
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import verify_bundle
from comity.attestation.requester import VoteArrived
from comity.attestation.roots import Roots
from comity.attestation.tally import (
    Permitted,
    Undecided,
    could_be_more,
    doubtful_voters,
    permit_problem,
    tally,
)
from comity.attestation.voter import AskArrived, Decline, SendVote
from comity.protocol.contradictions import proof_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, ScopeEpoch
from comity.protocol.outcome import Mode
from next_epochs import successor
from stories import permit_of, released, share
from world import BOARD, ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, YEAR, World


def codes(pursuit: Any) -> set[str]:
    return {cause.code for cause in pursuit.causes}


def proof(world: World, one: Any, other: Any, by: str = BOARD) -> SignedRecord:
    body = proof_of(one, other)
    assert body is not None
    return world[by].node.write("misbehaviour", body, START, subject=(one.id, other.id))


def vote_of(world: World, liar: str, run: str = "lied about") -> tuple[Any, Any]:
    """Two votes of one member on one ask of the institute."""
    institute = world[INSTITUTE]
    pursuit = world.decide(institute.intent("plain/lie", run=run))
    vote = pursuit.votes[liar]
    body = msgspec.structs.replace(vote.body, salt=NO_SALT, expires=vote.body.expires - 1)
    other = world[liar].node.write("vote", body, START, subject=(pursuit.intent.id,))
    institute.holdings.admit([other])
    return vote, institute.holdings.get(other.id)


def made_twice(world: World) -> tuple[Any, Any]:
    """Two promoted actuations of one slot of the institute's, each under a sound permit."""
    institute = world[INSTITUTE]
    made = [institute.actuate(permit_of(world, institute.intent("plain/own", run=run))) for run in ("1", "2")]
    one, two = (institute.holdings.get(record.id) for record in made)
    return one, two


def test_proof_of_two_actuations_reaches_who_holds_one_only() -> None:
    """A consumer that was shown one of both refuses it as soon as anybody tells of the other."""
    world = World()
    institute = world[INSTITUTE]
    one, two = made_twice(world)
    shown = proof(world, one, two)
    for name in (NORTH, SOUTH, BOARD):
        assert world[name].holdings.get(two.id) is None or world[name].holdings.get(one.id) is None
    world.tell(shown, only=[NORTH])
    pursuit = world.decide(institute.intent("plain/x", inputs=(one.id,)))
    vote = pursuit.votes[NORTH].body
    assert vote.judgements[0].outcome.mode is Mode.REFUSE
    assert shown.id in vote.adverse
    assert pursuit.votes[SOUTH].body.judgements[0].outcome.mode is Mode.EXECUTE
    world.tell(shown)
    refused = world.decide(institute.intent("plain/y", inputs=(one.id,)))
    assert refused.standing == "refused"
    assert ("input_struck", "slot_twice") in {(c.code, c.parameters.get("reason")) for c in refused.causes}


def test_several_proofs_of_one_thing_are_named_once() -> None:
    world = World()
    one, two = made_twice(world)
    shown = [proof(world, one, two, by) for by in (NORTH, SOUTH, BOARD)]
    world.tell(*shown)
    pursuit = world.decide(world[INSTITUTE].intent("plain/x", inputs=(one.id,)))
    assert pursuit.votes[BOARD].body.adverse == (min(record.id for record in shown),)


def test_what_a_proof_did_to_a_vote_is_judged_again_by_a_stranger() -> None:
    """The bundle carries who vouches for what the proof shows, and not what it shows a second time."""
    world = World()
    institute = world[INSTITUTE]
    one, two = made_twice(world)
    shown = proof(world, one, two)
    world.tell(shown)
    refused = world.decide(institute.intent("plain/y", inputs=(one.id,)))
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    bundle = export_bundle((refused.refusal.id,), institute.holdings)
    assert shown.id in {record.id for record in bundle.records}
    report = verify_bundle(bundle.encoded(), roots, ENGINE)
    assert report.level == "re-judged"
    alone = export_bundle((shown.id,), institute.holdings)
    assert {record.header.kind for record in alone.records} == {"misbehaviour", "node_certificate"}
    (described,) = verify_bundle(alone.encoded(), roots, ENGINE).targets
    assert (described["rule"], described["accused"]) == ("two_actuations", INSTITUTE)


def test_two_asks_for_one_round() -> None:
    """Who holds the proof refuses that round, whichever of both it is asked; the next one is free."""
    world = World()
    institute, south = world[INSTITUTE], world[SOUTH]
    first = world.decide(institute.intent("plain/a"))
    body = msgspec.structs.replace(first.ask.body, salt=NO_SALT, relied=first.ask.body.relied[:-1])
    record = institute.node.write("ask", body, START, subject=(first.intent.id,))
    institute.holdings.admit([record])
    proofs = [proof(world, first.ask, institute.holdings.get(record.id), by) for by in (NORTH, BOARD)]
    shown = min(proofs, key=lambda record: record.id)
    south.reset()
    south.holdings.admit([*world.common, *proofs])
    for ask in (first.ask.record, record):
        south.voter = type(south.voter)(south.node, south.holdings, START - 3600)
        (sent,) = [
            e for e in south.voter.handle(START, AskArrived(ask, first.attached)) if isinstance(e, SendVote)
        ]
        vote = south.holdings.get(sent.vote.id)
        south.holdings.admit([sent.vote])
        vote = south.holdings.get(sent.vote.id)
        assert vote is not None
        (judgement,) = vote.body.judgements
        assert judgement.outcome.mode is Mode.REFUSE
        assert "asked_twice" in {c.code for c in judgement.outcome.causes}
        assert vote.body.adverse == (shown.id,)
    later = msgspec.structs.replace(first.ask.body, salt=NO_SALT, t=START + 1)
    honest = institute.node.write("ask", later, START + 1, subject=(first.intent.id,))
    (sent,) = [
        e
        for e in south.voter.handle(START + 1, AskArrived(honest, first.attached))
        if isinstance(e, SendVote)
    ]
    south.holdings.admit([sent.vote])
    vote = south.holdings.get(sent.vote.id)
    assert vote is not None
    assert vote.body.judgements[0].outcome.mode is Mode.EXECUTE


def test_asking_for_anothers_intent_takes_no_round_away() -> None:
    """A member that asks for everybody's intents at every t ahead would else have all of them deferred."""
    world = World()
    north, south = world[NORTH], world[SOUTH]
    intent = north.intent("plain/a")
    for member in world.members.values():
        member.holdings.admit([intent])
    body = Ask(
        salt=NO_SALT,
        intent=intent.id,
        t=START,
        epochs=(ScopeEpoch(scope=world.genesis.id, epoch=world.genesis.id),),
        relied=(),
    )
    ask = south.node.write("ask", body, START, subject=(intent.id,))
    for member in world.members.values():
        answers = member.voter.handle(START, AskArrived(ask, (intent,)))
        assert [e.code for e in answers if isinstance(e, Decline)] == ["ask_foreign"]
    assert world.decide(intent).standing == "permitted"


def test_member_shown_to_have_voted_twice_makes_up_no_quorum() -> None:
    """The others decide without it, and with one of them down nobody does."""
    world = World()
    north = world[NORTH]
    world.tell(proof(world, *vote_of(world, SOUTH)))
    pursuit = world.decide(north.intent("plain/a"))
    assert pursuit.standing == "permitted"
    voters = {pursuit_vote.member for pursuit_vote in pursuit.votes.values()} & {SOUTH}
    assert voters == {SOUTH}, "it votes, and is not counted"
    carried = {north.holdings.get(i).member for i in pursuit.permit.body.votes}  # type: ignore[union-attr]
    assert carried == set(FOUR) - {SOUTH}
    waiting = world.decide(north.intent("plain/b"), down=[BOARD])
    assert waiting.standing == "deferred"
    assert codes(waiting) == {"voted_twice"}
    assert [(need.code, need.parameters) for need in waiting.needs] == [("epoch", {"member": SOUTH})]


def test_proof_never_changes_what_a_certificate_carries() -> None:
    """Readers with and without the proof agree on what is valid; who holds it starts nothing under such a permit."""
    world = World()
    north = world[NORTH]
    before = world.decide(north.intent("plain/a"), down=[BOARD])
    assert before.standing == "permitted"
    world.tell(proof(world, *vote_of(world, SOUTH)))
    held = {i: north.holdings.get(i) for i in before.permit.body.votes}
    epoch = north.holdings.epoch
    assert permit_problem(before.permit, before.intent, held, epoch) is None  # type: ignore[arg-type]
    doubted = north.holdings.discounted(epoch.id)
    votes: list[Any] = list(held.values())
    assert doubtful_voters(votes, epoch, doubted) == (SOUTH,)
    assert doubtful_voters(votes, epoch, frozenset()) == ()
    made = north.actuate(before.permit.record)
    share(world, NORTH, INSTITUTE)
    world.tell(north.owner_policy(any_=("standing", START + YEAR)))
    after = world.decide(world[INSTITUTE].intent("plain/x", inputs=(made.id,)))
    assert after.standing == "permitted"
    assert all(vote.body.adverse == () for vote in after.votes.values())


def test_owner_shown_to_have_voted_twice_is_heard_all_the_same() -> None:
    """Its vote makes up no quorum, and its say over what it owns is its own."""
    world = World()
    institute = world[INSTITUTE]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    world.tell(proof(world, *vote_of(world, SOUTH)))
    pursuit = world.decide(institute.intent("plain/x", inputs=(source.id,)))
    assert pursuit.standing == "permitted"
    assert {institute.holdings.get(i).member for i in pursuit.permit.body.votes} == set(FOUR)  # type: ignore[union-attr]
    silent = world.decide(institute.intent("plain/y", inputs=(source.id,)), down=[SOUTH])
    assert silent.standing == "deferred"
    assert "owner_silent" in codes(silent)


@pytest.mark.parametrize("liars", [(), (SOUTH,), (SOUTH, BOARD)])
def test_tally_without_those_who_voted_twice(liars: tuple[str, ...]) -> None:
    world = World()
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    holdings = world[NORTH].holdings
    votes: list[Any] = []
    for name in FOUR:
        for effect in world[name].voter.handle(START, AskArrived(pursuit.ask.record, pursuit.attached)):
            if isinstance(effect, SendVote):
                holdings.admit([effect.vote])
                votes.append(holdings.get(effect.vote.id))
    epoch = holdings.epoch
    found = tally(votes, pursuit.ask, pursuit.intent, epoch, frozenset(liars))
    if len(liars) < 2:
        assert isinstance(found, Permitted)
        assert len({vote.member for vote in found.votes} - set(liars)) == epoch.quorum == len(found.votes)
    else:
        assert isinstance(found, Undecided)
        assert {cause.parameters["member"] for cause in found.causes} == set(liars)


def test_nobody_waits_for_a_vote_that_makes_up_no_quorum() -> None:
    """Three are enough, and one permits less; the silent fourth could lift that only if it counted."""
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/a"))
    votes: list[Any] = [vote for vote in pursuit.votes.values() if vote.member != SOUTH]
    for name in sorted({NORTH, BOARD, INSTITUTE} - {vote.member for vote in votes}):
        asked = AskArrived(pursuit.ask.record, pursuit.attached)
        (sent,) = [e for e in world[name].voter.handle(START, asked) if isinstance(e, SendVote)]
        north.holdings.admit([sent.vote])
        votes.append(north.holdings.get(sent.vote.id))
    (judgement,) = votes[0].body.judgements
    outcome = msgspec.structs.replace(judgement.outcome, mode=Mode.RESTRICT)
    narrow = msgspec.structs.replace(judgement, outcome=outcome)
    votes[0] = replace(votes[0], body=msgspec.structs.replace(votes[0].body, judgements=(narrow,)))
    epoch, silent = north.holdings.epoch, frozenset({SOUTH})
    for doubted in (frozenset[str](), silent):
        found = tally(votes, pursuit.ask, pursuit.intent, epoch, doubted)
        assert isinstance(found, Permitted)
        more = could_be_more(found, votes, pursuit.ask, pursuit.intent, epoch, silent, doubted)
        assert more is not bool(doubted)


def test_what_comes_as_a_vote_and_is_none_is_not_held() -> None:
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/a"), down=[SOUTH, BOARD])
    revocation = world[SOUTH].revoke(world[SOUTH].certificate.id)
    assert pursuit.ask is not None
    pursuit.standing = "asking"
    assert north.requester.handle(START + 1, VoteArrived(pursuit.ask.id, revocation)) == ()
    assert north.holdings.peek(revocation.id) is None


def test_an_epoch_that_all_sign_counts_its_votes_again() -> None:
    """Who belongs is the members' to say: under the epoch after it the proof is history."""
    world = World()
    world.tell(proof(world, *vote_of(world, SOUTH)))
    north = world[NORTH]
    first = north.holdings.epoch
    assert north.holdings.discounted(first.id) == {SOUTH}
    for member in world.members.values():
        member.holdings.adopt(successor(world, START - 60))
    second = north.holdings.epoch
    assert second.number == first.number + 1
    assert north.holdings.discounted(second.id) == frozenset()
    assert world.decide(north.intent("plain/a"), down=[BOARD]).standing == "permitted"
