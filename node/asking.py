"""Asking in the words of a command: steps to explain, approvals, launch tickets, and ids that were shortened."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.node.client import StepForm
from comity.node.forms import InputForm, OutputForm
from comity.node.owner_files import read_file
from comity.node.plain_values import plain
from comity.node.signing_hand import credential_body, now, whole_pattern
from comity.protocol.encoding import Form
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.execution import Intent, LaunchTicket, Observation
from comity.protocol.governance import Credential, Revocation
from comity.protocol.identifiers import pattern_matches, pattern_within, sha256
from comity.protocol.limits import RECORD_BYTES_MAX
from comity.protocol.records import decode_body

STEP_BYTES_MAX: Final = 4 * 1_048_576
"""A step as JSON: what the local API takes."""
BEFORE_S: Final = 300
"""A ticket holds from so long before it is signed: the clocks of the members differ."""
NO_CODE: Final = sha256(b"").hex()
"""The code of a step of which only the outputs are known."""


@dataclass(frozen=True, slots=True)
class StepWords:
    """What options say of a step. An input may name its partition: `orders@2026-01-01`."""

    assets: tuple[str, ...] = ()
    partition: str = ""
    columns: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    purpose: str = ""
    credential: str = ""
    ticket: Path | None = None
    run: str = ""
    job: str = ""


def step_form(file: Path | None, words: StepWords) -> StepForm:
    """The step of a file, with what options add; or of options alone.

    Raises:
        ConfigError: neither names an output, or the file is no step.
    """
    if file is None:
        form = StepForm(
            orchestrator="comity", run="explain", step="explain", job="", code=NO_CODE, outputs=[]
        )
    else:
        data, _ = read_file(file, STEP_BYTES_MAX)
        try:
            form = msgspec.json.decode(data, type=StepForm)
        except msgspec.DecodeError as exc:
            raise ConfigError(f"{file}: no step as the local API takes it: {exc}") from exc
    columns = list(words.columns) if words.columns else None
    outputs = [OutputForm(asset, words.partition, columns) for asset in words.assets]
    if not form.outputs and not outputs:
        raise ConfigError("name what the step makes: --asset ASSET, or --step FILE")
    ticket, run, job = form.ticket, words.run, words.job
    if words.ticket is not None:
        data = read_file(words.ticket, RECORD_BYTES_MAX)[0]
        ticket = base64.b64encode(data).decode()
        signed = _ticket_body(data, words.ticket)
        run, job = run or signed.run, job or signed.job
    return dataclasses.replace(
        form,
        run=run or form.run,
        job=job or form.job,
        outputs=[*form.outputs, *outputs],
        inputs=[*form.inputs, *map(_input_form, words.inputs)],
        purpose=words.purpose or form.purpose,
        credential=words.credential or form.credential,
        ticket=ticket,
        wait_s=0.0,
    )


def _input_form(text: str) -> InputForm:
    asset, _, partition = text.partition("@")
    return InputForm(asset, partition)


def _ticket_body(data: bytes, file: Path) -> LaunchTicket:
    try:
        body: Form = decode_body(decode_record(data))
    except DecodeError as exc:
        raise ConfigError(f"{file}: no launch ticket: {exc}") from exc
    if not isinstance(body, LaunchTicket):
        raise ConfigError(f"{file}: a signed record, but no launch ticket")
    return body


def shown_intent(said: Any, record: SignedRecord) -> Any:
    """An intent as the node shows it, with everything that is signed taken from the record itself.

    Raises:
        ConfigError: the record is none.
    """
    body = intent_body(record)
    return said | {
        "intent": record.id.hex(),
        "member": record.header.member,
        "at": record.header.at,
        "realm": record.header.realm,
        "requester": body.requester,
        "purpose": body.purpose,
        "body": plain(body),
        "digest": record.header.body.digest.hex(),
    }


def approval_notes(shown: Any, credential: SignedRecord) -> list[str]:
    """What an approver should know before signing: why the approval might change nothing."""
    body = credential_body(credential)
    notes: list[str] = []
    if shown["standing"] in ("permitted", "refused", "expired"):
        notes.append(
            f"it is {shown['standing']} already: an approval changes nothing, unless it is asked for again"
        )
    if now() >= shown["body"]["expires"]:
        notes.append("it is open no more: an approval changes nothing")
    if "approve" not in body.actions:
        notes.append(f"the credential of {body.subject} does not allow to approve: this will not count")
    assets = [group["asset"] for group in shown["body"]["classes"]]
    missed = [asset for asset in assets if not any(pattern_matches(each, asset) for each in body.assets)]
    if missed:
        notes.append(
            f"the credential of {body.subject} does not reach {', '.join(missed)}: it will not count there"
        )
    if body.purposes and shown["purpose"] not in body.purposes:
        notes.append(
            f"the credential of {body.subject} is only for {', '.join(body.purposes)}: this will not count"
        )
    if now() >= body.not_after:
        notes.append(f"the credential of {body.subject} has expired: this will not count")
    return notes


def beyond_credential(credential: Credential, words: TicketWords, member: str) -> list[str]:
    """What a ticket says beyond its credential: every voter refuses a step by it, so it is probably not meant."""
    has = f"the credential of {credential.subject}"
    found: list[str] = []
    if "materialize" not in credential.actions:
        found.append(f"{has} allows {', '.join(credential.actions)}, and a run materializes")
    if now() >= credential.not_after:
        found.append(f"{has} has expired")
    if words.purpose and credential.purposes and words.purpose not in credential.purposes:
        found.append(f"--purpose {words.purpose}: {has} is only for {', '.join(credential.purposes)}")
    for text in words.assets:
        wanted = whole_pattern(member, text)
        if not any(pattern_within(wanted, p) or pattern_within(p, wanted) for p in credential.assets):
            found.append(f"--asset {text}: {has} reaches only {', '.join(credential.assets)}")
    return found


def approval(holder: Author, intent: SignedRecord, *, hours: int) -> SignedRecord:
    """An approval of an intent, bound to the body that was shown.

    Raises:
        ConfigError: the record is no intent.
    """
    if intent.header.kind != "intent":
        raise ConfigError(f"a {intent.header.kind} is not approved; an intent is")
    at = now()
    body = Observation(
        salt=NO_SALT, claim="approval", shown=intent.header.body.digest, not_after=at + hours * 3_600
    )
    return holder.write(
        "observation", body, at, subject=(intent.id,), outcome="approved", realm=intent.header.realm
    )


def withdrawal(holder: Author, approval: str) -> SignedRecord:
    """An approval taken back, by whoever signed it. What was decided with it stands; nothing more is.

    Args:
        approval: the id of its record.
    """
    body = Revocation(salt=NO_SALT, reason="withdrawn")
    return holder.write("revocation", body, now(), subject=(bytes.fromhex(approval),))


@dataclass(frozen=True, slots=True)
class TicketWords:
    """What a launch ticket is to say. Patterns may lack the member's domain."""

    run: str
    job: str
    assets: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    purpose: str = ""
    minutes: int = 60


def launch_ticket(holder: Author, words: TicketWords) -> SignedRecord:
    """A launch ticket by the holder of a credential.

    Raises:
        ConfigError: a value is not what it has to be.
    """
    at = now()
    raw = {
        "salt": NO_SALT,
        "run": words.run,
        "job": words.job,
        "assets": sorted({whole_pattern(holder.member, text) for text in words.assets}),
        "not_before": at - BEFORE_S,
        "not_after": at + words.minutes * 60,
        "partitions": sorted(set(words.partitions)),
        "purpose": words.purpose,
    }
    try:
        body = msgspec.convert(raw, LaunchTicket, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as exc:
        raise ConfigError(f"no ticket: {exc}") from exc
    return holder.write("launch_ticket", body, at)


def intent_body(record: SignedRecord) -> Intent:
    """The body of an intent.

    Raises:
        ConfigError: the record is none.
    """
    try:
        body: Form = decode_body(record)
    except DecodeError as exc:
        raise ConfigError(f"no intent: {exc}") from exc
    if not isinstance(body, Intent):
        raise ConfigError("no intent")
    return body
