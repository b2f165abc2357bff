"""The demo's policy, judged as its nodes judge it: what the demo claims is what the rules say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comity.attestation.policy_guard import on_deep_stack
from comity.attestation.requester import AskAgain
from comity.node.governance_files import read_policy, read_taxonomy
from comity.protocol.envelope import SignedRecord
from comity.protocol.outcome import indices_of
from stories import share
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH, START, YEAR, Organization, World

SITE = Path(__file__).parents[2] / "scripts/demo_main/site"
STUDY = "survival_study"
STEWARD = "steward/2c90"
RELEASED = ("time", "status", "sex", "ph.ecog", "age_decade")


@pytest.fixture
def world() -> World:
    policy, taxonomy = read_policy(SITE / "policy.toml").policy, read_taxonomy(SITE / "taxonomy.toml")
    world = World(FOUR, policy=policy, taxonomy=taxonomy)
    world.tell(world[NORTH].owner_policy(any_=("live", 0)))
    world.tell(world[SOUTH].owner_policy(any_=("standing", START + YEAR)))
    for name in (NORTH, SOUTH):
        assets = (f"{name}/**",)
        world.tell(
            world[name].credential(STEWARD, classes=("data-steward",), assets=assets, purposes=(STUDY,))
        )
    return world


def columns_of(world: World, asset: str) -> tuple[str, ...]:
    return next(tuple(c.name for c in rule.columns) for rule in world.policy.assets if rule.pattern == asset)


def ask(
    world: World, member: Organization, asset: str, inputs: tuple[bytes, ...] = (), **more: Any
) -> tuple[SignedRecord, Any]:
    """File an intent for the study, with its evidence, and carry it to where it stands."""
    down, offered = more.pop("down", ()), more.pop("offered", ())
    columns = columns_of(world, "*/released") if asset == "released" else ()
    intent = member.intent(asset, inputs=inputs, columns=columns, purpose=STUDY, **more)
    return intent, world.decide(intent, (member.evidence(intent), *offered), down=down)


def made(
    world: World, member: Organization, asset: str, inputs: tuple[bytes, ...] = (), **more: Any
) -> SignedRecord:
    _, pursuit = ask(world, member, asset, inputs, **more)
    assert pursuit.standing == "permitted", (pursuit.causes, pursuit.needs)
    return member.actuate(pursuit.permit.record)


def by_steward(clinic: Organization) -> dict[str, Any]:
    """What makes an intent one that a clinic's data steward has asked for."""
    return {"who": STEWARD, "offered": (clinic.ticket(STEWARD, ["released"]),)}


def released(world: World) -> tuple[bytes, ...]:
    found = []
    for name in (NORTH, SOUTH):
        patients = made(world, world[name], "patients")
        found.append(made(world, world[name], "released", (patients.id,), **by_steward(world[name])).id)
        share(world, name, INSTITUTE)
    return tuple(found)


def tell_of_officer(world: World, who: str, asset: str) -> None:
    world.tell(
        world[SOUTH].credential(
            who,
            classes=("data-protection-officer",),
            actions=("approve",),
            assets=(f"{INSTITUTE}/{asset}",),
            purposes=(STUDY,),
        )
    )


def pooled(world: World, inputs: tuple[bytes, ...]) -> SignedRecord:
    intent, pursuit = ask(world, world[INSTITUTE], "pooled", inputs)
    assert pursuit.standing == "deferred"
    assert [need.parameters for need in pursuit.needs] == [{"class": "data-protection-officer"}]
    again = approved(world, intent, "officer/4d11")
    assert again.standing == "permitted", (again.causes, again.needs)
    return world[INSTITUTE].actuate(again.permit.record)


def approved(world: World, intent: SignedRecord, who: str) -> Any:
    """Where an intent of the institute stands after somebody of Clinic South has approved it."""
    world.tell(world[SOUTH].approve(who, intent))
    requester, now = world[INSTITUTE].requester, START + 2
    world.carry(requester, requester.handle(now, AskAgain(intent.id)), now, frozenset())
    return requester.pursuit(intent.id)


def test_the_rules_have_no_problems() -> None:
    source = read_policy(SITE / "policy.toml")
    taxonomy = read_taxonomy(SITE / "taxonomy.toml")
    assert on_deep_stack(lambda: source.problems(taxonomy)) == ()


