"""One version under its permit: begun, staged, verified, recorded, promoted; or discarded, and a record says why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from comity.dagster_bridge.declared import NOTHING, Declared
from comity.dagster_bridge.failures import WriteRefused, refused_locally, unanswered, unavailable
from comity.dagster_bridge.governed_step import GovernedStep
from comity.dagster_bridge.storage import Measured, Slot, Storage
from comity.dagster_bridge.table_formats import UnwritableError
from comity.dagster_bridge.verified_read import decoded_sidecar
from comity.node.client import (
    ActuationForm,
    DiscardForm,
    FormInvalidError,
    NodeError,
    NotFoundError,
    NotPermittedError,
    PermittedOutput,
    StartAnswer,
    TermForm,
    WithheldForm,
)

P = TypeVar("P")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class WrittenVersion:
    """What was promoted: the actuation that says so, and the sidecar that vouches for it.

    Of a dry run the actuation says what was staged, and there is no sidecar: nothing is there.
    """

    actuation: str
    sidecar: bytes


def write_version(
    storage: Storage[P, S],
    step: GovernedStep,
    slot: Slot,
    permitted: PermittedOutput,
    prepared: P,
    withheld: Sequence[WithheldForm] = (),
    declared: Declared = NOTHING,
) -> WrittenVersion:
    """Let a version take the place of the one before.

    Raises:
        GovernanceFailure: the permit no longer allows it, what was written is more than it allows, or nobody knows.
        FileError: the disk refuses.
    """
    start = step.start(permitted)
    if start.put_back:
        # The version that stands is the one before the new one, whatever was in its place since.
        storage.put_back(slot, start.put_back)
    began = time.monotonic()
    staged = storage.stage(slot, prepared)
    try:
        measured = storage.verify(staged, permitted, declared)
        step.require_same_code()
        step.checks.require_none_bars(slot.name)
    except UnwritableError as exc:
        _discard(storage, step, permitted, start, staged, exc)
        text = f"{permitted.asset} is discarded: {exc}; what was there before stays"
        raise refused_locally(WriteRefused, text, [exc.cause], step.answer) from exc
    if step.answer.way == "dry_run":
        return WrittenVersion(_take_away(storage, step, permitted, start, staged, measured), b"")
    duration_ms = int((time.monotonic() - began) * 1_000)
    form = _actuation(step, permitted, start, measured, duration_ms, withheld)
    try:
        answer = step.client.actuate(form)
    except NodeError as exc:
        if isinstance(exc, (NotPermittedError, FormInvalidError, NotFoundError)):
            storage.discard(staged)
        # Where nobody knows whether it was recorded, the next read asks.
        what = f"{permitted.asset} is not recorded, so what was there before stays"
        raise unanswered(WriteRefused, step.name, what, exc, step.answer) from exc
    sidecar = decoded_sidecar(answer.sidecar)
    storage.promote(slot, staged, sidecar)
    step.checks.promoted(slot.name, slot.partition, answer.actuation)
    return WrittenVersion(answer.actuation, sidecar)


def _actuation(
    step: GovernedStep,
    permitted: PermittedOutput,
    start: StartAnswer,
    measured: Measured,
    duration_ms: int,
    withheld: Sequence[WithheldForm],
) -> ActuationForm:
    return ActuationForm(
        intent=step.answer.intent,
        start=start.start,
        asset=permitted.asset,
        partition=permitted.partition,
        digest=measured.digest,
        size=measured.size,
        media_type=measured.media_type,
        rows=measured.rows,
        columns=list(measured.columns),
        duration_ms=duration_ms,
        withheld=list(withheld),
    )


def _take_away(
    storage: Storage[Any, S],
    step: GovernedStep,
    permitted: PermittedOutput,
    start: StartAnswer,
    staged: S,
    measured: Measured,
) -> str:
    """End a dry run: record what was staged and that it is within its permit, and take it away.

    Raises:
        WriteRefused: the permit no longer allows it.
        NodeUnavailable: the node could not record it.
    """
    storage.discard(staged)
    form = _discarded(step, permitted, start, measured, [TermForm("dry_run")], passed=True)
    try:
        return step.client.discard(form).actuation
    except NodeError as exc:
        raise unanswered(
            WriteRefused, step.name, f"the dry run of {permitted.asset}", exc, step.answer
        ) from exc


def _discarded(
    step: GovernedStep,
    permitted: PermittedOutput,
    start: StartAnswer,
    lies: Measured,
    causes: list[TermForm],
    *,
    passed: bool = False,
) -> DiscardForm:
    return DiscardForm(
        intent=step.answer.intent,
        start=start.start,
        asset=permitted.asset,
        partition=permitted.partition,
        digest=lies.digest,
        size=lies.size,
        media_type=lies.media_type,
        rows=lies.rows,
        columns=list(lies.columns),
        causes=causes,
        passed=passed,
    )


def _discard(
    storage: Storage[Any, S],
    step: GovernedStep,
    permitted: PermittedOutput,
    start: StartAnswer,
    staged: S,
    why: UnwritableError,
) -> None:
    """Record what was staged and why it goes, and take it away. It goes also where nothing can be recorded.

    Raises:
        NodeUnavailable: the node could not record it.
    """
    lies = storage.describe(staged)
    storage.discard(staged)
    form = _discarded(step, permitted, start, lies, [why.cause])
    try:
        step.client.discard(form)
    except (NotPermittedError, FormInvalidError, NotFoundError):
        # It is gone, and was never readable; the failure of the step says why.
        return
    except NodeError as exc:
        raise unavailable(step.name, exc) from exc
