"""What refuses for its lineage can be shown to a stranger; what could not be recorded is not permitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from altered import bodied
from comity.attestation.authoring import NO_SALT
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import Report, case_of, verify_bundle
from comity.attestation.roots import Roots
from comity.attestation.tally import Undecided, permit_problem, tally
from comity.protocol.encoding import decode, encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.execution import Ask, Permit, Refusal, Vote
from comity.protocol.limits import BODY_BYTES_MAX, TERMS_MAX
from comity.protocol.outcome import Obligation, union
from comity.protocol.records import decode_body
from stories import COLUMNS, permit_of, released, share
from world import BOARD, ENGINE, INSTITUTE, NORTH, SOUTH, START, YEAR, World, policy_body


def verified(world: World, targets: Sequence[bytes], engine: bytes = ENGINE) -> Report:
    bundle = export_bundle(targets, world[INSTITUTE].holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    return verify_bundle(bundle.encoded(), roots, engine)


def codes(pursuit: Any) -> set[str]:
    return {cause.code for cause in pursuit.causes}


def made(world: World, run: str = "made") -> SignedRecord:
    institute = world[INSTITUTE]
    return institute.actuate(permit_of(world, institute.intent("plain/own", run=run)))


def made_late(world: World) -> SignedRecord:
    """Something that was started after its permit's end."""
    institute = world[INSTITUTE]
    honest = institute.holdings.get(made(world).id)
    assert honest is not None
    start, permit = (institute.holdings.get(i) for i in (honest.body.start, honest.body.permit))
    assert start is not None
    assert permit is not None
    late = institute.node.write(
        "start", msgspec.structs.replace(start.body, salt=NO_SALT), permit.body.expires
    )
    record = institute.node.write(
        "actuation",
        msgspec.structs.replace(honest.body, start=late.id, salt=NO_SALT),
        START + 9,
        outcome="promoted",
        governance=honest.header.governance,
    )
    institute.holdings.admit([late, record])
    return record


def made_without_a_quorum(world: World) -> SignedRecord:
    """Something whose permit names two votes of four."""
    institute = world[INSTITUTE]
    honest = institute.holdings.get(permit_of(world, institute.intent("plain/own", run="thin")).id)
    assert honest is not None
    body = msgspec.structs.replace(honest.body, votes=honest.body.votes[:2], salt=NO_SALT)
    thin = institute.node.write("permit", body, START, subject=(honest.body.intent,))
    institute.holdings.admit([thin])
    return institute.actuate(thin)


@pytest.mark.parametrize(
    ("making", "code"), [(made_late, "permit_expired"), (made_without_a_quorum, "no_quorum")]
)
def test_refusal_that_rests_on_wrong_lineage_convinces_a_stranger(making: Any, code: str) -> None:
    world = World()
    institute = world[INSTITUTE]
    bad = making(world)
    pursuit = world.decide(institute.intent("plain/x", inputs=(bad.id,)))
    assert pursuit.standing == "refused"
    assert code in codes(pursuit) | {c.parameters.get("reason", "") for c in pursuit.causes}
    assert verified(world, [pursuit.refusal.id]).level == "re-judged"
    with pytest.raises(VerificationError) as caught:
        verified(world, [bad.id])
    assert caught.value.reason == code


def test_refusal_that_rests_on_two_actuations_of_one_slot_convinces_a_stranger() -> None:
    world = World()
    institute = world[INSTITUTE]
    one, two = made(world, "one"), made(world, "two")
    for name in (NORTH, SOUTH, BOARD):
        share(world, INSTITUTE, name)
    pursuit = world.decide(institute.intent("plain/x", inputs=(one.id,)))
    assert pursuit.standing == "refused"
    assert all(two.id in vote.body.adverse for vote in pursuit.votes.values())
    report = verified(world, [pursuit.refusal.id])
    assert report.level == "re-judged"
    assert report.votes_rejudged == 3
    with pytest.raises(VerificationError) as caught:
        verified(world, [one.id, two.id])
    assert caught.value.reason == "slot_twice"


def test_two_actuations_of_one_slot_with_another_before_them() -> None:
    """What voters strike no bundle lets pass: who made it, what, which partition and which generation."""
    world = World()
    institute = world[INSTITUTE]
    first = made(world, "first")
    targets = []
    for run, previous in (("one", None), ("two", first.id)):
        intent = institute.intent("plain/twin", run=run)
        body: Any = decode_body(intent)
        (group,) = body.classes
        item = msgspec.structs.replace(group.items[0], previous=previous)
        groups = (msgspec.structs.replace(group, items=(item,)),)
        targets.append(institute.actuate(permit_of(world, institute.intent(groups=groups, run=run))).id)
    with pytest.raises(VerificationError) as caught:
        verified(world, targets)
    assert caught.value.reason == "slot_twice"
    for name in (NORTH, SOUTH, BOARD):
        share(world, INSTITUTE, name)
    assert world.decide(institute.intent("plain/x", inputs=(targets[0],))).standing == "refused"


def test_claimed_input_is_checked_though_the_actuation_does_not_name_it() -> None:
    """Who names fewer inputs than were claimed hides none from a stranger."""
    world = World()
    institute = world[INSTITUTE]
    source = made(world, "source")
    permit = permit_of(world, institute.intent("plain/x", inputs=(source.id,)))
    record = institute.actuate(permit, inputs=())
    twin = made(world, "twin")
    assert verified(world, [record.id]).votes_rejudged == 6
    with pytest.raises(VerificationError) as caught:
        verified(world, [record.id, twin.id])
    assert caught.value.reason == "slot_twice"


