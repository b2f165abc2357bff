"""How votes came about: judged again from what they rest on, and found equal, different, or no longer to be had."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from api_calls import equip, make, solo, step, submit
from comity.attestation.weighting import combine
from comity.node import drafts, steps, views, workings
from comity.node.client import NotFoundError
from comity.node.forms import (
    ActuationForm,
    ContextForm,
    InputForm,
    OutputForm,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.node.problems import Refused
from comity.node.work import actuate, start
from comity.protocol.execution import Vote
from comity.protocol.identifiers import sha256
from command_line import Said
from houses import RunningHouse, environment, found, short_folder, street
from nodes import RunningNode, running, until
from world import BOARD, INSTITUTE, NORTH, SOUTH, World

pytestmark = pytest.mark.usefixtures("gossip")

DIGEST = sha256(b"code").hex()


@asynccontextmanager
async def four() -> AsyncGenerator[tuple[World, dict[str, RunningNode]]]:
    world = World()
    async with running(world) as nodes:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        yield world, nodes


async def decided(node: RunningNode, world: World, output: str, *inputs: str, **changes: Any) -> StepAnswer:
    """Submit a step, and wait until it is decided or deferred."""
    form = StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="job",
        code=DIGEST,
        outputs=[OutputForm(output)],
        inputs=[InputForm(name) for name in inputs],
        **changes,
    )
    credential = world[node.name].credentials["automation/main"][1].id
    defaults = drafts.Defaults("care", credential)
    answer = await node.service.call(partial(steps.submit, node.core, form, defaults))
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing != "asking"

    await node.service.wait_for(intent, settled, 30)
    return await node.service.call(partial(steps.answer, node.core, intent))


def made(node: RunningNode, answer: StepAnswer) -> None:
    """Do the work that was permitted."""
    (output,) = answer.outputs
    started = start(node.core, StartForm(answer.intent, output.asset, output.partition))
    actuate(
        node.core,
        ActuationForm(
            intent=answer.intent,
            start=started.start,
            asset=output.asset,
            digest=DIGEST,
            size=4,
            media_type="text/csv",
            rows=1,
            columns=output.columns,
        ),
    )


def working(node: RunningNode, named: str) -> list[Any]:
    """The workings of what an id stands for."""
    found = workings.round_of(node.core, bytes.fromhex(named))
    return [workings.working_of(node.core, group) for group in found.groups]


# What is shown


async def test_equal_votes_have_one_working(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        context = ContextForm("cpython-3.11", "linux", DIGEST, 3, DIGEST, 1)
        answer = await decided(north, world, "plain/a", context=context)
        (said,) = working(north, answer.permit)
        assert said["computed"]
        votes = [row["member"] for row in said["votes"]]
        assert votes == [
            row["member"] for row in views.decision(north.core, bytes.fromhex(answer.permit))["votes"]
        ]
        assert all(row["equal"] and row["differs"] == [] for row in said["votes"])
        assert {row["working"] for row in said["votes"]} == {said["digest"]}
        (group,) = said["classes"]
        assert group["outcome"]["mode"] == "execute"
        # The terms of the weight make the weight, and those of the evidence are among them.
        terms = group["weight"]["terms"]
        assert combine([term["ppm"] for term in terms]) == group["weight"]["ppm"]
        assert [term["code"] for term in terms] == ["authority_class", "tier"]
        assert [link["subject"] for link in said["authority"]["credentials"]] == [
            f"spiffe://{NORTH}/automation/main"
        ]
        assert (said["evidence"]["tier"], said["evidence"]["freshness"]) == (1, "none")
        assert said["evidence"]["attestations"][0]["distributions_count"] == 3
        assert said["adverse"] == {"records": [], "struck": [], "more_than_named": False}
        assert "without_adverse" not in group


async def test_rules_that_fired_and_inputs_are_named(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        made(north, await decided(north, world, "patients"))
        answer = await decided(north, world, "released", "patients", purpose="survival_study")
        (said,) = working(north, answer.permit)
        (group,) = said["classes"]
        (policy,) = group["policies"]
        assert (policy["name"], policy["of"], policy["mode"]) == ("policy", "epoch", "restrict")
        assert policy["rules"] == ["quasi-identifiers", "small-groups", "unneeded"]
        assert [each["code"] for each in policy["obligations"]] == ["min_group_rows"]
        assert group["outcome"]["columns"] == answer.outputs[0].columns
        (given,) = group["inputs"]
        assert (given["asset"], given["problem"]) == (f"{NORTH}/patients", None)
        assert given["state"]["owners"] == [NORTH]


async def test_a_deferral_has_a_working_too(autojump_clock: object) -> None:
    """It has no certificate; the votes in hand are shown, at the requester and where each voted."""
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await decided(north, world, "pooled")
        found = workings.round_of(north.core, bytes.fromhex(answer.intent))
        assert found.decision is None
        (said,) = working(north, answer.intent)
        assert {row["member"] for row in said["votes"]} == set(nodes)
        (group,) = said["classes"]
        assert group["policies"][0]["rules"] == ["dpo"]
        assert [need["code"] for need in group["outcome"]["needs"]] == ["approval"]
        (elsewhere,) = working(nodes[SOUTH], answer.intent)
        assert [row["member"] for row in elsewhere["votes"]] == [SOUTH]
        assert elsewhere["digest"] == said["digest"]
        # One vote, by its own id.
        vote = elsewhere["votes"][0]["vote"]
        assert working(nodes[SOUTH], vote) == [elsewhere]


async def test_approvals_that_count_and_that_do_not(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        officer = world[SOUTH].credential(
            "officer/1", classes=("data-protection-officer",), actions=("approve",), assets=("*/**",)
        )
        own = world[NORTH].credential(
            "officer/2", classes=("data-protection-officer",), actions=("materialize",), assets=("*/**",)
        )
        for node in nodes.values():
            node.core.admit([officer, own])
        answer = await decided(north, world, "pooled")
        intent = north.core.holdings.get(bytes.fromhex(answer.intent))
        assert intent is not None
        approval = world[SOUTH].approve("officer/1", intent.record)
        useless = world[NORTH].approve("officer/2", intent.record)
        await north.service.call(partial(north.core.admit, [approval, useless]))
        await until(lambda: steps.answer(north.core, intent.id).outcome == "execute")
        (said,) = working(north, answer.intent)
        rows = {row["approval"]: row for row in said["approvals"]}
        assert rows[approval.id.hex()]["classes"] == ["data-protection-officer"]
        assert rows[approval.id.hex()]["counts"]
        assert rows[useless.id.hex()]["because"] == "credential_bound"


async def test_the_working_shows_judging_without_and_with_what_speaks_against(autojump_clock: object) -> None:
    """One voter holds a revocation and the others do not: two workings, each equal to its votes."""
    async with four() as (world, nodes):
        board = nodes[BOARD]
        credential = world[NORTH].credentials["automation/main"][1]
        revocation = world[NORTH].revoke(credential.id)
        # Into its holdings alone, so that it does not travel before the ask does.
        board.core.holdings.admit([revocation])
        answer = await decided(nodes[NORTH], world, "plain/a")
        assert answer.outcome == "execute"
        # Three votes decide; this one may come after.
        await until(lambda: board.store.about(bytes.fromhex(answer.intent), "vote"))
        (said,) = working(board, answer.intent)
        assert [row["member"] for row in said["votes"]] == [BOARD]
        assert said["votes"][0]["equal"]
        assert [(row["record"], row["kind"]) for row in said["adverse"]["records"]] == [
            (revocation.id.hex(), "revocation")
        ]
        (group,) = said["classes"]
        assert group["outcome"]["mode"] == "refuse"
        assert [cause["code"] for cause in group["outcome"]["causes"]] == ["credential_revoked"]
        assert group["without_adverse"]["mode"] == "execute"
        assert combine([term["ppm"] for term in group["weight"]["terms"]]) == group["weight"]["ppm"]
        assert said["authority"]["credentials"][0]["struck"] == "revoked"
        assert said["authority"]["problem"]["code"] == "credential_missing"


# Where it is not equal, or cannot be


async def test_vote_that_no_judgement_gives_is_shown_to_differ(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await decided(north, world, "plain/a")
        (said,) = working(north, answer.permit)
        honest = north.core.holdings.get(bytes.fromhex(said["votes"][0]["vote"]))
        assert honest is not None
        assert isinstance(honest.body, Vote)
        (judgement,) = honest.body.judgements
        body = msgspec.structs.replace(
            honest.body, judgements=(msgspec.structs.replace(judgement, weight=judgement.weight + 1),)
        )
        liar = world[INSTITUTE].node
        wrong = liar.write("vote", body, honest.header.at, subject=honest.header.subject)
        north.core.holdings.admit([wrong])
        (shown,) = working(north, wrong.id.hex())
        assert (shown["votes"][0]["equal"], shown["votes"][0]["differs"]) == (False, ["judgements"])
        # What comes out here is shown, not what was signed.
        assert shown["classes"] == said["classes"]


async def test_another_engines_vote_is_said_to_be_one(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await decided(north, world, "plain/a")
        north.core.holdings.engine = sha256(b"another engine")
        (shown,) = working(north, answer.permit)
        assert all(row["differs"] == ["engine"] for row in shown["votes"])


async def test_without_an_erased_body_there_is_no_working(autojump_clock: object) -> None:
    """Until then it can be computed; afterwards it says what is gone, and asks nobody for it."""
    async with four() as (world, nodes):
        north = nodes[NORTH]
        context = ContextForm("cpython-3.11", "linux", DIGEST, 3, DIGEST, 1)
        answer = await decided(north, world, "plain/a", context=context)
        (evidence,) = north.store.about(bytes.fromhex(answer.intent), "attestation")
        assert north.store.erase_body(evidence.id)
        await north.stop()
        again = north.reborn()
        again.core.admit(world.common)
        named = bytes.fromhex(answer.permit)
        assert workings.missing_for(again.core, named) == ()
        (said,) = working(again, answer.permit)
        assert not said["computed"]
        assert said["problem"]["code"] == "records_missing"
        assert said["missing"] == [{"record": evidence.id.hex(), "why": "erased"}]
        assert [row["equal"] for row in said["votes"]] == [None] * len(said["votes"])


async def test_what_others_hold_is_fetched(autojump_clock: object) -> None:
    """A member that was asked nothing still shows how another's decision came about."""
    async with four() as (world, nodes):
        answer = await decided(nodes[NORTH], world, "plain/a")
        named = bytes.fromhex(answer.permit)
        south = nodes[SOUTH]
        assert workings.missing_for(south.core, named) == (named,)
        assert await south.service.bring(partial(workings.missing_for, south.core, named), 20) == ()
        (said,) = working(south, answer.permit)
        assert all(row["equal"] for row in said["votes"])


