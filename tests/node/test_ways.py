"""Of the ways that serve a purpose the least harmful is chosen that would be permitted, and it is held to."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from comity.node import drafts, steps, work
from comity.node.certificates import certificate_records
from comity.node.explanations import explain_step
from comity.node.forms import (
    ActuationForm,
    DiscardForm,
    InputForm,
    OutputForm,
    StartForm,
    StepAnswer,
    StepForm,
    TermForm,
    WayTried,
)
from comity.node.heads import standing_heads
from comity.node.problems import Refused
from comity.node.ways import _choice, ways_that_serve
from comity.protocol.governance import Purpose
from comity.protocol.identifiers import sha256
from comity.protocol.ways import APART, WAYS, least_harmful_first, realm_of, way_in
from nodes import RunningNode, running, still, until
from world import FOUR, INSTITUTE, NORTH, RULES, SOUTH, World, policy_body

REALMS = ("production", *sorted(APART))
SERVED = ("staged", "isolated", "dry_run")
"""As somebody writes them, in no order."""

NO_PRODUCTION = RULES + (
    '@id("apart") @mode("refuse") @reason("only_apart")\n'
    'forbid(principal, action == Action::"materialize", resource is Asset) when { resource.realm == "production" };\n'
)
CONFIRMED = RULES + (
    '@id("confirm") @mode("defer") @reason("unconfirmed") @needs("approval(class=data-protection-officer)")\n'
    'forbid(principal, action == Action::"materialize", resource is Asset)\n'
    'unless { context.approvals.contains("data-protection-officer") };\n'
)


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


def world_of(*ways: str, rules: str = RULES, realms: tuple[str, ...] = REALMS) -> World:
    """The purpose `care` is served in these ways, and everybody's automation may act in these realms."""
    purposes = (Purpose("care", ways=ways), Purpose("survival_study"))
    world = World(FOUR, policy=policy_body(rules, purposes=purposes))
    for member in world.members.values():
        issued = member.credential("automation/apart", kind="automation", held_by="node/n1", realms=realms)
        world.common.append(issued)
        world.tell(issued)
    return world


def form(output: str, *inputs: str, run: str = "1", isolates: bool = True) -> StepForm:
    return StepForm(
        orchestrator="dagster",
        run=f"run-{run}",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(asset=output, isolates=isolates)],
        inputs=[InputForm(name) for name in inputs],
    )


def defaults(world: World, name: str) -> drafts.Defaults:
    return drafts.Defaults("care", world[name].credentials["automation/apart"][1].id)


async def asked(node: RunningNode, world: World, step: StepForm) -> StepAnswer:
    answer = await node.service.call(lambda: steps.submit(node.core, step, defaults(world, node.name)))
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing != "asking"

    await node.service.wait_for(intent, settled, 30)
    found = await node.service.call(lambda: steps.answer(node.core, intent))
    return dataclasses.replace(found, ways=answer.ways)


async def made(node: RunningNode, answer: StepAnswer, content: bytes = b"x") -> bytes:
    (output,) = answer.outputs
    started = await node.service.call(lambda: work.start(node.core, StartForm(answer.intent, output.asset)))
    said = ActuationForm(
        answer.intent, started.start, output.asset, sha256(content).hex(), len(content), "text/csv"
    )
    done = await node.service.call(lambda: work.actuate(node.core, said))
    return bytes.fromhex(done.actuation)


def tried(answer: Any) -> list[tuple[str, str, bool]]:
    return [(each.way, each.outcome, each.chosen) for each in answer.ways]


def head(node: RunningNode, asset: str, realm: str = "production") -> bytes | None:
    heads = standing_heads(node.store, node.core.holdings, asset, "", realm)
    return heads[0].actuation if heads else None


async def test_the_least_harmful_way_that_serves_is_taken(autojump: object) -> None:
    world = world_of(*SERVED)
    async with running(world) as nodes:
        answer = await asked(nodes[NORTH], world, form("plain/a"))
        assert (answer.outcome, answer.way) == ("execute", "dry_run")
        assert tried(answer) == [
            ("dry_run", "execute", True),
            ("isolated", "execute", False),
            ("staged", "execute", False),
        ]


async def test_a_way_that_rules_or_the_credential_forbid_is_not_taken(autojump: object) -> None:
    world = world_of(*SERVED, realms=("production", "preview/isolated"))
    async with running(world) as nodes:
        answer = await asked(nodes[NORTH], world, form("plain/a"))
        assert (answer.outcome, answer.way) == ("execute", "isolated")
        assert tried(answer)[0] == ("dry_run", "refuse", False)
        assert [cause.code for cause in answer.ways[0].causes] == ["credential_bound"]


