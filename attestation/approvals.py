"""Approvals: a person's own signature under one intent, bound to what was shown.

An approval counts where the approver's credential grants it, the intent is not the approver's own nor that of
anybody whom the approver delegated to or was delegated by, and it was given for this intent and no other.

Spec: docs/spec/decision.md section 2.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from comity.attestation.credentials import Chain, Relied, bound_problem, read_chain
from comity.attestation.epochs import EpochState
from comity.attestation.findings import Finding
from comity.protocol.execution import Intent, Observation
from comity.protocol.governance import Taxonomy
from comity.protocol.outcome import Cause, Mode
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

OWN_INTENT: Final = "own_intent"
"""The reason why an approval does not count whose author stands in the requester's chain, or the reverse."""


def approvals_for(
    intent: VerifiedRecord[Intent],
    requester: Chain,
    relied: Relied,
    epoch: EpochState,
    taxonomy: Taxonomy,
    t: int,
) -> tuple[frozenset[str], tuple[Finding, ...]]:
    """The authority classes whose holders approved an intent, and notes on approvals that do not count."""
    classes: set[str] = set()
    notes: dict[str, Finding] = {}
    for record_id in sorted(relied):
        record = relied[record_id]
        if not isinstance(record.body, Observation) or record.body.claim != "approval":
            continue
        found = _approver(record, intent, requester, relied, epoch, taxonomy, t)
        if isinstance(found, Chain):
            classes.update(found.classes)
        else:
            cause = Cause(code="approval_not_counted", parameters={"member": record.member, "reason": found})
            # One of each member: whoever approves wrongly a hundred times says no more than whoever does once.
            notes.setdefault(record.member, Finding(Mode.EXECUTE, cause))
    return frozenset(classes), tuple(notes[member] for member in sorted(notes))


def _approver(
    record: VerifiedRecord[Observation],
    intent: VerifiedRecord[Intent],
    requester: Chain,
    relied: Relied,
    epoch: EpochState,
    taxonomy: Taxonomy,
    t: int,
) -> Chain | str:
    """The chain of an approval that counts, or the reason why it does not."""
    if record.header.outcome != "approved" or record.role != "subject" or record.authority is None:
        return "not_an_approval"
    if intent.id not in record.header.subject:
        return "another_intent"
    if record.body.shown != intent.header.body.digest:
        return "shown_something_else"
    if record.body.not_after and t >= record.body.not_after:
        return "expired"
    chain = approving_chain(record.authority, intent, requester, relied, epoch, taxonomy, t)
    return chain.cause.code if isinstance(chain, Finding) else chain


def approving_chain(
    credential: bytes,
    intent: VerifiedRecord[Intent],
    requester: Chain,
    relied: Relied,
    epoch: EpochState,
    taxonomy: Taxonomy,
    t: int,
) -> Chain | Finding | str:
    """The chain under which a credential's holder may approve an intent at t, or why an approval would not count.

    A finding is one of `read_chain`, or that a bound would be overstepped; a text is `OWN_INTENT`.
    """
    chain = read_chain(credential, relied, epoch, taxonomy, t)
    if isinstance(chain, Finding):
        return chain
    if chain.subjects & requester.subjects or chain.keys & requester.keys:
        return OWN_INTENT
    for group in intent.body.classes:
        problem = bound_problem(chain, "approve", group.asset, intent.header.realm, intent.body.purpose)
        if problem is not None:
            return problem
    return chain
