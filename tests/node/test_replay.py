"""What is genuine, and shown a second time or in another place. Each test is named after what is replayed."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api_calls import equip, make, released, step, submit, submit_record
from comity.attestation.authoring import NO_SALT
from comity.node.asking import TicketWords, launch_ticket
from comity.node.client import (
    ActuationForm,
    NodeError,
    NotPermittedError,
    OutputForm,
    ReadAnswer,
    ReadForm,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.node.credentialing import Wish, issued
from comity.node.keystore import companion, create_key
from comity.node.run_names import continuation_of
from comity.node.signing_hand import now
from comity.protocol.envelope import decode_record
from comity.protocol.execution import Observation
from comity.protocol.identifiers import sha256
from houses import RunningHouse, found, hand_of, inhabited, short_folder
from world import NORTH, SOUTH

TWO = (NORTH, SOUTH)
ASSET = f"{NORTH}/plain/a"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@asynccontextmanager
async def two(place: Path) -> AsyncGenerator[tuple[RunningHouse, RunningHouse]]:
    """A writer and a partner."""
    async with inhabited(found(place, TWO)) as houses:
        for house in houses.values():
            await equip(house)
        yield houses[NORTH], houses[SOUTH]


def in_partition(form: StepForm, partition: str) -> StepForm:
    (output,) = form.outputs
    return dataclasses.replace(form, outputs=[OutputForm(output.asset, partition, media_type="text/csv")])


async def make_partition(house: RunningHouse, partition: str, content: bytes) -> str:
    answer = await submit(house, in_partition(step("plain/a", run=f"run-{partition}"), partition))
    started = await house.ask(lambda client: client.start(StartForm(answer.intent, ASSET, partition)))
    form = actuation(answer.intent, started.start, content, partition)
    return (await house.ask(lambda client: client.actuate(form))).sidecar


def actuation(intent: str, start: str, content: bytes, partition: str = "") -> ActuationForm:
    digest = sha256(content).hex()
    return ActuationForm(intent, start, ASSET, digest, len(content), "text/csv", partition=partition)


def reading(content: bytes, sidecar: str, partition: str = "") -> ReadForm:
    return ReadForm("", ASSET, sha256(content).hex(), len(content), sidecar=sidecar, partition=partition)


async def read(house: RunningHouse, form: ReadForm) -> ReadAnswer:
    return await house.ask(lambda client: client.read(form))


async def refused_start(house: RunningHouse, intent: str) -> str:
    with pytest.raises(NodeError) as caught:
        await house.ask(lambda client: client.start(StartForm(intent, ASSET)))
    return caught.value.code


async def refused_actuation(house: RunningHouse, form: ActuationForm) -> str:
    with pytest.raises(NodeError) as caught:
        await house.ask(lambda client: client.actuate(form))
    return caught.value.code


async def made_twice(north: RunningHouse) -> tuple[str, str]:
    """Two generations of one asset, by two runs. Answers with the sidecars."""
    first = await make(north, await submit(north, step("plain/a", run="run-1")), b"first")
    second = await make(north, await submit(north, step("plain/a", run="run-2")), b"second")
    return first, second


# Permits, starts and attempts


async def test_a_permit_for_a_second_run(place: Path) -> None:
    async with two(place) as (north, _):
        first = await submit(north, step("plain/a", run="run-1"))
        await make(north, first, b"first")
        assert await refused_start(north, first.intent) == "permit_used"
        # The second run is given an intent of its own, for the next generation.
        second = await submit(north, step("plain/a", run="run-2"))
        assert (second.outcome, second.intent != first.intent) == ("execute", True)


async def test_a_start_for_a_second_actuation(place: Path) -> None:
    async with two(place) as (north, _):
        answer = await submit(north, step("plain/a"))
        started = await north.ask(lambda client: client.start(StartForm(answer.intent, ASSET)))
        await north.ask(lambda client: client.actuate(actuation(answer.intent, started.start, b"one")))
        again = actuation(answer.intent, started.start, b"other")
        assert await refused_actuation(north, again) == "permit_used"


async def test_an_attempt_number_is_used_once(place: Path) -> None:
    async with two(place) as (north, _):
        answer = await submit(north, step("plain/a"))
        shown = await north.ask(lambda client: client.intent(answer.intent), "reader")
        form = StartForm(answer.intent, ASSET)
        attempts = [
            (await north.ask(lambda client: client.start(form))).attempt
            for _ in range(shown["body"]["attempts_max"])
        ]
        assert attempts == list(range(1, shown["body"]["attempts_max"] + 1))
        assert await refused_start(north, answer.intent) == "attempts_used"


async def test_a_start_of_another_node_or_another_run(place: Path) -> None:
    async with two(place) as (north, south):
        theirs = await submit(south, step("plain/a"))
        foreign = await south.ask(lambda client: client.start(StartForm(theirs.intent, f"{SOUTH}/plain/a")))
        # Of the same output: another run with other code.
        other = await submit(north, step("plain/a", run="run-b", code=sha256(b"other").hex()))
        of_other = await north.ask(lambda client: client.start(StartForm(other.intent, ASSET)))
        answer = await submit(north, step("plain/a"))
        for start in (foreign.start, of_other.start):
            form = actuation(answer.intent, start, b"a")
            assert await refused_actuation(north, form) == "start_unknown"


# Files and lineage


async def test_a_partners_older_genuine_version(place: Path) -> None:
    """The writer is asked for what is newest: without a run, and in one, whose decision says which version is read."""
    async with two(place) as (north, south):
        first, second = await made_twice(north)
        old, new = reading(b"first", first), reading(b"second", second)
        said = await read(south, old)
        assert (said.admitted, said.causes[0].code) == (False, "lineage_of_another")
        assert "generation 1" in said.causes[0].message
        assert "wanted is generation 2" in said.causes[0].message
        assert (await read(south, new)).admitted
        answer = await submit(south, step("plain/from", ASSET))
        said = await read(south, dataclasses.replace(old, intent=answer.intent))
        assert (said.admitted, said.causes[0].code) == (False, "lineage_of_another")
        assert (await read(south, dataclasses.replace(new, intent=answer.intent))).admitted


async def test_a_partners_older_version_while_its_writer_is_down(place: Path) -> None:
    """Who has seen the newer one refuses the older. Who has not cannot know: it reads what is genuine."""
    async with two(place) as (north, south):
        first, second = await made_twice(north)
        await north.end()
        await south.until(lambda said: said["reachable"] == 1)
        old, new = reading(b"first", first), reading(b"second", second)
        assert (await read(south, old)).admitted
        assert (await read(south, new)).admitted
        said = await read(south, old)
        assert (said.admitted, said.causes[0].code) == (False, "lineage_of_another")


async def test_a_genuine_file_of_another_partition(place: Path) -> None:
    async with two(place) as (north, south):
        sidecars = {name: await make_partition(north, name, name.encode()) for name in ("monday", "tuesday")}
        right = reading(b"monday", sidecars["monday"], partition="monday")
        assert (await read(south, right)).admitted
        said = await read(south, reading(b"tuesday", sidecars["tuesday"], partition="monday"))
        assert (said.admitted, said.causes[0].code) == (False, "lineage_of_another")
        assert said.causes[0].parameters["made_partition"] == "tuesday"


async def test_another_runs_lineage_beside_these_bytes(place: Path) -> None:
    """A sidecar of another asset or another run's version vouches for the bytes that it was made for alone."""
    async with two(place) as (north, south):
        mine = await make(north, await submit(north, step("plain/a")), b"mine")
        other = await make(north, await submit(north, step("plain/b", run="run-b")), b"other")
        # Bytes of a, with what vouches for b; and bytes of b under the name of a, with what vouches for b.
        assert (await read(south, reading(b"mine", other))).admitted  # a's own head vouches for it
        said = await read(south, reading(b"other", other))
        assert (said.admitted, said.causes[0].code) == (False, "lineage_of_another")
        said = await read(south, reading(b"other", mine))
        assert (said.admitted, said.causes[0].code) == (False, "content_changed")


