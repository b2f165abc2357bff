"""Who says much, or says it often, hides nothing that others say and fills no vote."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation.authoring import NO_SALT
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import Roots
from comity.attestation.voter import AskArrived, Decline, SendVote
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Observation
from comity.protocol.governance import Revocation
from comity.protocol.limits import ADVERSE_PER_SUBJECT_MAX, ADVERSE_PER_VOTE_MAX
from stories import permit_of, share
from world import ENGINE, INSTITUTE, NORTH, RULES, SOUTH, START, YEAR, World, policy_body

MANY = 2 * ADVERSE_PER_SUBJECT_MAX + 8


def delegated() -> World:
    """Clinic North's operator has delegated to an agent; releases stand consented to."""
    world = World(policy=policy_body(RULES))
    north = world[NORTH]
    world.tell(north.owner_policy(released=("standing", START + YEAR)))
    north.credential("operator/lead", delegations=2)
    north.credential("agent/maker", kind="agent", under="operator/lead", delegations=0)
    world.tell(*(record for _, record in north.credentials.values()))
    return world


def made_by_agent(world: World) -> bytes:
    north = world[NORTH]
    intent = north.intent("plain/base", who="agent/maker", run="agent")
    made = north.actuate(permit_of(world, intent, north.ticket("agent/maker", ["plain/base"], run="agent")))
    share(world, NORTH, INSTITUTE)
    return made.id


def revoked_often(by: Any, subject: bytes, times: int) -> list[SignedRecord]:
    body = Revocation(salt=NO_SALT, reason="key_lost")
    return sorted(
        (by.write("revocation", body, START - 300 - i, subject=(subject,)) for i in range(times)),
        key=lambda record: record.id,
    )


def later_than(others: list[SignedRecord], by: Any, subject: bytes) -> SignedRecord:
    """A revocation whose id comes after as many of the others as one key's are looked at."""
    bound = others[ADVERSE_PER_SUBJECT_MAX - 1].id
    return next(record for record in revoked_often(by, subject, 64) if record.id > bound)


@pytest.mark.parametrize("first", ["agent", "delegator"])
def test_an_agent_that_revokes_itself_often_hides_nothing_that_its_delegator_says(first: str) -> None:
    world = delegated()
    north = world[NORTH]
    (lead, _), (agent, held) = north.credentials["operator/lead"], north.credentials["agent/maker"]
    junk = revoked_often(agent, held.id, MANY)
    said = later_than(junk, lead, held.id)
    world.tell(*((*junk, said) if first == "agent" else (said, *junk)))
    # The agent may not take back what was given to it, so what it says is looked at by nobody.
    assert [record.id for record in world[SOUTH].holdings.adverse_about([held.id])] == [said.id]
    intent = north.intent("plain/base", who="agent/maker", run="agent")
    pursuit = world.decide(intent, (north.ticket("agent/maker", ["plain/base"], run="agent"),))
    assert pursuit.standing == "refused"


def test_an_agent_that_takes_its_own_record_back_often_hides_nothing_that_its_delegator_says() -> None:
    world = delegated()
    north = world[NORTH]
    lead, agent = (north.credentials[who][0] for who in ("operator/lead", "agent/maker"))
    own = north.ticket("agent/maker", ["plain/base"])
    world.tell(own)
    junk = revoked_often(agent, own.id, MANY)
    said = later_than(junk, lead, own.id)
    world.tell(*junk, said)
    looked_at = [record.id for record in world[SOUTH].holdings.adverse_about([own.id])]
    assert said.id in looked_at
    assert len(looked_at) == ADVERSE_PER_SUBJECT_MAX + 1


def test_a_key_that_may_not_take_back_is_looked_at_by_nobody() -> None:
    world = delegated()
    north, south = world[NORTH], world[SOUTH]
    held = north.credentials["agent/maker"][1]
    other = south.credentials["automation/main"][0]
    world.tell(
        *revoked_often(other, held.id, 3), *revoked_often(north.credentials["automation/main"][0], held.id, 3)
    )
    world.tell(*revoked_often(south.owner, held.id, 3))
    assert world[SOUTH].holdings.adverse_about([held.id]) == ()


