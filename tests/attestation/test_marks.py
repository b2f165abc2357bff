"""What was made under an authority that was taken back since stands, is marked, and is judged again at its next use."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation.adverse import ANCESTOR_FAILED
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import Roots
from comity.protocol.envelope import SignedRecord
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX
from stories import permit_of, released, share
from world import BOARD, ENGINE, INSTITUTE, NORTH, RULES, SOUTH, START, YEAR, World, policy_body

WARY = RULES + (
    '@id("wary") @mode("defer") @reason("input_marked_unseen") @needs("approval(class=data-protection-officer)")\n'
    'forbid(principal, action == Action::"materialize", resource is Asset)\n'
    'when { context.input_marked } unless { context.approvals.contains("data-protection-officer") };\n'
)


def consumer(rules: str = RULES) -> tuple[World, bytes]:
    """The institute holds what Clinic North released under its automation's credential."""
    world = World(policy=policy_body(rules))
    world.tell(world[NORTH].owner_policy(released=("standing", START + YEAR)))
    made = released(world, NORTH)
    share(world, NORTH, INSTITUTE)
    return world, made.id


def credential(world: World, name: str) -> SignedRecord:
    return world[name].credentials["automation/main"][1]


def asked(world: World, made: bytes, run: str = "use") -> Any:
    return world.decide(world[INSTITUTE].intent("plain/used", inputs=(made,), run=run))


def codes(pursuit: Any) -> set[str]:
    return {cause.code for cause in pursuit.causes}


def test_what_was_made_before_stands_where_no_rule_minds() -> None:
    world, made = consumer()
    revocation = world[NORTH].revoke(credential(world, NORTH).id)
    world.tell(revocation)
    pursuit = asked(world, made)
    assert pursuit.standing == "permitted"
    # The voters knew, and say so: whoever judges again knows, too.
    assert all(vote.body.adverse == (revocation.id,) for vote in pursuit.votes.values())


def test_a_rule_may_ask_for_more_where_an_input_is_marked() -> None:
    world, made = consumer(WARY)
    assert asked(world, made).standing == "permitted"
    world.tell(world[NORTH].revoke(credential(world, NORTH).id))
    pursuit = asked(world, made, "again")
    assert pursuit.standing == "deferred"
    assert "input_marked_unseen" in codes(pursuit)


def test_one_voter_that_knows_of_a_revocation_marks_for_itself() -> None:
    world, made = consumer(WARY)
    world.tell(world[NORTH].revoke(credential(world, NORTH).id), only=[BOARD])
    pursuit = asked(world, made)
    assert pursuit.standing == "permitted"
    assert pursuit.votes[BOARD].body.judgements[0].outcome.mode == "defer"


@pytest.mark.parametrize("who", [SOUTH, INSTITUTE])
def test_nobody_marks_what_another_made(who: str) -> None:
    world, made = consumer(WARY)
    world.tell(world[who].revoke(credential(world, NORTH).id))
    pursuit = asked(world, made)
    assert pursuit.standing == "permitted"
    assert all(vote.body.adverse == () for vote in pursuit.votes.values())


def test_a_node_certificate_that_was_taken_back_marks_what_its_key_asked_for() -> None:
    world, made = consumer(WARY)
    world.tell(world[NORTH].revoke(world[NORTH].certificate.id))
    assert "input_marked_unseen" in codes(asked(world, made))


def test_a_link_above_that_was_taken_back_marks_what_was_made_below() -> None:
    world = World(policy=policy_body(WARY))
    north = world[NORTH]
    world.tell(north.owner_policy(released=("standing", START + YEAR)))
    north.credential("operator/lead", delegations=2)
    north.credential("agent/maker", kind="agent", under="operator/lead", delegations=0)
    world.tell(*(record for _, record in north.credentials.values()))
    intent = north.intent("plain/base", who="agent/maker", run="agent")
    made = north.actuate(permit_of(world, intent, north.ticket("agent/maker", ["plain/base"], run="agent")))
    share(world, NORTH, INSTITUTE)
    assert asked(world, made.id).standing == "permitted"
    world.tell(north.revoke(north.credentials["operator/lead"][1].id))
    assert "input_marked_unseen" in codes(asked(world, made.id, "again"))


