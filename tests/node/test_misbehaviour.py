"""Members that contradict themselves, between whole nodes: who proves it, who hears of it, and what is started then."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
import trio

from comity.attestation.authoring import NO_SALT
from comity.attestation.signing import sign_record
from comity.node import steps, views, work
from comity.node.accusing import PROOFS_PER_MEMBER_MAX
from comity.node.core import Core
from comity.node.forms import OutputForm, StartForm, StepAnswer, StepForm
from comity.node.problems import Refused
from comity.protocol.encoding import decode_value, encode
from comity.protocol.envelope import SignedRecord, body_reference
from comity.protocol.identifiers import sha256
from comity.protocol.limits import BODY_BYTES_MAX
from nodes import RunningNode, running, until
from stories import permit_of
from world import BOARD, ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, World


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


def step(output: str) -> StepForm:
    return StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(asset=output)],
    )


async def decided(node: RunningNode, world: World, form: StepForm) -> StepAnswer:
    credential = world[node.name].credentials["automation/main"][1].id
    defaults = steps.Defaults(purpose="care", credential=credential)
    answer = await node.service.call(lambda: steps.submit(node.core, form, defaults))
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing != "asking"

    await node.service.wait_for(intent, settled, 30)
    return await node.service.call(lambda: steps.answer(node.core, intent))


def second_vote(core: Core, world: World, answer: StepAnswer, liar: str) -> SignedRecord:
    """Another vote of a member, on an ask that it has voted on."""
    pursuit = core.requester.pursuit(bytes.fromhex(answer.intent))
    assert pursuit is not None
    body: Any = pursuit.votes[liar].body
    changed = msgspec.structs.replace(body, salt=NO_SALT, expires=body.expires - 1)
    return world[liar].node.write("vote", changed, body.t, subject=(body.intent,))


def proofs(node: RunningNode) -> list[Any]:
    return node.core.holdings.state.of_kind("misbehaviour")


def permitted_by(node: RunningNode, answer: StepAnswer) -> set[str]:
    pursuit = node.core.requester.pursuit(bytes.fromhex(answer.intent))
    assert pursuit is not None
    assert pursuit.permit is not None
    found = [node.core.holdings.get(i) for i in pursuit.permit.body.votes]
    return {vote.member for vote in found if vote is not None}


def start(node: RunningNode, answer: StepAnswer) -> Any:
    output = answer.outputs[0]
    return work.start(node.core, StartForm(answer.intent, output.asset, output.partition))


async def test_who_is_shown_two_votes_proves_it_to_everybody(autojump: object) -> None:
    """And starts nothing under a permit that has no quorum without the liar, until it has asked again."""
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        liar = next(member for member in sorted(permitted_by(north, answer)) if member != NORTH)
        twin = second_vote(north.core, world, answer, liar)
        await north.service.call(lambda: north.core.admit([twin]))
        await until(lambda: all(len(proofs(node)) == 1 for node in nodes.values()))
        (proof,) = proofs(nodes[BOARD])
        assert proof.member == NORTH
        with pytest.raises(Refused) as caught:
            await north.service.call(lambda: start(north, answer))
        assert caught.value.code == "voted_twice"
        assert liar in caught.value.message
        again = await decided(north, world, step("plain/a"))
        assert again.intent == answer.intent
        await until(lambda: liar not in permitted_by(north, again))
        await north.service.call(lambda: start(north, again))
        for node in nodes.values():
            said = views.status(node.core, frozenset(FOUR), (), {})
            shown = {
                m["member"]: (m["counted"], [p["rule"] for p in m["misbehaviour"]]) for m in said["members"]
            }
            assert shown == {name: (name != liar, ["two_votes"] if name == liar else []) for name in FOUR}


async def test_two_actuations_are_proved_by_who_sees_both(autojump: object) -> None:
    """Who was shown one of both hears of it by the governance log, and admits it no more."""
    world = World(FOUR)
    institute = world[INSTITUTE]
    made = [institute.actuate(permit_of(world, institute.intent("plain/own", run=run))) for run in ("1", "2")]
    certificates = [institute.holdings.get(i) for i in tuple(institute.holdings._execution)]
    records = [r.record for r in certificates if r is not None]
    async with running(world) as nodes:
        north, south = nodes[NORTH], nodes[SOUTH]
        await south.service.call(lambda: south.core.admit([r for r in records if r.id != made[1].id]))
        one = south.core.holdings.get(made[0].id)
        assert one is not None
        assert work.lineage_problem(south.core, one) is None
        await north.service.call(lambda: north.core.admit(records))
        await until(lambda: all(proofs(node) for node in nodes.values()))
        problem = work.lineage_problem(south.core, one)
        assert problem is not None
        assert problem.cause.parameters == {"reason": "slot_twice"}
        # All that hold both may say so; nobody says so twice.
        assert len({(r.member, r.header.subject) for r in proofs(south)}) == len(proofs(south))


async def test_own_contradictions_are_told_to_the_operator_only(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        twin = second_vote(north.core, world, answer, NORTH)
        await north.service.call(lambda: north.core.admit([twin]))
        assert proofs(north) == []
        assert north.core.holdings.take_contradictions() == ()


async def test_a_proof_is_kept_over_a_restart(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        liar = next(member for member in sorted(permitted_by(north, answer)) if member != NORTH)
        twin = second_vote(north.core, world, answer, liar)
        await north.service.call(lambda: north.core.admit([twin]))
        await north.stop()
        again = north.reborn()
        assert again.core.holdings.discounted(world.genesis.id) == {liar}
        again.core.admit([twin, *(v.record for v in north.core.requester.pursuits()[0].votes.values())])
        again.core.drain()
        assert len(proofs(again)) == 1, "what is proved is not proved again"


def test_who_contradicts_itself_without_end_costs_a_bounded_number_of_proofs() -> None:
    world = World(FOUR)
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    vote = pursuit.votes[SOUTH]
    core = still(world, NORTH)
    for number in range(PROOFS_PER_MEMBER_MAX + 10):
        body = msgspec.structs.replace(vote.body, salt=NO_SALT, expires=START + 1 + number)
        core.admit([world[SOUTH].node.write("vote", body, START, subject=(vote.body.intent,))])
        core.drain()
    written = core.holdings.state.of_kind("misbehaviour")
    assert len(written) == PROOFS_PER_MEMBER_MAX


def test_what_does_not_fit_into_a_proof_is_no_fault() -> None:
    """With fields of a later version an actuation can be as large as a body: both are held, and count for nobody."""
    world = World(FOUR)
    institute = world[INSTITUTE]
    made = [institute.actuate(permit_of(world, institute.intent("plain/own", run=run))) for run in ("1", "2")]
    core = still(world, NORTH)
    twins = []
    for record in made:
        fields: Any = decode_value(record.body_bytes or b"", BODY_BYTES_MAX)
        body = encode({**fields, "zz": bytes(600_000)})
        header = msgspec.structs.replace(record.header, body=body_reference(body))
        twins.append(sign_record(header, body, institute.node.signer))
    assert not core.admit(twins).rejected
    core.drain()
    assert core.holdings.state.of_kind("misbehaviour") == []
    held = core.holdings.get(twins[0].id)
    assert held is not None
    assert [rival.id for rival in core.holdings.slot_rivals(held)] == [twins[1].id]


def still(world: World, name: str) -> Core:
    """A core of a member whose node does not run."""
    from comity.node.core import Identity
    from comity.node.store_memory import MemoryStore

    member = world[name]
    identity = Identity(name, f"spiffe://{name}/node/n1", member.node)
    core = Core(identity, MemoryStore(bytes(16)), Still(), ENGINE, (world.genesis,))
    core.admit(world.common)
    core.drain()
    return core


@dataclasses.dataclass(frozen=True)
class Still:
    """A clock that stands."""

    started: int = START - 3600

    def now(self) -> int:
        return START

    def seconds(self) -> float:
        return float(START)

    def monotonic(self) -> float:
        return 0.0
