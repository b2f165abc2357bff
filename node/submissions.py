"""Records that people sign and hand to their node: who may, what is checked, and who is told.

Nothing here trusts the operator's token for what a record says: a record counts by its own signature.
"""

from __future__ import annotations

from typing import Any, Final

from comity.node.core import Core
from comity.node.problems import Refused
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError, VerificationError

KINDS_TAKEN: Final = frozenset(
    {
        "credential",
        "epoch",
        "launch_ticket",
        "node_certificate",
        "observation",
        "owner_policy",
        "policy",
        "reference_values",
        "revocation",
        "taxonomy",
        "transition",
        "verification",
    }
)
"""What people sign. What a node signs comes from its own work, or from peers."""


def submit_record(core: Core, data: bytes) -> Any:
    """Take a signed record, and tell those whom it concerns.

    A governance record is offered to every member, an execution record to the author of what it speaks of.

    Raises:
        Refused: it does not verify, its authority is not known here, or it is of a kind that is not taken.
    """
    try:
        record = decode_record(data)
    except DecodeError as exc:
        raise Refused("record_unreadable", f"not a record: {exc}", 422) from exc
    kind = record.header.kind
    if kind not in KINDS_TAKEN:
        taken = ", ".join(sorted(KINDS_TAKEN))
        raise Refused("kind_not_taken", f"records of kind {kind} are not taken here; taken are {taken}", 422)
    if kind == "epoch":
        return _adopt(core, record)
    if core.holdings.get(record.id) is not None:
        return {"record": record.id.hex(), "kind": kind, "new": False, "told": []}
    told = audience(core, record)
    if record.header.member == core.identity.member:
        admission = core.publish([record], told)
    else:
        # Anti-entropy brings it to the others: it is not ours to publish.
        admission, told = core.admit([record]), ()
    if admission.rejected:
        raise Refused("record_refused", str(admission.rejected[0][1]), 422)
    if admission.parked:
        raise Refused(
            "authority_unknown",
            "who vouches for the record's key is not known here",
            409,
            "publish the credential or certificate that it names first, or wait until it has arrived",
        )
    return {"record": record.id.hex(), "kind": kind, "new": True, "told": list(told)}


def audience(core: Core, record: SignedRecord) -> tuple[str, ...]:
    """The other members whom a record is offered to at once."""
    others = tuple(sorted(set(core.holdings.epoch.members) - {core.identity.member}))
    if record.kind.log_of(record.header.outcome) == "governance":
        return others
    subjects = [core.holdings.get(subject) for subject in record.header.subject]
    if not subjects or None in subjects:
        return others
    return tuple(sorted({s.member for s in subjects if s is not None} & set(others)))


def _adopt(core: Core, record: SignedRecord) -> Any:
    try:
        new = core.take_epoch(record)
    except (VerificationError, DecodeError) as exc:
        raise Refused("epoch_refused", str(exc), 422) from exc
    return {"record": record.id.hex(), "kind": "epoch", "new": new, "told": []}