async def test_an_id_without_votes_is_not_found(autojump_clock: object) -> None:
    async with four() as (world, nodes):
        credential = world[NORTH].credentials["automation/main"][1]
        for named in (bytes(32), credential.id):
            with pytest.raises(Refused) as excinfo:
                workings.round_of(nodes[NORTH].core, named)
            assert excinfo.value.code == "not_found"
        assert workings.missing_for(nodes[NORTH].core, credential.id) == ()


# By API and command


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def run(house: RunningHouse, *words: object, status: int = 0) -> Said:
    """A command at a node's home, in a process of its own, as people give it."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "comity.node.cli",
        *map(str, words),
        "--home",
        str(house.home.path),
    ]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment()
    )
    said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert said.status == status, said
    return said


async def test_the_command_shows_the_working(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("patients", purpose="survival_study")), b"patients")
        answer = await submit(house, step("released", "patients", purpose="survival_study"))
        text = (await run(house, "decision", "show", answer.permit[:12], "--working")).output
        for part in (
            "equal to the signed vote to the byte",
            "credential",
            "tier 0: no evidence",
            "approvals: none",
            "against it: nothing",
            "authority_class data-steward",
            "rules quasi-identifiers, small-groups, unneeded",
            f"input {NORTH}/patients, generation 1",
        ):
            assert part in text, (part, text)
        said = (await run(house, "decision", "show", answer.intent, "--working", "--json")).json
        assert (said["decision"], said["outcome"]) == (answer.permit, "restrict")
        assert said["workings"][0]["votes"][0]["equal"]
        waiting = await submit(house, step("pooled", "patients", wait_s=0.0))
        await house.until(lambda said: [each["standing"] for each in said["waiting"]] == ["deferred"])
        text = (await run(house, "decision", "show", waiting.intent[:10], "--working")).output
        assert "not decided" in text
        assert "rules dpo" in text
        assert (await run(house, "decision", "show", waiting.intent, status=1)).errors
        with pytest.raises(NotFoundError):
            await house.ask(lambda client: client.workings("ab" * 32), "reader")


async def test_short_ids_and_wrong_tokens(place: Path) -> None:
    """What a list shows of an id will do wherever an id is asked for, and a wrong token is named by its file."""
    async with solo(place) as house:
        (row,) = (await run(house, "credential", "list", "--json")).json
        said = await run(
            house, "intent", "explain", "--asset", "plain/a", "--credential", row["credential"][:16]
        )
        assert "execute" in said.output
        out = place / "revocation.bin"
        revoked = await run(house, "credential", "revoke", row["credential"][:16], "--out", out, "--json")
        assert revoked.json["revoked"] == row["credential"]
        said = await run(house, "credential", "revoke", "0" * 16, status=2)
        assert "this node holds no credential or node certificate" in said.errors
        said = await run(
            house, "intent", "explain", "--asset", "plain/a", "--purpose", "No Purpose", status=2
        )
        assert "'No Purpose' is no purpose" in said.errors
        token = house.home.path / "tokens/reader"
        token.write_text("x" * 43)
        said = await run(house, "waiting", "--json", status=2)
        assert said.json["error"]["code"] == "token_wrong"
        assert str(token) in said.errors


async def test_status_says_who_is_there_since_when_and_what_waits(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    async with street() as here:
        north = await here.start(homes[NORTH])
        said = await north.ask(lambda client: client.status(), "reader")
        (absent,) = (row for row in said["members"] if row["member"] == SOUTH)
        assert (absent["connected"], absent["since"], absent["nodes"]) == (False, 0, [])
        assert "tolerates no fault" in said["tolerance"]
        text = (await run(north, "node", "status")).output
        assert "never since this node began" in text
        before = int(time.time())
        south = await here.start(homes[SOUTH])
        said = await north.until(lambda said: said["reachable"] == 2)
        (present,) = (row for row in said["members"] if row["member"] == SOUTH)
        assert before <= present["since"] <= time.time()
        (node,) = present["nodes"]
        assert (node["node"], node["connected"]) == (f"spiffe://{SOUTH}/node/n1", True)
        await equip(north)
        answer = await submit(north, step("pooled", wait_s=0.0))
        await north.until(lambda said: [each["standing"] for each in said["waiting"]] == ["deferred"])
        text = (await run(north, "node", "status")).output
        assert "needs an approval by somebody who holds data-protection-officer" in text
        assert answer.intent[:16] in text
        await south.end()
        said = await north.until(lambda said: said["reachable"] == 1)
        (lost,) = (row for row in said["members"] if row["member"] == SOUTH)
        assert lost["since"] >= present["since"]
