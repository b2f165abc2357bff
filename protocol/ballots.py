"""Bodies of the records of a ballot: how the members agree on the epoch that follows.

Spec: docs/spec/governance.md section 14.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.governance import Salt
from comity.protocol.identifiers import Digest, Natural, ShortText
from comity.protocol.limits import MEMBERS_MAX


class Proposal(Form, frozen=True):
    """The member whose turn a ballot is proposes the epoch that is to follow `previous`.

    `epoch` is the id of the proposed epoch's record. `prepared` are a quorum of `prepare` records of one earlier ballot
    for the same epoch; without them a member that is locked on another epoch prepares nothing.
    """

    salt: Salt
    previous: Digest
    ballot: Natural
    epoch: Digest
    prepared: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    critical: tuple[ShortText, ...] = ()


class Prepare(Form, frozen=True):
    """A member prepares one epoch in a ballot, and no other in that ballot."""

    salt: Salt
    previous: Digest
    ballot: Natural
    epoch: Digest
    critical: tuple[ShortText, ...] = ()


class Commit(Form, frozen=True):
    """A member that saw a quorum prepare an epoch commits it. It is locked on it and votes no more under `previous`."""

    salt: Salt
    previous: Digest
    ballot: Natural
    epoch: Digest
    critical: tuple[ShortText, ...] = ()
