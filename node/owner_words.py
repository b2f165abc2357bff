"""What owners have said of their data, as a node shows it: explicit steps, and consents. Functions of the core."""

from __future__ import annotations

from typing import Any, TypeAlias

from comity.node.core import Core
from comity.node.plain_values import plain
from comity.node.revocations import state_of
from comity.protocol.execution import Transition
from comity.protocol.governance import OwnerPolicy

Json: TypeAlias = Any


def transitions(core: Core) -> Json:
    """The transitions that are held, this organization's first, and of each whether it counts."""
    rows: list[Json] = []
    now = core.clock.now()
    for record in core.holdings.state.of_kind("transition"):
        body = record.body
        if not isinstance(body, Transition):
            continue
        state = "not yet" if now < body.not_before else "expired" if now >= body.not_after else "in force"
        state = state_of(core, record) or state
        rows.append({"transition": record.id.hex(), "member": record.member, "state": state} | plain(body))
    mine = core.identity.member
    return sorted(
        rows, key=lambda row: (row["member"] != mine, row["member"], row["asset"], row["not_after"])
    )


def owner_policies(core: Core) -> Json:
    """The newest owner policy of each member that is held, this organization's first, with the classes it knows not."""
    governance = core.holdings.governance()
    bundles = governance.bundles if governance is not None else ()
    known = {rule.data_class for bundle in bundles for rule in bundle.policy.assets}
    newest: dict[str, Any] = {}
    for record in core.holdings.state.of_kind("owner_policy"):
        held = newest.get(record.member)
        if isinstance(record.body, OwnerPolicy) and (
            held is None or held.header.number < record.header.number
        ):
            newest[record.member] = record
    mine = core.identity.member
    return [
        {
            "owner_policy": newest[member].id.hex(),
            "member": member,
            "is_member": member in core.holdings.epoch.members,
            "consents": [plain(consent) for consent in newest[member].body.consents],
            "classes_unknown": sorted(
                {c.data_class for c in newest[member].body.consents} - known - {"*"} if known else set[str]()
            ),
        }
        for member in sorted(newest, key=lambda member: (member != mine, member))
    ]
