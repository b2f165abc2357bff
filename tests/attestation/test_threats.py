"""A test named after each attack on a decision, at the level where it would happen."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import msgspec
import pytest

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.lineage import state_after
from comity.attestation.tally import Permitted, Refused, Undecided, permit_problem, tally
from comity.attestation.voter import AskArrived, Decline, SendVote
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, Item, ItemClass, Permit, ScopeEpoch
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import sha256
from comity.protocol.outcome import Mode, full_extent, supports
from stories import permit_of, released
from world import (
    BOARD,
    CONTEXT,
    FOUR,
    INSTITUTE,
    NEEDED,
    NORTH,
    SOUTH,
    START,
    YEAR,
    World,
    key,
)


def votes_of(world: World, ask: SignedRecord, intent: SignedRecord, now: int = START) -> dict[str, Any]:
    """Every member's vote on an ask, verified by the requester."""
    found: dict[str, Any] = {}
    holdings = world[intent.header.member].holdings
    for name, member in world.members.items():
        for effect in member.voter.handle(now, AskArrived(ask, (intent,))):
            if isinstance(effect, SendVote):
                holdings.admit([effect.vote])
                found[name] = holdings.get(effect.vote.id)
    return found


def causes(pursuit: Any) -> set[str]:
    return {cause.code for cause in pursuit.causes}


def needs(pursuit: Any) -> set[str]:
    return {need.code for need in pursuit.needs}


def lineage_of(world: World, actuation: SignedRecord) -> list[SignedRecord]:
    """What travels with an actuation: its certificate."""
    from comity.attestation.gathering import certificate_of

    holdings = world[actuation.header.member].holdings
    return [record.record for record in certificate_of(actuation.id, holdings)]


def test_requester_that_holds_all_votes_and_tries_every_subset() -> None:
    """No choice of votes gives a claim that some vote in it does not support by itself."""
    world = World()
    north = world[NORTH]
    intent = north.intent("plain/a", "forbidden/b")
    pursuit = world.decide(intent)
    # Bend two votes, so that subsets differ: South refuses all, the Board allows all.
    held = {v.member: v for v in pursuit.votes.values()}
    ask, verified = pursuit.ask, pursuit.intent
    epoch = north.holdings.epoch
    seen: set[type] = set()
    for size in range(len(held) + 1):
        for subset in combinations(held.values(), size):
            result = tally(subset, ask, verified, epoch)
            seen.add(type(result))
            if isinstance(result, Permitted):
                assert size >= epoch.quorum
                for claim in result.claims:
                    assert verified.body.classes[claim.index].asset.endswith("plain/a")
                    assert all(
                        supports(v.body.judgements[claim.index].outcome, claim.outcome()) for v in subset
                    )
    assert seen == {Permitted, Undecided}


def test_mixed_asks() -> None:
    """Votes of two asks of one intent never make one certificate."""
    world = World()
    north = world[NORTH]
    intent = north.intent("plain/a")
    first = world.decide(intent)
    permit: Permit = first.permit.body
    north.holdings.admit([intent])
    body = Ask(
        salt=NO_SALT,
        intent=intent.id,
        t=START + 1,
        epochs=(ScopeEpoch(scope=north.holdings.epoch.coalition, epoch=north.holdings.epoch.id),),
        relied=first.ask.body.relied,
    )
    second = north.node.write("ask", body, START + 1, subject=(intent.id,))
    others = votes_of(world, second, intent, START + 1)
    assert len(others) == 4
    mixed = tuple(sorted([*permit.votes[:2], others[SOUTH].id]))
    record = north.node.write(
        "permit", msgspec.structs.replace(permit, votes=mixed, salt=NO_SALT), START, subject=(intent.id,)
    )
    north.holdings.admit([record])
    held = {i: north.holdings.get(i) for i in mixed}
    problem = permit_problem(north.holdings.get(record.id), first.intent, held, north.holdings.epoch)  # type: ignore[arg-type]
    assert problem is not None
    assert problem.cause.code == "vote_spliced"


