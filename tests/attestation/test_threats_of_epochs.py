"""Epochs that begin later or began long ago, and members that have left."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import EPOCHS_COMING_MAX
from comity.attestation.lineage import read_input
from comity.attestation.offline import verify_bundle
from comity.attestation.requester import IntentFiled, SendAsk
from comity.attestation.roots import Roots
from comity.attestation.voter import AskArrived, Decline
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import VerificationError
from comity.protocol.governance import Member
from comity.protocol.limits import ASK_AHEAD_S, LEASE_S
from next_epochs import successor
from stories import permit_of, released, share
from world import BOARD, ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, Organization, World, key

AHEAD = START + 3_600


def adopted(world: World, record: SignedRecord, now: int) -> None:
    for member in world.members.values():
        member.holdings.adopt(record, now)


def test_epoch_that_begins_later_is_waited_for() -> None:
    """A drafter's fast clock stops nobody: until then everything goes on under the epoch before."""
    world = World()
    coming = successor(world, AHEAD)
    adopted(world, coming, START)
    holdings = world[NORTH].holdings
    assert holdings.epoch.id == world.genesis.id
    assert coming.id not in holdings.epochs
    assert holdings.epoch_records() == (world.genesis,)
    assert world.decide(world[NORTH].intent("plain/a")).standing == "permitted"
    assert holdings.begins_next == AHEAD - ASK_AHEAD_S
    assert holdings.begin(AHEAD - ASK_AHEAD_S - 1) == ()
    assert [state.id for state in holdings.begin(AHEAD - ASK_AHEAD_S)] == [coming.id]
    assert holdings.epoch.id == coming.id
    assert world[SOUTH].holdings.epoch.id == world.genesis.id


def test_epoch_of_the_next_seconds_is_adopted_at_once() -> None:
    world = World()
    coming = successor(world, START + ASK_AHEAD_S)
    adopted(world, coming, START)
    assert world[NORTH].holdings.epoch.id == coming.id


