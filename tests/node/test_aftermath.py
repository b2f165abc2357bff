"""A version that is found wrong, between whole nodes: taken back by its writer, and everything made from it marked."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
import trio

from comity.attestation.aftermath import mark as aftermath_mark
from comity.attestation.authoring import NO_SALT
from comity.attestation.holdings import Holdings
from comity.node import aftermath, ancestry, drafts, steps, verifications, work
from comity.node.certificates import certificate_records
from comity.node.forms import (
    ActuationForm,
    CheckForm,
    InputForm,
    OutputForm,
    ReadForm,
    StartForm,
    StepAnswer,
    StepForm,
    TermForm,
    VerificationForm,
)
from comity.node.heads import standing_heads
from comity.node.outgoing import Wake
from comity.node.problems import Refused
from comity.node.work import sidecar_for
from comity.protocol.execution import Observation
from comity.protocol.identifiers import sha256
from nodes import RunningNode, running, still, until
from world import BOARD, ENGINE, FOUR, INSTITUTE, NORTH, RULES, SOUTH, START, World, policy_body

pytestmark = pytest.mark.usefixtures("gossip")

WARY = RULES + (
    '@id("wary") @mode("defer") @reason("input_marked_unseen") @needs("approval(class=data-protection-officer)")\n'
    'forbid(principal, action == Action::"materialize", resource is Asset)\n'
    'when { context.input_marked } unless { context.approvals.contains("data-protection-officer") };\n'
)


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


async def asked(
    node: RunningNode, world: World, output: str, *inputs: str, run: str = "1", reversible: bool = True
) -> StepAnswer:
    for name in inputs:
        await node.service.fetch_head(name, "")
    form = StepForm(
        orchestrator="dagster",
        run=f"run-{run}",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(asset=output, reversible=reversible)],
        inputs=[InputForm(name) for name in inputs],
    )
    credential = world[node.name].credentials["automation/main"][1].id
    defaults = drafts.Defaults(purpose="care", credential=credential)
    answer = await node.service.call(lambda: steps.submit(node.core, form, defaults))
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing != "asking"

    await node.service.wait_for(intent, settled, 30)
    return await node.service.call(lambda: steps.answer(node.core, intent))


async def made(node: RunningNode, answer: StepAnswer, content: bytes) -> bytes:
    """Do what was permitted. Answers with the actuation."""
    assert answer.outcome == "execute", answer
    (output,) = answer.outputs
    started = await node.service.call(lambda: work.start(node.core, StartForm(answer.intent, output.asset)))
    form = ActuationForm(
        intent=answer.intent,
        start=started.start,
        asset=output.asset,
        digest=sha256(content).hex(),
        size=len(content),
        media_type="text/csv",
    )
    done = await node.service.call(lambda: work.actuate(node.core, form))
    return bytes.fromhex(done.actuation)


async def make(
    node: RunningNode, world: World, output: str, *inputs: str, run: str = "1", **more: Any
) -> bytes:
    answer = await asked(node, world, output, *inputs, run=run, **more)
    return await made(node, answer, f"{output} {run}".encode())


async def say(node: RunningNode, version: bytes, outcome: Any = "failed") -> Any:
    form = VerificationForm(version.hex(), outcome, checks=[TermForm("row_count_wrong")])
    return await node.service.call(lambda: verifications.verify_version(node.core, form))


def head(node: RunningNode, asset: str) -> bytes | None:
    heads = standing_heads(node.store, node.core.holdings, asset, "")
    return heads[0].actuation if heads else None


def state(node: RunningNode, version: bytes) -> Any:
    return verifications.said_of(node.core, version)["state"]


def marks(node: RunningNode, version: bytes) -> list[Any]:
    (row, *_) = ancestry.lineage(node.core, version)["actuations"]
    found: list[Any] = row["marks"]
    return found


def spoken_of(node: RunningNode, version: bytes) -> bool:
    """Whether a node has heard that a version was taken back."""
    said = node.core.holdings.state.of_kind("actuation")
    return any(version in record.header.subject for record in said)


def heard(node: RunningNode) -> frozenset[bytes]:
    return frozenset(record.id for record in node.core.holdings.state if record.is_adverse())


A, B, C = f"{NORTH}/plain/a", f"{INSTITUTE}/plain/b", f"{SOUTH}/plain/c"


async def chain(nodes: dict[str, RunningNode], world: World) -> tuple[bytes, bytes, bytes, bytes]:
    """North's a, twice; the institute's b from the second, and Clinic South's c from that."""
    first = await make(nodes[NORTH], world, "plain/a")
    second = await make(nodes[NORTH], world, "plain/a", run="2")
    b = await make(nodes[INSTITUTE], world, "plain/b", A)
    c = await make(nodes[SOUTH], world, "plain/c", B)
    return first, second, b, c


