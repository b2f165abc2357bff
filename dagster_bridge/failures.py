"""How a decision that is less than *execute* looks in Dagster: a step's failure with structured metadata.

The metadata keys are stable: programs read `comity/outcome`, `comity/intent`, `comity/causes`, `comity/needs`
and `comity/votes`; people read the description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg
import msgspec

from comity.node.client import (
    FormInvalidError,
    NodeError,
    NotFoundError,
    NotPermittedError,
    StepAnswer,
    TermForm,
)
from comity.protocol.errors import ComityError

OUTCOME: Final = "comity/outcome"
INTENT: Final = "comity/intent"
CAUSES: Final = "comity/causes"
NEEDS: Final = "comity/needs"
VOTES: Final = "comity/votes"
HINT: Final = "comity/hint"

Metadata: TypeAlias = dict[str, dg.MetadataValue[Any]]

INTENT_SHOWN: Final = 16
"""Characters of an intent's id that a sentence shows; the metadata has it whole."""


class GovernanceFailure(dg.Failure):
    """Root of the failures that governance causes.

    A step's retry policy does not repeat it, for asking again at once changes nothing. Running it again later
    goes on with the same intent.
    """


class StepRefused(GovernanceFailure):
    """It is wrong; the causes say why."""


class StepDeferred(GovernanceFailure):
    """Something named is missing, or no quorum was in reach; the needs say what would help."""


class ReadRefused(GovernanceFailure):
    """An input's bytes are not those that lineage vouches for, or nothing vouches for them. Never parsed."""


class InputMissing(GovernanceFailure):
    """A file that is to be read is not there. Whoever makes it may not be done, so a retry policy may repeat it."""


class WriteRefused(GovernanceFailure):
    """What was made may not be written: it cannot be brought within the permit. No byte was written."""


class NodeUnavailable(GovernanceFailure):
    """The node could not be asked. It says nothing about the step, so a retry policy may repeat it."""


def term_values(terms: Sequence[TermForm]) -> list[dict[str, object]]:
    """Terms as JSON values."""
    return [msgspec.to_builtins(term) for term in terms]


def answer_metadata(answer: StepAnswer) -> Metadata:
    """What a failure says of the decision behind it."""
    return {
        OUTCOME: dg.MetadataValue.text(answer.outcome),
        INTENT: dg.MetadataValue.text(answer.intent),
        CAUSES: dg.MetadataValue.json(term_values(answer.causes)),
        NEEDS: dg.MetadataValue.json(term_values(answer.needs)),
        VOTES: dg.MetadataValue.json(dict(answer.votes)),
    }


def not_permitted(step: str, answer: StepAnswer, waited_s: float) -> GovernanceFailure:
    """The failure of a step that was refused, or was still deferred when the waiting ended."""
    metadata = answer_metadata(answer)
    intent = answer.intent[:INTENT_SHOWN]
    if answer.outcome == "refuse":
        text = f"Comity: step {step} is refused: {_listed(answer.causes)} (intent {intent})"
        return StepRefused(description=text, metadata=metadata, allow_retries=False)
    text = (
        f"Comity: step {step} is deferred after waiting {waited_s:g} s; it needs: {waits_for(answer)}"
        f" (intent {intent})."
        " When that has arrived, run it again: it goes on under the same intent."
    )
    return StepDeferred(description=text, metadata=metadata, allow_retries=False)


def refused_locally(
    kind: type[GovernanceFailure],
    text: str,
    causes: Sequence[TermForm],
    answer: StepAnswer | None = None,
    extra: Mapping[str, dg.MetadataValue[Any]] | None = None,
) -> GovernanceFailure:
    """The failure of a read or a write that the bridge itself stops, with causes of its own."""
    metadata: Metadata = {NEEDS: dg.MetadataValue.json([])} if answer is None else answer_metadata(answer)
    metadata |= {
        OUTCOME: dg.MetadataValue.text("refuse"),
        CAUSES: dg.MetadataValue.json(term_values(causes)),
        **(extra or {}),
    }
    return kind(description=f"Comity: {text}", metadata=metadata, allow_retries=False)


def missing(what: str, asset: str) -> InputMissing:
    """The failure of a read whose file is not there."""
    return InputMissing(
        description=f"Comity: {what}",
        metadata={
            OUTCOME: dg.MetadataValue.text("unavailable"),
            CAUSES: dg.MetadataValue.json([{"code": "file_missing", "parameters": {"asset": asset}}]),
            NEEDS: dg.MetadataValue.json([]),
        },
        allow_retries=True,
    )


def waits_for(answer: StepAnswer) -> str:
    """What an undecided step waits for, in words."""
    if answer.outcome == "held":
        silent = sorted(member for member, vote in answer.votes.items() if vote == "silent")
        return "votes: no quorum in reach" + (f"; silent: {', '.join(silent)}" if silent else "")
    return _listed(answer.needs)


def unanswered(
    kind: type[GovernanceFailure], step: str, what: str, error: NodeError, answer: StepAnswer | None = None
) -> GovernanceFailure:
    """The failure of a request to the node: of `kind` where the node has said no, else nobody knows."""
    if not isinstance(error, (NotPermittedError, FormInvalidError, NotFoundError)):
        return unavailable(step, error)
    cause = TermForm(error.code, message=error.message)
    return refused_locally(kind, f"{what}: {error}", [cause], answer)


def unavailable(step: str, error: ComityError) -> NodeUnavailable:
    """The failure of a step whose node could not be asked: nothing is known, so nothing runs."""
    code = error.code if isinstance(error, NodeError) else "config_wrong"
    hint = error.hint if isinstance(error, NodeError) else ""
    return NodeUnavailable(
        description=f"Comity: step {step} may be governed and cannot be decided: {error}",
        metadata={
            OUTCOME: dg.MetadataValue.text("unavailable"),
            CAUSES: dg.MetadataValue.json([{"code": code}]),
            NEEDS: dg.MetadataValue.json([]),
            HINT: dg.MetadataValue.text(hint),
        },
        allow_retries=True,
    )


def _listed(terms: Sequence[TermForm]) -> str:
    """Terms in one sentence: the message where there is one, otherwise the code with its parameters."""
    return "; ".join(term.message or _spelled(term) for term in terms) or "no reason given"


def _spelled(term: TermForm) -> str:
    inside = ", ".join(f"{name}={value}" for name, value in sorted(term.parameters.items()))
    return f"{term.code}({inside})" if inside else term.code
