"""Appraisal of evidence: from an attestation to a trust tier that every peer derives for itself.

The roles are those of RFC 9334; the vector's claims and values follow draft-ietf-rats-ar4si. This version
appraises software measurement: tier 1 says what a Python process measured of itself, signed by its node. It
protects against remote tampering and mix-ups, not against the operator of that node, and is never called
hardware.

Spec: docs/spec/evidence.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from comity.attestation.epochs import EpochState
from comity.attestation.findings import Finding, refuse
from comity.protocol.encoding import Form, encode
from comity.protocol.execution import Attestation, ContextMeasurement, Intent
from comity.protocol.governance import ReferenceValues
from comity.protocol.identifiers import Int, sha256
from comity.protocol.verified import VerifiedRecord

AFFIRMING: Final = 2
NONE: Final = 0
UNRECOGNISED: Final = 33

_BINDING_DOMAIN: Final = "comity evidence binding v1"


class Appraisal(Form, frozen=True):
    """The result of appraising one piece of evidence.

    `executables` is the AR4SI claim: 2 recognised by reference values, 0 nothing to compare with, 33 compared and
    not recognised. Freshness is `none` where no challenge is among the evidence.
    """

    tier: Int
    executables: Int = 0
    freshness: Literal["none", "fresh", "stale"] = "none"


def binding_of(
    intent: bytes,
    node_key: bytes,
    context_key: bytes,
    context: ContextMeasurement,
    challenges: tuple[bytes, ...],
) -> bytes:
    """What ties evidence to one intent, one node, one context and the challenges that it answers."""
    return sha256(
        encode(
            {
                "challenges": list(challenges),
                "context": sha256(encode(context)),
                "context_key": context_key,
                "domain": _BINDING_DOMAIN,
                "intent": intent,
                "node_key": node_key,
            }
        )
    )


def appraise(
    intent: VerifiedRecord[Intent],
    relied: Mapping[bytes, VerifiedRecord[Any]],
    epoch: EpochState,
    t: int,
) -> tuple[Appraisal, Finding | None]:
    """Appraise the evidence that an ask names for its intent.

    Without evidence the context is self-asserted, tier 0. Evidence that is bound to something else is a
    finding: it was spliced in.
    """
    best: Appraisal | None = None
    for record_id in sorted(relied):
        record = relied[record_id]
        body = record.body
        if not isinstance(body, Attestation):
            continue
        if body.intent != intent.id or record.header.key != intent.header.key:
            return Appraisal(tier=0), refuse("evidence_spliced")
        expected = binding_of(intent.id, intent.header.key, body.context_key, body.context, body.challenges)
        if body.binding != expected:
            return Appraisal(tier=0), refuse("evidence_spliced")
        if body.type != "software":
            # Hardware roots are not appraised in this version; unappraised evidence lends nothing.
            continue
        found = _appraise_software(body.context, relied, epoch, t)
        if best is None or found.tier > best.tier:
            best = found
    return best or Appraisal(tier=0), None


def _appraise_software(
    context: ContextMeasurement,
    relied: Mapping[bytes, VerifiedRecord[Any]],
    epoch: EpochState,
    t: int,
) -> Appraisal:
    """Tier 1 where the measurement is recognised, or where the epoch names nobody who could recognise it."""
    if not epoch.body.publishers:
        return Appraisal(tier=1, executables=NONE)
    for record in relied.values():
        body = record.body
        if (
            isinstance(body, ReferenceValues)
            and record.member in epoch.body.publishers
            and record.header.key in epoch.organization_keys(record.member)
            and (body.not_after == 0 or t < body.not_after)
            and context.distributions in body.distributions
            and context.code in body.code
        ):
            return Appraisal(tier=1, executables=AFFIRMING)
    return Appraisal(tier=0, executables=UNRECOGNISED)