def test_intent_that_its_own_ask_relies_on_is_judged_as_voters_do() -> None:
    world = World()
    institute = world[INSTITUTE]
    pursuit = world.decide(institute.intent("plain/x"))
    vote = pursuit.votes[NORTH]
    ask = bodied(pursuit.ask, relied=tuple(sorted((*pursuit.ask.body.relied, pursuit.intent.id))))
    held = {i: r for i in ask.body.relied if (r := institute.holdings.get(i)) is not None}
    held |= {ask.id: ask, pursuit.intent.id: pursuit.intent}
    governance = institute.holdings.governance()
    assert governance is not None
    assert set(case_of(vote, held, governance).relied) == set(pursuit.ask.body.relied)


# Bounds of what is made


def obliging(count: int) -> World:
    rules = '@id("base") permit(principal, action, resource);\n'
    for rows in range(2, 2 + count):
        rules += (
            f'@id("rows-{rows}") @mode("restrict") @reason("small_group") @obliges("min_group_rows(rows={rows})")\n'
            'forbid(principal, action == Action::"materialize", resource in DataClass::"released");\n'
        )
    return World(policy=policy_body(rules))


@pytest.mark.parametrize("count", [TERMS_MAX, TERMS_MAX + 1])
def test_decision_that_obliges_to_more_than_can_be_recorded(count: int) -> None:
    world = obliging(count)
    institute = world[INSTITUTE]
    pursuit = world.decide(institute.intent("released", columns=COLUMNS))
    if count > TERMS_MAX:
        assert pursuit.standing == "refused"
        assert "classes_many" in codes(pursuit)
        assert verified(world, [pursuit.refusal.id]).level == "re-judged"
    else:
        assert pursuit.standing == "permitted"
        record = institute.actuate(pursuit.permit.record)
        assert verified(world, [record.id]).level == "re-judged"


def test_votes_that_oblige_to_more_together_than_can_be_recorded() -> None:
    """Each has room for its own; a claim that has none for those of all is no permit, and the cause is told."""
    world = World()
    institute = world[INSTITUTE]
    pursuit = world.decide(institute.intent("plain/x"))
    votes = []
    for number, vote in enumerate(pursuit.votes.values()):
        own = (Obligation("min_group_rows", {"rows": 100 * number + rows}) for rows in range(12))
        judgement = vote.body.judgements[0]
        outcome = msgspec.structs.replace(
            judgement.outcome, mode=type(judgement.outcome.mode)("restrict"), obligations=union(tuple(own))
        )
        votes.append(bodied(vote, judgements=(msgspec.structs.replace(judgement, outcome=outcome),)))
    epoch = institute.holdings.epoch
    found = tally(votes[:3], pursuit.ask, pursuit.intent, epoch)
    assert isinstance(found, Undecided)
    assert ("classes_many", {"classes_max": TERMS_MAX}) in [(c.code, c.parameters) for c in found.causes]
    claim = msgspec.structs.replace(
        pursuit.permit.body.claims[0],
        mode=votes[0].body.judgements[0].outcome.mode,
        obligations=union(*(v.body.judgements[0].outcome.obligations for v in votes)),
    )
    permit = bodied(pursuit.permit, claims=(claim,))
    problem = permit_problem(permit, pursuit.intent, {v.id: v for v in votes}, epoch)
    assert problem is not None
    assert problem.cause.code == "classes_many"


def test_consent_that_a_voter_adds_bounds_its_vote() -> None:
    """A newer policy that only voters hold ends the vote where its consent ends."""
    world = World()
    institute, south = world[INSTITUTE], world[SOUTH]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    world.tell(south.owner_policy(1, released=("standing", START + YEAR)))
    world.tell(south.owner_policy(2, released=("standing", START + 90)), only=[NORTH, BOARD, SOUTH])
    pursuit = world.decide(institute.intent("plain/x", inputs=(source.id,)))
    assert pursuit.votes[NORTH].body.expires == START + 90


# One spelling of a set of ids


@pytest.mark.parametrize(
    ("kind", "field", "form"),
    [
        ("ask", "relied", Ask),
        ("vote", "adverse", Vote),
        ("permit", "votes", Permit),
        ("refusal", "votes", Refusal),
    ],
)
def test_ids_out_of_order_or_twice_are_unreadable(kind: str, field: str, form: type[Any]) -> None:
    world = World()
    institute = world[INSTITUTE]
    permitted = world.decide(institute.intent("plain/x"))
    refused = world.decide(institute.intent("forbidden/x"))
    body = {
        "ask": permitted.ask,
        "vote": permitted.votes[NORTH],
        "permit": permitted.permit,
        "refusal": refused.refusal,
    }[kind].body
    one, two = bytes(32), b"\1" * 32
    assert getattr(msgspec.structs.replace(body, **{field: (one, two)}), field) == (one, two)
    fields = {name: getattr(body, name) for name in form.__struct_fields__}
    for ids in ((two, one), (one, one)):
        with pytest.raises(ValueError, match="does not ascend"):
            form(**{**fields, field: ids})
        # As a liar writes it, who asks no form.
        raw = {**msgspec.to_builtins(body, builtin_types=(bytes,), order="sorted"), field: list(ids)}
        written = encode({name: value for name, value in raw.items() if value not in ((), [], 0, "")})
        with pytest.raises(DecodeError, match="does not ascend"):
            decode(written, form, BODY_BYTES_MAX)
