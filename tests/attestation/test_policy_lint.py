"""What the lint says is wrong, where, and what it takes to be meant."""

from __future__ import annotations

import pytest

from comity.attestation.policy_guard import PROBLEMS_MAX
from comity.attestation.policy_lint import PolicyNames, lint
from comity.attestation.policy_rules import compile_rules
from comity.protocol.errors import DecodeError
from policy_worlds import BASE

PERMIT = '@id("a") permit (principal, action == Action::"include", resource)'
FORBID = (
    '@id("a") @mode("refuse") @reason("r")\nforbid (principal, action == Action::"materialize", resource)'
)
ANY = "forbid (principal, action, resource);"
WHOLE = 'forbid (principal, action == Action::"materialize", resource);'
EACH = 'forbid (principal, action == Action::"include", resource);'
RESTRICT = '@id("a") @mode("restrict") @reason("r")'
ON_COLUMNS = FORBID.replace("materialize", "include")


def marked(text: str) -> tuple[str, int, int]:
    """A text, and the line and column at which it was marked with a caret."""
    before, _, after = text.partition("^")
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        # Syntax
        ("^permitt (principal, action, resource);", "effect_unknown", "permit?"),
        (f"{PERMIT} ^wen {{ true }};", "syntax", "when?"),
        ('@id("a") permit (^principle, action, resource);', "variable_unknown", "principal?"),
        ('@id("a") ^permit (principal, action);', "syntax", ""),
        (f"{PERMIT} when {{ true\n&& ^&& true }};", "syntax", ""),
        (f"{PERMIT} when {{ resource.named ^= true }};", "syntax", ""),
        (f"{PERMIT} when {{ context.tier == ^99999999999999999999 }};", "integer_large", ""),
        (f"{PERMIT} when ^{{ true;", "brackets_unbalanced", ""),
        (f"{PERMIT} when {{ true ^) }};", "brackets_unbalanced", ""),
        ('@id("a")\n  permit (principal, action, resource^)', "rule_open", "write `;` at its end"),
        ('@id(^"a) permit (principal, action, resource);', "string_open", ""),
        # The language
        (f'{PERMIT} when {{ context.approvals.^contain("x") }};', "operator_unsupported", "contains?"),
        (f"{PERMIT} when {{ ^foo(1) }};", "operator_unsupported", ""),
        (f"{PERMIT} when {{ context ^has tier }};", "operator_unsupported", ""),
        (f'{PERMIT} when {{ principal.^hasTag("a") }};', "operator_unsupported", ""),
        (f"{PERMIT} when {{ ^context == context }};", "context_whole", ""),
        (f'{PERMIT} when {{ resource == ^Column::"0" }};', "column_named", ""),
        ('@id("a") ^permit (principal == ?principal, action, resource);', "template_unsupported", ""),
        # The vocabulary
        (f"{PERMIT} when {{ context.^teir > 1 }};", "attribute_unknown", "tier?"),
        (f'{PERMIT} when {{ context[^"teir"] > 1 }};', "attribute_unknown", "tier?"),
        (f"{PERMIT} when {{ resource.^nmed }};", "attribute_unknown", "named?"),
        (f'{FORBID} when {{ resource.^column_class == "x" }};', "attribute_unknown", "Column has it"),
        (f'{PERMIT} when {{ principal in ^AuthorityClas::"x" }};', "entity_type_unknown", "AuthorityClass?"),
        ('@id("a") permit (principal, action == Action::^"materialise", resource);', "action_unknown", "materialize?"),
        ('@id("a") ^permit (principal is Asset, action, resource);', "scope_empty", ""),
        ('@id("a") ^permit (principal, action in [], resource);', "type_wrong", ""),
        (f"{PERMIT} ^when {{ context.tier }};", "type_wrong", ""),
        # Annotations
        ("^permit (principal, action, resource);", "annotation_missing", ""),
        ('@id(^"A") permit (principal, action, resource);', "id_malformed", ""),
        ("@^id permit (principal, action, resource);", "id_malformed", ""),
        (f'{BASE}@id(^"base") permit (principal, action, resource);', "id_twice", ""),
        ('@id("a") @^id("b") permit (principal, action, resource);', "annotation_twice", ""),
        ('@id("a") @^mode("refuse") permit (principal, action, resource);', "annotation_unwanted", ""),
        (f'@id("a") @mode(^"refuze") @reason("r") {ANY}', "mode_unknown", "refuse?"),
        (f'@id("a") @mode(^"execute") @reason("r") {ANY}', "mode_unknown", ""),
        (f'@id("a") @reason("r") ^{ANY}', "annotation_missing", "refuse | defer | restrict"),
        (f'@id("a") @mode("refuse") ^{ANY}', "annotation_missing", ""),
        (f'@id("a") @mode("refuse") @reason(^"Why") {ANY}', "reason_malformed", ""),
        ('@id("a") @^resaon("r") permit (principal, action, resource);', "annotation_unknown", "reason?"),
        (f'@id("a") @mode("defer") @reason("r") ^{ANY}', "annotation_missing", ""),
        (f'@id("a") @mode("defer") @reason("r") @needs(^"a(") {ANY}', "terms_malformed", ""),
        (f'@id("a") @mode("refuse") @reason("r") @^needs("a") {ANY}', "annotation_unwanted", ""),
        (f'@id("a") @mode("refuse") @reason("r") @^obliges("a") {ANY}', "annotation_unwanted", ""),
        (f'@id("a") @mode(^"restrict") @reason("r") {ANY}', "restrict_actions", ""),
        (f"{RESTRICT} ^{WHOLE}", "annotation_missing", ""),
        (f'{RESTRICT} @^obliges("a") {EACH}', "annotation_unwanted", ""),
        (f'{RESTRICT} @obliges(^"min_group_rows") {WHOLE}', "obligation_malformed", ""),
        (f'{RESTRICT} @obliges(^"min_group_rows(rows=x)") {WHOLE}', "obligation_malformed", ""),
    ],
)  # fmt: skip
def test_errors(text: str, code: str, hint: str) -> None:
    text, line, column = marked(text)
    found = [(each.line, each.column, each.code) for each in lint(text) if each.severity == "error"]
    assert found == [(line, column, code)]
    if hint:
        assert [each.hint for each in lint(text) if each.severity == "error"] == [hint]
    with pytest.raises(DecodeError, match=f"{line}:{column}: {code}: "):
        compile_rules(text)


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        (f"{FORBID} when {{ context.tier > ^3 || context.ticket }};", "comparison_constant", ""),
        (f"{FORBID} when {{ ^4 > context.tier && context.ticket }};", "comparison_constant", ""),
        (f"{FORBID} when {{ context.weight != -^1 && context.ticket }};", "comparison_constant", ""),
        (f'{FORBID} when {{ principal.kind == ^"Agent" || context.ticket }};', "comparison_constant", "agent?"),
        (f'{FORBID} when {{ resource.realm != ^"x" }};', "comparison_constant", "production | preview/name"),
        (f'{FORBID} when {{ context.approvals.contains(^"Health") || context.ticket }};', "comparison_constant", ""),
        (f'{RESTRICT} @obliges(^"min_rows")\n{WHOLE}', "obligation_unknown", "min_group_rows?"),
        (f'{FORBID} when {{ resource in DataClass::^"helth" }};', "name_unpublished", "health?"),
        (f'{FORBID} unless {{ principal in AuthorityClass::^"health/dop" }};', "name_unpublished", "health/dpo?"),
        (f'{FORBID} unless {{ context.approvals.contains(^"health/dop") }};', "name_unpublished", "health/dpo?"),
        (f'{FORBID} when {{ context.purpose == ^"survivl" }};', "name_unpublished", "survival?"),
        (f'{ON_COLUMNS} when {{ resource.column_class == ^"quasi" }};', "name_unpublished", ""),
        (f'@id("a") @mode("defer") @reason("r") @needs(^"approval(class=dpo)")\n{ANY}', "name_unpublished", ""),
    ],
)  # fmt: skip
def test_warnings(text: str, code: str, hint: str) -> None:
    text, line, column = marked(text)
    names = PolicyNames(
        authority_classes=frozenset({"health/dpo"}),
        data_classes=frozenset({"health/released"}),
        column_classes=frozenset({"quasi_identifier"}),
        purposes=frozenset({"survival"}),
    )
    found = lint(f"{text}\n{BASE}", names)
    assert [(each.line, each.column, each.code, each.severity) for each in found] == [
        (line, column, code, "warning")
    ]
    if hint:
        assert found[0].hint == hint
    compile_rules(f"{text}\n{BASE}")


