"""Successors of a world's epoch, signed by all who have to."""

from __future__ import annotations

from typing import Any

import msgspec

from comity.attestation.signing import add_signature
from comity.protocol.envelope import SignedRecord
from world import NORTH, World, key


def successor(
    world: World, started: int, *, after: SignedRecord | None = None, **changes: Any
) -> SignedRecord:
    """The epoch after the genesis, or after another, with changes of the genesis' body.

    Args:
        changes: fields of the body; `without` names members that leave.
    """
    genesis = world[NORTH].holdings.epochs[world.genesis.id]
    before = after or world.genesis
    without = changes.pop("without", ())
    members = tuple(member for member in genesis.body.members if member.id not in without)
    body = msgspec.structs.replace(
        genesis.body, **{"previous": before.id, "started": started, "members": members, **changes}
    )
    record = world[NORTH].owner.write("epoch", body, started, number=before.header.number + 1)
    signers = {*world.members, *(member.id for member in body.members)}
    for name in sorted(signers):
        record = add_signature(record, key(name))
    return record
