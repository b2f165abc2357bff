"""What owners have said of their data, as a node shows it: their explicit steps. A function of the core."""

from __future__ import annotations

from typing import Any, TypeAlias

from comity.node.core import Core
from comity.node.plain_values import plain
from comity.node.revocations import state_of
from comity.protocol.execution import Transition

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
