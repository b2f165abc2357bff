"""What satisfied rules amount to: one table of cases, and the laws that hold for all of them."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import policy_worlds
from comity.attestation.policy_engine import (
    COLUMN_GROUPS_MAX,
    ColumnFacts,
    ContextFacts,
    PolicyFault,
    PolicyRequest,
    classes_above,
    context_json,
    entities_json,
    evaluate,
)
from comity.attestation.policy_guard import on_deep_stack
from comity.attestation.policy_rules import ACTIONS, compile_rules, schema_text
from comity.protocol.encoding import encode
from comity.protocol.errors import LocalProtocolError
from comity.protocol.outcome import (
    Cause,
    Extent,
    Mode,
    Need,
    Obligation,
    Outcome,
    contains,
    extent_within,
    full_extent,
    meet,
)
from policy_worlds import (
    BASE,
    FORBIDS,
    PERMITS,
    REQUEST,
    any_request,
    digest_of_many,
    numbered,
    outcome,
    with_context,
)

FULL = full_extent(3, 5)
PERMIT_ALL = "permit (principal, action, resource);"

requests = st.integers(0, 2**32).map(lambda seed: any_request(random.Random(seed)))
forbids = st.lists(st.sampled_from(FORBIDS), max_size=5, unique=True)
permits = st.lists(st.sampled_from(PERMITS), max_size=3, unique=True)


def columns(*ranges: tuple[int, int]) -> Extent:
    return Extent(items=((0, 2),), columns=ranges)


def cause(code: str, rule: str = "", **parameters: str | int) -> Cause:
    return Cause(code=code, rule=rule, parameters=parameters)


# Without a satisfied permit


def test_a_bundle_without_rules_permits_nothing() -> None:
    said = outcome("")
    assert said.mode is Mode.REFUSE
    assert cause("no_authority") in said.causes


def test_a_permit_alone_executes() -> None:
    assert outcome(BASE) == Outcome(mode=Mode.EXECUTE, extent=FULL)


def test_a_permit_that_is_not_satisfied_gives_no_authority() -> None:
    said = outcome('@id("p") permit (principal in AuthorityClass::"finance", action, resource);')
    assert (said.mode, cause("no_authority") in said.causes) == (Mode.REFUSE, True)


@pytest.mark.parametrize(
    "forbid",
    [
        """@mode("restrict") @reason("r") @obliges("min_group_rows(rows=5)")
        forbid (principal, action == Action::"materialize", resource);""",
        '@mode("defer") @reason("r") @needs("approval(class=x)") forbid (principal, action, resource);',
        """@mode("restrict") @reason("r")
        forbid (principal, action == Action::"include", resource) when { !resource.named };""",
    ],
)
def test_a_satisfied_forbid_is_no_permit(forbid: str) -> None:
    """Cedar names no permit beside a satisfied forbid: a restriction alone must not be taken for one."""
    said = outcome(f'@id("f") {forbid} @id("c") permit (principal, action == Action::"include", resource);')
    assert said.mode is Mode.REFUSE
    assert cause("no_authority") in said.causes


def test_columns_that_nothing_permits_are_left_out() -> None:
    said = outcome(
        '@id("m") permit (principal, action == Action::"materialize", resource);'
        '@id("c") permit (principal, action == Action::"include", resource) when { resource.named };'
    )
    assert said.mode is Mode.RESTRICT
    assert said.extent == columns((1, 1), (4, 4))
    assert said.causes == (cause("no_authority", columns="inst,age,note"),)


def test_an_output_without_columns_asks_for_no_permit_of_columns() -> None:
    rules = '@id("m") permit (principal, action == Action::"materialize", resource);'
    said = outcome(rules, replace(REQUEST, columns=()))
    assert said == Outcome(mode=Mode.EXECUTE, extent=full_extent(3, 0))


# Each mode


def test_refuse() -> None:
    said = outcome(BASE + '@id("f") @mode("refuse") @reason("wrong") forbid (principal, action, resource);')
    assert said.mode is Mode.REFUSE
    assert said.causes == (cause("wrong", "f", columns="inst,time,age,note,status"),)


def test_defer_names_what_is_needed() -> None:
    rule = (
        '@id("f") @mode("defer") @reason("dpo_missing") @needs("tier(at_least=2); approval(class=health/dpo)")'
        'forbid (principal, action == Action::"materialize", resource)'
        'unless { context.approvals.contains("health/dpo") };'
    )
    said = outcome(BASE + rule)
    assert said.mode is Mode.DEFER
    # In the order of their canonical bytes.
    assert said.needs == (
        Need(code="tier", parameters={"at_least": 2}),
        Need(code="approval", parameters={"class": "health/dpo"}),
    )
    assert said.causes == (cause("dpo_missing", "f"),)
    assert outcome(BASE + rule, with_context(approvals=("health/dpo",))).mode is Mode.EXECUTE


LEAVE_OUT = (
    '@id("f") @mode("{}") @reason("quasi") {} forbid (principal, action == Action::"include", resource)'
    'when {{ resource.column_class == "quasi_identifier" }};'
)


def test_a_restriction_of_columns_leaves_them_out_and_names_them() -> None:
    said = outcome(BASE + LEAVE_OUT.format("restrict", ""))
    assert said.mode is Mode.RESTRICT
    assert said.extent == columns((1, 1), (3, 4))
    assert said.causes == (cause("quasi", "f", columns="inst,age"),)


@pytest.mark.parametrize(("mode", "more"), [("refuse", ""), ("defer", '@needs("approval(class=x)")')])
def test_what_is_wrong_with_one_column_bites_the_whole_class(mode: str, more: str) -> None:
    said = outcome(BASE + LEAVE_OUT.format(mode, more))
    assert (said.mode, said.extent) == (Mode(mode), FULL)
    assert said.causes == (cause("quasi", "f", columns="inst,age"),)


def test_columns_that_are_all_left_out_refuse() -> None:
    said = outcome(
        BASE
        + '@id("f") @mode("restrict") @reason("r") forbid (principal, action == Action::"include", resource);'
    )
    assert said.mode is Mode.REFUSE
    assert cause("extent_empty") in said.causes


def test_a_rule_about_columns_is_silent_where_there_are_none() -> None:
    request = replace(REQUEST, columns=())
    assert outcome(BASE + LEAVE_OUT.format("refuse", ""), request).mode is Mode.EXECUTE


OBLIGE = (
    '@id("f") @mode("restrict") @reason("small_groups") @obliges("{}")'
    'forbid (principal, action == Action::"materialize", resource);'
)


def test_a_restriction_of_the_class_obliges() -> None:
    said = outcome(BASE + OBLIGE.format("min_group_rows(rows=5)"))
    assert (said.mode, said.extent) == (Mode.RESTRICT, FULL)
    assert said.obligations == (Obligation(code="min_group_rows", parameters={"column": "inst", "rows": 5}),)
    assert said.causes == (cause("small_groups", "f"),)


def test_a_column_that_the_rule_names_stays() -> None:
    request = replace(REQUEST, rows_by="")
    said = outcome(BASE + OBLIGE.format("min_group_rows(column=ward,rows=5);other"), request)
    assert said.obligations == (
        Obligation(code="other"),
        Obligation(code="min_group_rows", parameters={"column": "ward", "rows": 5}),
    )


def test_rows_that_no_column_partitions_are_refused() -> None:
    said = outcome(BASE + OBLIGE.format("min_group_rows(rows=5)"), replace(REQUEST, rows_by=""))
    assert (said.mode, said.obligations) == (Mode.REFUSE, ())
    assert said.causes == (cause("small_groups", "f"), cause("rows_by_missing", "f"))


def test_a_rule_that_fires_on_class_and_columns_is_one_cause() -> None:
    rule = (
        '@id("f") @mode("defer") @reason("r") @needs("tier(at_least=2)") forbid (principal, action, resource)'
        "when { context.tier < 2 };"
    )
    assert outcome(BASE + rule).causes == (cause("r", "f", columns="inst,time,age,note,status"),)


# Causes stay small


def test_names_of_columns_are_cut_at_whole_names() -> None:
    names = [f"column_{number:03}" for number in range(40)]
    request = replace(REQUEST, columns=tuple(ColumnFacts(name, "quasi_identifier") for name in names))
    (said,) = outcome(BASE + LEAVE_OUT.format("defer", '@needs("x")'), request).causes
    # 17 names of 10 characters with a comma after each but the last: 186; an eighteenth would make 197.
    assert said.parameters == {"columns": ",".join(names[:18]), "columns_more": 22}
    assert len(str(said.parameters["columns"])) == 197


def test_a_name_too_long_for_a_cause_is_counted() -> None:
    request = replace(REQUEST, columns=(ColumnFacts("x" * 201, "quasi_identifier"), ColumnFacts("y")))
    said = outcome(BASE + LEAVE_OUT.format("restrict", ""), request)
    assert said.causes == (cause("quasi", "f", columns_more=1),)


def test_too_many_kinds_of_column_are_refused_unseen() -> None:
    kinds = tuple(ColumnFacts(f"c{n}", f"k{n}") for n in range(COLUMN_GROUPS_MAX + 1))
    assert outcome(BASE, replace(REQUEST, columns=kinds[:-1])).mode is Mode.EXECUTE
    said = outcome(BASE, replace(REQUEST, columns=kinds))
    assert said.mode is Mode.REFUSE
    assert said.causes == (cause("column_groups_many", groups=33, groups_max=32),)


# Facts


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('principal == Subject::"spiffe://clinic.example/agent/7f3a"', True),
        ('principal in AuthorityClass::"health/steward"', True),
        ('principal in AuthorityClass::"health"', True),
        ('principal in AuthorityClass::"region-eu/care"', True),
        ('principal in AuthorityClass::"region-eu"', True),
        ('principal in AuthorityClass::"health/steward/deputy"', False),
        ('principal in AuthorityClass::"heal"', False),
        ('principal.member == "clinic.example" && principal.kind == "agent" && principal.depth == 1', True),
        ('principal.delegators.contains("spiffe://clinic.example/operator/1")', True),
        ('resource in DataClass::"health" && resource in DataClass::"health/released"', True),
        ('resource == Asset::"clinic.example/released"', True),
        ('resource.name like "clinic.example/*" && resource.writer == "clinic.example"', True),
        ('resource.realm == "production"', True),
        ('context.purpose == "survival" && context.tier == 1 && !context.fresh && context.ticket', True),
        ("context.weight == 650000 && context.items == 3 && context.columns == 5", True),
        ("context.approvals.isEmpty() && context.input_classes.isEmpty()", True),
        ("context.input_tier_min == 3 && context.input_weight_min == 1000000", True),
        ("context.reversible || context.solo", False),
    ],
)
def test_rules_see_the_facts(condition: str, *, holds: bool) -> None:
    rule = (
        '@id("f") @mode("refuse") @reason("r") forbid (principal, action == Action::"materialize", resource)'
    )
    said = outcome(f"{BASE}{rule} when {{ {condition} }};")
    assert said.mode is (Mode.REFUSE if holds else Mode.EXECUTE)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_rules_see_how_far_authority_was_delegated(depth: int) -> None:
    request = replace(
        REQUEST, delegators=tuple(f"spiffe://clinic.example/operator/{n}" for n in range(depth))
    )
    rule = '@id("f") @mode("refuse") @reason("r") forbid (principal, action, resource) when { principal.depth > 1 };'
    assert outcome(BASE + rule, request).mode is (Mode.REFUSE if depth > 1 else Mode.EXECUTE)


@pytest.mark.parametrize(
    ("facts", "condition"),
    [
        ({"approvals": ("health/steward",)}, 'context.approvals.containsAll(["health", "region-eu/care"])'),
        ({"input_classes": ("health/x/y",)}, 'context.input_classes.containsAll(["health", "health/x"])'),
        ({"input_owners": ("b.example", "a.example")}, 'context.input_owners == ["a.example", "b.example"]'),
        ({"input_purposes": ("audit",)}, 'context.input_purposes.contains("audit")'),
        (
            {"code_authors": ("spiffe://a.example/x",)},
            "!context.code_reviewers.containsAny(context.code_authors)",
        ),
    ],
)
def test_classes_stand_for_those_above_them(facts: dict[str, Any], condition: str) -> None:
    rule = (
        f'@id("f") @mode("refuse") @reason("r") forbid (principal, action, resource) when {{ {condition} }};'
    )
    assert outcome(BASE + rule, with_context(**facts)).mode is Mode.REFUSE
    assert outcome(BASE + rule.replace("when", "unless"), with_context(**facts)).mode is Mode.EXECUTE


@pytest.mark.parametrize(
    ("condition", "left_out"),
    [
        ('resource in DataClass::"health" && resource.named', "time,status"),
        ('resource in Asset::"clinic.example/released" && !resource.named', "inst,age,note"),
        ('resource.asset.realm == "production" && resource.column_class == ""', "time,note,status"),
        (
            'resource.asset in DataClass::"health/released" && context.columns == 5 && resource.named',
            "time,status",
        ),
    ],
)
def test_rules_about_columns_see_the_asset(condition: str, left_out: str) -> None:
    rule = '@id("f") @mode("restrict") @reason("r") forbid (principal, action == Action::"include", resource)'
    assert outcome(f"{BASE}{rule} when {{ {condition} }};").causes == (cause("r", "f", columns=left_out),)


def test_classes_that_lie_within_each_other_come_to_an_end() -> None:
    assert classes_above(("a/b",), {"a": "c", "c": "a/b"}) == ["a", "a/b", "c"]


@pytest.mark.parametrize(
    "build",
    [
        lambda: with_context(tier=4),
        lambda: with_context(tier=True),
        lambda: with_context(weight=-1),
        lambda: with_context(weight=0.5),
        lambda: with_context(fresh=1),
        lambda: with_context(purpose=b"survival"),
        lambda: with_context(approvals=(1,)),
        lambda: replace(REQUEST, kind="robot"),
        lambda: replace(REQUEST, items=0),
        lambda: replace(REQUEST, columns=tuple(ColumnFacts(str(n)) for n in range(1_025))),
        lambda: replace(REQUEST, delegators=tuple("abcdefghi")),
        lambda: ColumnFacts("a", named=1),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_facts_of_another_type_or_beyond_their_bound_are_our_own_fault(build: Any) -> None:
    with pytest.raises(LocalProtocolError):
        build()


# Laws


def permitted(rules: list[str]) -> str:
    return numbered(PERMIT_ALL, *rules)


@given(forbids, st.integers(0, 2**32))
def test_equal_facts_give_equal_bytes(rules: list[str], seed: int) -> None:
    first, again = any_request(random.Random(seed)), any_request(random.Random(seed))
    assert encode(outcome(permitted(rules), first)) == encode(outcome(permitted(rules), again))


@given(permits, forbids, requests, st.randoms(use_true_random=False))
def test_the_order_of_rules_does_not_matter(
    some: list[str], rules: list[str], request: PolicyRequest, source: random.Random
) -> None:
    lines = numbered(*some, *rules).splitlines()
    mixed = source.sample(lines, len(lines))
    assert encode(outcome("\n".join(lines), request)) == encode(outcome("\n".join(mixed), request))


@given(permits, forbids, requests)
def test_a_forbid_more_never_raises_the_outcome(
    some: list[str], rules: list[str], request: PolicyRequest
) -> None:
    said = [outcome(numbered(*some, *rules[:count]), request) for count in range(len(rules) + 1)]
    for before, after in itertools.pairwise(said):
        assert after.mode.rank <= before.mode.rank
        assert extent_within(after.extent, before.extent)
        assert contains(after.obligations, before.obligations)
        assert contains(after.needs, before.needs)


@given(permits, forbids, requests)
def test_a_permit_more_never_lowers_the_outcome(
    some: list[str], rules: list[str], request: PolicyRequest
) -> None:
    said = [outcome(numbered(*rules, *some[:count]), request) for count in range(len(some) + 1)]
    for before, after in itertools.pairwise(said):
        assert after.mode.rank >= before.mode.rank
        assert extent_within(before.extent, after.extent)


@given(permits, forbids, requests)
def test_a_bundle_is_the_meet_of_its_forbids(
    some: list[str], rules: list[str], request: PolicyRequest
) -> None:
    lines = numbered(*some, *rules).splitlines()
    allowed, denied = lines[: len(some)], lines[len(some) :]
    full = full_extent(request.items, len(request.columns))
    combined = outcome("\n".join(allowed), request)
    for line in denied:
        combined = meet(combined, outcome("\n".join([*allowed, line]), request), full)
    assert outcome("\n".join(lines), request) == combined


EVERYTHING = frozenset(
    {"member", "kind", "depth", "delegators", "writer", "realm", "name", "column_class", "named", "asset"}
)
FACTS = tuple(sorted(ContextFacts.__dataclass_fields__.keys() | {"items", "columns"}))


@given(permits, forbids, requests)
def test_what_the_engine_is_not_told_changes_nothing(
    some: list[str], rules: list[str], request: PolicyRequest
) -> None:
    """Our evaluation without what no rule reads, against the engine's own with everything and with the schema."""
    compiled = compile_rules(numbered(*some, *rules))
    groups = list(dict.fromkeys((column.column_class, column.named) for column in request.columns))

    def ask() -> list[list[str]]:
        schema = cedarpy.Schema.from_str(schema_text())
        entities = cedarpy.Entities.from_json_str(entities_json(request, groups, EVERYTHING), schema)
        found: list[list[str]] = []
        for action in ACTIONS:
            resources = [request.asset] if action == "materialize" else [str(n) for n in range(len(groups))]
            kind = "Asset" if action == "materialize" else "Column"
            part = getattr(compiled, action)
            text = "\n".join(rule.policy for rule in compiled.rules if action in rule.actions)
            for resource in resources:
                answer = cedarpy.is_authorized(
                    {
                        "principal": {"type": "Subject", "id": request.subject},
                        "action": {"type": "Action", "id": action},
                        "resource": {"type": kind, "id": resource},
                        "context": context_json(request, FACTS),
                    },
                    text,
                    entities,
                    schema,
                )
                assert answer.decision is not cedarpy.Decision.NoDecision, answer.diagnostics.errors
                assert answer.diagnostics.errors == []
                found.append(sorted(part.rules[int(reason[6:])].id for reason in answer.diagnostics.reasons))
        return found

    satisfied = on_deep_stack(ask)
    said = outcome(numbered(*some, *rules), request)
    fired = {rule for each in satisfied for rule in each}
    effects = {rule.id: rule.effect for rule in compiled.rules}
    assert {each.rule for each in said.causes if each.rule} == {r for r in fired if effects[r] == "forbid"}
    assert (Cause(code="no_authority") in said.causes) == (
        not any(effects[rule] == "permit" for rule in satisfied[0])
    )


# One outcome everywhere


def test_outcomes_are_equal_in_every_process() -> None:
    program = policy_worlds.__file__
    started = [
        subprocess.Popen(
            [sys.executable, program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("0", "1", "4242")
    ]
    digests = {process.communicate(timeout=60)[0].strip() for process in started}
    assert digests == {digest_of_many()}


def test_a_fault_is_no_outcome() -> None:
    rules = compile_rules(
        f'{BASE}@id("f") @mode("refuse") @reason("r") forbid (principal, action, resource)'
        "when { context.weight * 9223372036854775807 > 1 };"
    )
    said = evaluate(rules, with_context(weight=2))
    assert said == PolicyFault("policy_rule_error")
    assert isinstance(evaluate(rules, with_context(weight=1)), Outcome)


def test_any_request_is_any() -> None:
    """The arbitrary requests reach every mode, so that the laws above are about something."""
    source = random.Random(1)
    modes = {outcome(permitted(source.sample(FORBIDS, 2)), any_request(source)).mode for _ in range(40)}
    assert modes == set(Mode)
