"""The governance state of data: what governs it from now on, wherever it goes.

Voters compute it with the decision, the permit carries it, and every actuation states it in its header.

Spec: docs/spec/lineage.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.identifiers import ClassName, Code, MemberId, PartsPerMillion, Realm
from comity.protocol.limits import OWNERS_MAX, TERMS_MAX
from comity.protocol.outcome import Obligation


class GovernanceState(Form, frozen=True):
    """What a consumer must know of data before it may use it.

    `owners` are the organizations that have a say over its use: the writer, and the owners of what it was made
    from, until they release it. `tier` is the trust tier of the context that made it. `restrictions` are the
    obligations under which it and its inputs were made.
    """

    tier: Annotated[int, msgspec.Meta(ge=0, le=3)]
    realm: Realm
    owners: Annotated[tuple[MemberId, ...], msgspec.Meta(min_length=1, max_length=OWNERS_MAX)]
    purpose: Code
    weight: PartsPerMillion
    data_classes: Annotated[tuple[ClassName, ...], msgspec.Meta(max_length=TERMS_MAX)] = ()
    authority_classes: Annotated[tuple[ClassName, ...], msgspec.Meta(max_length=TERMS_MAX)] = ()
    restrictions: Annotated[tuple[Obligation, ...], msgspec.Meta(max_length=TERMS_MAX)] = ()
