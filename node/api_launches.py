"""Routes for what launches runs: asking for a run, and where runs stand that are held."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import trio
from fastapi import APIRouter, Response

from comity.node import launches
from comity.node.api_steps import defaults_of, prepare, wait
from comity.node.config import Config
from comity.node.forms import (
    RUNS_ASKED_MAX,
    ExplainAnswer,
    LaunchAnswer,
    LaunchedStep,
    LaunchForm,
    RunStanding,
    StandingsForm,
    StepAnswer,
)
from comity.node.launches import RefusedRepeats
from comity.node.problems import Refused
from comity.node.service import Service

UNDECIDED = frozenset({"defer", "held"})


def add_routes(router: APIRouter, service: Service, config: Config) -> None:
    """Add them to the bridge's routes."""
    repeats = RefusedRepeats()

    @router.post(
        "/launches",
        response_model=LaunchAnswer,
        summary="Ask for what can be decided of a run before it is launched",
    )
    async def launch(form: LaunchForm) -> Response:
        return _answer(await ask_for_run(service, config, form, repeats))

    @router.post(
        "/launches/standings", response_model=list[RunStanding], summary="Where runs stand that are held"
    )
    async def standings(form: StandingsForm) -> Response:
        if len(form.runs) > RUNS_ASKED_MAX:
            raise Refused("form_invalid", f"runs: at most {RUNS_ASKED_MAX}", 422)
        core = service.core
        return _answer([await service.call(partial(launches.standing_of, core, run)) for run in form.runs])


async def ask_for_run(
    service: Service, config: Config, form: LaunchForm, repeats: RefusedRepeats
) -> LaunchAnswer:
    """File the intents of a run's steps, all at once, and wait for their decisions as long as the form says."""
    launches.require_bounds(form)
    core = service.core
    for unit in (*form.steps, *form.later):
        try:
            await prepare(service, launches.step_form(form, unit))
        except Refused as exc:
            if exc.code != "governance_missing":
                raise
    defaults = await service.call(lambda: defaults_of(core, config))
    answers = [
        await service.call(partial(launches.submit_unit, core, form, unit, defaults, repeats))
        for unit in form.steps
    ]
    decided = await _decided(service, answers, min(form.wait_s, config.wait_max_s))
    pairs: list[tuple[LaunchedStep, StepAnswer]] = list(zip(form.steps, decided, strict=True))
    await service.call(partial(launches.note_refusals, core, form, pairs, defaults, repeats))
    reachable = service.connected() | {core.identity.member}
    later: list[ExplainAnswer] = [
        await service.call(partial(launches.explain_unit, core, form, unit, defaults, reachable))
        for unit in form.later
    ]
    return LaunchAnswer(decided, later)


async def _decided(service: Service, answers: list[StepAnswer], wait_s: float) -> list[StepAnswer]:
    """The same answers, once each is a decision or the time is over."""
    decided = list(answers)

    async def settle(index: int, intent: bytes) -> None:
        decided[index] = await wait(service, intent, wait_s)

    async with trio.open_nursery() as nursery:
        for index, said in enumerate(answers):
            if said.intent and said.outcome in UNDECIDED:
                nursery.start_soon(settle, index, bytes.fromhex(said.intent))
    return decided


def _answer(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