def test_expired_votes() -> None:
    """A permit ends with the first of its votes, and a vote with the lease or the first credential."""
    world = World()
    north = world[NORTH]
    north.credential("automation/short", kind="automation", held_by="node/n1", not_after=START + 90)
    world.tell(north.credentials["automation/short"][1])
    pursuit = world.decide(north.intent("plain/a", who="automation/short"))
    assert pursuit.permit.body.expires == START + 90
    longer = msgspec.structs.replace(pursuit.permit.body, expires=START + 600, salt=NO_SALT)
    record = north.node.write("permit", longer, START, subject=(pursuit.intent.id,))
    north.holdings.admit([record])
    held = {i: north.holdings.get(i) for i in longer.votes}
    problem = permit_problem(north.holdings.get(record.id), pursuit.intent, held, north.holdings.epoch)  # type: ignore[arg-type]
    assert problem is not None
    assert problem.cause.code == "permit_wrong"
    late = world.decide(north.intent("plain/b", who="automation/short"), now=START + 91)
    assert late.standing == "refused"
    assert "credential_expired" in causes(late)


def test_evidence_spliced_from_another_intent() -> None:
    world = World()
    north = world[NORTH]
    other = north.intent("guarded", run="other")
    intent = north.intent("guarded", run="mine")
    assert "tier_low" in causes(world.decide(intent, now=START))
    again = north.intent("guarded", run="again")
    pursuit = world.decide(again, [north.evidence(other)])
    assert pursuit.standing == "refused"
    assert causes(pursuit) == {"evidence_spliced", "tier_low"} or "evidence_spliced" in causes(pursuit)
    honest = north.intent("guarded", run="honest")
    assert world.decide(honest, [north.evidence(honest)]).standing == "permitted"


def test_vote_spliced_from_another_intent() -> None:
    world = World()
    north = world[NORTH]
    one = world.decide(north.intent("plain/a", run="one"))
    two = world.decide(north.intent("plain/a", run="two"))
    votes = [*list(one.votes.values())[:2], *two.votes.values()][:4]
    counted = tally(votes, one.ask, one.intent, north.holdings.epoch)
    assert isinstance(counted, Undecided)
    assert {v.member for v in counted.votes} == {v.member for v in votes[:2]}


def test_two_votes_for_one_intent_and_t() -> None:
    """A voter never votes twice for one (intent, t): not for another ask, and the same ask gets the same bytes."""
    world = World()
    north, south = world[NORTH], world[SOUTH]
    pursuit = world.decide(north.intent("plain/a"))
    asked = AskArrived(pursuit.ask.record, pursuit.attached)
    (first,) = [e for e in south.voter.handle(START, asked) if isinstance(e, SendVote)]
    (again,) = [e for e in south.voter.handle(START + 1, asked) if isinstance(e, SendVote)]
    assert first.vote.encoded() == again.vote.encoded()
    body = msgspec.structs.replace(pursuit.ask.body, relied=(), salt=NO_SALT)
    second = north.node.write("ask", body, START, subject=(pursuit.intent.id,))
    answers = south.voter.handle(START, AskArrived(second, pursuit.attached))
    assert [e.code for e in answers if isinstance(e, Decline)] == ["asked_twice"]


def test_voter_that_votes_twice_counts_once() -> None:
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/a"))
    vote = pursuit.votes[SOUTH]
    twin = world[SOUTH].node.write(
        "vote",
        msgspec.structs.replace(vote.body, salt=NO_SALT, expires=vote.body.expires - 1),
        START,
        subject=(pursuit.intent.id,),
    )
    north.holdings.admit([twin])
    both: list[Any] = [vote, north.holdings.get(twin.id), pursuit.votes[NORTH]]
    assert isinstance(tally(both, pursuit.ask, pursuit.intent, north.holdings.epoch), Undecided)


def test_adverse_record_known_to_one_voter_only() -> None:
    """Whoever holds a revocation votes with it and names it; the others decide on what they hold."""
    world = World()
    north = world[NORTH]
    north.credential("automation/old", kind="automation", held_by="node/n1")
    credential = north.credentials["automation/old"][1]
    world.tell(credential)
    revocation = north.revoke(credential.id)
    world.tell(revocation, only=[BOARD])
    pursuit = world.decide(north.intent("plain/a", who="automation/old"))
    board = pursuit.votes[BOARD].body
    assert board.adverse == (revocation.id,)
    assert board.judgements[0].outcome.mode is Mode.REFUSE
    assert pursuit.standing == "permitted"
    assert pursuit.votes[BOARD].id not in pursuit.permit.body.votes
    world.tell(revocation, only=[SOUTH])
    undecided = world.decide(north.intent("plain/b", who="automation/old"))
    assert undecided.standing == "deferred"
    world.tell(revocation)
    assert world.decide(north.intent("plain/c", who="automation/old")).standing == "refused"