def test_a_key_that_reports_often_hides_no_report_of_another() -> None:
    world = delegated()
    north = world[NORTH]
    made = made_by_agent(world)
    body = Observation(salt=NO_SALT, claim="check", weight=0)

    def reports(who: str, times: int) -> list[SignedRecord]:
        author = north.credentials[who][0]
        written = (
            author.write("observation", body, START + i, subject=(made,), outcome="failed")
            for i in range(times)
        )
        return sorted(written, key=lambda record: record.id)

    junk = reports("agent/maker", MANY)
    bound = junk[ADVERSE_PER_SUBJECT_MAX - 1].id
    said = next(record for record in reports("operator/lead", 64) if record.id > bound)
    for records in ((*junk, said), (said, *junk)):
        world = delegated()
        world.tell(*records, only=[SOUTH])
        looked_at = [record.id for record in world[SOUTH].holdings.adverse_about([made])]
        assert said.id in looked_at
        assert len(looked_at) == ADVERSE_PER_SUBJECT_MAX


def test_what_is_taken_back_often_marks_once_and_refuses_nobody() -> None:
    world = delegated()
    made = made_by_agent(world)

    def asked(run: str) -> Any:
        return world.decide(world[INSTITUTE].intent("plain/used", inputs=(made,), run=run))

    (lead, above), (_, held) = (world[NORTH].credentials[who] for who in ("operator/lead", "agent/maker"))
    world.tell(world[NORTH].revoke(above.id))
    before = asked("before")
    assert before.standing == "permitted"
    # The key of a delegator is lost, and whoever has it takes back what it delegated as often as a vote has room.
    world.tell(*revoked_often(lead, held.id, ADVERSE_PER_VOTE_MAX + 8))
    after = asked("after")
    assert after.standing == "permitted"
    assert {len(vote.body.adverse) for vote in after.votes.values()} <= {1, 2}


def test_what_is_struck_is_not_struck_again() -> None:
    world = delegated()
    north = world[NORTH]
    (lead, _), (_, held) = north.credentials["operator/lead"], north.credentials["agent/maker"]
    world.tell(*revoked_often(lead, held.id, ADVERSE_PER_VOTE_MAX + 8))
    intent = north.intent("plain/base", who="agent/maker", run="agent")
    pursuit = world.decide(intent, (north.ticket("agent/maker", ["plain/base"], run="agent"),))
    codes = {cause.code for cause in pursuit.causes}
    assert "adverse_many" not in codes
    assert all(len(vote.body.adverse) == 1 for vote in pursuit.votes.values())


def relied_on(world: World) -> tuple[Any, SignedRecord]:
    """An intent that rests, beside its own credential, on another intent, whose credential was taken back."""
    north = world[NORTH]
    credential = north.credential("automation/other", kind="automation", held_by="node/n1", delegations=1)
    world.tell(credential)
    other = north.intent("plain/x", who="automation/other", run="x")
    world.tell(other)
    world.tell(north.revoke(credential.id))
    return other, credential


def test_a_stranger_has_the_credentials_of_all_intents_that_an_ask_relies_on() -> None:
    world = delegated()
    north = world[NORTH]
    other, credential = relied_on(world)
    permit = permit_of(world, north.intent("plain/base", run="real"), other)
    made = north.actuate(permit)
    data = export_bundle((made.id,), north.holdings)
    assert credential.id in {record.id for record in data.records}
    roots = Roots(world.genesis.id, 0, world.genesis.id, "x", START)
    assert verify_bundle(data.encoded(), roots, ENGINE).level == "re-judged"


def test_a_voter_without_the_credential_of_an_intent_that_is_relied_on_declines() -> None:
    world = delegated()
    north, south = world[NORTH], world[SOUTH]
    credential = north.credential("automation/other", kind="automation", held_by="node/n1", delegations=1)
    world.tell(credential, only=[name for name in world.members if name != SOUTH])
    other = north.intent("plain/x", who="automation/other", run="x")
    north.holdings.admit([other])
    intent = north.intent("plain/base", run="real")
    permit = world.decide(intent, (other,), down=(SOUTH,)).permit
    assert permit is not None
    ask = north.holdings.get(permit.body.ask)
    assert ask is not None
    asked = AskArrived(ask.record, (other, intent))
    (*_, answer) = south.voter.handle(START, asked)
    assert isinstance(answer, Decline)
    assert (answer.code, answer.missing) == ("records_missing", (credential.id,))
    world.tell(credential, only=[SOUTH])
    (*_, answer) = south.voter.handle(START, asked)
    assert isinstance(answer, SendVote)
