"""Steps over the local API: from an intent to lineage, in one organization and among several."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from api_calls import SOLO, equip, make, released, solo, step, submit, submit_record
from comity.attestation.authoring import NO_SALT
from comity.attestation.engine import engine_id
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import parse_roots
from comity.node.client import (
    FormInvalidError,
    InputForm,
    NotPermittedError,
    ReadForm,
    StartForm,
)
from comity.node.credentialing import Wish, issued, revoked
from comity.node.keystore import companion, create_key
from comity.node.signing_hand import now
from comity.protocol.execution import Observation
from comity.protocol.identifiers import sha256
from houses import RunningHouse, found, hand_of, inhabited, short_folder, without_gossip
from world import COLUMNS, INSTITUTE, NEEDED, NORTH, SOUTH


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def test_a_step_from_intent_to_lineage(place: Path) -> None:
    async with solo(place) as house:
        answer = await submit(house, step("plain/a"))
        assert answer.outcome == "execute"
        assert answer.votes == {NORTH: "execute"}
        assert answer.governed_inputs == []
        again = await submit(house, step("plain/a"))
        assert again.intent == answer.intent
        sidecar = await make(house, answer, b"content")
        with pytest.raises(NotPermittedError) as excinfo:
            await house.ask(lambda client: client.start(StartForm(answer.intent, "plain/a")))
        assert excinfo.value.code == "permit_used"
        true = ReadForm("", "plain/a", sha256(b"content").hex(), 7, sidecar=sidecar)
        assert (await house.ask(lambda client: client.read(true))).admitted
        changed = dataclasses.replace(true, digest=sha256(b"kontent").hex())
        said = await house.ask(lambda client: client.read(changed))
        assert not said.admitted
        assert said.causes[0].code == "content_changed"
        assert NORTH in said.causes[0].message


async def test_ungoverned_steps_are_answered_at_once(place: Path) -> None:
    async with solo(place) as house:
        assert (await submit(house, step("scratch"))).outcome == "ungoverned"
        assert await house.ask(lambda client: client.intents(), "reader") == []


async def test_a_step_of_checks_alone_has_its_inputs_verified(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("plain/a")), b"a")
        answer = await submit(house, step("check", "plain/a", "scratch", outputs=[], checks=["plain/a:rows"]))
        assert (answer.outcome, answer.governed_inputs) == ("ungoverned", [f"{NORTH}/plain/a"])


async def test_restriction_is_said_in_words(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("patients", purpose="survival_study")), b"p")
        answer = await submit(house, step("released", "patients", purpose="survival_study"))
        (output,) = answer.outputs
        assert (answer.outcome, output.mode) == ("restrict", "restrict")
        assert set(output.columns) == set(NEEDED)
        assert set(output.columns) < set(COLUMNS)
        assert [each.message for each in output.obligations] == [
            "leave out groups of fewer than 5 rows by inst"
        ]


async def test_without_a_credential_the_answer_says_how_to_issue_one(place: Path) -> None:
    homes = found(place, SOLO)
    async with inhabited(homes) as houses:
        with pytest.raises(FormInvalidError) as excinfo:
            await submit(houses[NORTH], step("plain/a"))
        assert excinfo.value.code == "credential_missing"
        assert "comity credential issue" in excinfo.value.hint


async def test_the_newest_automation_credential_in_force_is_the_default(place: Path) -> None:
    async with solo(place) as house:
        newer = await equip(house, classes=("data-protection-officer",), purposes=("care",))
        intent = (await submit(house, step("plain/a"))).intent
        shown = await house.ask(lambda client: client.intent(intent), "reader")
        assert shown["body"]["credential"] == newer.id.hex()
        hand = hand_of(house.home)
        await submit_record(
            house, await trio.to_thread.run_sync(lambda: revoked(hand, newer.id.hex(), "key_lost"))
        )
        intent = (await submit(house, step("plain/b"))).intent
        shown = await house.ask(lambda client: client.intent(intent), "reader")
        assert shown["body"]["credential"] != newer.id.hex()


async def test_an_explanation_leaves_no_trace_and_names_the_lifts(place: Path) -> None:
    async with solo(place) as house:
        answer = await house.ask(lambda client: client.explain(step("pooled")))
        assert answer.outcome == "defer"
        assert [need.code for need in answer.needs] == ["approval"]
        assert [[need.code for need in lift] for lift in answer.lifts] == [["approval"]]
        assert "data-protection-officer" in answer.needs[0].message
        assert await house.ask(lambda client: client.intents(), "reader") == []
        refused = await house.ask(lambda client: client.explain(step("forbidden/x")))
        assert (refused.outcome, refused.lifts) == ("refuse", [])
        assert (await house.ask(lambda client: client.explain(step("scratch")))).outcome == "ungoverned"
        missing = await house.ask(lambda client: client.explain(step("plain/a", "patients")))
        assert (missing.outcome, missing.causes[0].code) == ("defer", "input_without_lineage")
        # The real one, in the same second, is another intent and is decided.
        assert (await submit(house, step("plain/a"))).outcome == "execute"


# Several members


async def test_partners_inputs_are_fetched_before_a_step_is_judged(place: Path) -> None:
    homes = found(place)
    # Gossip would tell Clinic South of what nobody there has asked for.
    without_gossip(homes[SOUTH])
    async with inhabited(homes) as houses:
        for member in (NORTH, SOUTH, INSTITUTE):
            await equip(houses[member])
        sidecars = {member: await released(houses[member]) for member in (NORTH, SOUTH)}
        institute = houses[INSTITUTE]
        form = step("pooled", f"{NORTH}/released", f"{SOUTH}/released", purpose="survival_study", wait_s=0.5)
        answer = await submit(institute, form)
        assert answer.outcome == "defer"
        assert answer.governed_inputs == [f"{NORTH}/released", f"{SOUTH}/released"]
        await approve_by_officer(houses[SOUTH], institute, answer.intent)
        decided = await institute.ask(lambda client: client.step(answer.intent, 10.0))
        assert (decided.outcome, decided.intent) == ("execute", answer.intent)
        await make(institute, decided, b"pooled")

        partners = await institute.ask(lambda client: client.partner_assets())
        assert {each.asset for each in partners} >= {f"{NORTH}/released", f"{SOUTH}/released"}
        assert next(each for each in partners if each.asset == f"{NORTH}/released").governance.owners == [
            NORTH
        ]

        # A bundle holds what partners hold: it is fetched, and a stranger verifies it.
        lineage = await institute.ask(lambda client: client.lineage("pooled"), "reader")
        assert lineage["complete"]
        assert [each["asset"].split("/")[1] for each in lineage["actuations"]] == [
            "pooled", "released", "released", "patients", "patients",
        ]  # fmt: skip
        bundle = await institute.ask(lambda client: client.bundle("pooled"), "reader")
        report = verify_bundle(bundle, parse_roots(houses[NORTH].home.roots.read_text()), engine_id())
        assert report.level == "re-judged"
        assert report.kinds["actuation"] == 5

        # With its writer down a known head is enough, and so is the sidecar that lay beside the bytes.
        await houses[NORTH].end()
        await institute.until(lambda said: said["reachable"] == 3)
        explained = await institute.ask(lambda client: client.explain(form))
        assert [cause.code for cause in explained.causes] != ["input_without_lineage"]
        south = houses[SOUTH]
        unseen = step("pooled", f"{NORTH}/released", purpose="survival_study")
        assert (await south.ask(lambda client: client.explain(unseen))).causes[
            0
        ].code == "input_without_lineage"
        brought = InputForm(f"{NORTH}/released", sidecar=sidecars[NORTH])
        known = dataclasses.replace(unseen, inputs=[brought])
        explained = await south.ask(lambda client: client.explain(known))
        assert explained.causes[0].code != "input_without_lineage"


async def approve_by_officer(officer: RunningHouse, author: RunningHouse, intent: str) -> None:
    """What waits is listed with what to do, and a person's own key at another organization approves it."""
    (row,) = await author.ask(lambda client: client.waiting(), "reader")
    assert row["intent"] == intent
    assert row["needs"][0]["parameters"] == {"class": "data-protection-officer"}
    assert row["needs"][0]["deed"].startswith(f"comity approve {intent}")
    path = officer.home.path / "officer.pem"
    create_key(path)
    wish = Wish(
        "operator/dpo1",
        "person",
        ("data-protection-officer",),
        public=companion(path),
        actions=("approve",),
        assets=("*/pooled",),
    )
    credential, _ = issued(hand_of(officer.home), wish)
    await submit_record(officer, credential)
    shown = await officer.ask(lambda client: client.intent(intent), "reader")
    assert shown["standing"] == "seen"
    author_of_approval = hand_of(officer.home).holder(path, credential)
    digest = bytes.fromhex(
        (await officer.ask(lambda client: client.record(intent), "reader"))["header"]["body"]["digest"]
    )
    approval = author_of_approval.write(
        "observation",
        Observation(salt=NO_SALT, claim="approval", shown=digest),
        now(),
        subject=(bytes.fromhex(intent),),
        outcome="approved",
    )
    told = await submit_record(officer, approval)
    assert told["told"] == [author.ready.member]


async def test_a_live_owner_that_is_down_is_named(place: Path) -> None:
    async with inhabited(found(place)) as houses:
        for member in (NORTH, INSTITUTE):
            await equip(houses[member])
        await released(houses[NORTH])
        institute = houses[INSTITUTE]
        form = step("plain/x", f"{NORTH}/released", purpose="survival_study", wait_s=0.0)
        assert (await institute.ask(lambda client: client.explain(form))).outcome == "execute"
        await houses[NORTH].end()
        await institute.until(lambda said: said["reachable"] == 3)
        answer = await institute.ask(lambda client: client.explain(form))
        assert answer.outcome == "defer"
        assert [(c.code, c.parameters) for c in answer.causes] == [("owner_silent", {"member": NORTH})]
        await houses[SOUTH].end()
        await institute.until(lambda said: said["reachable"] == 2)
        answer = await institute.ask(lambda client: client.explain(form))
        assert (answer.outcome, answer.causes[-1].code) == ("held", "no_quorum")