def test_agent_that_is_suspended() -> None:
    """From when a voter holds it, to before its end, and only by who may revoke."""
    world = World()
    north, board = world[NORTH], world[BOARD]
    credential = north.credentials["automation/main"][1]
    world.tell(board.suspend(credential.id, START + 100))
    assert world.decide(north.intent("plain/a")).standing == "permitted"
    suspension = north.suspend(credential.id, START + 100)
    world.tell(suspension)
    suspended = world.decide(north.intent("plain/b"))
    assert suspended.standing == "refused"
    assert "credential_revoked" in causes(suspended)
    assert all(vote.body.adverse == (suspension.id,) for vote in suspended.votes.values())
    assert world.decide(north.intent("plain/c"), now=START + 99).standing == "refused"
    ended = world.decide(north.intent("plain/d"), now=START + 100)
    assert ended.standing == "permitted"
    assert all(vote.body.adverse == () for vote in ended.votes.values())


def test_adverse_record_by_someone_not_entitled() -> None:
    """One liar's invented failure, or a revocation by another organization, blocks nobody."""
    world = World()
    north, board = world[NORTH], world[BOARD]
    credential = north.credentials["automation/main"][1]
    invented = board.revoke(credential.id)
    patients = north.actuate(permit_of(world, north.intent("patients")))
    failed = board.observe(patients.id, "failed")
    world.tell(invented, failed)
    pursuit = world.decide(north.intent("plain/a", inputs=(patients.id,)))
    assert pursuit.standing == "permitted"
    assert all(vote.body.adverse == () for vote in pursuit.votes.values())
    entitled = north.observe(patients.id, "failed")
    world.tell(entitled)
    refused = world.decide(north.intent("plain/b", inputs=(patients.id,)))
    assert refused.standing == "refused"
    assert "observation_failed" in causes(refused)


def test_duplicate_key_counted_twice() -> None:
    """A node key that two organizations certify counts for one of them."""
    world = World()
    north, south, board = world[NORTH], world[SOUTH], world[BOARD]
    shared = south.owner.write(
        "node_certificate",
        msgspec.structs.replace(
            world.members[SOUTH].holdings.get(south.certificate.id).body,  # type: ignore[union-attr]
            node=f"spiffe://{SOUTH}/node/n2",
            key=key(f"{BOARD}/node/n1").public,
            salt=NO_SALT,
        ),
        START,
        name="n2",
    )
    world.tell(shared)
    pursuit = world.decide(north.intent("plain/a"), down=[INSTITUTE])
    vote = pursuit.votes[BOARD]
    twin_author = Author(SOUTH, key(f"{BOARD}/node/n1"), sha256(b"x"), shared.id, board.node.coalition)
    twin = twin_author.write(
        "vote", msgspec.structs.replace(vote.body, salt=NO_SALT), START, subject=(pursuit.intent.id,)
    )
    north.holdings.admit([twin])
    assert north.holdings.get(twin.id) is not None
    three: list[Any] = [pursuit.votes[NORTH], vote, north.holdings.get(twin.id)]
    result = tally(three, pursuit.ask, pursuit.intent, north.holdings.epoch)
    assert isinstance(result, Undecided)
    permit = msgspec.structs.replace(
        pursuit.permit.body,
        votes=tuple(sorted(v.id for v in three)),
        salt=NO_SALT,
    )
    record = north.node.write("permit", permit, START, subject=(pursuit.intent.id,))
    north.holdings.admit([record])
    held = {v.id: v for v in three}
    problem = permit_problem(north.holdings.get(record.id), pursuit.intent, held, north.holdings.epoch)  # type: ignore[arg-type]
    assert problem is not None
    assert problem.cause.code == "vote_twice"


def test_ownership_laundered_through_one_hop() -> None:
    """What is pooled from a clinic's rows stays under the clinic's say, until the clinic releases it."""
    world = World()
    institute = world[INSTITUTE]
    north = released(world, NORTH)
    world.tell(*lineage_of(world, north), only=[INSTITUTE])
    hop = institute.actuate(permit_of(world, institute.intent("plain/hop", inputs=(north.id,))))
    assert hop.header.governance is not None
    assert set(hop.header.governance.owners) == {INSTITUTE, NORTH}
    second = institute.intent("plain/second", inputs=(hop.id,))
    pursuit = world.decide(second, down=[NORTH])
    assert pursuit.standing == "deferred"
    assert {n.parameters["member"] for n in pursuit.needs if n.code == "consent"} == {NORTH}
    world.tell(world[NORTH].transition(f"{INSTITUTE}/plain/third"))
    third = institute.actuate(permit_of(world, institute.intent("plain/third", inputs=(hop.id,))))
    assert third.header.governance is not None
    assert third.header.governance.owners == (INSTITUTE,)
    after = world.decide(institute.intent("plain/after", inputs=(third.id,)), down=[NORTH])
    assert after.standing == "permitted"


