"""From text to rules: what compiles, into what, and what is refused."""

from __future__ import annotations

import hashlib
import re

import pytest

from comity.attestation.policy_annotations import TERMS_MAX, parse_terms
from comity.attestation.policy_diagnosis import ATTRIBUTES, ENTITY_TYPES
from comity.attestation.policy_rules import REPORTED_MAX, compile_rules, schema_text
from comity.protocol.errors import DecodeError
from comity.protocol.limits import INT_MAX, INT_MIN
from comity.protocol.outcome import Mode, Need, Obligation
from policy_worlds import BASE

RULES = """
@id("base")  permit (principal, action, resource);
@id("dpo")   @mode("defer") @reason("dpo_missing") @needs("approval(class=health/dpo)")
forbid (principal, action == Action::"materialize", resource in DataClass::"health")
unless { context.approvals.contains("health/dpo") };
@id("small") @mode("restrict") @reason("small_groups") @obliges("min_group_rows(rows=5)")
forbid (principal, action == Action::"materialize", resource);
@id("quasi") @mode("restrict") @reason("quasi_identifier")
forbid (principal, action in [Action::"include"], resource) when { !resource.named };
"""


def test_rules_compile() -> None:
    compiled = compile_rules(RULES)
    base, dpo, small, quasi = compiled.rules
    assert compiled.digest == hashlib.sha256(RULES.encode()).digest()
    assert [rule.id for rule in compiled.rules] == ["base", "dpo", "small", "quasi"]
    assert (base.effect, base.actions, base.unconditional) == ("permit", ("materialize", "include"), True)
    assert (dpo.effects.mode, dpo.effects.reason) == (Mode.DEFER, "dpo_missing")
    assert dpo.effects.needs == (Need(code="approval", parameters={"class": "health/dpo"}),)
    assert dpo.facts == {"approvals"}
    assert dpo.actions == ("materialize",)
    assert small.effects.obliges == (Obligation(code="min_group_rows", parameters={"rows": 5}),)
    assert quasi.actions == ("include",)
    assert quasi.attributes == {"named"}
    assert compiled.attributes == {"named"}


def test_each_action_has_the_rules_of_its_scope() -> None:
    compiled = compile_rules(RULES)
    assert [rule.id for rule in compiled.materialize.rules] == ["base", "dpo", "small"]
    assert [rule.id for rule in compiled.include.rules] == ["base", "quasi"]


def test_what_needs_no_evaluation_is_not_evaluated() -> None:
    compiled = compile_rules(RULES.partition('@id("quasi")')[0])
    assert compiled.include.policies is None
    assert compiled.materialize.policies is not None
    assert compile_rules("").materialize.policies is None


def test_the_same_text_is_compiled_once() -> None:
    assert compile_rules(RULES) is compile_rules(RULES)


def test_all_problems_are_told_up_to_a_bound() -> None:
    with pytest.raises(DecodeError) as caught:
        compile_rules("permit (principal, action, resource);\n" * (REPORTED_MAX + 3))
    said = str(caught.value)
    assert said.startswith("policy rules: 1:1: annotation_missing: ")
    assert said.count("annotation_missing") == REPORTED_MAX
    assert said.endswith("; and 3 more")


def test_an_effect_in_a_string_or_comment_stays_what_it_is() -> None:
    rule = (
        '@id("a") @reason("forbid_it") @mode("refuse") // forbid\n'
        'forbid (principal, action, resource) when { context.purpose == "forbid" };'
    )
    (compiled,) = compile_rules(rule).rules
    assert compiled.effect == "forbid"
    assert compiled.policy == rule.replace("\nforbid (", "\npermit (")


# Vocabulary


def test_hints_know_the_attributes_of_the_schema() -> None:
    text = re.sub(r"//.*", "", schema_text())
    declared = {
        name: tuple(sorted(re.findall(r"(\w+):", body)))
        for name, body in re.findall(r"(?:entity|type) (\w+)[^{;]*\{([^}]*)\}", text)
    }
    declared["context"] = declared.pop("Facts")
    assert declared == ATTRIBUTES
    assert {*re.findall(r"entity (\w+)", text), "Action"} == set(ENTITY_TYPES)


def test_no_two_things_have_attributes_of_one_name() -> None:
    names = [name for attributes in ATTRIBUTES.values() for name in attributes]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "condition",
    [
        'principal.depth > 0 && principal.kind != "agent"',
        "context.weight + context.input_weight_min * 2 - 1 >= 0",
        'context["tier"] == 1',
        "if context.fresh then context.ticket else context.solo",
        'context.approvals.containsAny(["a", "b"]) || context.approvals.isEmpty()',
        'resource.name like "*.example/*"',
        'resource is Asset && principal is Subject in AuthorityClass::"health"',
        'principal in [AuthorityClass::"a", AuthorityClass::"b"]',
        "-1 < -(-context.items)",
    ],
)  # fmt: skip
def test_the_language_of_rules(condition: str) -> None:
    rule = f'permit (principal, action == Action::"materialize", resource) when {{ {condition} }};'
    compile_rules(f'@id("a") {rule}')


# Terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("tier", (("tier", {}),)),
        ("approval(class=health/dpo)", (("approval", {"class": "health/dpo"}),)),
        (" a ( z = 1 , b = x ) ; c ", (("a", {"b": "x", "z": 1}), ("c", {}))),
        ("a(n=0,m=-5)", (("a", {"n": 0, "m": -5}),)),
        (
            "a(n=-0,m=007,o=1.5,p=0x1,q=+1)",
            (("a", {"n": "-0", "m": "007", "o": "1.5", "p": "0x1", "q": "+1"}),),
        ),
        (f"a(n={INT_MAX},m={INT_MIN})", (("a", {"n": INT_MAX, "m": INT_MIN}),)),
    ],
)
def test_terms(text: str, terms: object) -> None:
    assert parse_terms(text) == terms


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "a;",
        "A",
        "1a",
        "a b",
        "a()",
        "a(b)",
        "a(=1)",
        "a(b=)",
        "a(b=1,)",
        "a(b=1)c",
        "a(b=1",
        "a(b=c=d)",
        "a(b=c d)",
        "a(b=é)",
        "a(b=1,b=2)",
        "a;a",
        "a(b=1);a(b=1)",
        "a\tb",
        f"a(n={INT_MAX + 1})",
        f"a(n={INT_MIN - 1})",
        "a(n=" + "9" * 255 + ")",
        "a(n=" + "x" * 256 + ")",
        "a" * 65,
        ";".join(f"a{n}" for n in range(TERMS_MAX + 1)),
        "a(" + ",".join(f"p{n}=1" for n in range(TERMS_MAX + 1)) + ")",
    ],
)
def test_what_is_no_term(text: str) -> None:
    with pytest.raises(DecodeError):
        parse_terms(text)


def test_values_of_annotations_are_unescaped_before_they_are_read() -> None:
    (rule, _) = compile_rules(
        '@id("\\u{61}") @mode("refuse") @reason("r\\u{5f}1") forbid (principal, action, resource);' + BASE
    ).rules
    assert (rule.id, rule.effects.reason) == ("a", "r_1")
