"""Explaining: minimal sets of needs, each confirmed by judging again with it granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from comity.attestation import explain as explaining
from comity.attestation.case import Case, Fault, Grants
from comity.attestation.explain import Explanation, explain, grant, supposing
from comity.attestation.gathering import gather
from comity.attestation.judgement import judge
from comity.attestation.voter import build_case
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, ScopeEpoch
from comity.protocol.limits import LIFT_SEARCH_MAX
from comity.protocol.outcome import Mode, Need
from world import INSTITUTE, NORTH, START, World, policy_body

BASE = """
@id("base") permit(principal, action == Action::"materialize", resource is Asset);
@id("base-columns") permit(principal, action == Action::"include", resource is Column);
"""
EITHER = (
    BASE
    + """
@id("either") @mode("defer") @reason("approval_missing")
@needs("approval(class=data-steward); approval(class=data-protection-officer)")
forbid(principal, action == Action::"materialize", resource is Asset)
unless { context.approvals.containsAny(["data-steward", "data-protection-officer"]) };
"""
)
BOTH = (
    BASE
    + """
@id("one") @mode("defer") @reason("approval_missing") @needs("approval(class=data-steward)")
forbid(principal, action == Action::"materialize", resource is Asset)
unless { context.approvals.contains("data-steward") };

@id("two") @mode("defer") @reason("tier_low") @needs("tier(at_least=1)")
forbid(principal, action == Action::"materialize", resource is Asset) when { context.tier < 1 };
"""
)
STEPWISE = (
    BASE
    + """
@id("first") @mode("defer") @reason("tier_low") @needs("tier(at_least=1)")
forbid(principal, action == Action::"materialize", resource is Asset) when { context.tier < 1 };

@id("then") @mode("defer") @reason("approval_missing") @needs("approval(class=data-steward)")
forbid(principal, action == Action::"materialize", resource is Asset)
when { context.tier >= 1 } unless { context.approvals.contains("data-steward") };
"""
)


def case_of(world: World, intent: SignedRecord, offered: Sequence[SignedRecord] = ()) -> Case:
    """The case of an ask that is never sent."""
    organization = world[intent.header.member]
    holdings = organization.holdings
    holdings.admit((*offered, intent))
    filed = holdings.get(intent.id)
    assert filed is not None
    relied = gather(filed, holdings, [r for o in offered if (r := holdings.get(o.id)) is not None])
    epoch = holdings.epoch
    body = Ask(
        salt=bytes(32),
        intent=intent.id,
        t=START,
        epochs=(ScopeEpoch(scope=epoch.coalition, epoch=epoch.id),),
        relied=tuple(sorted(relied)),
    )
    ask = organization.node.write_verified(holdings.directory, "ask", body, at=START, subject=(intent.id,))
    governance = holdings.governance()
    assert governance is not None
    return build_case(governance, holdings, filed, ask, relied)


def explained(rules: str, *assets: str, world: World | None = None, **changes: Any) -> Explanation:
    world = world or World(policy=policy_body(rules))
    return explain(case_of(world, world[INSTITUTE].intent(*assets, **changes)))


def codes(explanation: Explanation) -> list[set[str]]:
    return [
        {f"{need.code}:{next(iter(need.parameters.values()), '')}" for need in lift}
        for lift in explanation.lifts
    ]


def modes(explanation: Explanation) -> list[Mode]:
    assert not isinstance(explanation.judgement, Fault)
    return [each.outcome.mode for each in explanation.judgement.classes]


def test_what_executes_needs_no_lift() -> None:
    explanation = explained(BASE, "plain/a")
    assert modes(explanation) == [Mode.EXECUTE]
    assert explanation.lifts == ()


def test_what_is_refused_has_no_lift() -> None:
    world = World()
    explanation = explain(case_of(world, world[NORTH].intent("forbidden/x")))
    assert modes(explanation) == [Mode.REFUSE]
    assert explanation.lifts == ()


def test_either_of_two_approvals_lifts() -> None:
    explanation = explained(EITHER, "plain/a")
    assert codes(explanation) == [{"approval:data-protection-officer"}, {"approval:data-steward"}] or codes(
        explanation
    ) == [{"approval:data-steward"}, {"approval:data-protection-officer"}]


def test_two_needs_lift_only_together() -> None:
    assert codes(explained(BOTH, "plain/a")) == [{"approval:data-steward", "tier:1"}]


def test_a_need_that_shows_only_when_another_is_met_is_found() -> None:
    explanation = explained(STEPWISE, "plain/a")
    assert codes(explanation) == [{"approval:data-steward", "tier:1"}]


def test_weight_and_ticket_are_supposed() -> None:
    world = World(policy=policy_body(BASE, weight_min=900_000))
    world.tell(world[INSTITUTE].credential("operator/7f3a"))
    intent = world[INSTITUTE].intent("plain/a", who="operator/7f3a")
    lifts = codes(explain(case_of(world, intent)))
    assert lifts == [{"corroboration:900000", "launch_ticket:spiffe://institute.example/operator/7f3a"}]


def test_all_deferred_classes_are_lifted_or_it_is_no_lift() -> None:
    world = World()
    explanation = explain(case_of(world, world[INSTITUTE].intent("pooled", "guarded", "plain/a")))
    assert modes(explanation).count(Mode.DEFER) == 2
    assert codes(explanation) == [{"approval:data-protection-officer", "tier:1"}]


def test_a_refused_class_does_not_hinder_the_lift_of_another() -> None:
    world = World()
    explanation = explain(case_of(world, world[INSTITUTE].intent("pooled", "forbidden/x")))
    assert sorted(modes(explanation)) == [Mode.DEFER, Mode.REFUSE]
    assert codes(explanation) == [{"approval:data-protection-officer"}]


def test_every_lift_is_confirmed_and_minimal() -> None:
    world = World()
    case = case_of(world, world[INSTITUTE].intent("pooled", "guarded"))
    (lift,) = explain(case).lifts

    def lifted(needs: Sequence[Need]) -> bool:
        judgement = judge(replace(case, granted=supposing(needs)))
        assert not isinstance(judgement, Fault)
        return all(each.outcome.mode is not Mode.DEFER for each in judgement.classes)

    assert lifted(lift)
    for left_out in lift:
        assert not lifted([need for need in lift if need is not left_out])


def test_four_needs_are_more_than_is_looked_for() -> None:
    rules = BASE + "".join(
        f"""
