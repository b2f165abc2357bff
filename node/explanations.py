"""A dry run of a step: what would be decided now, as this node sees it, and what would lift a deferral.

Nothing is filed, stored or sent. The intent says of itself that it is an explanation, so that it is never the
same record as one that is filed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from comity.attestation.case import Case, Fault, Grants, Judgement
from comity.attestation.explain import Explanation, explain
from comity.node.core import Core
from comity.node.drafts import Defaults, asset_id, case_of, is_governed
from comity.node.forms import ExplainAnswer, InputForm, StepForm, StepOutcome, TermForm
from comity.node.heads import standing_heads
from comity.node.problems import Refused
from comity.node.sentences import cause_sentence, need_sentence
from comity.node.steps import (
    claimed_outputs,
)
from comity.node.terms import cause_form, need_form
from comity.node.ways import draft_least_harmful
from comity.protocol.execution import Claim
from comity.protocol.outcome import Mode, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

ORCHESTRATOR: Final = "explain"
"""What an intent that is only explained says that it comes from. Policy does not see it."""
GOVERNED_STEP_TIER: Final = 1
"""What the measurement of a governed step's process gives: software evidence (docs/spec/evidence.md section 3)."""


def perhaps_read(form: StepForm) -> StepForm:
    """The step with every slot of its inputs that `explain_step` may take for one that names no partition."""
    partitions = sorted({output.partition for output in form.outputs if output.partition})
    unsaid = [entry for entry in form.inputs if not entry.partition and not entry.sidecar]
    more = [replace(entry, partition=each) for entry in unsaid for each in partitions]
    return replace(form, inputs=[*form.inputs, *more])


def _as_read(core: Core, form: StepForm) -> StepForm:
    """The step with its inputs as an orchestrator would name them.

    Where no partition is named and the asset has some: those of the outputs, as far as they are known here, or
    else all.
    """
    made = {output.partition for output in form.outputs}
    inputs: list[InputForm] = []
    for entry in form.inputs:
        heads = standing_heads(core.store, core.holdings, asset_id(core, entry.asset))
        known = [head.partition for head in heads]
        if entry.partition or entry.sidecar or not known or "" in known:
            inputs.append(entry)
            continue
        same = [each for each in known if each in made]
        inputs += [replace(entry, partition=each) for each in same or known]
    return replace(form, inputs=inputs)


def explain_step(
    core: Core,
    form: StepForm,
    defaults: Defaults,
    reachable: frozenset[str],
    tier: int | None = None,
) -> ExplainAnswer:
    """Explain a step.

    Args:
        reachable: the members whose vote could be had now, the own one among them.
        tier: of the context to suppose. None: what the form's own evidence gives, or, where it has none, what
            that of a governed step would: nothing is measured here.

    Raises:
        Refused: the step cannot become an intent.
    """
    if not is_governed(core, form) or not form.outputs:
        return ExplainAnswer(outcome="ungoverned")
    try:
        asked = replace(_as_read(core, form), orchestrator=ORCHESTRATOR)
        supposed = tier if tier is not None else 0 if form.context is not None else GOVERNED_STEP_TIER
        chosen = draft_least_harmful(core, asked, defaults, supposed)
    except Refused as exc:
        if exc.code != "input_without_lineage":
            raise
        cause = TermForm(exc.code, message=exc.message)
        return ExplainAnswer(
            outcome="defer", causes=[cause], needs=[TermForm("input", message=f"the input first: {exc.hint}")]
        )
    case = replace(case_of(core, chosen.draft), granted=Grants(tier=supposed))
    found = _answer(core, case, explain(case), reachable)
    return replace(found, tier=supposed, way=chosen.way, ways=list(chosen.tried))


@dataclass(frozen=True, slots=True)
class _Reach:
    """What the members in reach could decide, supposing that each judges as this node does."""

    causes: tuple[TermForm, ...] = ()
    needs: tuple[TermForm, ...] = ()
    outcome: StepOutcome | None = None


def _answer(core: Core, case: Case, explanation: Explanation, reachable: frozenset[str]) -> ExplainAnswer:
    judgement = explanation.judgement
    if isinstance(judgement, Fault):
        return ExplainAnswer(outcome="defer", causes=[TermForm(judgement.code, message=judgement.detail)])
    outcomes = [each.outcome for each in judgement.classes]
    claims = [
        Claim(
            index=index,
            mode=each.outcome.mode,
            extent=each.outcome.extent,
            state=each.state,
            obligations=each.outcome.obligations,
            live=each.live,
        )
        for index, each in enumerate(judgement.classes)
        if each.outcome.mode.rank >= Mode.RESTRICT.rank
    ]
    reach = _reach(core, judgement, reachable)
    causes = [cause_form(cause) for cause in union(*(outcome.causes for outcome in outcomes))]
    needs = [need_form(need) for need in union(*(outcome.needs for outcome in outcomes))]
    return ExplainAnswer(
        outcome=reach.outcome or _outcome(judgement),
        outputs=claimed_outputs(case.intent.body, claims),
        causes=[*causes, *reach.causes],
        needs=[*needs, *reach.needs],
        lifts=[[need_form(need) for need in lift] for lift in explanation.lifts],
    )


def _outcome(judgement: Judgement) -> StepOutcome:
    modes = [each.outcome.mode for each in judgement.classes]
    if all(mode is Mode.EXECUTE for mode in modes):
        return "execute"
    if any(mode.rank >= Mode.RESTRICT.rank for mode in modes):
        return "restrict"
    return "defer" if Mode.DEFER in modes else "refuse"


def _reach(core: Core, judgement: Judgement, reachable: frozenset[str]) -> _Reach:
    epoch = core.holdings.epoch
    present = reachable & set(epoch.members)
    if len(present) < epoch.quorum:
        parameters: dict[str, int | str] = {"votes": len(present), "quorum": epoch.quorum}
        cause = TermForm("no_quorum", parameters, message=cause_sentence("no_quorum", parameters))
        return _Reach(causes=(cause,), outcome="held")
    if _outcome(judgement) not in ("execute", "restrict"):
        return _Reach()
    silent = sorted({owner for each in judgement.classes for owner in each.live} - present)
    if not silent:
        return _Reach()
    causes: list[TermForm] = []
    needs: list[TermForm] = []
    for member in silent:
        named: dict[str, int | str] = {"member": member}
        if member in epoch.members:
            causes.append(TermForm("owner_silent", named, message=cause_sentence("owner_silent", named)))
            needs.append(TermForm("consent", named, message=need_sentence("consent", named)))
        else:
            causes.append(TermForm("owner_departed", named, message=cause_sentence("owner_departed", named)))
            needs.append(TermForm("membership", named, message=need_sentence("membership", named)))
    return _Reach(causes=tuple(causes), needs=tuple(needs), outcome="defer")
