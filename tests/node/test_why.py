"""`comity why`: from a run, an asset or an id to what was decided, beside nodes that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from api_calls import equip, make, released, solo, step, submit
from comity.node.client import ContextForm, OutputForm, StartForm
from comity.protocol.identifiers import sha256
from command_line import Said, comity
from houses import RunningHouse, found, inhabited, short_folder
from world import NORTH, SOUTH

DIGEST = sha256(b"measured").hex()
CONTEXT = ContextForm("cpython-3.11.7", "linux-x86_64", DIGEST, 3, DIGEST, 1)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    """Nodes log in this process: not into the output of the commands."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def asked(house: RunningHouse, what: str, *words: object, status: int | None = 0) -> Said:
    return await trio.to_thread.run_sync(
        lambda: comity("why", what, *words, "--home", house.home.path, status=status)
    )


async def told(house: RunningHouse, what: str, status: int | None = 0) -> Any:
    return (await asked(house, what, "--json", status=status)).json


async def test_an_asset_names_the_decision_behind_its_newest_actuation(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        said = await told(house, "released")
        assert (said["what"], said["name"], said["generation"]) == ("asset", f"{NORTH}/released", 1)
        (each,) = said["intents"]
        assert each["decision"]["outcome"] == "restrict"
        assert [row["kind"] for row in each["work"]] == ["start", "actuation"]
        assert each["work"][1]["record"] == said["actuation"]
        text = (await asked(house, f"{NORTH}/released")).output
        assert f"newest promoted actuation known here is {said['actuation'][:16]}, generation 1" in text
        assert "decided: restrict, " in text
        assert f"by one vote where 1 decide: {NORTH} restrict" in text
        assert f"promoted: {NORTH}/released, {said['actuation'][:16]}" in text
        assert "a rule of the policy; its text: comity coalition show --full" in text


async def test_a_run_has_the_intent_of_each_step(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        await submit(house, step("patients", run="another-run", purpose="survival_study"))
        wanted = {"run-1": ("run-1", {"released", "patients"}), "another": ("another-run", {"patients"})}
        for named, (run, steps) in wanted.items():
            said = await told(house, named)
            assert (said["what"], said["name"]) == ("run", run)
            assert {each["intent"]["step"] for each in said["intents"]} == steps
        assert "Run run-1: 2 intents are known here." in (await asked(house, "run-1")).output


async def test_every_record_of_a_decision_leads_to_its_intent(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        said = await told(house, "released")
        (each,) = said["intents"]
        intent = each["intent"]["intent"]
        named = {
            "intent": intent,
            "permit": each["decision"]["decision"],
            "ask": each["decision"]["ask"],
            "vote": each["decision"]["votes"][0]["vote"],
            "start": each["work"][0]["record"],
            "actuation": each["work"][1]["record"],
        }
        for kind, record in named.items():
            for text in (record, record[:10]):
                found_here = await told(house, text)
                assert (found_here["what"], found_here["name"]) == (kind, record)
                assert [one["intent"]["intent"] for one in found_here["intents"]] == [intent]


async def test_a_record_that_no_intent_is_behind_is_named(place: Path) -> None:
    async with solo(place) as house:
        credential = await equip(house, assets=("plain/**",))
        refused = await asked(house, credential.id.hex(), status=1)
        assert "is of kind credential, and no intent is behind it" in refused.errors
        assert f"comity record show {credential.id.hex()[:16]}" in refused.errors


async def test_what_is_missing_stands_beside_its_code_and_what_to_do(place: Path) -> None:
    async with solo(place) as house:
        answer = await submit(house, step("guarded", wait_s=0.0))
        assert answer.outcome == "defer"
        said = await told(house, answer.intent[:8])
        assert said["intents"][0]["intent"]["standing"] == "deferred"
        assert said["intents"][0]["decision"] is None
        assert said["codes"]["tier"][0]["who"]
        text = (await asked(house, answer.intent)).output
        assert ": deferred, something named below is missing" in text
        assert "missing: an execution context of tier 1 or above [tier]" in text
        assert "Run the step through govern(defs)" in text
        assert "wanted: clinic-north.example/guarded" in text


async def test_a_refusal_says_each_cause_with_what_mends_it(place: Path) -> None:
    async with solo(place) as house:
        await equip(house, assets=("other/**",))
        answer = await submit(house, step("patients", purpose="survival_study"))
        assert answer.outcome == "refuse"
        text = (await asked(house, "patients")).output
        assert "no promoted actuation is known here" in text
        assert "decided: refuse" in text
        assert "its assets do not include clinic-north.example/patients [credential_bound]" in text
        assert "Mended by the issuer of the credential" in text
        assert "comity credential issue" in text


async def test_a_permit_that_nothing_was_made_under(place: Path) -> None:
    async with solo(place) as house:
        answer = await submit(house, step("patients", purpose="survival_study"))
        assert answer.outcome == "execute"
        text = (await asked(house, "patients")).output
        assert "nothing was begun under this permit that is known here; it holds until" in text
        await house.ask(lambda client: client.start(StartForm(answer.intent, "patients")))
        text = (await asked(house, "patients")).output
        assert "started: clinic-north.example/patients, attempt 1" in text
        assert "nothing was begun" not in text


async def test_without_a_quorum_it_says_who_is_silent(place: Path) -> None:
    async with inhabited(found(place, (NORTH, SOUTH)), NORTH) as houses:
        house = houses[NORTH]
        await equip(house)
        answer = await submit(house, step("patients", purpose="survival_study", wait_s=0.0))
        with trio.fail_after(30):
            while (said := await told(house, answer.intent))["intents"][0]["intent"]["standing"] == "asking":
                await house.ask(lambda client: client.step(answer.intent, 1.0))
        assert said["intents"][0]["intent"]["standing"] == "held"
        text = (await asked(house, answer.intent)).output
        assert f"{SOUTH}: silent" in text
        assert "[no_quorum]" in text
        assert "comity node status" in text


async def test_a_partner_says_what_it_knows_of_anothers_intent(place: Path) -> None:
    async with inhabited(found(place, (NORTH, SOUTH))) as houses:
        await equip(houses[NORTH])
        await released(houses[NORTH])
        intent = (await told(houses[NORTH], "released"))["intents"][0]["intent"]["intent"]
        said = await told(houses[SOUTH], intent)
        assert said["intents"][0]["intent"]["member"] == NORTH
        assert SOUTH in said["intents"][0]["intent"]["votes"]
        run = await told(houses[SOUTH], "run-1")
        assert intent in [each["intent"]["intent"] for each in run["intents"]]


async def test_of_several_partitions_one_is_named(place: Path) -> None:
    async with solo(place) as house:
        for key in ("2026-01-01", "2026-01-02"):
            form = step(
                "plain/day", outputs=[OutputForm("plain/day", key)], run=f"run-{key}", context=CONTEXT
            )
            answer = await submit(house, form)
            assert answer.outcome == "execute"
            await make_partition(house, answer.intent, key)
        several = await asked(house, "plain/day", status=1)
        assert "has 2 partitions here" in several.errors
        assert "plain/day@2026-01-01" in several.errors
        one = await told(house, "plain/day@2026-01-02")
        assert (one["partition"], len(one["intents"])) == ("2026-01-02", 1)
        none = await told(house, "plain/day@2026-01-03")
        assert (none["actuation"], none["intents"]) == ("", [])


async def make_partition(house: RunningHouse, intent: str, key: str) -> None:
    from comity.node.client import ActuationForm

    started = await house.ask(lambda client: client.start(StartForm(intent, "plain/day", key)))
    made = ActuationForm(intent, started.start, "plain/day", sha256(key.encode()).hex(), 3, "text/csv", key)
    await house.ask(lambda client: client.actuate(made))


async def test_an_asset_that_nobody_asked_for_says_how_to_try(place: Path) -> None:
    async with solo(place) as house:
        text = (await asked(house, "released")).output
        assert "Nobody has asked to make it" in text
        assert "comity intent explain --asset released" in text


async def test_what_is_not_found_names_the_nearest(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("patients", purpose="survival_study")), b"patients")
        refused = await asked(house, "patinets", status=1)
        assert "no run, asset or id 'patinets' is known here" in refused.errors
        assert "nearest is patients" in refused.errors
        assert (await told(house, "patinets", status=1))["error"]["code"] == "not_found"
        nothing = await asked(house, "x" * 2_000, status=2)
        assert "a name has 1 to 1024 bytes" in nothing.errors


async def test_nothing_is_changed_by_asking_why(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        before = await house.ask(lambda client: client.intents(), "reader")
        for what in ("released", "run-1"):
            await asked(house, what)
        assert await house.ask(lambda client: client.intents(), "reader") == before