def test_actuation_that_forgets_an_owner() -> None:
    """A writer that states a milder governance state than its permit gave is refused at the next use."""
    world = World()
    institute = world[INSTITUTE]
    north = released(world, NORTH)
    world.tell(*lineage_of(world, north), only=[INSTITUTE])
    permit = permit_of(world, institute.intent("plain/hop", inputs=(north.id,)))
    held = institute.holdings.get(permit.id)
    assert held is not None
    state: GovernanceState = state_after(held.body.claims[0])
    forged = institute.actuate(permit, governance=msgspec.structs.replace(state, owners=(INSTITUTE,)))
    pursuit = world.decide(institute.intent("plain/second", inputs=(forged.id,)))
    assert pursuit.standing == "refused"
    assert "governance_state_wrong" in causes(pursuit)


def test_live_owner_cannot_be_outvoted() -> None:
    world = World()
    institute = world[INSTITUTE]
    north, south = released(world, NORTH), released(world, SOUTH)
    world.tell(*lineage_of(world, north), *lineage_of(world, south), only=[INSTITUTE])
    standing = world[SOUTH].owner_policy(released=("standing", START + YEAR))
    world.tell(standing)
    intent = institute.intent("plain/x", inputs=(north.id, south.id))
    pursuit = world.decide(intent, down=[NORTH])
    assert pursuit.standing == "deferred"
    assert {n.parameters["member"] for n in pursuit.needs} == {NORTH}
    with_north = world.decide(institute.intent("plain/y", inputs=(north.id, south.id)), down=[SOUTH])
    assert with_north.standing == "permitted"


def test_approval_by_the_requester_itself() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential(
        "operator/both",
        classes=("data-steward", "data-protection-officer"),
        actions=("approve", "materialize"),
    )
    world.tell(institute.credentials["operator/both"][1])
    intent = institute.intent("pooled", who="operator/both")
    ticket = institute.ticket("operator/both", ["pooled"])
    own = institute.approve("operator/both", intent)
    institute.holdings.admit([own])
    pursuit = world.decide(intent, [ticket, own])
    assert pursuit.standing == "deferred"
    assert any(
        c.code == "approval_not_counted" and c.parameters["reason"] == "own_intent" for c in pursuit.causes
    )


def test_approval_of_something_else_than_was_shown() -> None:
    world = World()
    institute = world[INSTITUTE]
    world[SOUTH].credential(
        "operator/dpo",
        classes=("data-protection-officer",),
        actions=("approve",),
        assets=(f"{INSTITUTE}/**",),
    )
    world.tell(world[SOUTH].credentials["operator/dpo"][1])
    wrong: tuple[dict[str, Any], ...] = ({"shown": sha256(b"another page")}, {"not_after": START - 1})
    for number, changes in enumerate(wrong):
        intent = institute.intent("pooled", run=f"run-{number}")
        institute.holdings.admit([world[SOUTH].approve("operator/dpo", intent, **changes)])
        assert world.decide(intent).standing == "deferred"
    other = institute.intent("pooled", run="other")
    mine = institute.intent("pooled", run="mine")
    institute.holdings.admit([world[SOUTH].approve("operator/dpo", other)])
    assert world.decide(mine).standing == "deferred"
    institute.holdings.admit([world[SOUTH].approve("operator/dpo", mine)])
    again = institute.intent("pooled", run="again")
    institute.holdings.admit([world[SOUTH].approve("operator/dpo", again)])
    assert world.decide(again).standing == "permitted"


