"""What vouches for something that was made, and for the keys in it."""

from __future__ import annotations

from typing import Any, TypeAlias

from comity.attestation.gathering import certificate_of, chain_of
from comity.attestation.holdings import Holdings
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


def certificate_records(holdings: Holdings, actuation: bytes) -> list[SignedRecord]:
    """What a consumer needs to check an actuation: certificate, start, and the authorities over their keys."""
    found: dict[bytes, AnyRecord] = {r.id: r for r in certificate_of(actuation, holdings)}
    body = found[actuation].body if actuation in found else None
    start = holdings.get(body.start) if isinstance(body, Actuation) else None
    if start is not None:
        found[start.id] = start
    for record in tuple(found.values()):
        if record.authority is not None:
            for authority in authorities(holdings, record.authority):
                found[authority.id] = authority
    return [found[i].record for i in sorted(found)]


def authorities(holdings: Holdings, record_id: bytes) -> list[AnyRecord]:
    """A node certificate, or a credential with the links above it."""
    record = holdings.get(record_id)
    if record is None:
        return []
    return chain_of(record_id, holdings) if record.header.kind == "credential" else [record]
