"""From a step to its intent, and from where the intent stands to an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, TypeAlias

from comity.attestation.requester import Pursuit
from comity.node.core import Core
from comity.node.drafts import Defaults, Draft, asset_id, is_governed, run_of
from comity.node.forms import PermittedOutput, StepAnswer, StepForm, TermForm
from comity.node.permit_use import doubtful, is_spoken_against
from comity.node.problems import Refused
from comity.node.store import IntentRow
from comity.node.terms import cause_form, need_form, obligation_form
from comity.node.ways import draft_least_harmful
from comity.protocol.execution import (
    Actuation,
    Claim,
    Intent,
    Permit,
    Start,
)
from comity.protocol.outcome import Mode, full_extent, indices_of
from comity.protocol.verified import VerifiedRecord
from comity.protocol.ways import way_in

AnyRecord: TypeAlias = VerifiedRecord[Any]

ATTEMPTS_MAX: Final = 10
"""Attempts of one intent: a run's retries, and some."""
ASKED_TOGETHER_MAX: Final = 64
"""Intents of one run whose permits ran out, and that are asked for again at once."""
PARTITIONS_NAMED_MAX: Final = 16
"""Partitions that a hint names."""


def submit(core: Core, form: StepForm, defaults: Defaults) -> StepAnswer:
    """File a step's intent, or find the one that it resumes.

    Raises:
        Refused: as `draft`.
    """
    if not is_governed(core, form):
        return StepAnswer(intent="", outcome="ungoverned")
    if not form.outputs:
        # Nothing is made, so there is nothing to decide; what it reads is still verified.
        return StepAnswer(intent="", outcome="ungoverned", governed_inputs=_governed_names(core, form))
    chosen = draft_least_harmful(core, form, defaults)
    drafted = chosen.draft
    known = _resumable(core, drafted, form)
    if known is not None:
        if _wants_asking(core, known):
            for lapsed in (known, *_lapsed_beside(core, known)):
                core.ask_again(lapsed)
        return replace(answer(core, known), ways=list(chosen.tried))
    row = IntentRow(
        intent=drafted.intent.id,
        run=run_of(form),
        step=form.step,
        dedup=drafted.dedup,
        status="asking",
        # The tickets: evidence names its intent and is found by that.
        state=b"".join(r.id for r in drafted.offered if r.header.kind == "launch_ticket"),
        updated=core.clock.now(),
    )
    # Together: a row without its intent would be of nothing, and an intent without its row be taken up by nobody.
    with core.store.batch():
        core.store.save_intent(row)
        core.file(drafted.intent, drafted.offered)
    return replace(answer(core, drafted.intent.id), ways=list(chosen.tried))


def _governed_names(core: Core, form: StepForm) -> list[str]:
    """The whole ids of a step's governed inputs."""
    governance = core.holdings.governance()
    names = {asset_id(core, entry.asset) for entry in form.inputs}
    return sorted(name for name in names if governance is not None and governance.governs(name))


def _resumable(core: Core, drafted: Draft, form: StepForm) -> bytes | None:
    """The intent of the same step of the same run, or an open one with equal slots, code and inputs.

    One that is permitted is open until its slots are filled: then the next intent has other slots.
    """
    open_one: bytes | None = None
    for row in core.store.intents(dedup=drafted.dedup):
        pursuit = core.requester.pursuit(row.intent)
        if pursuit is None:
            continue
        if row.run == run_of(form) and row.step == form.step:
            return row.intent
        if pursuit.standing in ("asking", "deferred", "held", "permitted") and not started_by_others(
            core, pursuit.permit, form.run
        ):
            open_one = open_one or row.intent
    return open_one


def started_by_others(core: Core, permit: VerifiedRecord[Permit] | None, run: str) -> bool:
    """Whether the work under a permit was begun by another run: a permit is for one."""
    if permit is None:
        return False
    starts = (r.body for r in core.holdings.about(permit.id) if isinstance(r.body, Start))
    return any(start.permit == permit.id and start.run.run != run for start in starts)


def _wants_asking(core: Core, intent: bytes) -> bool:
    """A permit that ran out unused, or that carries no more, is asked for again."""
    pursuit = core.requester.pursuit(intent)
    if pursuit is None or pursuit.standing != "permitted" or pursuit.permit is None:
        return False
    permit = pursuit.permit
    return (
        core.clock.now() >= permit.body.expires
        or bool(doubtful(core.holdings, permit))
        or is_spoken_against(core.holdings, pursuit.intent, permit)
    )


