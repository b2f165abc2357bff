"""Attacks by means of what a voter holds: adverse records, rivals, lineage, and words that no longer count."""

from __future__ import annotations

from typing import Any

import msgspec

from comity.attestation.authoring import NO_SALT
from comity.protocol.accountability import Misbehaviour
from comity.protocol.envelope import SignedRecord
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX
from comity.protocol.outcome import Mode
from stories import permit_of, released, share
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, YEAR, World


def made(world: World, asset: str = "plain/own", run: str = "made") -> SignedRecord:
    institute = world[INSTITUTE]
    return institute.actuate(permit_of(world, institute.intent(asset, run=run)))


def codes(pursuit: Any) -> set[str]:
    return {cause.code for cause in pursuit.causes}


def test_adverse_record_pushed_out_of_the_vote_by_many_others() -> None:
    """Relying on junk that one revokes oneself does not crowd out an owner's failed check."""
    world = World()
    institute = world[INSTITUTE]
    own = made(world)
    world.tell(institute.observe(own.id, "failed"))
    junk = []
    for number in range(ADVERSE_PER_VOTE_MAX + 3):
        credential = institute.credential(f"automation/junk-{number}", kind="automation", held_by="node/n1")
        junk.append(credential)
        world.tell(credential, institute.revoke(credential.id))
    pursuit = world.decide(institute.intent("plain/x", inputs=(own.id,)), junk)
    assert pursuit.standing == "refused"
    assert {"adverse_many", "observation_failed"} & codes(pursuit)


def test_standing_consent_that_was_withdrawn() -> None:
    """The requester goes on naming the older policy; whoever holds the newer one defers for the owner's vote."""
    world = World()
    institute, south = world[INSTITUTE], world[SOUTH]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    world.tell(south.owner_policy(1, released=("standing", START + YEAR)))
    world.tell(south.owner_policy(2, released=("live", 0)), only=[NORTH, BOARD, SOUTH])
    pursuit = world.decide(institute.intent("plain/x", inputs=(source.id,)), down=[SOUTH])
    assert pursuit.standing == "deferred"
    assert {n.parameters["member"] for n in pursuit.needs} == {SOUTH}
    again = world.decide(institute.intent("plain/y", inputs=(source.id,)))
    assert again.standing == "permitted"
    assert SOUTH in {world_vote.member for world_vote in again.votes.values()}


def test_lineage_without_a_start_under_its_permit() -> None:
    world = World()
    institute = world[INSTITUTE]
    honest = made(world)
    record = institute.holdings.get(honest.id)
    assert record is not None
    for number, start in enumerate((sha256(b"no such start"), _late_start(world, honest))):
        forged = institute.node.write(
            "actuation",
            msgspec.structs.replace(record.body, start=start, salt=NO_SALT),
            START + 300 * 86_400,
            outcome="promoted",
            governance=honest.header.governance,
        )
        institute.holdings.admit([forged])
        pursuit = world.decide(institute.intent("plain/x", inputs=(forged.id,), run=f"x-{number}"))
        assert pursuit.standing != "permitted"
        assert codes(pursuit) & {"lineage_missing", "permit_expired", "input_struck"}


def _late_start(world: World, actuation: SignedRecord) -> bytes:
    institute = world[INSTITUTE]
    body = institute.holdings.get(actuation.id).body  # type: ignore[union-attr]
    start = institute.holdings.get(body.start)
    assert start is not None
    late = institute.node.write(
        "start", msgspec.structs.replace(start.body, salt=NO_SALT), START + 299 * 86_400
    )
    institute.holdings.admit([late])
    return late.id


def test_two_promoted_actuations_of_one_slot() -> None:
    """Whoever holds both admits neither."""
    world = World()
    institute = world[INSTITUTE]
    one, two = made(world, run="one"), made(world, run="two")
    assert one.id != two.id
    share(world, INSTITUTE, NORTH)
    pursuit = world.decide(institute.intent("plain/x", inputs=(one.id,)))
    assert pursuit.votes[NORTH].body.judgements[0].outcome.mode is Mode.REFUSE
    assert two.id in pursuit.votes[NORTH].body.adverse
    both = world.decide(institute.intent("plain/y", inputs=(one.id, two.id)))
    assert both.standing == "refused"
    assert "input_struck" in codes(both)