def test_agent_that_does_more_than_it_was_delegated() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/lead", delegations=2)
    institute.credential(
        "agent/fitter", kind="agent", under="operator/lead", assets=(f"{INSTITUTE}/plain/fit",), delegations=0
    )
    world.tell(institute.credentials["operator/lead"][1], institute.credentials["agent/fitter"][1])
    inside = institute.intent("plain/fit", who="agent/fitter")
    assert world.decide(inside, [institute.ticket("agent/fitter", ["plain/**"])]).standing == "permitted"
    outside = institute.intent("plain/other", who="agent/fitter", run="run-2")
    pursuit = world.decide(outside, [institute.ticket("agent/fitter", ["plain/**"], run="run-2")])
    assert pursuit.standing == "refused"
    bound = [c for c in pursuit.causes if c.code == "credential_bound"]
    assert bound[0].parameters["bound"] == "assets"
    assert bound[0].parameters["wanted"] == f"{INSTITUTE}/plain/other"


def test_agent_without_its_own_signature() -> None:
    """A credential alone moves nothing: who holds it signs a ticket for this run."""
    world = World()
    institute = world[INSTITUTE]
    institute.credential("agent/a", kind="agent")
    world.tell(institute.credentials["agent/a"][1])
    pursuit = world.decide(institute.intent("plain/a", who="agent/a"))
    assert pursuit.standing == "deferred"
    assert needs(pursuit) == {"launch_ticket"}
    stale = institute.ticket("agent/a", ["plain/**"], run="another-run")
    spliced = world.decide(institute.intent("plain/a", who="agent/a", run="run-9"), [stale])
    assert spliced.standing == "refused"
    assert "ticket_bound" in causes(spliced)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"assets": (f"{INSTITUTE}/**", f"{NORTH}/**")}, "assets"),
        ({"classes": ("data-steward", "agent")}, "classes"),
        ({"actions": ("materialize", "approve")}, "actions"),
        ({"realms": ("production", "preview/x")}, "realms"),
        ({"not_after": START + YEAR}, "validity"),
        ({"delegations": 1}, "delegations"),
        ({"purposes": ()}, "purposes"),
    ],
)
def test_delegation_that_widens(changes: dict[str, Any], bound: str) -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/lead", delegations=1, purposes=("care",))
    good: dict[str, Any] = {"delegations": 0, "purposes": ("care",)}
    institute.credential("agent/a", kind="agent", under="operator/lead", **{**good, **changes})
    world.tell(institute.credentials["operator/lead"][1], institute.credentials["agent/a"][1])
    pursuit = world.decide(
        institute.intent("plain/a", who="agent/a"), [institute.ticket("agent/a", ["plain/**"])]
    )
    assert pursuit.standing == "refused"
    widened = [c for c in pursuit.causes if c.code == "credential_widened"]
    assert widened[0].parameters["bound"] == bound


def test_preview_never_reaches_production() -> None:
    world = World()
    north = world[NORTH]
    north.credential(
        "automation/preview",
        kind="automation",
        held_by="node/n1",
        realms=("preview/feature", "preview/other"),
    )
    world.tell(north.credentials["automation/preview"][1])
    preview = north.intent("plain/a", who="automation/preview", realm="preview/feature")
    made = north.actuate(
        permit_of(world, preview),
    )
    assert made.header.governance is not None
    production = world.decide(north.intent("plain/b", inputs=(made.id,)))
    assert production.standing == "refused"
    assert "preview_input" in causes(production)
    other = world.decide(
        north.intent("plain/c", who="automation/preview", realm="preview/other", inputs=(made.id,))
    )
    assert "preview_input" in causes(other)
    escaping = world.decide(north.intent("plain/d", who="automation/preview"))
    assert escaping.standing == "refused"
    assert "credential_bound" in causes(escaping)


def test_trust_that_steps_down_silently() -> None:
    """What was made under tier 1 flows into tier 0 only with every owner's transition."""
    world = World()
    north = world[NORTH]
    first = north.intent("plain/a")
    made = north.actuate(permit_of(world, first, north.evidence(first)))
    assert made.header.governance is not None
    assert made.header.governance.tier == 1
    pursuit = world.decide(north.intent("plain/b", inputs=(made.id,)))
    assert pursuit.standing == "deferred"
    assert "trust_slope" in causes(pursuit)
    world.tell(north.transition(f"{NORTH}/plain/c", "trust", tier_to=0))
    stepped = world.decide(north.intent("plain/c", inputs=(made.id,)))
    assert stepped.standing == "permitted"
    attested = north.intent("plain/d", inputs=(made.id,))
    assert world.decide(attested, [north.evidence(attested)]).standing == "permitted"


