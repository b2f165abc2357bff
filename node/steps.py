"""From a step, as the bridge describes it, to an intent; and from where the intent stands to an answer.

The bridge names assets and hashes; here the node adds what only it knows: the slots, the actuations of the
inputs, the credential, and its signature. What is governed is said by signed policy.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from comity.attestation.authoring import NO_SALT
from comity.attestation.evidence import binding_of
from comity.attestation.requester import Pursuit
from comity.node.core import Core
from comity.node.forms import ContextForm, OutputForm, PermittedOutput, StepAnswer, StepForm, TermForm
from comity.node.heads import standing, standing_heads
from comity.node.permit_use import doubtful, is_spoken_against
from comity.node.problems import Refused
from comity.node.run_names import continues
from comity.node.sentences import cause_sentence, need_sentence, obligation_sentence
from comity.node.store import IntentRow
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.execution import (
    Actuation,
    Attestation,
    Claim,
    CodeReference,
    ContextMeasurement,
    Intent,
    Item,
    ItemClass,
    Permit,
    RunReference,
    Start,
)
from comity.protocol.governance import Credential
from comity.protocol.identifiers import DIGEST_BYTES, PRODUCTION, Code, sha256
from comity.protocol.limits import ASK_AGE_S_MAX, RECORD_BYTES_MAX
from comity.protocol.outcome import Cause, Mode, Need, Obligation, full_extent, indices_of
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

ATTEMPTS_MAX: Final = 10
"""Attempts of one intent: a run's retries, and some."""
ASKED_TOGETHER_MAX: Final = 64
"""Intents of one run whose permits ran out, and that are asked for again at once."""
PARTITIONS_NAMED_MAX: Final = 16
"""Partitions that a hint names."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the node's configuration fills in where a step says nothing."""

    purpose: str
    credential: bytes | None


@dataclass(frozen=True, slots=True)
class Draft:
    """An intent that is not filed yet, with the records that come with it."""

    intent: SignedRecord
    offered: tuple[SignedRecord, ...]
    dedup: bytes


def asset_id(core: Core, name: str) -> str:
    """The whole id of an asset: a name without a member's domain is this organization's own."""
    if core.holdings.epoch.writer_of(name) is not None:
        return name
    return f"{core.identity.member}/{name}"


def is_governed(core: Core, form: StepForm) -> bool:
    """Whether signed policy speaks of an output or an input: whatever reads a governed input is governed."""
    governance = core.holdings.governance()
    if governance is None:
        raise Refused("governance_missing", "taxonomy or policies of the epoch have not arrived yet", 503)
    names = [asset_id(core, o.asset) for o in form.outputs] + [asset_id(core, i.asset) for i in form.inputs]
    return any(governance.governs(name) for name in names)


def missing_inputs(core: Core, form: StepForm) -> list[tuple[str, str]]:
    """Governed inputs (asset id, partition) of which no promoted actuation is known here."""
    governance = core.holdings.governance()
    missing: list[tuple[str, str]] = []
    for entry in form.inputs:
        asset = asset_id(core, entry.asset)
        if governance is not None and not governance.governs(asset):
            continue
        if not standing_heads(core.store, core.holdings, asset, entry.partition):
            missing.append((asset, entry.partition))
    return missing


def draft(core: Core, form: StepForm, defaults: Defaults) -> Draft:
    """Write the intent of a step.

    Raises:
        Refused: the step cannot become an intent: no credential, an input without lineage, a ticket that is none.
    """
    run = _run(form)
    ticket = _ticket(core, form.ticket, run)
    credential = _credential(core, form, defaults, ticket)
    purpose = form.purpose or defaults.purpose
    if not purpose:
        raise Refused(
            "purpose_missing",
            "the step names no purpose and the node has no default",
            422,
            "name one (--purpose NAME, or in the step), or set `purpose` in node.toml",
        )
    try:
        msgspec.convert(purpose, Code, strict=True)
    except msgspec.ValidationError as exc:
        said = (
            f"{purpose!r:.80} is no purpose: lower-case letters, digits and underscores, as policy names it"
        )
        raise Refused("form_invalid", said, 422) from exc
    classes = _classes(core, form)
    code = _digest(form.code, "code")
    dedup = sha256(
        encode(
            {
                "classes": [sha256(encode(group)) for group in classes],
                "code": code,
                "credential": credential.id,
                "job": form.job,
                "purpose": purpose,
                "step": form.step,
            }
        )
    )
    now = core.clock.now()
    body = Intent(
        salt=NO_SALT,
        requester=credential.body.subject,
        credential=credential.id,
        purpose=purpose,
        code=CodeReference(digest=code, location=form.location[:255], revision=form.revision[:255]),
        run=run,
        classes=classes,
        expires=now + ASK_AGE_S_MAX,
        attempts_max=ATTEMPTS_MAX,
    )
    realm = credential.body.realms[0]
    realm = PRODUCTION if PRODUCTION in credential.body.realms else realm
    try:
        under = (ticket.id,) if ticket is not None else ()
        intent = core.identity.author.write("intent", body, now, realm=realm, subject=under)
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("intent_unwritable", str(exc), 422) from exc
    offered = [ticket] if ticket is not None else []
    if form.context is not None:
        offered.append(_evidence(core, intent, form.context, now))
    return Draft(intent, tuple(offered), dedup)