def _lapsed_beside(core: Core, intent: bytes) -> list[bytes]:
    """The intents of the same run whose permits ran out, too, before their work began.

    A run that is late is late for all of its steps: they are asked for together, and each finds its permit.
    """
    row = core.store.intent(intent)
    others = core.store.intents(run=row.run) if row is not None else []
    lapsed = [
        each.intent
        for each in others
        if each.intent != intent and _wants_asking(core, each.intent) and not _is_begun(core, each.intent)
    ]
    return lapsed[: ASKED_TOGETHER_MAX - 1]


def _is_begun(core: Core, intent: bytes) -> bool:
    """Whether work has begun under the permit of an intent: what is left of it is asked for when it is wanted."""
    pursuit = core.requester.pursuit(intent)
    permit = pursuit.permit if pursuit is not None else None
    return permit is not None and any(isinstance(r.body, Start) for r in core.holdings.about(permit.id))


def answer(core: Core, intent: bytes) -> StepAnswer:
    """Where an intent stands.

    Raises:
        Refused: no such intent of this node.
    """
    pursuit = core.requester.pursuit(intent)
    if pursuit is None:
        raise Refused("not_found", f"no intent {intent.hex()[:16]} of this node", 404)
    votes = _votes(core, pursuit)
    common: dict[str, Any] = {
        "intent": intent.hex(),
        "votes": votes,
        "governed_inputs": _input_names(core, pursuit.intent.body),
        "way": way_in(pursuit.intent.header.realm),
    }
    causes = [cause_form(cause) for cause in pursuit.causes]
    needs = [need_form(need) for need in pursuit.needs]
    if pursuit.standing == "permitted" and pursuit.permit is not None:
        outputs = permitted_outputs(pursuit.intent.body, pursuit.permit.body)
        whole = len(pursuit.permit.body.claims) == len(pursuit.intent.body.classes)
        restricted = not whole or any(output.mode != "execute" for output in outputs)
        return StepAnswer(
            outcome="restrict" if restricted else "execute",
            outputs=outputs,
            permit=pursuit.permit.id.hex(),
            expires=pursuit.permit.body.expires,
            causes=causes,
            **common,
        )
    if pursuit.standing == "refused":
        return StepAnswer(outcome="refuse", causes=causes, **common)
    if pursuit.standing == "expired":
        cause = TermForm("intent_expired", message="it was asked for too often or for too long")
        return StepAnswer(outcome="refuse", causes=[cause, *causes], **common)
    outcome: Any = "held" if pursuit.standing == "held" else "defer"
    return StepAnswer(outcome=outcome, causes=causes, needs=needs, **common)


def _input_names(core: Core, intent: Intent) -> list[str]:
    """The whole ids of the inputs that an intent rests on: their bytes are verified before use."""
    named = {i for group in intent.classes for i in group.inputs}
    named |= {i for group in intent.classes for item in group.items for i in item.inputs}
    inputs = (core.holdings.get(i) for i in named)
    return sorted({r.body.asset for r in inputs if r is not None and isinstance(r.body, Actuation)})


def _votes(core: Core, pursuit: Pursuit) -> dict[str, str]:
    """Member to the lowest mode of its vote, or to why there is none."""
    said: dict[str, str] = {}
    for member in sorted(core.holdings.epoch.members):
        vote = pursuit.votes.get(member)
        if vote is not None:
            modes: Iterable[Mode] = (j.outcome.mode for j in vote.body.judgements)
            said[member] = str(min(modes, key=lambda mode: mode.rank))
        else:
            said[member] = pursuit.declined.get(member, "silent")
    return said


def permitted_outputs(intent: Intent, permit: Permit) -> list[PermittedOutput]:
    """A permit in the words of the bridge: one entry per permitted item."""
    return claimed_outputs(intent, permit.claims)


def claimed_outputs(intent: Intent, claims: Iterable[Claim]) -> list[PermittedOutput]:
    """Claims in the words of the bridge."""
    outputs: list[PermittedOutput] = []
    for claim in claims:
        group = intent.classes[claim.index]
        full = full_extent(len(group.items), len(group.columns))
        columns = [group.columns[i] for i in sorted(indices_of(claim.extent.columns))]
        outputs.extend(
            PermittedOutput(
                asset=group.asset,
                partition=group.items[index].partition,
                mode="execute" if claim.mode is Mode.EXECUTE else "restrict",
                columns=columns,
                all_columns=claim.extent.columns == full.columns,
                obligations=[obligation_form(obligation) for obligation in claim.obligations],
            )
            for index in sorted(indices_of(claim.extent.items))
        )
    return outputs