def test_a_suspension_marks_while_it_lasts() -> None:
    world, made = consumer(WARY)
    world.tell(world[NORTH].suspend(credential(world, NORTH).id, START + 60))
    assert "input_marked_unseen" in codes(asked(world, made))
    later = world.decide(
        world[INSTITUTE].intent("plain/used", inputs=(made,), run="later"), now=float(START + 60)
    )
    assert later.standing == "permitted"


def test_a_stranger_judges_a_marked_use_again() -> None:
    world, made = consumer(WARY)
    revocation = world[NORTH].revoke(credential(world, NORTH).id)
    world.tell(revocation)
    institute = world[INSTITUTE]
    south = world[SOUTH]
    south.credential(
        "operator/dpo",
        classes=("data-protection-officer",),
        actions=("approve",),
        assets=(f"{INSTITUTE}/**",),
    )
    world.tell(south.credentials["operator/dpo"][1])
    intent = institute.intent("plain/used", inputs=(made,))
    institute.holdings.admit([south.approve("operator/dpo", intent)])
    target = institute.actuate(permit_of(world, intent))
    bundle = export_bundle((target.id,), institute.holdings)
    assert revocation.id in {record.id for record in bundle.records}
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    assert verify_bundle(bundle.encoded(), roots, ENGINE).level == "re-judged"


def mark(world: World, who: str, subject: bytes, weight: int = 0) -> SignedRecord:
    return world[who].observe(subject, "disputed", claim=ANCESTOR_FAILED, weight=weight)


@pytest.mark.parametrize("rules", [RULES, WARY])
def test_what_was_made_from_something_wrong_stands_and_is_marked(rules: str) -> None:
    world, made = consumer(rules)
    said = mark(world, NORTH, made)
    world.tell(said)
    pursuit = asked(world, made)
    assert pursuit.standing == ("deferred" if rules == WARY else "permitted")
    assert ("input_marked_unseen" in codes(pursuit)) == (rules == WARY)
    assert all(vote.body.adverse == (said.id,) for vote in pursuit.votes.values())


@pytest.mark.parametrize("who", [SOUTH, INSTITUTE, BOARD])
def test_only_the_writer_and_owners_mark_what_was_made(who: str) -> None:
    world, made = consumer(WARY)
    world.tell(mark(world, who, made))
    pursuit = asked(world, made)
    assert pursuit.standing == "permitted"
    assert all(vote.body.adverse == () for vote in pursuit.votes.values())


def test_a_mark_that_was_taken_back_marks_nothing() -> None:
    world, made = consumer(WARY)
    said = mark(world, NORTH, made)
    world.tell(said, world[NORTH].revoke(said.id))
    assert asked(world, made).standing == "permitted"


def test_a_mark_said_often_fills_no_vote() -> None:
    world, made = consumer(RULES)
    world.tell(*(mark(world, NORTH, made, weight) for weight in range(ADVERSE_PER_VOTE_MAX + 8)))
    pursuit = asked(world, made)
    assert pursuit.standing == "permitted"
    assert all(len(vote.body.adverse) == 1 for vote in pursuit.votes.values())


def test_a_mark_of_what_is_no_version_says_what_every_report_does() -> None:
    """Else whoever disputes an intent with this word would be passed over."""
    world, made = consumer(RULES)
    intent = world[INSTITUTE].intent("plain/used", inputs=(made,))
    world.tell(mark(world, INSTITUTE, intent.id))
    pursuit = world.decide(intent)
    assert pursuit.standing == "refused"
    assert "observation_disputed" in codes(pursuit)


def test_another_dispute_beside_a_mark_bars_as_ever() -> None:
    world, made = consumer(RULES)
    world.tell(mark(world, NORTH, made), world[NORTH].observe(made, "disputed"))
    assert asked(world, made).standing == "refused"


def test_a_stranger_judges_the_use_of_something_marked_again() -> None:
    world, made = consumer(RULES)
    said = mark(world, NORTH, made)
    world.tell(said)
    institute = world[INSTITUTE]
    target = institute.actuate(permit_of(world, institute.intent("plain/used", inputs=(made,))))
    bundle = export_bundle((target.id,), institute.holdings)
    assert said.id in {record.id for record in bundle.records}
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    assert verify_bundle(bundle.encoded(), roots, ENGINE).level == "re-judged"