def _run(form: StepForm) -> RunReference:
    """Whose run it is: that in whose place this one goes on.

    Raises:
        Refused: it says that it goes on for a run, and its id is of none that does.
    """
    if form.continues and not continues(form.run, form.continues):
        raise Refused("form_invalid", f"run {form.run[:64]} does not go on for {form.continues[:64]}", 422)
    run = form.continues or form.run
    return RunReference(form.orchestrator[:255], run[:255], form.step[:255], form.job[:255])


def _ticket(core: Core, text: str, run: RunReference) -> SignedRecord | None:
    if not text:
        return None
    try:
        data = base64.b64decode(text, validate=True)
        if len(data) > RECORD_BYTES_MAX:
            raise DecodeError("too long")
        record = decode_record(data)
    except (binascii.Error, ValueError, DecodeError) as exc:
        raise Refused("ticket_unreadable", f"the launch ticket is no record: {exc}", 422) from exc
    if record.header.kind != "launch_ticket":
        raise Refused("ticket_unreadable", f"a record of kind {record.header.kind} is no launch ticket", 422)
    admission = core.admit([record])
    if admission.rejected or admission.parked:
        reason = str(admission.rejected[0][1]) if admission.rejected else "its credential is not known here"
        raise Refused("ticket_unverified", reason, 422)
    verified = core.holdings.get(record.id)
    if verified is not None and not verified.body.run:
        first = core.holdings.launches.first_run(core.identity.member, record.id)
        if first is not None and first != run.run:
            raise Refused(
                "ticket_used",
                f"the launch ticket was used for run {first}",
                hint="whoever wants another run signs another ticket",
            )
    return record


def _credential(
    core: Core, form: StepForm, defaults: Defaults, ticket: SignedRecord | None
) -> VerifiedRecord[Credential]:
    wanted = ticket.header.authority if ticket is not None else None
    if form.credential:
        wanted = _digest(form.credential, "credential")
    if wanted is None:
        wanted = defaults.credential
    if wanted is None:
        raise Refused(
            "credential_missing",
            "the step names no credential and this node has no automation credential",
            422,
            "issue one: comity credential issue --kind automation --node-key --subject NAME --class CLASS",
        )
    record = core.holdings.get(wanted)
    if record is None or not isinstance(record.body, Credential):
        raise Refused(
            "credential_unknown",
            f"no credential {wanted.hex()[:16]} is held here",
            422,
            "`comity credential list` shows those that are",
        )
    return record


