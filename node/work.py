"""The work itself, as the bridge reports it: starts, reads, and what was made.

The bridge hashes; the node looks at lineage and permits, and answers. Every answer here is about one slot of
one intent of this node.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, TypeAlias

import msgspec

from comity.attestation.aftermath import taken_back, weighed
from comity.attestation.authoring import NO_SALT
from comity.attestation.findings import Finding, refuse
from comity.attestation.lineage import Epochs, actuation_problem, claim_for, state_after
from comity.node.certificates import certificate_records
from comity.node.core import Core
from comity.node.drafts import asset_id
from comity.node.forms import (
    ActuationAnswer,
    ActuationForm,
    DiscardAnswer,
    DiscardForm,
    ReadAnswer,
    ReadForm,
    StartAnswer,
    StartForm,
    TermForm,
)
from comity.node.heads import standing, standing_heads
from comity.node.permit_use import doubtful, is_spoken_against
from comity.node.problems import Refused
from comity.node.steps import (
    started_by_others,
)
from comity.node.store import Withheld
from comity.node.terms import cause_form, cause_of
from comity.protocol.encoding import Form, decode, encode
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.execution import (
    Actuation,
    Claim,
    Content,
    Intent,
    Metering,
    Permit,
    Start,
    Verification,
)
from comity.protocol.frames import RecordBytes
from comity.protocol.identifiers import DIGEST_BYTES, Digest
from comity.protocol.outcome import indices_of
from comity.protocol.verified import VerifiedRecord
from comity.protocol.ways import APART, way_in

AnyRecord: TypeAlias = VerifiedRecord[Any]

CHECKS_MAX: Final = 64
"""Reasons that one verification names, as its form has it."""
SIDECAR_BYTES_MAX: Final = 1_048_576
"""A sidecar holds one certificate: some ten records of a few kilobytes."""


class Sidecar(Form, frozen=True):
    """What lies beside the bytes of an asset: the actuation that vouches for them, and its certificate."""

    actuation: Digest
    records: tuple[RecordBytes, ...]


def decode_sidecar(text: str) -> Sidecar:
    """Read a sidecar.

    Raises:
        DecodeError: it is none.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise DecodeError("the sidecar is not base64") from exc
    return decode(data, Sidecar, SIDECAR_BYTES_MAX)


def admit_sidecar(core: Core, text: str) -> bytes | None:
    """Take the records of a sidecar; they verify like any others. Returns the id that it points at."""
    if not text:
        return None
    sidecar = decode_sidecar(text)
    core.admit(decode_record(data) for data in sidecar.records)
    return sidecar.actuation


