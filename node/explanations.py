"""A dry run of a step: what would be decided now, as this node sees it, and what would lift a deferral.

Nothing is filed, stored or sent. The intent says of itself that it is an explanation, so that it is never the
same record as one that is filed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from comity.attestation.authoring import NO_SALT
from comity.attestation.case import Case, Fault, Judgement
from comity.attestation.explain import Explanation, explain
from comity.attestation.gathering import gather
from comity.attestation.verification import verify
from comity.attestation.voter import build_case
from comity.node.core import Core
from comity.node.forms import ExplainAnswer, StepForm, StepOutcome, TermForm
from comity.node.problems import Refused
from comity.node.sentences import cause_sentence, need_sentence
from comity.node.steps import (
    Defaults,
    Draft,
    cause_form,
    claimed_outputs,
    draft,
    is_governed,
    need_form,
)
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.execution import Ask, Claim, Intent, ScopeEpoch
from comity.protocol.outcome import Mode, union
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

ORCHESTRATOR: Final = "explain"
"""What an intent that is only explained says that it comes from. Policy does not see it."""


def explain_step(core: Core, form: StepForm, defaults: Defaults, reachable: frozenset[str]) -> ExplainAnswer:
    """Explain a step.

    Args:
        reachable: the members whose vote could be had now, the own one among them.

    Raises:
        Refused: the step cannot become an intent.
    """
    if not is_governed(core, form) or not form.outputs:
        return ExplainAnswer(outcome="ungoverned")
    try:
        drafted = draft(core, replace(form, orchestrator=ORCHESTRATOR), defaults)
    except Refused as exc:
        if exc.code != "input_without_lineage":
            raise
        cause = TermForm(exc.code, message=exc.message)
        return ExplainAnswer(outcome="defer", causes=[cause], needs=[TermForm("input", message=exc.hint)])
    case = _case(core, drafted)
    return _answer(core, case, explain(case), reachable)


def _case(core: Core, drafted: Draft) -> Case:
    """The case of an ask that is never sent, on what this node holds."""
    holdings = core.holdings
    governance = holdings.governance()
    if governance is None:
        raise Refused("governance_missing", "taxonomy or policies of the epoch have not arrived yet", 503)
    try:
        intent: VerifiedRecord[Intent] = verify(drafted.intent, holdings.directory)
        offered = [holdings.get(r.id) or verify(r, holdings.directory) for r in drafted.offered]
    except (VerificationError, DecodeError) as exc:
        raise Refused("intent_unwritable", str(exc), 422) from exc
    relied: dict[bytes, AnyRecord] = gather(intent, holdings, offered)
    t = core.clock.now()
    body = Ask(
        salt=NO_SALT,
        intent=intent.id,
        t=t,
        epochs=(ScopeEpoch(scope=governance.epoch.coalition, epoch=governance.epoch.id),),
        relied=tuple(sorted(relied)),
    )
    ask = core.identity.author.write_verified(
        holdings.directory, "ask", body, at=t, subject=(intent.id,), realm=intent.header.realm
    )
    return build_case(governance, holdings, intent, ask, relied)


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
    return _Reach(
        causes=tuple(
            TermForm("owner_silent", {"member": m}, message=cause_sentence("owner_silent", {"member": m}))
            for m in silent
        ),
        needs=tuple(
            TermForm("consent", {"member": m}, message=need_sentence("consent", {"member": m}))
            for m in silent
        ),
        outcome="defer",
    )
