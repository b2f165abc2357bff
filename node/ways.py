"""Which of the ways that serve an intent is chosen: the least harmful that would be permitted, and why it is that one.

What serves a purpose is said by signed policy, and in which realms somebody may act by its credential: the choice is
made within both, by the node that asks, on what it holds. Voters judge the way that was chosen like any other intent.

Spec: docs/spec/governance.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from comity.attestation.case import Fault, Grants, Judgement
from comity.attestation.judgement import judge
from comity.node.core import Core
from comity.node.drafts import Defaults, Draft, case_of, draft, purpose_of, run_of
from comity.node.forms import StepForm, TermForm, WayOutcome, WayTried
from comity.node.problems import Refused
from comity.node.terms import need_form
from comity.protocol.outcome import Mode, union
from comity.protocol.ways import Way, least_harmful_first

Tried: TypeAlias = tuple[WayTried, ...]

_STAGED: Final[tuple[Way, ...]] = ("staged",)
_GOES: Final = frozenset({"execute", "restrict"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """The draft of an intent in the way that was chosen, and every way that was looked at, the least harmful first.

    `tried` is empty where there was nothing to choose.
    """

    draft: Draft
    way: Way
    tried: Tried = ()


def draft_least_harmful(core: Core, form: StepForm, defaults: Defaults, tier: int = 0) -> Chosen:
    """Write the intent of a step in the least harmful way that serves it.

    The first is taken that would be permitted, whole or narrowed; else the first that a person's word would let
    through; else the most harmful one, whose refusal says the most. A step that was asked for before goes on in the way
    in which it was: nothing becomes more harmful while it runs.

    Args:
        tier: of the context to suppose; 0: what the form's own evidence gives.

    Raises:
        Refused: as `draft`.
    """
    ways = ways_that_serve(core, form, defaults)
    if ways == _STAGED:
        return Chosen(draft(core, form, defaults), "staged")
    drafts: dict[Way, Draft] = {way: draft(core, form, defaults, way) for way in ways}
    for way, drafted in drafts.items():
        if _is_asked_for(core, drafted, form):
            return Chosen(drafted, way)
    outcomes: dict[Way, WayTried] = {
        way: _foreseen(core, way, drafted, tier) for way, drafted in drafts.items()
    }
    chosen = _choice(ways, outcomes)
    tried = tuple(
        WayTried(way, said.outcome, chosen=way == chosen, causes=said.causes, needs=said.needs)
        for way, said in outcomes.items()
    )
    return Chosen(drafts[chosen], chosen, tried)


def ways_that_serve(core: Core, form: StepForm, defaults: Defaults) -> tuple[Way, ...]:
    """The ways that the purpose admits and that the step can do, the least harmful first.

    Where several policies name ways for a purpose, those that all of them name.
    """
    governance = core.holdings.governance()
    purpose = purpose_of(form, defaults)
    named = [
        frozenset(entry.ways)
        for bundle in (governance.bundles if governance is not None else ())
        for entry in bundle.policy.purposes
        if entry.name == purpose and entry.ways
    ]
    if not named:
        return _STAGED
    serving = {way for way in named[0] if all(way in each for each in named)}
    able = all(output.isolates for output in form.outputs)
    ways = least_harmful_first(way for way in serving if able or way == "staged")
    if not ways:
        served = ", ".join(sorted(serving)) or "no way that all policies name"
        raise Refused(
            "way_not_possible",
            f"the purpose {purpose} is served by {served}, and this step can work in none of it",
            409,
            "give its outputs an IO manager that keeps results apart, or ask for another purpose",
        )
    return ways


def _is_asked_for(core: Core, drafted: Draft, form: StepForm) -> bool:
    run = run_of(form)
    return any(row.run == run and row.step == form.step for row in core.store.intents(dedup=drafted.dedup))


def _choice(ways: tuple[Way, ...], outcomes: dict[Way, WayTried]) -> Way:
    for way in ways:
        if outcomes[way].outcome in _GOES:
            return way
    for way in ways:
        if outcomes[way].outcome == "confirm":
            return way
    return ways[-1]


def _foreseen(core: Core, way: Way, drafted: Draft, tier: int) -> WayTried:
    """What this node, as a voter, would say of one way: what needs nothing but a person's word is to be confirmed."""
    judgement = judge(replace(case_of(core, drafted), granted=Grants(tier=tier)))
    if isinstance(judgement, Fault):
        return WayTried(way, "defer", causes=[TermForm(judgement.code, message=judgement.detail)])
    outcomes = [each.outcome for each in judgement.classes]
    needs = union(*(outcome.needs for outcome in outcomes))
    causes = [TermForm(cause.code) for cause in union(*(outcome.causes for outcome in outcomes))]
    said = _outcome(judgement)
    if said == "defer" and needs and all(need.code == "approval" for need in needs):
        said = "confirm"
    return WayTried(way, said, causes=causes, needs=[need_form(need) for need in needs])


def _outcome(judgement: Judgement) -> WayOutcome:
    modes = [each.outcome.mode for each in judgement.classes]
    if all(mode is Mode.EXECUTE for mode in modes):
        return "execute"
    if any(mode.rank >= Mode.RESTRICT.rank for mode in modes):
        return "restrict"
    return "defer" if Mode.DEFER in modes else "refuse"