async def test_production_is_refused_and_what_is_apart_is_not(autojump: object) -> None:
    world = world_of("isolated", "staged", rules=NO_PRODUCTION)
    async with running(world) as nodes:
        answer = await asked(nodes[NORTH], world, form("plain/a"))
        assert (answer.outcome, answer.way) == ("execute", "isolated")
        unable = await asked(nodes[NORTH], world, form("plain/b", isolates=False))
        assert (unable.outcome, unable.way) == ("refuse", "staged")


async def test_where_every_way_wants_a_persons_word_the_least_harmful_waits_for_it(autojump: object) -> None:
    world = world_of(*SERVED, rules=CONFIRMED)
    async with running(world) as nodes:
        answer = await asked(nodes[NORTH], world, form("plain/a"))
        assert (answer.outcome, answer.way) == ("defer", "dry_run")
        assert {each.outcome for each in answer.ways} == {"confirm"}


async def test_a_purpose_without_ways_is_served_as_ever(autojump: object) -> None:
    world = world_of()
    async with running(world) as nodes:
        answer = await asked(nodes[NORTH], world, form("plain/a"))
        assert (answer.outcome, answer.way, answer.ways) == ("execute", "staged", [])


async def test_a_dry_run_promotes_nothing_and_is_on_the_record(autojump: object) -> None:
    world = world_of("dry_run")
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await asked(north, world, form("plain/a"))
        (output,) = answer.outputs
        started = work.start(north.core, StartForm(answer.intent, output.asset))
        digest = sha256(b"x").hex()
        with pytest.raises(Refused, match="promotes nothing"):
            work.actuate(
                north.core, ActuationForm(answer.intent, started.start, output.asset, digest, 1, "text/csv")
            )
        ended = DiscardForm(
            answer.intent,
            started.start,
            output.asset,
            digest,
            1,
            "text/csv",
            [TermForm("dry_run")],
            passed=True,
        )
        said = work.discard(north.core, ended)
        staged = north.core.holdings.get(bytes.fromhex(said.actuation))
        verified = north.core.holdings.get(bytes.fromhex(said.verification))
        assert staged is not None
        assert verified is not None
        assert (staged.header.outcome, staged.header.realm) == ("staged", "preview/dry_run")
        assert (verified.header.outcome, verified.header.realm) == ("passed", "preview/dry_run")
        assert head(north, output.asset, "preview/dry_run") is None


async def test_what_is_made_apart_is_seen_there_alone(autojump: object) -> None:
    """And takes no number away that makes its writer contradict itself."""
    world = world_of("isolated")
    a = f"{NORTH}/plain/a"
    async with running(world) as nodes:
        north = nodes[NORTH]
        production = drafts.Defaults("survival_study", world[NORTH].credentials["automation/main"][1].id)

        async def staged(run: str) -> bytes:
            answer = await north.service.call(
                lambda: steps.submit(north.core, form("plain/a", run=run), production)
            )
            intent = bytes.fromhex(answer.intent)
            await until(lambda: steps.answer(north.core, intent).outcome == "execute")
            return await made(north, steps.answer(north.core, intent), run.encode())

        first = await staged("s1")
        apart = await made(north, await asked(north, world, form("plain/a", run="i1")))
        assert (head(north, a), head(north, a, "preview/isolated")) == (first, apart)
        assert head(north, a, "preview/sampled") == first
        # The next step in the same way reads what the first one made; in production nobody does.
        below = await asked(north, world, form("plain/b", "plain/a", run="i1"))
        intent: Any = north.core.holdings.get(bytes.fromhex(below.intent))
        assert intent.body.classes[0].inputs == (apart,)
        again = await made(north, await asked(north, world, form("plain/a", run="i2")), b"y")
        second = await staged("s2")
        record: Any = north.core.holdings.get(second)
        assert (record.body.generation, record.body.previous) == (4, first)
        assert (head(north, a), head(north, a, "preview/isolated")) == (second, second)
        assert again != apart
        assert not [r for node in nodes.values() for r in node.core.holdings.state.of_kind("misbehaviour")]


async def test_nobody_in_production_can_use_what_was_made_apart(autojump: object) -> None:
    world = world_of("isolated")
    async with running(world) as nodes:
        north, south = nodes[NORTH], nodes[SOUTH]
        apart = await made(north, await asked(north, world, form("plain/a")))
        await south.service.fetch_head(f"{NORTH}/plain/a", "")
        assert south.core.holdings.get(apart) is None, "it is told to nobody"
        await south.service.call(lambda: south.core.admit(certificate_records(north.core.holdings, apart)))
        assert south.core.holdings.get(apart) is not None
        assert head(south, f"{NORTH}/plain/a") is None
        pursuit = world.decide(world[INSTITUTE].intent("plain/x", inputs=(apart,)))
        assert pursuit.standing != "permitted"