def _digest(text: str, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        raise Refused("form_invalid", f"{what}: not hexadecimal", 422) from exc
    if len(value) != DIGEST_BYTES:
        raise Refused("form_invalid", f"{what}: {len(value)} bytes where a digest has {DIGEST_BYTES}", 422)
    return value


def _classes(core: Core, form: StepForm) -> tuple[ItemClass, ...]:
    """One class per output asset with equal declarations; its items are the partitions."""
    inputs = _inputs(core, form)
    groups: dict[tuple[str, tuple[str, ...], str, bool], list[Item]] = {}
    for output in form.outputs:
        asset = asset_id(core, output.asset)
        columns = tuple(output.columns) if output.columns is not None else _columns(core, asset)
        slot = (asset, columns, output.media_type, output.reversible)
        groups.setdefault(slot, []).append(_item(core, asset, output))
    try:
        return tuple(
            ItemClass(
                asset=asset,
                items=tuple(sorted(items, key=lambda item: item.partition)),
                columns=columns,
                inputs=inputs,
                media_type=media_type,
                reversible=reversible,
            )
            for (asset, columns, media_type, reversible), items in sorted(groups.items())
        )
    except ValueError as exc:
        raise Refused("intent_unwritable", str(exc), 422) from exc


def _columns(core: Core, asset: str) -> tuple[str, ...]:
    """The columns that signed policy knows the asset to have, where its definition declares none."""
    governance = core.holdings.governance()
    for bundle in governance.bundles if governance is not None else ():
        rule = bundle.rule_for(asset)
        if rule is not None and rule.columns:
            return tuple(column.name for column in rule.columns)
    return ()


def _item(core: Core, asset: str, output: OutputForm) -> Item:
    made = core.store.heads(asset, output.partition, coalition=core.coalition)
    if not made:
        return Item(generation=1, partition=output.partition)
    # Numbers go on where the newest was rolled back: of one generation there is one version for ever.
    stands = standing(core.holdings, made[0])
    previous = stands.actuation if stands is not None else None
    return Item(generation=made[0].generation + 1, partition=output.partition, previous=previous)


def _inputs(core: Core, form: StepForm) -> tuple[bytes, ...]:
    """The newest promoted actuation of every governed input."""
    governance = core.holdings.governance()
    found: set[bytes] = set()
    for entry in form.inputs:
        asset = asset_id(core, entry.asset)
        heads = standing_heads(core.store, core.holdings, asset, entry.partition)
        if heads:
            found.add(heads[0].actuation)
        elif governance is not None and governance.governs(asset):
            slot = f"partition {entry.partition!r} of {asset}" if entry.partition else asset
            raise Refused(
                "input_without_lineage",
                f"no promoted actuation of {slot} is known here",
                409,
                _input_hint(core, asset),
            )
    return tuple(sorted(found))


def _input_hint(core: Core, asset: str) -> str:
    """What to do about an input that is not known here; the sentence of its need begins with the asset."""
    known = [head.partition for head in standing_heads(core.store, core.holdings, asset)]
    if known:
        listed = ", ".join(repr(each) for each in known[:PARTITIONS_NAMED_MAX])
        more = ", ..." if len(known) > PARTITIONS_NAMED_MAX else ""
        return f"of its partitions {listed}{more} are known"
    return "materialize it under governance first, or ask its writer's node to be up"


def _evidence(core: Core, intent: SignedRecord, form: ContextForm, now: int) -> SignedRecord:
    context = ContextMeasurement(
        python=form.python[:255],
        platform=form.platform[:255],
        distributions=_digest(form.distributions, "context.distributions"),
        distributions_count=form.distributions_count,
        code=_digest(form.code, "context.code"),
        code_files=form.code_files,
    )
    try:
        binding = binding_of(intent.id, core.identity.author.signer.key_id, b"", context, ())
        body = Attestation(salt=NO_SALT, type="software", intent=intent.id, context=context, binding=binding)
        return core.identity.author.write("attestation", body, now, subject=(intent.id,))
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("evidence_unwritable", str(exc), 422) from exc


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
    drafted = draft(core, form, defaults)
    known = _resumable(core, drafted, form)
    if known is not None:
        if _wants_asking(core, known):
            for lapsed in (known, *_lapsed_beside(core, known)):
                core.ask_again(lapsed)
        return answer(core, known)
    row = IntentRow(
        intent=drafted.intent.id,
        run=form.continues or form.run,
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
    return answer(core, drafted.intent.id)


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
        if row.run == (form.continues or form.run) and row.step == form.step:
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


def obligation_form(term: Obligation) -> TermForm:
    parameters = dict(term.parameters)
    return TermForm(term.code, parameters, message=obligation_sentence(term.code, parameters))


def need_form(need: Need) -> TermForm:
    parameters = dict(need.parameters)
    return TermForm(need.code, parameters, message=need_sentence(need.code, parameters))


def cause_form(cause: Cause) -> TermForm:
    parameters = dict(cause.parameters)
    return TermForm(cause.code, parameters, cause.rule, cause_sentence(cause.code, parameters))


def cause_of(term: TermForm) -> Cause:
    """A reason of whoever uses this node, as a record says it: its code, and of its parameters what is short.

    Raises:
        Refused: `form_invalid`.
    """
    raw = {"code": term.code, "rule": term.rule, "parameters": dict(list(term.parameters.items())[:8])}
    try:
        return msgspec.convert(raw, Cause, strict=True)
    except msgspec.ValidationError as exc:
        raise Refused("form_invalid", f"the cause {term.code[:64]!r}: {exc}", 422) from exc