def test_patients_are_executed_and_released_is_restricted(world: World) -> None:
    patients = made(world, world[NORTH], "patients")
    _, pursuit = ask(world, world[NORTH], "released", (patients.id,), **by_steward(world[NORTH]))
    (claim,) = pursuit.permit.body.claims
    columns = columns_of(world, "*/released")
    assert tuple(columns[i] for i in sorted(indices_of(claim.extent.columns))) == RELEASED
    (obligation,) = claim.obligations
    assert (obligation.code, obligation.parameters) == ("min_group_rows", {"column": "inst", "rows": 5})


def test_nothing_is_released_that_nobody_has_asked_for(world: World) -> None:
    patients = made(world, world[NORTH], "patients")
    _, pursuit = ask(world, world[NORTH], "released", (patients.id,))
    assert pursuit.standing == "refused"
    assert "nobody_asked" in {cause.code for cause in pursuit.causes}


def test_health_data_stays_home(world: World) -> None:
    patients = made(world, world[SOUTH], "patients")
    share(world, SOUTH, INSTITUTE)
    _, pursuit = ask(world, world[INSTITUTE], "enrolment", (patients.id,))
    assert pursuit.standing == "refused"
    assert {cause.code for cause in pursuit.causes} == {"health_data_leaves_home"}


def test_pooling_waits_for_an_officer_and_survival_is_released_by_both(world: World) -> None:
    tell_of_officer(world, "officer/4d11", "pooled")
    pool = pooled(world, released(world))
    assert pool.header.governance is not None
    assert set(pool.header.governance.owners) == {NORTH, SOUTH, INSTITUTE}
    for name in (NORTH, SOUTH):
        world.tell(world[name].transition(f"{INSTITUTE}/survival", purpose=STUDY))
    survival = made(world, world[INSTITUTE], "survival", (pool.id,))
    assert survival.header.governance is not None
    assert survival.header.governance.owners == (INSTITUTE,)


def test_an_officer_cannot_approve_what_the_credential_does_not_name(world: World) -> None:
    tell_of_officer(world, "officer/other", "survival")
    intent, _ = ask(world, world[INSTITUTE], "pooled", released(world))
    again = approved(world, intent, "officer/other")
    assert again.standing == "deferred"
    assert ("approval_not_counted", "credential_bound") in {
        (cause.code, cause.parameters.get("reason")) for cause in again.causes
    }


def test_an_agent_stays_inside_its_delegation(world: World) -> None:
    institute = world[INSTITUTE]
    operator = institute.credential(
        "operator/7f3a",
        classes=("analyst", "analyst/agent"),
        assets=(f"{INSTITUTE}/drafts/**",),
        delegations=1,
    )
    agent = institute.credential(
        "agent/finder",
        kind="agent",
        under="operator/7f3a",
        classes=("analyst/agent",),
        assets=(f"{INSTITUTE}/drafts/**",),
        delegations=0,
    )
    world.tell(operator, agent)
    inputs = released(world)

    def as_agent(asset: str) -> Any:
        ticket = institute.ticket("agent/finder", [asset], run=asset)
        return ask(world, institute, asset, inputs, who="agent/finder", run=asset, offered=(ticket,))[1]

    assert as_agent("drafts/events").standing == "permitted"
    pursuit = as_agent("survival")
    assert pursuit.standing == "refused"
    assert [(c.code, c.parameters["bound"]) for c in pursuit.causes] == [("credential_bound", "assets")]


def test_one_member_down_decides_and_a_live_owner_down_defers(world: World) -> None:
    inputs = released(world)
    _, pursuit = ask(world, world[INSTITUTE], "enrolment", inputs, down=(BOARD,))
    assert pursuit.standing == "permitted"
    _, pursuit = ask(world, world[INSTITUTE], "enrolment", inputs, down=(NORTH,), run="run-2")
    assert pursuit.standing == "deferred"
    assert [(need.code, need.parameters) for need in pursuit.needs] == [("consent", {"member": NORTH})]
    _, pursuit = ask(world, world[INSTITUTE], "enrolment", inputs, down=(SOUTH,), run="run-3")
    assert pursuit.standing == "permitted"


def test_without_a_measured_context_nothing_is_made(world: World) -> None:
    intent = world[NORTH].intent("patients", purpose=STUDY)
    pursuit = world.decide(intent)
    assert pursuit.standing == "deferred"
    assert [need.code for need in pursuit.needs] == ["tier"]
