"""Runs before they are launched: what can be decided of them now, and what would come of the rest.

The steps of a run whose inputs are there are asked for as if each had asked for itself: with the same facts a step
finds its intent again, and its permit. A step that reads what the run itself is to make cannot be asked for before
that is made; it is explained, so that a run of which nothing could come is not begun.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from comity.node.core import Core
from comity.node.drafts import Defaults, is_governed
from comity.node.explanations import explain_step
from comity.node.forms import (
    LAUNCHED_LATER_MAX,
    LAUNCHED_STEPS_MAX,
    ExplainAnswer,
    LaunchedStep,
    LaunchForm,
    RunStanding,
    StepAnswer,
    StepForm,
    TermForm,
)
from comity.node.problems import Refused
from comity.node.steps import (
    answer,
    submit,
)
from comity.node.ways import draft_least_harmful
from comity.protocol.limits import ITEMS_MAX

REPEAT_S_MIN: Final = 60
REPEAT_S_MAX: Final = 3_600
"""What nobody started and was refused is asked for again after a pause that doubles, or when governance changed."""
REFUSALS_KEPT_MAX: Final = 1_024

WAITING: Final = frozenset({"input_without_lineage", "governance_missing", "starting"})
"""What an answer to a step says that may pass by itself: the run is held and not refused."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A step that was refused when nobody had started it."""

    intent: bytes
    times: int
    until: int
    governance: int


class RefusedRepeats:
    """What was refused of late, so that a schedule of every minute does not make everybody judge every minute."""

    def __init__(self) -> None:
        self._refused: OrderedDict[bytes, _Refusal] = OrderedDict()

    def standing(self, dedup: bytes, now: int, governance: int) -> _Refusal | None:
        """The refusal that still answers for an equal step, or None."""
        known = self._refused.get(dedup)
        return known if known is not None and now < known.until and known.governance == governance else None

    def note(self, dedup: bytes, intent: bytes, now: int, governance: int) -> None:
        known = self._refused.pop(dedup, None)
        if known is not None and known.intent == intent:
            self._refused[dedup] = known
            return
        times = known.times + 1 if known is not None and known.governance == governance else 1
        pause = min(REPEAT_S_MIN * 2 ** (times - 1), REPEAT_S_MAX)
        self._refused[dedup] = _Refusal(intent, times, now + pause, governance)
        while len(self._refused) > REFUSALS_KEPT_MAX:
            self._refused.popitem(last=False)


def require_bounds(form: LaunchForm) -> None:
    """Refuse a launch that is larger than one question.

    Raises:
        Refused: `form_invalid`.
    """
    for name, listed, most in (
        ("steps", form.steps, LAUNCHED_STEPS_MAX),
        ("later", form.later, LAUNCHED_LATER_MAX),
    ):
        if len(listed) > most:
            raise Refused("form_invalid", f"{name}: at most {most}", 422)
    for unit in (*form.steps, *form.later):
        if len(unit.outputs) > ITEMS_MAX or len(unit.inputs) > ITEMS_MAX:
            raise Refused("form_invalid", f"{unit.step[:64]}: at most {ITEMS_MAX} outputs and inputs", 422)


def step_form(form: LaunchForm, unit: LaunchedStep) -> StepForm:
    """A step of a launch as it will ask for itself."""
    return StepForm(
        orchestrator=form.orchestrator,
        run=form.run,
        step=unit.step,
        job=form.job,
        code=form.code,
        outputs=unit.outputs,
        inputs=unit.inputs,
        location=form.location,
        revision=form.revision,
        purpose=form.purpose,
        credential=form.credential,
        ticket=form.ticket,
        context=form.context,
        continues=form.continues,
    )


def submit_unit(
    core: Core, form: LaunchForm, unit: LaunchedStep, defaults: Defaults, repeats: RefusedRepeats
) -> StepAnswer:
    """File the intent of one step of a launch. What is wrong with it is its answer."""
    asked = step_form(form, unit)

    def answered() -> StepAnswer:
        if not form.recurring or not asked.outputs or not is_governed(core, asked):
            return submit(core, asked, defaults)
        dedup = draft_least_harmful(core, asked, defaults).draft.dedup
        known = repeats.standing(dedup, core.clock.now(), len(core.holdings.state))
        if known is None or core.requester.pursuit(known.intent) is None:
            return submit(core, asked, defaults)
        said = answer(core, known.intent)
        term = TermForm(
            "refused_before",
            {"until": known.until},
            message="an equal step was refused before; it is asked for again later, or when governance changes",
        )
        return replace(said, causes=[*said.causes, term])

    return _as_answer(answered)


def note_refusals(
    core: Core,
    form: LaunchForm,
    answers: Iterable[tuple[LaunchedStep, StepAnswer]],
    defaults: Defaults,
    repeats: RefusedRepeats,
) -> None:
    """Remember what was refused of a run that nobody started."""
    for unit, said in answers:
        if form.recurring and said.outcome == "refuse" and said.intent:
            dedup = draft_least_harmful(core, step_form(form, unit), defaults).draft.dedup
            repeats.note(dedup, bytes.fromhex(said.intent), core.clock.now(), len(core.holdings.state))


def explain_unit(
    core: Core, form: LaunchForm, unit: LaunchedStep, defaults: Defaults, reachable: frozenset[str]
) -> ExplainAnswer:
    """What would become of a step that cannot be asked for yet."""
    try:
        return explain_step(core, step_form(form, unit), defaults, reachable)
    except Refused as exc:
        return ExplainAnswer(
            outcome="defer" if exc.code in WAITING else "refuse", causes=[_term(exc)], needs=[]
        )


def standing_of(core: Core, run: str) -> RunStanding:
    """Where a run stands: the newest intent of each of its steps."""
    steps: dict[str, StepAnswer] = {}
    for row in core.store.intents(run=run):
        if row.step not in steps and core.requester.pursuit(row.intent) is not None:
            steps[row.step] = answer(core, row.intent)
    if not steps:
        return RunStanding(run, "unknown")
    waits = any(said.outcome in ("defer", "held") for said in steps.values())
    return RunStanding(run, "waits" if waits else "decided", steps)


def _as_answer(answered: Callable[[], StepAnswer]) -> StepAnswer:
    """An answer also where the step could not become an intent."""
    try:
        return answered()
    except Refused as exc:
        term = _term(exc)
        if exc.code in WAITING:
            return StepAnswer(intent="", outcome="defer", causes=[term], needs=[term])
        return StepAnswer(intent="", outcome="refuse", causes=[term])


def _term(exc: Refused) -> TermForm:
    message = f"{exc.message}; {exc.hint}" if exc.hint else exc.message
    return TermForm(exc.code, message=message)
