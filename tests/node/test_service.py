"""Nodes that decide together, over the in-memory network on virtual time: service, core, steps, work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from comity.node import drafts, steps, views, work
from comity.node.certificates import certificate_records
from comity.node.forms import (
    ReadAnswer,
    ReadForm,
    StartForm,
    StepAnswer,
)
from comity.node.problems import Refused
from comity.protocol.identifiers import sha256
from nodes import RunningNode, running, until
from stepping import make, step, submit
from world import BOARD, COLUMNS, INSTITUTE, NEEDED, NORTH, SOUTH, World

pytestmark = pytest.mark.usefixtures("gossip")

CODE = sha256(b"code").hex()


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


@asynccontextmanager
async def four(**options: object) -> AsyncGenerator[tuple[World, dict[str, RunningNode]]]:
    world = World()
    async with running(world, **options) as nodes:  # type: ignore[arg-type]
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        yield world, nodes


async def test_a_step_is_decided_by_all(autojump: object) -> None:
    async with four() as (world, nodes):
        answer = await submit(nodes[NORTH], world, step("plain/a"))
        assert answer.outcome == "execute"
        assert answer.votes.keys() == set(nodes)
        refused = await submit(nodes[NORTH], world, step("forbidden/a"))
        assert refused.outcome == "refuse"
        assert [cause.code for cause in refused.causes] == ["forbidden_class"]


async def test_ungoverned_steps_leave_no_trace(autojump: object) -> None:
    async with four() as (world, nodes):
        answer = await submit(nodes[NORTH], world, step("scratch"))
        assert answer == StepAnswer(intent="", outcome="ungoverned")
        assert nodes[NORTH].core.requester.pursuits() == ()


async def test_restriction_reaches_the_bridge_in_its_words(autojump: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        patients = await submit(north, world, step("patients"))
        await make(north, patients, b"patients")
        form = step("released", "patients", purpose="survival_study")
        answer = await submit(north, world, form)
        assert answer.outcome == "restrict"
        (output,) = answer.outputs
        assert set(output.columns) == set(NEEDED)
        assert not output.all_columns
        assert [o.code for o in output.obligations] == ["min_group_rows"]
        with pytest.raises(Refused, match="outside of the permitted extent"):
            await make(north, answer, b"released", COLUMNS)


async def test_a_partner_reads_what_was_made_and_notices_what_was_changed(autojump: object) -> None:
    async with four() as (world, nodes):
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        sidecar = await make(north, await submit(north, world, step("plain/a")), b"the bytes")
        answer = await submit(institute, world, step("plain/b", f"{NORTH}/plain/a"))
        assert answer.outcome == "execute"
        asset = f"{NORTH}/plain/a"

        def read(content: bytes, side: str = sidecar) -> ReadAnswer:
            return work.read(
                institute.core,
                ReadForm(answer.intent, asset, sha256(content).hex(), len(content), sidecar=side),
            )

        assert (await institute.service.call(lambda: read(b"the bytes"))).admitted
        changed = await institute.service.call(lambda: read(b"the bytez"))
        assert not changed.admitted
        assert [cause.code for cause in changed.causes] == ["content_changed"]
        digest = sha256(b"the bytes").hex()
        swapped = ReadForm("", f"{NORTH}/plain/by-day", digest, 9, partition="2", sidecar=sidecar)
        other = await institute.service.call(lambda: work.read(institute.core, swapped))
        assert [cause.code for cause in other.causes] == ["lineage_of_another"]
        assert other.causes[0].message == (
            f"these are the genuine bytes of {asset}, not of partition 2 of {NORTH}/plain/by-day"
        )
        broken = await institute.service.call(lambda: read(b"the bytes", "!!"))
        assert [cause.code for cause in broken.causes] == ["sidecar_unreadable"]


async def test_a_sidecar_alone_brings_the_lineage(autojump: object) -> None:
    """The writer's node is gone; what lies beside the bytes suffices to ask and to read."""
    async with four() as (world, nodes):
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        sidecar = await make(north, await submit(north, world, step("plain/a")), b"the bytes")
        await north.stop()
        await until(lambda: NORTH not in institute.service.connected())
        assert drafts.missing_inputs(institute.core, step("plain/b", f"{NORTH}/plain/a"))
        pointed = await institute.service.call(lambda: work.admit_sidecar(institute.core, sidecar))
        assert pointed is not None
        answer = await submit(institute, world, step("plain/b", f"{NORTH}/plain/a"))
        assert answer.outcome == "defer"
        assert [(n.code, n.parameters["member"]) for n in answer.needs] == [("consent", NORTH)]