@pytest.mark.parametrize(
    "condition",
    [
        "when { false }",
        "unless { true }",
        "when { context.ticket && false }",
        "when { context.tier < 0 }",
        "unless { context.tier >= 0 || context.ticket }",
        'when { principal.kind == "Agent" && context.ticket }',
        'unless { !(principal.kind == "robot") }',
        "when { if context.ticket then false else context.items == 0 }",
        "when { if false then true else false }",
        "when { true } unless { context.columns <= 1024 }",
    ],
)
def test_a_rule_that_can_never_be_satisfied(condition: str) -> None:
    assert "never_satisfied" in [each.code for each in lint(f"{BASE}{FORBID} {condition};")]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "when { true }",
        "unless { false }",
        "when { context.tier < 1 || context.weight > 2 }",
        'when { resource.realm == "preview/x" && resource.realm != "production" }',
        "when { if context.ticket then false else true }",
        'when { context.purpose == "anything" && context.approvals.contains("any/thing") }',
        "when { context.tier == context.input_tier_min }",
    ],
)
def test_a_rule_that_can_be_satisfied_is_left_alone(condition: str) -> None:
    assert lint(f"{BASE}{FORBID} {condition};") == ()


def test_a_class_without_members_stands_for_those_within_it() -> None:
    names = PolicyNames(
        authority_classes=frozenset({"health/dpo"}), data_classes=frozenset({"health/released"})
    )
    conditions = 'when { resource in DataClass::"health" } unless { principal in AuthorityClass::"health" }'
    assert lint(f"{BASE}{FORBID} {conditions};", names) == ()