@id("r{name}") @mode("defer") @reason("approval_missing") @needs("approval(class={name})")
forbid(principal, action == Action::"materialize", resource is Asset)
unless {{ context.approvals.contains("{name}") }};
"""
        for name in ("a", "b", "c", "d")
    )
    explanation = explained(rules, "plain/a")
    assert explanation.lifts == ()
    assert explanation.complete


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{index}" for index in range(13)]
    rules = BASE + "".join(
        f"""
@id("r{name}") @mode("defer") @reason("approval_missing") @needs("approval(class={name})")
forbid(principal, action == Action::"materialize", resource is Asset)
unless {{ context.approvals.contains("{name}") }};
"""
        for name in names
    )
    judged: list[Grants] = []

    def counted(case: Case) -> Any:
        judged.append(case.granted)
        return judge(case)

    monkeypatch.setattr(explaining, "judge", counted)
    explanation = explained(rules, "plain/a")
    assert not explanation.complete
    assert len(judged) == LIFT_SEARCH_MAX


@pytest.mark.parametrize(
    "need",
    [
        Need("credential", {"id": "00"}),
        Need("record", {"id": "00"}),
        Need("consent", {"member": NORTH}),
        Need("approval"),
        Need("tier", {"at_least": 4}),
        Need("tier", {"at_least": "1"}),
        Need("transition", {"member": NORTH, "type": "release"}),
        Need("something_of_a_policy", {"x": 1}),
    ],
)
def test_what_nobody_can_suppose_is_not_granted(need: Need) -> None:
    assert grant(need) is None


def test_the_highest_tier_is_supposed() -> None:
    assert supposing([Need("tier", {"at_least": 2}), Need("tier", {"at_least": 1})]).tier == 2


def test_a_supposition_never_reaches_a_vote() -> None:
    world = World()
    case = case_of(world, world[INSTITUTE].intent("pooled"))
    assert case.granted == Grants()
    assert msgspec.json.encode(judge(case).working) == msgspec.json.encode(explain(case).judgement.working)  # type: ignore[union-attr]
