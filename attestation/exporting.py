"""Making a bundle: the targets, everything that they depend on, and the epoch chain.

Spec: docs/spec/bundle.md section 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from comity.attestation.holdings import Holdings
from comity.protocol.bundle import Bundle, close, governing_bodies
from comity.protocol.errors import VerificationError
from comity.protocol.execution import Vote


def export_bundle(targets: Iterable[bytes], holdings: Holdings) -> Bundle:
    """A complete bundle of the targets.

    Raises:
        VerificationError: `record_missing`: something that a target depends on is not held.
    """
    wanted = tuple(sorted(set(targets)))
    held, missing = close(wanted, holdings.get)
    if missing:
        raise VerificationError("record_missing", "a target depends on it", missing[0])
    used = {record.body.epoch for record in held.values() if isinstance(record.body, Vote)}
    bodies = governing_bodies({i: state.body for i, state in holdings.epochs.items()}, used)
    governing: list[bytes] = []
    for kind, digest in sorted(bodies):
        record = holdings.with_body(kind, digest)
        if record is None:
            raise VerificationError("record_missing", f"the epoch's {kind} {digest.hex()[:16]}")
        governing.append(record.id)
    more, missing = close(governing, holdings.get)
    if missing:
        raise VerificationError("record_missing", "a governing record depends on it", missing[0])
    held |= more
    return Bundle(
        coalition=holdings.epoch.coalition,
        targets=wanted,
        epochs=holdings.epoch_records(),
        records=tuple(held[i].record for i in sorted(held)),
    )