async def test_late_node_converges_from_any_honest_peer(autojump: object) -> None:
    async with four(knows=[SOUTH]) as (world, nodes):
        await until(lambda: all(node.core.holdings.governance() is not None for node in nodes.values()))
        sets = {name: {r.id for r in node.core.holdings.state} for name, node in nodes.items()}
        assert len({frozenset(ids) for ids in sets.values()}) == 1
        answer = await submit(nodes[INSTITUTE], world, step("plain/a"))
        assert answer.outcome == "execute"


async def test_one_member_down_changes_nothing(autojump: object) -> None:
    async with four() as (world, nodes):
        await nodes[BOARD].stop()
        await until(lambda: BOARD not in nodes[NORTH].service.connected())
        answer = await submit(nodes[NORTH], world, step("plain/a"))
        assert answer.outcome == "execute"
        assert answer.votes[BOARD] == "silent"


async def test_approval_goes_to_whoever_waits_for_it(autojump: object) -> None:
    async with four() as (world, nodes):
        south, institute = nodes[SOUTH], nodes[INSTITUTE]
        world[SOUTH].credential(
            "operator/dpo",
            classes=("data-protection-officer",),
            actions=("approve",),
            assets=(f"{INSTITUTE}/**",),
        )
        south.core.publish([world[SOUTH].credentials["operator/dpo"][1]])
        answer = await submit(institute, world, step("pooled"))
        assert answer.outcome == "defer"
        assert [need.code for need in answer.needs] == ["approval"]
        intent_id = bytes.fromhex(answer.intent)
        seen = south.core.holdings.get(intent_id)
        assert seen is not None, "a voter holds the intent that it judged"
        approval = world[SOUTH].approve("operator/dpo", seen.record)
        await south.service.call(lambda: south.core.publish([approval], [INSTITUTE]))
        await until(lambda: steps.answer(institute.core, intent_id).outcome == "execute")
        assert steps.answer(institute.core, intent_id).intent == answer.intent