def test_misbehaviour_record_that_proves_nothing_blocks_nobody() -> None:
    world = World()
    institute = world[INSTITUTE]
    own = made(world)
    for number, rule in enumerate(("two_votes", "two_asks", "two_actuations", "two_of_something")):
        body = Misbehaviour(salt=NO_SALT, rule=rule, records=(b"one", b"two"))
        invented = world[BOARD].node.write("misbehaviour", body, START, subject=(own.id,))
        for member in world.members.values():
            member.holdings.admit([invented])
        pursuit = world.decide(institute.intent("plain/x", inputs=(own.id,), run=f"run-{number}"))
        assert pursuit.standing == "permitted"
        assert all(vote.body.adverse == () for vote in pursuit.votes.values())


def test_corroboration_by_those_whose_word_does_not_count() -> None:
    """Only other members, under keys in force, and not out of date."""
    world = World()
    institute, north = world[INSTITUTE], world[NORTH]
    own = made(world)

    def weight(run: str) -> int:
        pursuit = world.decide(institute.intent("plain/x", inputs=(own.id,), run=run))
        return int(pursuit.votes[BOARD].body.judgements[0].weight)

    base = weight("base")
    institute.holdings.admit([institute.observe(own.id, "passed", weight=200_000)])
    assert weight("own") == base
    lapsed = north.certify("n2", not_after=START - 5)
    world.tell(lapsed)
    stale = north.node_author("n2", lapsed)
    from comity.protocol.execution import Observation

    said = stale.write(
        "observation",
        Observation(salt=NO_SALT, claim="check", weight=200_000),
        START - 10,
        subject=(own.id,),
        outcome="passed",
    )
    old = north.node.write(
        "observation",
        Observation(salt=NO_SALT, claim="check", weight=200_000, not_after=START - 1),
        START - 10,
        subject=(own.id,),
        outcome="passed",
    )
    institute.holdings.admit([said, old])
    assert weight("stale") == base
    institute.holdings.admit([north.observe(own.id, "passed", weight=200_000)])
    assert weight("north") > base