# What people sign


async def with_person(north: RunningHouse, subject: str, wish: Wish) -> tuple[Path, str]:
    path = north.home.path / f"{subject.rpartition('/')[2]}.pem"
    create_key(path)
    credential, _ = issued(hand_of(north.home), dataclasses.replace(wish, public=companion(path)))
    await submit_record(north, credential)
    return path, credential.id.hex()


async def test_a_ticket_used_for_a_second_run(place: Path) -> None:
    async with two(place) as (north, _):
        wish = Wish("operator/ana", "person", ("data-steward",), assets=("**",))
        path, credential = await with_person(north, wish.subject, wish)
        record = (await north.ask(lambda client: client.record(credential), "reader"))["record"]
        holder = hand_of(north.home).holder(path, decode_record(base64.b64decode(record)))
        words = TicketWords(run="run-1", job="study", assets=("plain/**",))
        ticket = base64.b64encode(launch_ticket(holder, words).encoded()).decode()

        async def run(name: str, output: str) -> StepAnswer:
            return await submit(north, step(output, run=name, ticket=ticket))

        assert (await run("run-1", "plain/a")).outcome == "execute"
        second = await run("run-2", "plain/b")
        assert second.outcome == "refuse"
        assert [(c.code, c.parameters["bound"]) for c in second.causes] == [("ticket_bound", "run")]


