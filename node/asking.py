"""Asking in the words of a command: steps to explain, approvals, launch tickets, and ids that were shortened."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.node.client import StepForm
from comity.node.forms import InputForm, OutputForm
from comity.node.owner_files import read_file
from comity.node.signing_hand import is_id, now, whole_pattern
from comity.protocol.encoding import Form
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.execution import Intent, LaunchTicket, Observation
from comity.protocol.identifiers import sha256
from comity.protocol.limits import RECORD_BYTES_MAX
from comity.protocol.records import decode_body

STEP_BYTES_MAX: Final = 4 * 1_048_576
"""A step as JSON: what the local API takes."""
BEFORE_S: Final = 300
"""A ticket holds from so long before it is signed: the clocks of the members differ."""
PREFIX_MIN: Final = 6
"""Digits of an id that somebody has to type at least."""
NO_CODE: Final = sha256(b"").hex()
"""The code of a step of which only the outputs are known."""


@dataclass(frozen=True, slots=True)
class StepWords:
    """What options say of a step."""

    assets: tuple[str, ...] = ()
    partition: str = ""
    columns: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    purpose: str = ""
    credential: str = ""
    ticket: Path | None = None


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
    ticket = form.ticket
    if words.ticket is not None:
        ticket = base64.b64encode(read_file(words.ticket, RECORD_BYTES_MAX)[0]).decode()
    return dataclasses.replace(
        form,
        outputs=[*form.outputs, *outputs],
        inputs=[*form.inputs, *(InputForm(asset) for asset in words.inputs)],
        purpose=words.purpose or form.purpose,
        credential=words.credential or form.credential,
        ticket=ticket,
        wait_s=0.0,
    )


def whole_id(text: str, known: Callable[[], list[str]]) -> str:
    """The id that begins so, of those that are known.

    Raises:
        ConfigError: none does, or several do.
    """
    if is_id(text):
        return text
    if len(text) < PREFIX_MIN:
        raise ConfigError(f"{text!r} is no id: 64 hex digits, or at least the first {PREFIX_MIN}")
    found = sorted({each for each in known() if each.startswith(text)})
    if len(found) != 1:
        raise ConfigError(f"{len(found)} ids begin with {text}; the lists show which there are")
    return found[0]


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