def test_two_policies_under_one_number_are_judged_alike_by_a_stranger() -> None:
    """Rivals that the ask names itself strike each other for whoever judges again, too."""
    from comity.attestation.exporting import export_bundle
    from comity.attestation.offline import verify_bundle
    from comity.attestation.roots import Roots
    from world import ENGINE

    world = World()
    institute, south = world[INSTITUTE], world[SOUTH]
    source = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    world.tell(
        south.owner_policy(1, released=("standing", START + YEAR)),
        south.owner_policy(1, released=("standing", START + YEAR - 1)),
    )
    permit = permit_of(world, institute.intent("plain/x", inputs=(source.id,)))
    bundle = export_bundle((permit.id,), institute.holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    assert verify_bundle(bundle.encoded(), roots, ENGINE).level == "re-judged"


def test_revoked_node_certificate_annuls_no_lineage() -> None:
    """What was voted for and made under a key that was in force stands; new work under it does not."""
    world = World()
    institute = world[INSTITUTE]
    own = made(world)
    world.tell(world[NORTH].revoke(world[NORTH].certificate.id))
    assert world.decide(institute.intent("plain/x", inputs=(own.id,))).standing == "permitted"
    refused = world.decide(world[NORTH].intent("plain/y"))
    assert refused.standing == "refused"
    assert "node_key_revoked" in codes(refused)


def test_revoked_grandparent_credential_is_said_to_be_revoked() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a", delegations=3)
    institute.credential("operator/b", under="operator/a", delegations=2)
    institute.credential(
        "automation/c", kind="automation", held_by="node/n1", under="operator/b", delegations=1
    )
    world.tell(*(record for _, record in institute.credentials.values()))
    world.tell(institute.revoke(institute.credentials["operator/a"][1].id))
    pursuit = world.decide(institute.intent("plain/x", who="automation/c"))
    assert pursuit.standing == "refused"
    assert codes(pursuit) == {"credential_revoked"}


def test_member_that_revokes_anothers_certificate_cuts_nobody_off() -> None:
    from comity.node.clock import ManualClock
    from comity.node.core import Core, Identity
    from comity.node.service import peers_from
    from comity.node.store_memory import MemoryStore
    from world import ENGINE

    world = World()
    north = world[NORTH]
    core = Core(
        Identity(NORTH, f"spiffe://{NORTH}/node/n1", north.node),
        MemoryStore(),
        ManualClock(START),
        ENGINE,
        (world.genesis,),
    )
    core.admit(world.common)
    everybody = {peer.name for peer in peers_from(core, {})}
    core.admit([world[BOARD].revoke(world[SOUTH].certificate.id)])
    assert {peer.name for peer in peers_from(core, {})} == everybody
    agent = world[SOUTH].credential("agent/a", kind="agent")
    core.admit([agent])
    core.admit([world[SOUTH].revoke(world[SOUTH].certificate.id, by=world[SOUTH].credentials["agent/a"][0])])
    core.admit([world[SOUTH].revoke(world[SOUTH].certificate.id, by=world[SOUTH].node)])
    assert {peer.name for peer in peers_from(core, {})} == everybody
    core.admit([world[SOUTH].revoke(world[SOUTH].certificate.id)])
    assert len(peers_from(core, {})) == len(everybody) - 1


def test_adverse_record_against_an_approval_defers_and_does_not_refuse() -> None:
    """The meet of *execute* and *defer* is *defer*, with what is needed named."""
    world = World()
    institute, south = world[INSTITUTE], world[SOUTH]
    south.credential(
        "operator/dpo",
        classes=("data-protection-officer",),
        actions=("approve",),
        assets=(f"{INSTITUTE}/**",),
    )
    credential = south.credentials["operator/dpo"][1]
    world.tell(credential, south.revoke(credential.id))
    intent = institute.intent("pooled")
    institute.holdings.admit([south.approve("operator/dpo", intent)])
    pursuit = world.decide(intent)
    assert pursuit.standing == "deferred"
    assert {need.code for need in pursuit.needs} == {"approval"}
    assert all(v.body.adverse for v in pursuit.votes.values())


def test_policy_that_does_not_compile_is_nobodys_policy() -> None:
    world = World()
    broken = world[NORTH].owner_policy(rules="forbid(principal, action, resource) when { nonsense };")
    admission = world[SOUTH].holdings.admit([broken])
    assert [record.id for record, _ in admission.rejected] == [broken.id]


def test_older_consent_named_although_a_newer_one_is_held() -> None:
    """A requester that names an owner's superseded policy is judged with the newer one."""
    world = World()
    institute = world[INSTITUTE]
    south = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    old = world[SOUTH].owner_policy(1, released=("standing", START + YEAR))
    new = world[SOUTH].owner_policy(
        2,
        released=("standing", START + YEAR),
        rules='@id("stop") @mode("refuse") @reason("owner_stopped")\n'
        'forbid(principal, action == Action::"materialize", resource);\n'
        '@id("ok") permit(principal, action, resource);',
    )
    world.tell(old)
    world.tell(new, only=[NORTH, SOUTH, BOARD])
    pursuit = world.decide(institute.intent("plain/x", inputs=(south.id,)))
    assert pursuit.standing == "refused"
    assert "owner_stopped" in codes(pursuit)
    assert all(new.id in v.body.adverse for m, v in pursuit.votes.items() if m != INSTITUTE)


def test_vote_that_its_voter_takes_back_annuls_no_lineage() -> None:
    world = World()
    institute, north = world[INSTITUTE], world[NORTH]
    own = made(world)
    permit = institute.holdings.get(institute.holdings.get(own.id).body.permit)  # type: ignore[union-attr]
    assert permit is not None
    votes = [institute.holdings.get(i) for i in permit.body.votes]
    mine = next(vote for vote in votes if vote is not None and vote.member == NORTH)
    world.tell(north.revoke(mine.id, north.node))
    assert world.decide(institute.intent("plain/x", inputs=(own.id,))).standing == "permitted"