def test_epochs_behind_one_that_is_waited_for_wait_too() -> None:
    world = World()
    holdings = world[NORTH].holdings
    chain = [successor(world, AHEAD)]
    while len(chain) < EPOCHS_COMING_MAX:
        chain.append(successor(world, AHEAD + len(chain) // 2, after=chain[-1]))
    for record in chain:
        assert holdings.adopt(record, START).id == record.id
        assert holdings.adopt(record, START).id == record.id
    beyond = successor(world, AHEAD + 99, after=chain[-1])
    with pytest.raises(VerificationError) as caught:
        holdings.adopt(beyond, START)
    assert caught.value.reason == "epoch_early"
    began = holdings.begin(AHEAD + 3 - ASK_AHEAD_S)
    assert [state.id for state in began] == [record.id for record in chain[: len(began)]]
    assert {state.body.started for state in began} == {AHEAD, AHEAD + 1, AHEAD + 2, AHEAD + 3}
    assert holdings.adopt(beyond, START).id == beyond.id


def test_epoch_that_could_begin_does_not_overtake_the_one_before_it() -> None:
    world = World()
    holdings = world[NORTH].holdings
    first = successor(world, AHEAD)
    second = successor(world, AHEAD, after=first)
    holdings.adopt(first, START)
    holdings.adopt(second, AHEAD)
    assert holdings.epoch.number == 0
    assert [state.id for state in holdings.begin(AHEAD)] == [first.id, second.id]
    assert holdings.epoch.id == second.id


def test_what_newcomers_say_before_they_are_members_is_not_lost() -> None:
    world = World()
    genesis = world[NORTH].holdings.epoch.body
    newcomer = Member("lab.example", (key("lab.example").public,), ("lab.example",))
    members = tuple(sorted((*genesis.members, newcomer), key=lambda member: member.id))
    coming = successor(world, AHEAD, members=members)
    adopted(world, coming, START)
    lab = Organization("lab.example", world.genesis.id, world.genesis)
    admission = world[NORTH].holdings.admit([lab.certificate])
    assert [record.id for record in admission.admitted] == [lab.certificate.id]
    assert "lab.example" not in world[NORTH].holdings.epoch.members


def asked(world: World, now: int) -> SendAsk:
    north = world[NORTH]
    effects = north.requester.handle(now, IntentFiled(north.intent("plain/a", at=now)))
    (sent,) = [effect for effect in effects if isinstance(effect, SendAsk)]
    return sent


def test_ask_for_a_time_before_its_epoch_gets_no_vote() -> None:
    """A vote for it would count for nothing."""
    world = World()
    coming = successor(world, START + ASK_AHEAD_S)
    sent = asked(world, START)
    adopted(world, coming, START)
    south = world[SOUTH]
    answers = south.voter.handle(START, AskArrived(sent.ask, sent.attached))
    assert [(a.code) for a in answers if isinstance(a, Decline)] == ["epoch_other"]
    bent = world[NORTH].node.write(
        "ask",
        _under(sent.ask, world, coming.id),
        START,
        subject=sent.ask.header.subject,
    )
    answers = south.voter.handle(START, AskArrived(bent, sent.attached))
    (declined,) = [a for a in answers if isinstance(a, Decline)]
    assert (declined.code, declined.detail) == ("epoch_other", "epoch 1 begins after t")


def _under(ask: SignedRecord, world: World, epoch: bytes) -> Any:
    import msgspec

    from comity.attestation.authoring import NO_SALT
    from comity.protocol.execution import ScopeEpoch
    from comity.protocol.records import decode_body

    named = (ScopeEpoch(scope=world.genesis.id, epoch=epoch),)
    return msgspec.structs.replace(decode_body(ask), epochs=named, salt=NO_SALT)


@pytest.mark.parametrize("ahead", [0, 1, ASK_AHEAD_S - 1])
def test_requester_asks_for_no_time_before_the_epoch(ahead: int) -> None:
    world = World()
    adopted(world, successor(world, START + ahead), START)
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    assert pursuit.standing == "permitted"
    assert pursuit.ask.body.t == START + ahead


def followed(world: World, t: int) -> tuple[SignedRecord, SignedRecord]:
    """What the Institute made under the genesis at t, and an epoch that began at START."""
    institute = world[INSTITUTE]
    pursuit = world.decide(institute.intent("plain/own", run="made", at=t), now=t)
    assert pursuit.standing == "permitted"
    return institute.actuate(pursuit.permit.record), successor(world, START)


@pytest.mark.parametrize(("late", "code"), [(LEASE_S, None), (LEASE_S + 1, "permit_superseded")])
def test_permit_of_an_epoch_that_was_followed_long_before(late: int, code: str | None) -> None:
    """A quorum of an old epoch's keys makes lineage for nobody who knows the next one."""
    world = World()
    institute = world[INSTITUTE]
    made, after = followed(world, START + late)
    bundle = export_bundle((made.id,), institute.holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    assert verify_bundle(bundle.encoded(), roots, ENGINE).level == "re-judged"
    adopted(world, after, START)
    now = START + late + 20
    pursuit = world.decide(institute.intent("plain/x", inputs=(made.id,), at=now), now=now)
    bundle = export_bundle((made.id,), institute.holdings)
    if code is None:
        assert pursuit.standing == "permitted"
        assert verify_bundle(bundle.encoded(), roots, ENGINE).level == "re-judged"
    else:
        assert pursuit.standing == "refused"
        assert {cause.code for cause in pursuit.causes} == {code}
        with pytest.raises(VerificationError) as caught:
            verify_bundle(bundle.encoded(), roots, ENGINE)
        assert caught.value.reason == code


def test_who_judges_again_later_knows_no_more_than_the_voter() -> None:
    """Lineage of an epoch that came after the one judged under is unknown to both."""
    world = World()
    holdings = world[INSTITUTE].holdings
    adopted(world, successor(world, START), START)
    made = world[INSTITUTE].actuate(permit_of(world, world[INSTITUTE].intent("plain/own")))
    relied = {r.id: r for i in tuple(holdings._execution) if (r := holdings.get(i)) is not None}
    for number, (epoch, code) in enumerate(
        zip(holdings.epochs.values(), ("epoch_unknown", None), strict=True)
    ):
        governance = holdings.governance_at(epoch, ENGINE)
        assert governance is not None
        assert len(governance.epochs) == number + 1
        found = read_input(made.id, relied, governance.epochs)
        assert getattr(getattr(found, "cause", None), "code", None) == code


def test_owner_that_has_left_is_named_as_such() -> None:
    """Its block stays its right, and whoever is blocked learns that no waiting lifts it."""
    world = World(FOUR)
    institute = world[INSTITUTE]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    adopted(world, successor(world, START, without=(SOUTH,)), START)
    now = START + 20
    intent = institute.intent("plain/x", inputs=(source.id,), at=now)
    pursuit = world.decide(intent, now=now)
    assert pursuit.standing == "deferred"
    assert set(pursuit.votes) == {NORTH, BOARD, INSTITUTE}
    assert [(c.code, c.parameters) for c in pursuit.causes] == [("owner_departed", {"member": SOUTH})]
    assert [(n.code, n.parameters) for n in pursuit.needs] == [("membership", {"member": SOUTH})]


def test_owner_that_released_its_say_before_it_left_blocks_nobody() -> None:
    world = World(FOUR)
    institute, south = world[INSTITUTE], world[SOUTH]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    world.tell(south.transition(f"{INSTITUTE}/plain/**"))
    own = institute.actuate(permit_of(world, institute.intent("plain/own", inputs=(source.id,), run="own")))
    adopted(world, successor(world, START, without=(SOUTH,)), START)
    now = START + 20
    pursuit = world.decide(institute.intent("plain/x", inputs=(own.id,), at=now), now=now)
    assert pursuit.standing == "permitted"