async def test_revocation_stops_an_unstarted_permit(autojump: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await submit(north, world, step("plain/a"))
        credential = world[NORTH].credentials["automation/main"][1]
        await north.service.call(lambda: north.core.publish([world[NORTH].revoke(credential.id)]))
        with pytest.raises(Refused) as caught:
            await make(north, answer, b"x")
        assert caught.value.code == "adverse_held"
        await until(lambda: all(n.core.holdings.adverse_about([credential.id]) for n in nodes.values()))
        refused = await submit(north, world, step("plain/b"))
        assert refused.outcome == "refuse"


async def test_a_permit_is_used_once_and_in_time(autojump: trio.testing.MockClock) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await submit(north, world, step("plain/a"))
        await make(north, answer, b"x")
        with pytest.raises(Refused) as caught:
            await make(north, answer, b"y")
        assert caught.value.code == "permit_used"
        late = await submit(north, world, step("plain/b"))
        autojump.jump(late.expires - north.core.clock.now())
        with pytest.raises(Refused) as caught:
            await make(north, late, b"z")
        assert caught.value.code == "permit_expired"
        again = await submit(north, world, step("plain/b"))
        assert again.intent == late.intent
        await until(lambda: steps.answer(north.core, bytes.fromhex(late.intent)).expires > late.expires)
        await make(north, steps.answer(north.core, bytes.fromhex(late.intent)), b"z")


async def test_a_run_that_is_late_asks_again_for_all_that_it_has_not_begun(
    autojump: trio.testing.MockClock,
) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        one, two, begun = [await submit(north, world, step(f"plain/{name}")) for name in ("a", "b", "c")]
        other = await submit(north, world, step("plain/d", run="run-2"))
        await north.service.call(
            lambda: work.start(north.core, StartForm(begun.intent, begun.outputs[0].asset, run="run-1"))
        )
        autojump.jump(one.expires - north.core.clock.now())

        def expires(answer: StepAnswer) -> int:
            return steps.answer(north.core, bytes.fromhex(answer.intent)).expires

        await submit(north, world, step("plain/a"))
        await until(lambda: min(expires(one), expires(two)) > one.expires)
        # What was begun, and what another run has, is asked for when it is wanted.
        assert (expires(begun), expires(other)) == (begun.expires, other.expires)


async def test_next_generation_names_the_one_before(autojump: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        for generation in (1, 2, 3):
            answer = await submit(north, world, step("plain/a", run=f"run-{generation}"))
            await make(north, answer, str(generation).encode())
            (head,) = north.store.heads(f"{NORTH}/plain/a")
            assert head.generation == generation


async def test_a_re_execution_resumes_the_waiting_intent(autojump: object) -> None:
    async with four() as (world, nodes):
        institute = nodes[INSTITUTE]
        first = await submit(institute, world, step("pooled", run="run-1"))
        again = await submit(institute, world, step("pooled", run="run-2"))
        assert first.intent == again.intent
        other = await submit(institute, world, step("pooled", run="run-3", code=sha256(b"other").hex()))
        assert other.intent != first.intent


async def test_hostile_bytes_at_the_peers_door(autojump: object) -> None:
    from comity.protocol.frames import AskFrame, OfferFrame, ProblemFrame, decode_answer, encode_frame

    async with four() as (_, nodes):
        north = nodes[NORTH]
        for payload in (
            b"",
            b"\xc1" * 100,
            b"\x91" * 5000,
            encode_frame(AskFrame(ask=b"no record")),
            encode_frame(OfferFrame(records=(b"no record",))),
        ):
            answer = decode_answer(await north.service.handle_request("a stranger", payload))
            assert isinstance(answer, ProblemFrame)
            assert answer.code == "frame_wrong"


async def test_a_restarted_node_goes_on_with_what_it_had_promised(autojump: object) -> None:
    async with four() as (world, nodes):
        institute = nodes[INSTITUTE]
        waiting = await submit(institute, world, step("pooled"))
        permitted = await submit(institute, world, step("plain/a", run="run-2"))
        refused = await submit(institute, world, step("forbidden/a", run="run-3"))
        await institute.stop()
        again = institute.reborn()
        assert again.core.resume() == 3
        ids = [bytes.fromhex(answer.intent) for answer in (waiting, permitted, refused)]
        assert [steps.answer(again.core, i).outcome for i in ids] == ["held", "execute", "refuse"]
        assert steps.answer(again.core, ids[1]).permit == permitted.permit
        await make(again, steps.answer(again.core, ids[1]), b"x")


async def test_one_members_junk_does_not_hide_what_others_publish(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actuations that no permit carries are heads of nothing, whatever time they claim; each has its own bound."""
    async with four() as (world, nodes):
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await make(north, await submit(north, world, step("plain/a")), b"x")
        (head,) = north.store.heads(f"{NORTH}/plain/a")
        await institute.service.fetch_head(f"{NORTH}/plain/a", "")
        actuation = north.core.holdings.get(head.actuation)
        assert actuation is not None
        monkeypatch.setattr(views, "PARTNER_SLOTS_MAX", 3)
        junk = [
            world[SOUTH].node.write(
                "actuation",
                msgspec.structs.replace(actuation.body, asset=f"{SOUTH}/plain/j{number}"),
                north.core.clock.now() + 10 + number,
                outcome="promoted",
                realm="production",
                governance=actuation.header.governance,
            )
            for number in range(5)
        ]
        institute.core.admit(junk)
        assert institute.store.heads(f"{SOUTH}/plain/j0") == []
        assert [row.asset for row in views.partner_assets(institute.core)] == [f"{NORTH}/plain/a"]


async def test_a_head_waits_for_the_certificate_of_its_actuation(autojump: object) -> None:
    async with four() as (world, nodes):
        north, south = nodes[NORTH], nodes[SOUTH]
        await make(north, await submit(north, world, step("plain/a")), b"x")
        made = north.store.heads(f"{NORTH}/plain/a")[0].actuation
        records = certificate_records(north.core.holdings, made)
        south.core.admit([record for record in records if record.id == made])
        before = south.store.heads(f"{NORTH}/plain/a")
        for record in records:
            south.core.admit([record])
        (head,) = south.store.heads(f"{NORTH}/plain/a")
        assert (before, head.actuation) == ([], made)