def test_writer_of_another_namespace() -> None:
    world = World()
    pursuit = world.decide(world[NORTH].intent(f"{SOUTH}/plain/a"))
    assert pursuit.standing == "refused"
    assert "not_the_writer" in causes(pursuit)


def test_ask_with_a_time_of_its_own_choosing() -> None:
    """A voter votes only on a t around its own clock, and not before its start plus the margin."""
    world = World()
    north, south = world[NORTH], world[SOUTH]
    pursuit = world.decide(north.intent("plain/a"))
    asked = AskArrived(pursuit.ask.record, pursuit.attached)
    for now, code in ((START + 31, "clock"), (START - 6, "clock")):
        fresh = World()[SOUTH].voter
        assert [e.code for e in fresh.handle(now, asked) if isinstance(e, Decline)] == [code]
    south.reset(started=START - 5)
    south.holdings.admit(world.common)
    assert [e.code for e in south.voter.handle(START, asked) if isinstance(e, Decline)] == ["starting"]


def test_column_named_beyond_the_extent() -> None:
    """An actuation that carries a column which the permit left out is no lineage."""
    world = World()
    north = world[NORTH]
    patients = north.actuate(permit_of(world, north.intent("patients")))
    columns = ("time", "age")
    pursuit = world.decide(
        north.intent("released", inputs=(patients.id,), columns=columns, purpose="survival_study")
    )
    assert [c.obligations[0].code for c in pursuit.permit.body.claims] == ["min_group_rows"]
    held = north.holdings.get(pursuit.permit.id)
    assert held is not None
    honest = north.actuate(pursuit.permit.record)
    body = north.holdings.get(honest.id).body  # type: ignore[union-attr]
    assert body.content.columns == ("time",)
    leaking = north.actuate(
        pursuit.permit.record, content=msgspec.structs.replace(body.content, columns=("time", "age"))
    )
    refused = world.decide(north.intent("plain/x", inputs=(leaking.id,)))
    assert "column_not_permitted" in causes(refused)


def test_restriction_is_what_the_policy_says() -> None:
    world = World()
    north = world[NORTH]
    patients = north.actuate(permit_of(world, north.intent("patients")))
    columns = ("inst", "time", "status", "age", "sex", "ph_ecog", "meal_cal", "age_decade")
    pursuit = world.decide(
        north.intent("released", inputs=(patients.id,), columns=columns, purpose="survival_study")
    )
    claim = pursuit.permit.body.claims[0]
    kept = {columns[i] for first, last in claim.extent.columns for i in range(first, last + 1)}
    assert kept == set(NEEDED)
    assert claim.mode is Mode.RESTRICT
    assert {(o.code, tuple(sorted(o.parameters.items()))) for o in claim.obligations} == {
        ("min_group_rows", (("column", "inst"), ("rows", 5)))
    }


def test_items_of_a_class_with_different_facts() -> None:
    """A class that mixes items of different governance is refused, whoever drew it up."""
    world = World()
    institute = world[INSTITUTE]
    north = released(world, NORTH)
    world.tell(*lineage_of(world, north), only=[INSTITUTE])
    plain = institute.actuate(permit_of(world, institute.intent("plain/own")))
    group = ItemClass(
        asset=f"{INSTITUTE}/plain/mixed",
        items=(
            Item(generation=1, partition="a", inputs=(plain.id,)),
            Item(generation=1, partition="b", inputs=(north.id,)),
        ),
    )
    pursuit = world.decide(institute.intent(groups=(group,)))
    assert pursuit.standing == "refused"
    assert "class_mixed" in causes(pursuit)


def test_refusal_needs_a_quorum_of_refusals() -> None:
    world = World()
    pursuit = world.decide(world[NORTH].intent("forbidden/a"))
    assert pursuit.standing == "refused"
    votes = list(pursuit.votes.values())
    epoch = world[NORTH].holdings.epoch
    assert isinstance(tally(votes[:3], pursuit.ask, pursuit.intent, epoch), Refused)
    assert isinstance(tally(votes[:2], pursuit.ask, pursuit.intent, epoch), Undecided)


def test_one_liar_can_neither_block_nor_admit() -> None:
    world = World()
    for name in FOUR:
        right = world.decide(
            world[NORTH].intent("plain/a", run=f"r-{name}"), down=[name] if name != NORTH else []
        )
        assert right.standing == "permitted", name
    assert full_extent(1, 0).items == ((0, 0),)
    assert CONTEXT.code_files == 1