def test_columns_without_a_class_may_be_spoken_of() -> None:
    rule = f'{BASE}{ON_COLUMNS} when {{ resource.column_class == "" }};'
    assert lint(rule, PolicyNames(column_classes=frozenset({"quasi_identifier"}))) == ()


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", ["include_unpermitted", "materialize_unpermitted"]),
        ('@id("m") permit (principal, action == Action::"materialize", resource);', ["include_unpermitted"]),
        ('@id("i") permit (principal, action == Action::"include", resource);', ["materialize_unpermitted"]),
        (BASE, []),
    ],
)
def test_what_nothing_permits(text: str, codes: list[str]) -> None:
    assert [each.code for each in lint(text)] == codes


def test_every_rule_is_looked_at() -> None:
    text = "permitt (principal, action, resource);\n" + BASE + '@id("c") permit (principal, action);\n'
    assert [(each.line, each.code) for each in lint(text)] == [(1, "effect_unknown"), (3, "syntax")]


def test_the_list_ends() -> None:
    assert len(lint("permit (principal, action, resource);\n" * 200)) == PROBLEMS_MAX


def test_a_problem_reads_as_one_line() -> None:
    (problem,) = lint(f"{BASE}{FORBID} when {{ context.teir < 1 }};")
    assert str(problem) == "3:78: attribute_unknown: context has no attribute `teir` (tier?)"