async def test_a_failed_version_is_rolled_back_and_its_descendants_are_marked(autojump: object) -> None:
    world = World(FOUR, policy=policy_body(WARY))
    async with running(world) as nodes:
        north, institute, south, board = (nodes[name] for name in (NORTH, INSTITUTE, SOUTH, BOARD))
        first, second, b, c = await chain(nodes, world)
        assert (head(north, A), head(institute, A)) == (second, second)
        said = await say(north, second)
        assert said.counts
        await until(lambda: head(north, A) == first)
        assert state(north, second) == "rolled_back"
        # Who holds no more than the newest version of a partner's knows of none that stands, until it asks its writer.
        await until(lambda: state(institute, second) == "rolled_back")
        await institute.service.fetch_head(A, "")
        assert head(institute, A) == first
        # Both descendants are marked, the second one by the mark of the first.
        await until(lambda: marks(institute, b) and marks(south, c))
        assert marks(south, c)[0]["kind"] == "observation"
        assert state(south, c) == "promoted"
        await until(lambda: len({heard(node) for node in nodes.values()}) == 1)
        # What was made stands, and a rule that minds is heard by voters who never read the failed version.
        answer = await asked(board, world, "plain/d", C)
        assert answer.outcome == "defer"
        assert "input_marked_unseen" in {cause.code for cause in answer.causes}


async def test_numbers_go_on_after_a_rollback(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        first = await make(north, world, "plain/a")
        second = await make(north, world, "plain/a", run="2")
        await say(north, second)
        await until(lambda: head(north, A) == first)
        third = await make(north, world, "plain/a", run="3")
        record: Any = north.core.holdings.get(third)
        assert (record.body.generation, record.body.previous) == (3, first)
        assert head(north, A) == third
        # And once more: behind the third lies the first, for the second was taken back.
        await say(north, third)
        await until(lambda: head(north, A) == first)
        fourth: Any = north.core.holdings.get(await make(north, world, "plain/a", run="4"))
        assert (fourth.body.generation, fourth.body.previous) == (4, first)
        assert all(not node.core.holdings.state.of_kind("misbehaviour") for node in nodes.values())


async def test_nothing_of_the_failed_version_is_read_and_the_store_is_told_which_to_put_back(
    autojump: object,
) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        first = await make(north, world, "plain/a")
        second = await make(north, world, "plain/a", run="2")
        bytes_of = {first: b"plain/a 1", second: b"plain/a 2"}

        def read(version: bytes) -> Any:
            content = bytes_of[version]
            sidecar = sidecar_for(north.core, version)
            return work.read(
                north.core, ReadForm("", A, sha256(content).hex(), len(content), sidecar=sidecar)
            )

        assert read(second).admitted
        await say(north, second)
        await until(lambda: head(north, A) == first)
        refused = read(second)
        assert (refused.admitted, refused.put_back) == (False, sha256(bytes_of[first]).hex())
        assert "generation 2 of clinic-north.example/plain/a was rolled back" in refused.causes[0].message
        assert read(first).admitted
        answer = await asked(north, world, "plain/a", run="3")
        started = await north.service.call(lambda: work.start(north.core, StartForm(answer.intent, A)))
        assert started.put_back == sha256(bytes_of[first]).hex()


@pytest.mark.parametrize("why", ["first", "irreversible", "both_failed"])
async def test_what_cannot_be_put_back_is_in_quarantine(autojump: object, why: str) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        last = before = await make(north, world, "plain/a", reversible=why != "irreversible")
        if why != "first":
            last = await make(north, world, "plain/a", run="2", reversible=why != "irreversible")
        if why == "both_failed":
            await say(north, before)
            await until(lambda: state(north, before) == "quarantined")
            assert head(north, A) == last, "the newest version stands, whatever became of those before"
        await say(north, last)
        await until(lambda: all(spoken_of(node, last) for node in nodes.values()))
        assert (head(north, A), state(north, last)) == (last, "quarantined")
        # Nobody may use it, and its writer makes it anew.
        answer = await asked(nodes[INSTITUTE], world, "plain/b", A)
        assert answer.outcome == "refuse"
        assert {"actuation_quarantined", "verification_failed"} <= {cause.code for cause in answer.causes}
        anew: Any = north.core.holdings.get(await make(north, world, "plain/a", run="9"))
        assert anew.body.previous == last


async def test_an_owner_of_the_input_has_its_descendants_taken_back(autojump: object) -> None:
    """North owns a part of what the institute makes from its data, verifies it by itself, and is heard."""
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, world, "plain/a")
        b = await make(institute, world, "plain/b", A)
        again = await make(institute, world, "plain/b", A, run="2")
        await north.service.fetch_head(B, "")
        assert (await say(north, again)).counts
        await until(lambda: head(institute, B) == b)
        assert state(institute, again) == "rolled_back"


