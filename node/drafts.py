"""From a step, as the bridge describes it, to an intent that is not filed yet.

The bridge names assets and hashes; here the node adds what only it knows: the slots, the actuations of the
inputs, the credential, and its signature. What is governed is said by signed policy.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from comity.attestation.authoring import NO_SALT
from comity.attestation.case import Case
from comity.attestation.evidence import binding_of
from comity.attestation.gathering import gather
from comity.attestation.verification import verify
from comity.attestation.voter import build_case
from comity.node.core import Core
from comity.node.forms import ContextForm, OutputForm, StepForm
from comity.node.heads import generation_made, standing_heads
from comity.node.problems import Refused
from comity.node.run_names import continues
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError, LocalProtocolError, VerificationError
from comity.protocol.execution import (
    Ask,
    Attestation,
    CodeReference,
    ContextMeasurement,
    Intent,
    Item,
    ItemClass,
    RunReference,
    ScopeEpoch,
)
from comity.protocol.governance import Credential
from comity.protocol.identifiers import DIGEST_BYTES, PRODUCTION, Code, sha256
from comity.protocol.limits import ASK_AGE_S_MAX, RECORD_BYTES_MAX
from comity.protocol.verified import VerifiedRecord
from comity.protocol.ways import Way, realm_of

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


def run_of(form: StepForm) -> str:
    """The run that a step is of: that in whose place its own goes on."""
    return form.continues or form.run


def purpose_of(form: StepForm, defaults: Defaults) -> str:
    """What a step is for; empty where nobody says."""
    return form.purpose or defaults.purpose


def draft(core: Core, form: StepForm, defaults: Defaults, way: Way = "staged") -> Draft:
    """Write the intent of a step, in one way.

    Raises:
        Refused: the step cannot become an intent: no credential, an input without lineage, a ticket that is none.
    """
    run = _run(form)
    ticket = _ticket(core, form.ticket, run)
    credential = _credential(core, form, defaults, ticket)
    purpose = purpose_of(form, defaults)
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
    realm = realm_of(way) or (
        PRODUCTION if PRODUCTION in credential.body.realms else credential.body.realms[0]
    )
    classes = _classes(core, form, realm)
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
                **({} if way == "staged" else {"way": way}),
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
    return RunReference(form.orchestrator[:255], run_of(form)[:255], form.step[:255], form.job[:255])


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


def _classes(core: Core, form: StepForm, realm: str) -> tuple[ItemClass, ...]:
    """One class per output asset with equal declarations; its items are the partitions."""
    inputs = _inputs(core, form, realm)
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
    # Numbers go on where the newest was rolled back, or made apart: of one generation there is one version for ever.
    made = generation_made(core.store, core.coalition, asset, output.partition)
    stands = standing_heads(core.store, core.holdings, asset, output.partition)
    previous = stands[0].actuation if stands else None
    return Item(generation=made + 1, partition=output.partition, previous=previous)


def _inputs(core: Core, form: StepForm, realm: str) -> tuple[bytes, ...]:
    """The newest promoted actuation of every governed input, as who works in a realm sees it."""
    governance = core.holdings.governance()
    found: set[bytes] = set()
    for entry in form.inputs:
        asset = asset_id(core, entry.asset)
        heads = standing_heads(core.store, core.holdings, asset, entry.partition, realm)
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


def case_of(core: Core, drafted: Draft) -> Case:
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
