"""A dry run at the level of the core: nothing is filed or kept, and no record of it is one that could be filed."""

from __future__ import annotations

from random import Random

import pytest

from comity.attestation.case import Case, Fault
from comity.attestation.explain import Explanation, explain
from comity.gossip.transport_memory import MemoryNetwork
from comity.node import explanations
from comity.node.drafts import Defaults, draft
from comity.node.explanations import ORCHESTRATOR, explain_step
from comity.node.forms import OutputForm, StepForm
from comity.protocol.identifiers import sha256
from nodes import RunningNode, TrioClock
from world import FOUR, NORTH, World


def form(output: str) -> StepForm:
    return StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(output)],
    )


def node_of(world: World) -> RunningNode:
    """A node that reaches nobody."""
    node = RunningNode(world[NORTH], MemoryNetwork(Random(1)), TrioClock())
    node.core.admit(world.common)
    node.core.drain()
    return node


def defaults(world: World) -> Defaults:
    return Defaults("care", world[NORTH].credentials["automation/main"][1].id)


async def test_an_explained_intent_is_never_the_one_that_is_filed(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its ask, signed and thrown away, would contradict the real ask of the same second."""
    world = World()
    node = node_of(world)
    cases: list[Case] = []

    def kept(case: Case) -> Explanation:
        cases.append(case)
        return explain(case)

    monkeypatch.setattr(explanations, "explain", kept)
    explain_step(node.core, form("plain/a"), defaults(world), frozenset(FOUR))
    (case,) = cases
    assert case.intent.body.run.orchestrator == ORCHESTRATOR
    assert case.intent.id != draft(node.core, form("plain/a"), defaults(world)).intent.id
    for record in (case.intent, case.ask):
        assert node.core.holdings.peek(record.id) is None
        assert node.store.holds([record.id]) == frozenset()
    assert node.core.drain() == []


async def test_a_fault_is_explained_as_an_abstention(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    node = node_of(world)
    fault = Explanation(Fault("policy_fault", "policy_engine_failed"))
    monkeypatch.setattr(explanations, "explain", lambda case: fault)
    answer = explain_step(node.core, form("plain/a"), defaults(world), frozenset(FOUR))
    assert (answer.outcome, answer.causes[0].code, answer.outputs) == ("defer", "policy_fault", [])


@pytest.mark.parametrize(
    ("output", "reachable", "outcome"),
    [
        ("plain/a", FOUR, "execute"),
        ("plain/a", FOUR[:2], "held"),
        ("pooled", FOUR, "defer"),
        ("forbidden/a", FOUR, "refuse"),
        ("scratch", FOUR, "ungoverned"),
    ],
)
async def test_what_would_be_decided(
    autojump_clock: object, output: str, reachable: tuple[str, ...], outcome: str
) -> None:
    world = World()
    node = node_of(world)
    answer = explain_step(node.core, form(output), defaults(world), frozenset(reachable))
    assert answer.outcome == outcome
