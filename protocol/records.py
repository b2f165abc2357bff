"""From a kind to the form of its body.

Spec: docs/spec/kinds.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from comity.protocol import accountability, ballots, execution, governance
from comity.protocol.encoding import Form, decode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.limits import (
    ACTUATION_BYTES_MAX,
    ASK_BODY_BYTES_MAX,
    BODY_BYTES_MAX,
    VOTE_BYTES_MAX,
)

Body: TypeAlias = Form
B = TypeVar("B", bound=Form)

BODIES: Final[Mapping[str, type[Form]]] = MappingProxyType(
    {
        "epoch": governance.Epoch,
        "proposal": ballots.Proposal,
        "prepare": ballots.Prepare,
        "commit": ballots.Commit,
        "node_certificate": governance.NodeCertificate,
        "address": governance.Address,
        "taxonomy": governance.Taxonomy,
        "policy": governance.Policy,
        "owner_policy": governance.OwnerPolicy,
        "credential": governance.Credential,
        "revocation": governance.Revocation,
        "suspension": governance.Suspension,
        "acknowledgement": governance.Acknowledgement,
        "comment": governance.Comment,
        "reference_values": governance.ReferenceValues,
        "endorsement": governance.Endorsement,
        "intent": execution.Intent,
        "observation": execution.Observation,
        "launch_ticket": execution.LaunchTicket,
        "attestation": execution.Attestation,
        "appraisal": execution.Appraisal,
        "challenge": execution.Challenge,
        "ask": execution.Ask,
        "vote": execution.Vote,
        "permit": execution.Permit,
        "refusal": execution.Refusal,
        "start": execution.Start,
        "actuation": execution.Actuation,
        "verification": execution.Verification,
        "transition": execution.Transition,
        "share_release": execution.ShareRelease,
        "checkpoint": accountability.Checkpoint,
        "cosignature": accountability.Cosignature,
        "misbehaviour": accountability.Misbehaviour,
        "erased": accountability.Erased,
    }
)
"""Every kind of the table has one: a form changes only with the version of the record."""

_BYTES_MAX: Final = {
    "vote": VOTE_BYTES_MAX,
    "ask": ASK_BODY_BYTES_MAX,
    "actuation": ACTUATION_BYTES_MAX,
}


def decode_body(record: SignedRecord) -> Form:
    """Read the body of a record in the form of its kind.

    Raises:
        DecodeError: the body is absent, sealed, malformed, or over the limit of its kind; or the header has a critical
            field that is not known here.
    """
    if record.body_bytes is None:
        raise DecodeError(f"the body of a record of kind {record.header.kind} is absent")
    if record.header.body.form != "clear":
        raise DecodeError("the body is sealed")
    form = BODIES[record.header.kind]
    return decode(record.body_bytes, form, _BYTES_MAX.get(record.header.kind, BODY_BYTES_MAX))