async def test_a_step_goes_on_in_the_way_in_which_it_was_asked_for(autojump: object) -> None:
    """However rules have changed since: nothing becomes more harmful, or another thing, while it runs."""
    world = world_of(*SERVED)
    async with running(world) as nodes:
        north = nodes[NORTH]
        production = drafts.Defaults("survival_study", world[NORTH].credentials["automation/main"][1].id)
        answer = await north.service.call(lambda: steps.submit(north.core, form("plain/a"), production))
        intent = bytes.fromhex(answer.intent)
        await until(lambda: steps.answer(north.core, intent).outcome == "execute")
        await made(north, steps.answer(north.core, intent))
        first = await asked(north, world, form("plain/b", "plain/a"))
        assert first.way == "dry_run"
        rules = (
            '@id("ok") permit(principal, action, resource);\n'
            '@id("no_trials") @mode("refuse") @reason("no_trials") forbid(principal, action, resource is Asset)'
            ' when { resource.realm == "preview/dry_run" };'
        )
        said = world[NORTH].owner_policy(1, rules=rules)
        await north.service.call(lambda: north.core.admit([said]))
        again = await asked(north, world, form("plain/b", "plain/a"))
        assert (again.intent, again.way, again.ways) == (first.intent, "dry_run", [])
        other = await asked(north, world, form("plain/b", "plain/a", run="2"))
        assert other.way == "isolated"
        assert [cause.code for cause in other.ways[0].causes] == ["no_trials"]


async def test_explaining_says_what_asking_would_choose(autojump: object) -> None:
    world = world_of(*SERVED, realms=("production", "preview/isolated"))
    async with running(world) as nodes:
        north = nodes[NORTH]
        said = explain_step(north.core, form("plain/a"), defaults(world, NORTH), frozenset(FOUR))
        answer = await asked(north, world, form("plain/a"))
        assert (said.way, tried(said)) == (answer.way, tried(answer))


async def test_a_step_that_can_work_in_no_way_that_serves_is_told_so(autojump: object) -> None:
    world = world_of("dry_run", "isolated")
    core = still(world, NORTH)
    with pytest.raises(Refused) as caught:
        steps.submit(core, form("plain/a", isolates=False), defaults(world, NORTH))
    assert caught.value.code == "way_not_possible"
    assert "dry_run, isolated" in caught.value.message


def test_of_several_policies_each_has_to_name_a_way() -> None:
    world = world_of("dry_run", "isolated", "staged")
    core = still(world, NORTH)
    governance: Any = core.holdings.governance()
    (one,) = governance.bundles
    for ways, wanted in (
        (("staged", "isolated"), ("isolated", "staged")),
        ((), ("dry_run", "isolated", "staged")),
    ):
        policy = msgspec.structs.replace(one.policy, purposes=(Purpose("care", ways=ways),))
        both = (one, dataclasses.replace(one, policy=policy))
        core.holdings._governance = dataclasses.replace(governance, bundles=both)
        assert ways_that_serve(core, form("plain/a"), defaults(world, NORTH)) == wanted


def test_explaining_supposes_the_tier_of_a_governed_step_for_every_way() -> None:
    world = world_of("isolated", "staged")
    core = still(world, NORTH)
    said = explain_step(core, form("guarded"), defaults(world, NORTH), frozenset(FOUR))
    assert tried(said) == [("isolated", "execute", True), ("staged", "execute", False)]


@given(st.lists(st.sampled_from((*WAYS, "of_a_later_version"))))
def test_ways_have_one_order(named: list[str]) -> None:
    ordered = least_harmful_first(named)
    assert ordered == least_harmful_first(reversed(named))
    assert set(ordered) == set(named) & set(WAYS)
    assert [WAYS.index(way) for way in ordered] == sorted(WAYS.index(way) for way in ordered)


OUTCOMES: st.SearchStrategy[Any] = st.sampled_from(["execute", "restrict", "confirm", "defer", "refuse"])


@given(st.lists(st.sampled_from(WAYS), min_size=1, unique=True), st.data())
def test_the_choice_is_the_least_harmful_that_goes(ways: list[Any], data: st.DataObject) -> None:
    ordered = least_harmful_first(ways)
    outcomes: dict[Any, WayTried] = {way: WayTried(way, data.draw(OUTCOMES)) for way in ordered}
    chosen = _choice(ordered, outcomes)
    goes = [way for way in ordered if outcomes[way].outcome in ("execute", "restrict")]
    waits = [way for way in ordered if outcomes[way].outcome == "confirm"]
    assert chosen == (goes or waits or [ordered[-1]])[0]


def test_every_way_has_its_realm_and_back() -> None:
    for way in WAYS:
        realm = realm_of(way)
        assert (realm is None) == (way == "staged")
        assert way_in(realm or "production") == way
    assert way_in("preview/dev") == "staged"
