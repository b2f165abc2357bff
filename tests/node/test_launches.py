"""A run is asked for before it is launched: over the node's real API, with what its steps ask for later."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api_calls import CODE, make, released, solo, step, submit
from comity.node import launches as module
from comity.node.client import (
    FormInvalidError,
    InputForm,
    LaunchAnswer,
    LaunchedStep,
    LaunchForm,
    NodeClient,
    OutputForm,
    RunStanding,
    StandingsForm,
    StartForm,
)
from comity.node.launches import RefusedRepeats
from houses import RunningHouse, short_folder
from world import NORTH


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def unit(output: str, *inputs: str) -> LaunchedStep:
    return LaunchedStep(
        output, [OutputForm(output, media_type="text/csv")], [InputForm(each) for each in inputs]
    )


def launch(*steps: LaunchedStep, **changes: Any) -> LaunchForm:
    form = LaunchForm("dagster", "run-1", "study", CODE, list(steps), wait_s=10.0)
    return dataclasses.replace(form, **changes)


async def ask(house: RunningHouse, form: LaunchForm) -> LaunchAnswer:
    return await house.ask(lambda client: client.launch(form))


async def standings(house: RunningHouse, *runs: str) -> list[RunStanding]:
    return await house.ask(lambda client: client.standings(StandingsForm(list(runs))))


def codes(answer: Any) -> list[str]:
    return [cause.code for cause in answer.causes]


async def test_a_step_finds_the_permit_that_its_launch_has_obtained(place: Path) -> None:
    async with solo(place) as house:
        answer = await ask(house, launch(unit("plain/a"), unit("plain/b"), unit("free")))
        assert [each.outcome for each in answer.steps] == ["execute", "execute", "ungoverned"]
        for name, asked in zip(("plain/a", "plain/b"), answer.steps, strict=False):
            found = await submit(house, step(name))
            assert (found.intent, found.permit) == (asked.intent, asked.permit)
            begin = StartForm(found.intent, f"{NORTH}/{name}")
            await house.ask(partial(NodeClient.start, form=begin))
        intents = await house.ask(lambda client: client.intents(), "reader")
        assert len(intents) == 2


async def test_each_step_has_an_answer_of_its_own(place: Path) -> None:
    async with solo(place) as house:
        form = launch(
            unit("plain/a"), unit("forbidden/x"), unit("pooled"), unit("plain/c", "patients"), wait_s=0.5
        )
        answer = await ask(house, form)
        assert [each.outcome for each in answer.steps] == ["execute", "refuse", "defer", "defer"]
        assert codes(answer.steps[1]) == ["forbidden_class"]
        # An input that nobody has made is no fault of the run: it waits.
        assert (answer.steps[3].intent, codes(answer.steps[3])) == ("", ["input_without_lineage"])
        (waits,) = await standings(house, "run-1")
        assert (waits.standing, sorted(waits.steps)) == ("waits", ["forbidden/x", "plain/a", "pooled"])
        (unknown,) = await standings(house, "run-2")
        assert (unknown.standing, unknown.steps) == ("unknown", {})


async def test_later_steps_are_explained_and_not_filed(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        later = [unit("plain/later", "released"), unit("forbidden/later", "released"), unit("nobodys")]
        answer = await ask(house, launch(unit("plain/a"), later=later))
        assert [each.outcome for each in answer.later] == ["execute", "refuse", "ungoverned"]
        (standing,) = await standings(house, "run-1")
        assert (standing.standing, sorted(standing.steps)) == ("decided", ["patients", "plain/a", "released"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"credential": "00" * 32}, "credential_unknown"), ({"ticket": "nonsense"}, "ticket_unreadable")],
)
async def test_what_is_wrong_with_a_launch_is_its_answer(
    place: Path, changes: dict[str, str], code: str
) -> None:
    async with solo(place) as house:
        answer = await ask(house, launch(unit("plain/a"), later=[unit("plain/b")], **changes))
        assert [(each.outcome, codes(each)) for each in answer.steps] == [("refuse", [code])]
        assert [(each.outcome, codes(each)) for each in answer.later] == [("refuse", [code])]


async def test_a_launch_that_is_too_large_is_no_form(place: Path) -> None:
    async with solo(place) as house:
        for form in (
            launch(*[unit("plain/a")] * 257),
            launch(later=[unit("plain/a")] * 65),
        ):
            with pytest.raises(FormInvalidError):
                await ask(house, form)
        with pytest.raises(FormInvalidError):
            await standings(house, *["run"] * 257)


# Repeats


async def test_what_nobody_started_and_was_refused_is_not_asked_for_again_at_once(place: Path) -> None:
    async with solo(place) as house:
        first = await ask(house, launch(unit("forbidden/x"), run="tick-1", recurring=True))
        for number in range(2, 6):
            again = await ask(house, launch(unit("forbidden/x"), run=f"tick-{number}", recurring=True))
            assert again.steps[0].intent == first.steps[0].intent
            assert codes(again.steps[0]) == ["forbidden_class", "refused_before"]
        intents = await house.ask(lambda client: client.intents(), "reader")
        assert len(intents) == 1
        # Somebody who starts it is heard, and so is what could not be refused for the same reason.
        by_hand = await ask(house, launch(unit("forbidden/x"), run="by-hand"))
        assert by_hand.steps[0].intent != first.steps[0].intent
        other = await ask(house, launch(unit("forbidden/y"), run="tick-7", recurring=True))
        assert codes(other.steps[0]) == ["forbidden_class"]


async def test_what_governance_says_anew_is_asked_for_again(place: Path) -> None:
    from api_calls import equip

    async with solo(place) as house:
        first = await ask(house, launch(unit("forbidden/x"), run="tick-1", recurring=True))
        await equip(house, subject="node/other")
        again = await ask(house, launch(unit("forbidden/x"), run="tick-2", recurring=True))
        assert again.steps[0].intent != first.steps[0].intent


async def test_what_is_permitted_is_asked_for_each_time(place: Path) -> None:
    async with solo(place) as house:
        for number in range(3):
            answer = await ask(house, launch(unit("plain/a"), run=f"tick-{number}", recurring=True))
            assert answer.steps[0].outcome == "execute"
            await make(house, answer.steps[0], str(number).encode())


def test_pauses_between_refusals_double_up_to_an_hour() -> None:
    repeats, now, pauses = RefusedRepeats(), 1_000, list[int]()
    for number in range(9):
        repeats.note(b"step", bytes([number]), now, 7)
        # The same refusal, shown again, counts once.
        repeats.note(b"step", bytes([number]), now + 1, 7)
        until = next(s for s in range(now, now + 4_000) if repeats.standing(b"step", s, 7) is None)
        pauses.append(until - now)
        now = until
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    repeats.note(b"step", b"next", now, 8)
    assert repeats.standing(b"step", now + 60, 8) is None
    assert repeats.standing(b"step", now + 59, 8) is not None


def test_refusals_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSALS_KEPT_MAX", 2)
    repeats = RefusedRepeats()
    for number in range(4):
        repeats.note(bytes([number]), b"intent", 1_000, 7)
    assert [repeats.standing(bytes([n]), 1_001, 7) is not None for n in range(4)] == [
        False,
        False,
        True,
        True,
    ]
