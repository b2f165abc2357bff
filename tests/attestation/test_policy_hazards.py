"""What goes wrong with a policy engine that is asked naively, one test for each way.

Each shows first, where that is safe, that the engine by itself does it: a test that fails there says that the
engine has changed, and that our rule can be looked at again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from comity.attestation.policy_engine import PolicyFault, engine_problem, evaluate
from comity.attestation.policy_guard import EngineError, on_deep_stack
from comity.attestation.policy_rules import compile_rules, schema_text
from comity.protocol.encoding import encode
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.outcome import Mode, Outcome
from policy_worlds import BASE, REQUEST, outcome, with_context

FORBID = '@id("f") @mode("refuse") @reason("r") forbid (principal, action, resource)'
OVERFLOW = "context.weight * 9223372036854775807 > 1"


def plainly(policies: str, context: dict[str, Any]) -> cedarpy.AuthzResult:
    """Ask the engine as its manual says."""
    entity = {"type": "T", "id": "t"}
    request = {
        "principal": entity,
        "action": {"type": "Action", "id": "a"},
        "resource": entity,
        "context": context,
    }
    return on_deep_stack(lambda: cedarpy.is_authorized(request, policies, []))


def test_a_forbid_that_errs_is_skipped_and_permits() -> None:
    policies = (
        f"permit (principal, action, resource); forbid (principal, action, resource) when {{ {OVERFLOW} }};"
    )
    assert plainly(policies, {"weight": 2}).allowed

    said = evaluate(compile_rules(f"{BASE}{FORBID} when {{ {OVERFLOW} }};"), with_context(weight=2))
    assert said == PolicyFault("policy_rule_error")


def test_a_permit_that_errs_is_a_fault_too() -> None:
    """Another permit may be satisfied; but peers must not differ in which errors they overlook."""
    rules = compile_rules(f'{BASE}@id("p") permit (principal, action, resource) when {{ {OVERFLOW} }};')
    assert evaluate(rules, with_context(weight=2)) == PolicyFault("policy_rule_error")


def test_a_misspelt_attribute_errs_and_permits() -> None:
    policies = "permit (principal, action, resource); forbid (principal, action, resource) when { context.teir < 2 };"
    assert plainly(policies, {"tier": 0}).allowed

    with pytest.raises(DecodeError, match="attribute_unknown: context has no attribute `teir`"):
        compile_rules(f"{BASE}{FORBID} when {{ context.teir < 2 }};")


def test_a_fact_of_another_type_decides_nothing() -> None:
    said = plainly("permit (principal, action, resource) when { context.tier > 1 };", {"tier": "2"})
    assert said.diagnostics.errors

    with pytest.raises(LocalProtocolError):
        with_context(tier="2")


@pytest.mark.parametrize("rule", [BASE, f"{BASE}{FORBID} when {{ context.weight > 1 }};"])
def test_a_float_never_enters(rule: str) -> None:
    assert plainly(rule, {"weight": 0.5}).decision is cedarpy.Decision.NoDecision

    with pytest.raises(LocalProtocolError):
        with_context(weight=0.5)
    with pytest.raises(DecodeError):
        compile_rules(f"{BASE}{FORBID} when {{ context.weight > 0.5 }};")
    with pytest.raises(DecodeError, match="operator_unsupported"):
        compile_rules(f'{BASE}{FORBID} when {{ decimal("0.5").lessThan(decimal("0.6")) }};')


def test_the_time_of_day_never_enters() -> None:
    for condition in ('datetime("2026-01-01") < datetime("2026-01-02")', 'duration("1s") < duration("2s")'):
        with pytest.raises(DecodeError, match="operator_unsupported"):
            compile_rules(f"{BASE}{FORBID} when {{ {condition} }};")


def test_beside_a_forbid_the_engine_keeps_silent_on_permits() -> None:
    forbid = "forbid (principal, action, resource);"
    permit = "permit (principal, action, resource);"
    assert plainly(forbid, {}).diagnostics.reasons == ["policy0"]
    assert plainly(forbid + permit, {}).diagnostics.reasons == ["policy0"]

    rule = '@id("f") @mode("defer") @reason("r") @needs("x") forbid (principal, action, resource);'
    assert outcome(rule).mode is Mode.REFUSE
    assert outcome(BASE + rule).mode is Mode.DEFER


def test_names_of_rules_by_their_place_change_with_it() -> None:
    """The engine numbers rules by place; a cause must name the rule, wherever it stands."""
    first = f"{FORBID} when {{ context.tier < 2 }};"
    filler = "".join(
        f'@id("p{n}") permit (principal, action, resource) when {{ context.tier > {n} }};' for n in range(3)
    )
    before, after = outcome(first + filler + BASE), outcome(filler + BASE + first)
    assert [cause.rule for cause in before.causes] == ["f"]
    assert encode(before) == encode(after)


def test_reasons_come_in_no_order() -> None:
    """Twenty rules are satisfied; their causes come in the order of their bytes."""
    rules = "".join(
        f'@id("f{n:02}") @mode("refuse") @reason("r") forbid (principal, action == Action::"materialize", resource);'
        for n in range(20)
    )
    said = outcome(BASE + rules)
    assert [cause.rule for cause in said.causes] == [f"f{n:02}" for n in range(20)]


def test_two_rules_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(DecodeError, match="id_twice"):
        compile_rules(f"{FORBID};{FORBID};")


def test_another_release_of_the_engine_abstains() -> None:
    assert engine_problem("4.12.2") is None
    for release in ("4.11.9", "4.13.0", "4.120.0", "5.0.0"):
        problem = engine_problem(release)
        assert isinstance(problem, EngineError)
        assert problem.code == "policy_engine_unknown"


def test_what_depends_on_the_release_is_not_part_of_a_fault() -> None:
    assert PolicyFault("policy_rule_error", "as 4.12 says it") == PolicyFault(
        "policy_rule_error", "as 4.13 does"
    )


def test_an_unreadable_text_of_a_fact_is_a_fault() -> None:
    """Half a surrogate pair has no UTF-8. No record can carry it; should one get here, there is no verdict."""
    said = evaluate(
        compile_rules(f"{BASE}{FORBID} when {{ context.tier < 1 }};"), replace(REQUEST, asset="\ud800")
    )
    assert said == PolicyFault("policy_engine_failed")


@pytest.mark.parametrize(
    "text", ['"]}', "\\", "\n", '{"__entity": {"type": "AuthorityClass", "id": "health"}}', "\u2028", "é"]
)
def test_facts_are_never_read_as_syntax(text: str) -> None:
    """Whoever chooses the name of an asset must not choose an attribute, a class or an entity by it."""
    request = replace(
        REQUEST, asset=text, realm=text, classes=(text,), context=replace(REQUEST.context, purpose=text)
    )
    same = "resource.name == context.purpose && resource.realm == context.purpose"
    forbid = FORBID.replace("action,", 'action == Action::"materialize",')
    assert outcome(f"{BASE}{forbid} when {{ {same} }};", request).mode is Mode.REFUSE
    other = f'{same} && principal in AuthorityClass::"health"'
    assert outcome(f"{BASE}{forbid} when {{ {other} }};", request).mode is Mode.EXECUTE


def test_the_vocabulary_is_the_engines_and_no_bundles() -> None:
    with pytest.raises(DecodeError):
        compile_rules("entity Subject { root: Bool };")


def test_a_text_that_takes_no_time_to_write_takes_none_to_read() -> None:
    """`has a.b.c` is expanded by the engine to a size that grows with the square of its length."""
    parsed = on_deep_stack(
        lambda: cedarpy.policies_to_json_str(
            f"permit (principal, action, resource) when {{ context has {'a.' * 60}a }};"
        )
    )
    assert len(json.dumps(parsed)) > 60 * 60
    with pytest.raises(DecodeError, match="operator_unsupported"):
        compile_rules(f"{BASE}{FORBID} when {{ context has a.b }};")


def test_the_schema_is_read_by_the_engine() -> None:
    on_deep_stack(lambda: cedarpy.Schema.from_str(schema_text()))


def test_an_outcome_is_never_a_fault_and_a_fault_never_an_outcome() -> None:
    said = outcome(BASE)
    assert isinstance(said, Outcome)
    assert not isinstance(PolicyFault("policy_rule_error"), Outcome)
