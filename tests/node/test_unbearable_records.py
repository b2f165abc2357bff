"""A record that some reader of ours cannot bear: it ends nothing but its own way in."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from comity.attestation import holdings as holdings_module
from comity.attestation.policy_rules import compile_rules
from comity.attestation.verification import verify
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, StoreError
from nodes import running, until
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, World

pytestmark = pytest.mark.usefixtures("gossip")

NO_ACTION = '@id("x") permit(principal, action in [], resource);'


def test_a_rule_about_no_action_is_a_problem_of_the_text() -> None:
    with pytest.raises(DecodeError, match=r"type_wrong"):
        compile_rules(NO_ACTION)


async def test_a_record_that_breaks_its_reader_ends_no_node(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect that nobody has found yet is no switch that turns off every node but the liar's.

    South's feed has a record that breaks whoever examines it, between two that are sound: the others take those,
    and go on deciding.
    """
    world = World()
    south = world[SOUTH]
    before, after = (south.credential(f"operator/{name}", kind="person") for name in ("before", "after"))
    breaking = south.owner_policy(7)
    real = holdings_module.require_rules

    def broken(record: Any) -> None:
        if record.id == breaking.id:
            raise RuntimeError("a defect that nobody has found yet")
        real(record)

    monkeypatch.setattr(holdings_module, "require_rules", broken)
    async with running(world) as nodes:
        await until(lambda: len(nodes[NORTH].service.connected()) == 3)
        _hold_unseen(nodes[SOUTH], [before, breaking, after])
        others = [nodes[name] for name in (NORTH, INSTITUTE, BOARD)]
        await until(lambda: all(n.core.holdings.peek(r.id) for n in others for r in (before, after)))
        assert not any(node.core.holdings.peek(breaking.id) for node in others)
        intent = world[NORTH].intent("plain/a", at=START)
        changed = nodes[NORTH].service.changed(intent.id)
        await nodes[NORTH].service.call(lambda: nodes[NORTH].core.file(intent, ()))
        await changed.wait()
        pursuit = nodes[NORTH].core.requester.pursuit(intent.id)
        assert pursuit is not None
        assert pursuit.standing == "permitted"


def _hold_unseen(node: Any, records: list[SignedRecord]) -> None:
    """The liar's own software does not look at what it publishes."""
    for record in records:
        node.core.holdings._hold(verify(record, node.core.holdings.directory))
        node.core.store.put([record], own=True)


async def test_a_failing_disk_is_no_unbearable_record(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store that fails while records are admitted ends the node: it is not taken for a record's fault."""
    world = World()
    async with running(world) as nodes:
        north = nodes[NORTH].core

        def fails(*_: Any, **__: Any) -> Any:
            raise StoreError("the disk failed")

        monkeypatch.setattr(north.holdings, "admit", fails)
        with pytest.raises(StoreError):
            north.admit([world[SOUTH].credential("operator/x")])