async def test_who_has_no_say_moves_nobody(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, south = nodes[NORTH], nodes[SOUTH]
        first = await make(north, world, "plain/a")
        second = await make(north, world, "plain/a", run="2")
        b = await make(nodes[INSTITUTE], world, "plain/b", A)
        await south.service.fetch_head(A, "")
        said = await say(south, second)
        assert not said.counts
        await until(lambda: bytes.fromhex(said.verification) in north.core.holdings.state)
        assert head(north, A) == second != first
        assert marks(nodes[INSTITUTE], b) == []
        rows = verifications.said_of(north.core, second)["said"]
        assert [(row["member"], row["outcome"], row["counts"]) for row in rows] == [(SOUTH, "failed", False)]


async def test_a_check_that_passes_after_all_takes_marks_back(autojump: object) -> None:
    world = World(FOUR, policy=policy_body(WARY))
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        a = await make(north, world, "plain/a")
        b = await make(institute, world, "plain/b", A)

        async def check(*, passed: bool) -> None:
            form = CheckForm("plain/a", a.hex(), "rows_there", passed)
            await north.service.call(lambda: verifications.checked(north.core, form))

        await check(passed=False)
        await until(lambda: marks(institute, b))
        assert state(north, a) == "promoted", "a check bars a version; a verification takes it back"
        refused = await asked(nodes[BOARD], world, "plain/d", A)
        assert "observation_failed" in {cause.code for cause in refused.causes}
        await check(passed=True)
        await until(lambda: not marks(institute, b) and len({heard(node) for node in nodes.values()}) == 1)
        again = await asked(nodes[BOARD], world, "plain/d", B, run="2")
        assert again.outcome == "execute"


async def test_only_a_check_looks_again_at_what_failed_one(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        a = await make(north, world, "plain/a")
        content = b"plain/a 1"
        form = ReadForm("", A, sha256(content).hex(), len(content))

        def admitted(*, to_check: bool, intent: str = "") -> bool:
            asked = dataclasses.replace(form, to_check=to_check, intent=intent)
            return bool(work.read(north.core, asked).admitted)

        failed = CheckForm("plain/a", a.hex(), "rows_there", passed=False)
        await north.service.call(lambda: verifications.checked(north.core, failed))
        assert (admitted(to_check=False), admitted(to_check=True)) == (False, True)
        uses = await asked(north, world, "plain/b", A)
        assert not admitted(to_check=True, intent=uses.intent)
        await say(north, a)
        assert not admitted(to_check=True), "what was verified and failed is read by nobody"


async def test_a_warning_of_a_check_bars_nobody(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        a = await make(north, world, "plain/a")
        form = CheckForm("plain/a", a.hex(), "rows_there", passed=False, severity="warn")
        await north.service.call(lambda: verifications.checked(north.core, form))
        assert (await asked(nodes[INSTITUTE], world, "plain/b", A)).outcome == "execute"


async def test_what_came_while_its_writer_was_down_is_taken_back_after_its_return(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, world, "plain/a")
        b = await make(institute, world, "plain/b", A)
        again = await make(institute, world, "plain/b", A, run="2")
        await north.service.fetch_head(B, "")
        await institute.stop()
        said = await say(north, again)
        reborn = institute.reborn()
        reborn.core.admit([north.core.holdings.get(bytes.fromhex(said.verification)).record])  # type: ignore[union-attr]
        # Ended between the record and what follows of it: who comes next looks at all that was said before.
        third = reborn.reborn()
        third.core.drain()
        assert head(third, B) == b
        before = len(third.core.holdings.state.of_kind("actuation"))
        fourth = third.reborn()
        fourth.core.drain()
        assert len(fourth.core.holdings.state.of_kind("actuation")) == before, "it is said once"


async def test_a_version_that_comes_after_the_word_against_its_input_is_marked(autojump: object) -> None:
    """A permit was there before the input was found wrong, and its actuation is carried in late."""
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, world, "plain/a")
        a = await make(north, world, "plain/a", run="2")
        b = await make(institute, world, "plain/b", A)
        records = ancestry.bundle(institute.core, b)
        assert records
        await say(north, a)
        await until(lambda: state(institute, a) == "rolled_back")
        # North owns a part of b and had never seen it.
        north_marks = north.core.holdings.state.of_kind("observation")
        await north.service.fetch_head(B, "")
        await until(lambda: marks(north, b))
        assert len(north.core.holdings.state.of_kind("observation")) >= len(north_marks)


async def test_many_descendants_are_marked_in_turns(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftermath, "LOOKS_PER_TURN_MAX", 2)
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        a = await make(north, world, "plain/a")
        below = [await make(north, world, f"plain/b{n}", "plain/a", run=f"b{n}") for n in range(7)]
        await say(north, a)
        await until(lambda: all(marks(north, each) for each in below))


async def test_only_what_was_promoted_is_verified(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        a = await make(north, world, "plain/a")
        said = await say(north, a)
        await until(lambda: state(north, a) == "quarantined")
        for version, code in (
            (bytes.fromhex(said.verification), "not_found"),
            (sha256(b"none"), "not_found"),
        ):
            with pytest.raises(Refused) as caught:
                await say(north, version)
            assert caught.value.code == code
        taken: Any = next(r for r in north.core.holdings.state.of_kind("actuation"))
        with pytest.raises(Refused) as caught:
            await say(north, taken.id)
        assert caught.value.code == "not_promoted"


def marks_by(node: RunningNode, version: bytes) -> list[str]:
    """Who has marked a version, as one node holds it."""
    said = node.core.holdings.state.of_kind("observation")
    return sorted(r.member for r in said if version in r.header.subject and r.body.claim == "ancestor_failed")


async def let_pass(seconds: float) -> None:
    with trio.move_on_after(seconds):
        await trio.sleep_forever()


async def test_a_version_that_was_passed_over_is_not_gone_back_to(autojump: object) -> None:
    """Of three the second was found wrong while the third stood; when that is, too, the first one stands."""
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        first, second, third = [await make(north, world, "plain/a", run=run) for run in ("1", "2", "3")]
        await say(north, second)
        await until(lambda: spoken_of(north, second))
        assert (state(north, second), head(north, A)) == ("quarantined", third)
        await say(north, third)
        await until(lambda: spoken_of(north, third))
        assert (state(north, third), head(north, A)) == ("rolled_back", first)


async def test_a_version_whose_check_has_failed_is_not_gone_back_to(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        first = await make(north, world, "plain/a")
        second = await make(north, world, "plain/a", run="2")
        form = CheckForm("plain/a", first.hex(), "rows_there", passed=False)
        await north.service.call(lambda: verifications.checked(north.core, form))
        await say(north, second)
        await until(lambda: spoken_of(north, second))
        assert (state(north, second), head(north, A)) == ("quarantined", second)


async def test_nobody_rolls_back_what_another_made(autojump: object) -> None:
    """An owner bars it; which version is the newest is its writer's to say."""
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, world, "plain/a")
        await make(institute, world, "plain/b", A)
        again = await make(institute, world, "plain/b", A, run="2")
        await north.service.fetch_head(B, "")
        await institute.stop()
        made: Any = north.core.holdings.get(again)
        body = msgspec.structs.replace(made.body, salt=NO_SALT)
        said = world[NORTH].node.write(
            "actuation",
            body,
            START,
            subject=(again,),
            outcome="rolled_back",
            governance=made.header.governance,
        )
        assert [r.id for r in north.core.admit([said]).admitted] == [said.id]
        assert head(north, B) == again
        assert state(north, again) == "promoted"


async def test_an_owner_marks_where_the_writer_does_not_and_strangers_never(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute, board = nodes[NORTH], nodes[INSTITUTE], nodes[BOARD]
        await make(north, world, "plain/a")
        a = await make(north, world, "plain/a", run="2")
        b = await make(institute, world, "plain/b", A)
        for node in (north, board):
            await node.service.fetch_head(B, "")
            await node.service.fetch_head(A, "")
        await institute.stop()
        await say(north, a)
        await until(lambda: spoken_of(board, a) and marks_by(board, b))
        assert marks_by(board, b) == marks_by(north, b) == [NORTH]
        # Another word against the same version, at another time, says nothing new of what was made from it.
        await let_pass(3)
        again = VerificationForm(a.hex(), "failed", checks=[TermForm("columns_wrong")])
        await north.service.call(lambda: verifications.verify_version(north.core, again))
        await until(lambda: len(verifications.said_of(north.core, a)["said"]) == 3)
        await let_pass(3)
        assert marks_by(north, b) == [NORTH]


async def test_an_owner_marks_what_it_meets_late(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, world, "plain/a")
        a = await make(north, world, "plain/a", run="2")
        b = await make(institute, world, "plain/b", A)
        carried = certificate_records(institute.core.holdings, b)
        await institute.stop()
        await say(north, a)
        await until(lambda: spoken_of(north, a))
        # All that follows of what was said so far is said.
        await let_pass(3)
        assert not north.core._unsettled
        assert marks_by(north, b) == []
        await north.service.call(lambda: north.core.admit(carried))
        await until(lambda: marks_by(north, b) == [NORTH])


async def test_a_mark_stays_while_nobody_knows_what_became_of_an_input(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        a = await make(north, world, "plain/a")
        b = await make(institute, world, "plain/b", A)
        held = institute.core.holdings
        made: Any = held.get(b)
        author = world[INSTITUTE].node
        body = Observation(salt=NO_SALT, claim="ancestor_failed", parameters={"input": a.hex()[:16]})
        mark = author.write("observation", body, START, subject=(b,), outcome="disputed")
        known = [r.record for i in tuple(held._execution) if (r := held.get(i)) is not None]
        for forgotten in (frozenset({a}), frozenset[bytes]()):
            partly = Holdings(ENGINE)
            partly.adopt(world.genesis)
            partly.admit([*world.common, mark, *(r for r in known if r.id not in forgotten)])
            said = aftermath_mark(partly, author, made, START + 1)
            assert [r.header.kind for r in said] == ([] if forgotten else ["revocation"])


def test_what_is_left_to_look_at_wakes_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "LOOKS_PER_TURN_MAX", 1)
    world = World(FOUR)
    south = world[SOUTH]
    core = still(world, NORTH)
    core.admit([south.observe(sha256(bytes([n])), "failed") for n in range(3)])
    wakes = [any(isinstance(each, Wake) for each in core.drain()) for _ in range(4)]
    assert wakes == [True, True, False, False]