async def test_a_ticket_for_one_run_used_for_a_second(place: Path) -> None:
    """One that names no run is for the first that comes with it, whatever its id."""
    async with two(place) as (north, _):
        wish = Wish("operator/ana", "person", ("data-steward",), assets=("**",))
        path, credential = await with_person(north, wish.subject, wish)
        record = (await north.ask(lambda client: client.record(credential), "reader"))["record"]
        holder = hand_of(north.home).holder(path, decode_record(base64.b64decode(record)))
        ticket = launch_ticket(holder, TicketWords(run="", job="study", assets=("plain/**",)))
        text = base64.b64encode(ticket.encoded()).decode()

        async def run(name: str, output: str) -> StepAnswer:
            return await submit(north, step(output, run=name, ticket=text))

        first = await run("run-1", "plain/a")
        assert (first.outcome, (await run("run-1", "plain/b")).outcome) == ("execute", "execute")
        with pytest.raises(NotPermittedError) as caught:
            await run("run-2", "plain/c")
        assert caught.value.code == "ticket_used"


async def test_a_permit_that_another_run_has_begun_to_use(place: Path) -> None:
    async with two(place) as (north, _):
        first = await submit(north, step("plain/a", run="run-1"))
        started = await north.ask(lambda client: client.start(StartForm(first.intent, ASSET, run="run-1")))
        assert started.attempt == 1
        with pytest.raises(NotPermittedError) as caught:
            await north.ask(lambda client: client.start(StartForm(first.intent, ASSET, run="run-2")))
        assert caught.value.code == "permit_of_another_run"
        # Another run is given an intent of its own, and the same run goes on with its next attempt.
        second = await submit(north, step("plain/a", run="run-2"))
        assert (second.outcome, second.intent != first.intent) == ("execute", True)
        again = await submit(north, step("plain/a", run="run-1"))
        assert again.intent == first.intent
        started = await north.ask(lambda client: client.start(StartForm(first.intent, ASSET, run="run-1")))
        assert started.attempt == 2


async def test_a_permit_that_no_run_has_begun_to_use_is_taken_over(place: Path) -> None:
    async with two(place) as (north, _):
        first = await submit(north, step("plain/a", run="run-1"))
        second = await submit(north, step("plain/a", run="run-2"))
        assert second.intent == first.intent
        await north.ask(lambda client: client.start(StartForm(first.intent, ASSET, run="run-2")))
        with pytest.raises(NotPermittedError) as caught:
            await north.ask(lambda client: client.start(StartForm(first.intent, ASSET, run="run-1")))
        assert caught.value.code == "permit_of_another_run"


async def test_only_the_run_that_takes_the_place_of_another_goes_on_for_it(place: Path) -> None:
    async with two(place) as (north, _):
        first = await submit(north, step("plain/a", run="run-1"))
        child = continuation_of("run-1")
        form = dataclasses.replace(step("plain/a", run=child), continues="run-1")
        assert (await submit(north, form)).intent == first.intent
        other = dataclasses.replace(step("plain/b", run=child), continues="run-1")
        made = await submit(north, other)
        body = (await north.ask(lambda client: client.intent(made.intent), "reader"))["body"]
        assert body["run"]["run"] == "run-1"
        for run in ("run-2", "run-1"):
            with pytest.raises(NodeError) as caught:
                await submit(north, dataclasses.replace(form, run=run))
            assert caught.value.code == "form_invalid"


async def test_an_approval_of_another_intent(place: Path) -> None:
    async with two(place) as (north, south):
        await released(north)
        wish = Wish(
            "operator/dpo",
            "person",
            ("data-protection-officer",),
            actions=("approve",),
            assets=("*/pooled",),
        )
        path, credential = await with_person(south, wish.subject, wish)
        record = (await south.ask(lambda client: client.record(credential), "reader"))["record"]
        officer = hand_of(south.home).holder(path, decode_record(base64.b64decode(record)))

        async def waits(run: str) -> StepAnswer:
            form = step("pooled", f"{NORTH}/released", run=run, purpose="survival_study", wait_s=0.5)
            return await submit(north, dataclasses.replace(form, code=sha256(run.encode()).hex()))

        shown, other = await waits("run-1"), await waits("run-2")
        assert (shown.outcome, other.outcome) == ("defer", "defer")
        digest = bytes.fromhex(
            (await north.ask(lambda client: client.record(shown.intent), "reader"))["header"]["body"][
                "digest"
            ]
        )
        # It names the other intent, and was shown the first one.
        body = Observation(salt=NO_SALT, claim="approval", shown=digest)
        replayed = officer.write(
            "observation", body, now(), subject=(bytes.fromhex(other.intent),), outcome="approved"
        )
        await submit_record(north, replayed)
        said = await north.ask(lambda client: client.step(other.intent, 2.0))
        assert said.outcome == "defer"
        genuine = officer.write(
            "observation", body, now(), subject=(bytes.fromhex(shown.intent),), outcome="approved"
        )
        await submit_record(north, genuine)
        decided = await north.ask(lambda client: client.step(shown.intent, 10.0))
        assert decided.outcome == "execute"
        said = await north.ask(lambda client: client.step(other.intent, 1.0))
        assert said.outcome == "defer"