def _hex(text: str, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        raise Refused("form_invalid", f"{what}: not hexadecimal", 422) from exc
    if len(value) != DIGEST_BYTES:
        raise Refused("form_invalid", f"{what}: {len(value)} bytes where an id has {DIGEST_BYTES}", 422)
    return value


def _permitted(
    core: Core, intent_id: bytes, asset: str, partition: str
) -> tuple[AnyRecord, AnyRecord, Claim]:
    """The permit of an intent and its claim for one slot.

    Raises:
        Refused: there is none, or it ran out, or something adverse is held against it.
    """
    pursuit = core.requester.pursuit(intent_id)
    if pursuit is None:
        raise Refused("not_found", f"no intent {intent_id.hex()[:16]} of this node", 404)
    permit = pursuit.permit
    if pursuit.standing != "permitted" or permit is None:
        raise Refused("not_permitted", f"the intent stands at {pursuit.standing}")
    body: Permit = permit.body
    intent: Intent = pursuit.intent.body
    for claim in body.claims:
        group = intent.classes[claim.index]
        for index in indices_of(claim.extent.items):
            if group.asset == asset and group.items[index].partition == partition:
                return permit, pursuit.intent, claim
    raise Refused("not_permitted", f"the permit says nothing of {asset} {partition}".rstrip())


def _require_nothing_adverse(core: Core, intent: AnyRecord, permit: AnyRecord) -> None:
    """Whoever holds a revocation refuses an unstarted permit at once (docs/spec/decision.md section 7)."""
    if is_spoken_against(core.holdings, intent, permit):
        raise Refused("adverse_held", "a record that came after the decision speaks against it")


def _require_free_slot(core: Core, intent: AnyRecord, asset: str, partition: str) -> None:
    """Of two intents for one slot the first one done has it; the other has to ask anew for the next generation."""
    for group in intent.body.classes:
        for item in group.items if group.asset == asset else ():
            if item.partition != partition:
                continue
            heads = standing_heads(core.store, core.holdings, asset, partition)
            if (heads[0].actuation if heads else None) != item.previous:
                raise Refused(
                    "slot_taken",
                    f"generation {heads[0].generation if heads else 0} of {asset} is the newest that stands meanwhile",
                    hint="run the step again: it asks for the next generation",
                )
            slot = (core.identity.member, asset, partition, item.generation)
            if core.holdings.promoted_in(slot):
                # One that is no head, for instance since the asset lay in another member's namespace for a while.
                what = f"generation {item.generation} of {asset} was made already, and does not count as its newest"
                raise Refused("slot_taken", what, hint="the writers of the asset agree on whose it is")


def start(core: Core, form: StartForm) -> StartAnswer:
    """Begin one output under its permit. The start record is on disk when this returns.

    Raises:
        Refused: `not_permitted`, `permit_expired`, `permit_used`, `permit_of_another_run`, `slot_taken`,
            `adverse_held`, `voted_twice`, `attempts_used`.
    """
    intent_id = _hex(form.intent, "intent")
    asset = asset_id(core, form.asset)
    permit, intent, _ = _permitted(core, intent_id, asset, form.partition)
    now = core.clock.now()
    if now >= permit.body.expires:
        raise Refused("permit_expired", "ask again: the step starts later than its permit allows")
    _require_nothing_adverse(core, intent, permit)
    if voters := doubtful(core.holdings, permit):
        what = f"without {' and '.join(voters)}, shown to have voted twice, the permit has no quorum"
        raise Refused("voted_twice", what, hint="ask again: the others' votes may suffice")
    if _actuated(core, permit.id, asset, form.partition):
        raise Refused("permit_used", "something was made under this permit already")
    run = msgspec.structs.replace(intent.body.run, run=form.run[:255] or intent.body.run.run)
    if started_by_others(core, permit, run.run):
        raise Refused(
            "permit_of_another_run",
            "another run has begun the work under this permit",
            hint="submit the step again: this run is given an intent of its own",
        )
    _require_free_slot(core, intent, asset, form.partition)
    for attempt in range(1, intent.body.attempts_max + 1):
        record = core.identity.author.write(
            "start",
            Start(
                salt=NO_SALT,
                intent=intent_id,
                permit=permit.id,
                asset=asset,
                partition=form.partition,
                attempt=attempt,
                run=run,
            ),
            now,
            subject=(permit.id,),
        )
        if _started(core, permit.id, asset, form.partition, attempt):
            continue
        kept = core.store.start_once(permit.id, asset, form.partition, attempt, record)
        if kept.id == record.id:
            core.admit([record], own=True)
            back = _to_put_back(core, asset, form.partition, intent.header.realm)
            return StartAnswer(start=record.id.hex(), attempt=attempt, put_back=back)
    raise Refused("attempts_used", f"all {intent.body.attempts_max} attempts of this intent are used")


def _to_put_back(core: Core, asset: str, partition: str, realm: str) -> str:
    """The digest (hex) of the version that stands in a slot, where a newer one was rolled back; or nothing."""
    newest = core.store.heads(asset, partition, coalition=core.coalition)
    stands = standing(core.holdings, newest[0]) if newest else None
    if stands is None or stands.actuation == newest[0].actuation or realm in APART:
        return ""
    made = core.holdings.get(stands.actuation)
    return made.body.content.digest.hex() if made is not None else ""


def _started(core: Core, permit: bytes, asset: str, partition: str, attempt: int) -> bool:
    return any(
        isinstance(r.body, Start)
        and (r.body.permit, r.body.asset, r.body.partition, r.body.attempt)
        == (permit, asset, partition, attempt)
        for r in core.holdings.about(permit)
    )


def _actuated(core: Core, permit: bytes, asset: str, partition: str) -> bool:
    return any(
        isinstance(r.body, Actuation)
        and (r.body.permit, r.body.asset, r.body.partition) == (permit, asset, partition)
        and r.header.outcome == "promoted"
        for r in core.holdings.about(permit)
    )


def read(core: Core, form: ReadForm) -> ReadAnswer:
    """Whether the bytes of an input may be deserialised: they are what a sound actuation says was made.

    Raises:
        Refused: the form is malformed. That the bytes are not admitted is an answer, not an error.
    """
    asset = asset_id(core, form.asset)
    digest = _hex(form.digest, "digest")
    try:
        pointed = admit_sidecar(core, form.sidecar)
    except DecodeError as exc:
        return _not_admitted("sidecar_unreadable", detail=str(exc)[:200])
    intent = core.requester.pursuit(_hex(form.intent, "intent")) if form.intent else None
    wanted = _wanted_actuation(core, intent.intent.body if intent else None, asset, form.partition, pointed)
    if wanted is None:
        return _not_admitted("lineage_missing", asset=asset)
    actuation = core.holdings.get(wanted)
    if actuation is None or not isinstance(actuation.body, Actuation):
        return _not_admitted("lineage_missing", asset=asset)
    passed_over = _FAILED_CHECK if form.to_check and not form.intent else frozenset[str]()
    problem = lineage_problem(core, actuation, passed_over)
    if problem is not None:
        return ReadAnswer(admitted=False, actuation=wanted.hex(), causes=[cause_form(problem.cause)])
    if (actuation.body.asset, actuation.body.partition) != (asset, form.partition):
        return _of_another(actuation.body, asset, form.partition)
    if (actuation.body.content.digest, actuation.body.content.size) != (digest, form.size):
        return _changed(core, form, actuation, pointed)
    own = actuation.member == core.identity.member and not form.sidecar
    return ReadAnswer(
        admitted=True,
        actuation=wanted.hex(),
        rows=actuation.body.content.rows,
        sidecar=sidecar_for(core, wanted) if own else "",
    )


def _changed(core: Core, form: ReadForm, wanted: AnyRecord, pointed: bytes | None) -> ReadAnswer:
    """Bytes that are not what is wanted: those of another slot or generation, or changed after they were made."""
    body: Actuation = wanted.body
    words = _slot_words(body.asset, body.partition)
    parameters: dict[str, int | str] = {"asset": body.asset, "writer": wanted.member}
    if body.partition:
        parameters["partition"] = body.partition
    message = f"the bytes of {words} are not those that {wanted.member} made"
    cause = TermForm("content_changed", parameters, message=message)
    beside = core.holdings.get(pointed) if pointed is not None else None
    if beside is not None and isinstance(beside.body, Actuation):
        other = beside.body
        same = (other.content.digest.hex(), other.content.size) == (form.digest, form.size)
        if same and lineage_problem(core, beside) is None:
            if (other.asset, other.partition) != (body.asset, body.partition):
                return _of_another(other, body.asset, body.partition)
            message = f"the bytes are generation {other.generation} of {words}; wanted is generation {body.generation}"
            cause = TermForm("lineage_of_another", parameters, message=message)
        if (
            same
            and _is_rolled_back(core, beside)
            and (other.asset, other.partition) == (body.asset, body.partition)
        ):
            message = (
                f"generation {other.generation} of {words} was rolled back, to generation {body.generation}"
            )
            cause = TermForm("lineage_of_another", parameters, message=message)
            back = body.content.digest.hex()
            return ReadAnswer(admitted=False, actuation=wanted.id.hex(), causes=[cause], put_back=back)
    return ReadAnswer(admitted=False, actuation=wanted.id.hex(), causes=[cause])


def _is_rolled_back(core: Core, made: AnyRecord) -> bool:
    """Whether this node's organization made a version and has rolled it back."""
    return made.member == core.identity.member and "rolled_back" in taken_back(core.holdings, made)


def _of_another(made: Actuation, asset: str, partition: str) -> ReadAnswer:
    """Genuine bytes under another name."""
    wanted, found = _slot_words(asset, partition), _slot_words(made.asset, made.partition)
    parameters: dict[str, int | str] = {"asset": asset, "made": made.asset}
    if made.partition or partition:
        parameters |= {"partition": partition, "made_partition": made.partition}
    message = f"these are the genuine bytes of {found}, not of {wanted}"
    return ReadAnswer(admitted=False, causes=[TermForm("lineage_of_another", parameters, message=message)])


def _slot_words(asset: str, partition: str) -> str:
    return f"partition {partition} of {asset}" if partition else asset


def _not_admitted(code: str, **parameters: str) -> ReadAnswer:
    return ReadAnswer(admitted=False, causes=[TermForm(code, dict(parameters))])


def _wanted_actuation(
    core: Core, intent: Intent | None, asset: str, partition: str, pointed: bytes | None
) -> bytes | None:
    """The actuation that the decision rested on: of several versions only that one may be read."""
    if intent is not None:
        named = {i for group in intent.classes for i in group.inputs}
        named |= {i for group in intent.classes for item in group.items for i in item.inputs}
        for actuation_id in sorted(named):
            record = core.holdings.get(actuation_id)
            if (
                record is not None
                and isinstance(record.body, Actuation)
                and (record.body.asset, record.body.partition) == (asset, partition)
            ):
                return actuation_id
        return None
    heads = standing_heads(core.store, core.holdings, asset, partition)
    return heads[0].actuation if heads else pointed


_FAILED_CHECK: Final = frozenset({"observation_failed"})


def lineage_problem(
    core: Core, actuation: AnyRecord, passed_over: frozenset[str] = frozenset()
) -> Finding | None:
    """Why an actuation is no lineage that this node admits, or None: certificate, promotion, adverse records.

    Args:
        passed_over: codes of findings that bar it from nothing here.
    """
    body: Actuation = actuation.body
    permit, intent = core.holdings.get(body.permit), core.holdings.get(body.intent)
    if actuation.header.outcome != "promoted" or permit is None or intent is None:
        return refuse("lineage_missing", asset=body.asset)
    epochs: Epochs = core.holdings.epochs
    wanted = (*permit.body.votes, body.start)
    held = {i: r for i in wanted if (r := core.holdings.get(i)) is not None}
    problem = actuation_problem(actuation, permit, intent, held, epochs)
    if problem is not None:
        return problem
    adverse = weighed(core.holdings, actuation)
    if adverse is None:
        raise Refused("governance_missing", "taxonomy or policies of the epoch have not arrived yet", 503)
    if actuation.id in adverse.struck:
        return refuse("input_struck", reason=adverse.struck[actuation.id])
    against = (finding for findings in adverse.against.values() for finding in findings)
    return next((finding for finding in against if finding.cause.code not in passed_over), None)


def actuate(core: Core, form: ActuationForm) -> ActuationAnswer:
    """Record what was made under a start, as promoted, and answer with the sidecar to lay beside it.

    Raises:
        Refused: `start_unknown`, `not_permitted`, `permit_used`, `slot_taken`, `adverse_held`, `lineage_wrong`.
    """
    asset, started, permit, intent = _begun(core, form.intent, form.start, form.asset)
    if way_in(intent.header.realm) == "dry_run":
        raise Refused("not_permitted", "a dry run is verified and taken away: it promotes nothing")
    if _actuated(core, permit.id, asset, form.partition):
        raise Refused("permit_used", "something was made under this permit already")
    _require_free_slot(core, intent, asset, form.partition)
    _require_nothing_adverse(core, intent, permit)
    record = _actuation(core, form, asset, started, permit, intent, "promoted")
    _require_within(permit.body, intent.body, asset, form)
    verified = core.admit([record], own=True, durable=True)
    if verified.rejected:
        raise Refused("actuation_unwritable", str(verified.rejected[0][1]), 422)
    core.store.save_withheld(
        Withheld(
            intent=intent.id,
            asset=asset,
            obligation=entry.obligation,
            column=entry.column,
            rows=entry.rows,
            values=tuple(entry.values),
            partition=form.partition,
        )
        for entry in form.withheld
    )
    return ActuationAnswer(actuation=record.id.hex(), sidecar=sidecar_for(core, record.id))


def discard(core: Core, form: DiscardForm) -> DiscardAnswer:
    """Record what was staged under a start, and why it is not promoted. Readers see neither.

    Raises:
        Refused: `start_unknown`, `permit_used`, `actuation_unwritable`.
    """
    asset, started, permit, intent = _begun(core, form.intent, form.start, form.asset)
    if _actuated(core, permit.id, asset, form.partition):
        raise Refused("permit_used", "something was made under this permit already")
    content = ActuationForm(
        form.intent,
        form.start,
        form.asset,
        form.digest,
        form.size,
        form.media_type,
        form.partition,
        form.rows,
    )
    staged = _actuation(core, content, asset, started, permit, intent, "staged")
    checks = tuple(cause_of(term) for term in form.causes[:CHECKS_MAX])
    try:
        failed = core.identity.author.write(
            "verification",
            Verification(salt=NO_SALT, checks=checks),
            core.clock.now(),
            subject=(staged.id,),
            outcome="passed" if form.passed else "failed",
            realm=staged.header.realm,
        )
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("actuation_unwritable", str(exc), 422) from exc
    admission = core.admit([staged, failed], own=True, durable=True)
    if admission.rejected:
        raise Refused("actuation_unwritable", str(admission.rejected[0][1]), 422)
    return DiscardAnswer(actuation=staged.id.hex(), verification=failed.id.hex())


def _begun(core: Core, intent: str, start: str, name: str) -> tuple[str, AnyRecord, AnyRecord, AnyRecord]:
    """The asset, the start, the permit and the intent of work that was begun.

    Raises:
        Refused: `start_unknown`.
    """
    intent_id = _hex(intent, "intent")
    asset = asset_id(core, name)
    started = core.holdings.get(_hex(start, "start"))
    if started is None or not isinstance(started.body, Start) or started.body.intent != intent_id:
        raise Refused("start_unknown", "no such start of this intent", 404)
    permit = core.holdings.get(started.body.permit)
    asked = core.holdings.get(intent_id)
    if permit is None or asked is None or started.body.asset != asset:
        raise Refused("start_unknown", "the start is of another asset", 409)
    return asset, started, permit, asked


def _actuation(
    core: Core,
    form: ActuationForm,
    asset: str,
    started: AnyRecord,
    permit: AnyRecord,
    intent: AnyRecord,
    outcome: str,
) -> SignedRecord:
    group, item, claim = _slot(intent.body, permit.body, asset, form.partition)
    body = Actuation(
        salt=NO_SALT,
        intent=intent.id,
        permit=permit.id,
        start=started.id,
        asset=asset,
        generation=item.generation,
        attempt=started.body.attempt,
        content=Content(
            digest=_hex(form.digest, "digest"),
            size=form.size,
            media_type=form.media_type,
            rows=form.rows,
            columns=tuple(form.columns),
        ),
        metering=Metering(
            authority=intent.body.credential, rows=form.rows, bytes=form.size, duration_ms=form.duration_ms
        ),
        inputs=tuple(sorted({*group.inputs, *item.inputs})),
        partition=form.partition,
        previous=item.previous,
    )
    if claim_for(permit.body, intent.body, body) is None:
        raise Refused("not_permitted", "the slot is not in the permit's extent")
    try:
        record = core.identity.author.write(
            "actuation",
            body,
            core.clock.now(),
            subject=(permit.id,),
            outcome=outcome,
            realm=claim.state.realm,
            governance=state_after(claim),
        )
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("actuation_unwritable", str(exc), 422) from exc
    return record


def _require_within(permit: Permit, intent: Intent, asset: str, form: ActuationForm) -> None:
    group, _, claim = _slot(intent, permit, asset, form.partition)
    allowed = {group.columns[i] for i in indices_of(claim.extent.columns)}
    beyond = sorted(set(form.columns) - allowed)
    if group.columns and beyond:
        raise Refused("column_not_permitted", f"{beyond[0]} is outside of the permitted extent")


def _slot(intent: Intent, permit: Permit, asset: str, partition: str) -> tuple[Any, Any, Claim]:
    for claim in permit.claims:
        group = intent.classes[claim.index]
        for index in indices_of(claim.extent.items):
            if group.asset == asset and group.items[index].partition == partition:
                return group, group.items[index], claim
    raise Refused("not_permitted", f"the permit says nothing of {asset} {partition}".rstrip())


def sidecar_for(core: Core, actuation: bytes) -> str:
    """The sidecar of an actuation, in base64."""
    records = certificate_records(core.holdings, actuation)
    sidecar = Sidecar(actuation=actuation, records=tuple(r.encoded() for r in records))
    return base64.b64encode(encode(sidecar)).decode()
