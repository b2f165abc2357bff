"""Words that nobody has, rules that never fire, and texts of which there is nothing to say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from comity.attestation.policy_lint import PolicyNames, lint
from comity.attestation.policy_rules import compile_rules
from comity.node.governance_files import (
    POLICY_TEMPLATE,
    RULES_TEMPLATE,
    TAXONOMY_TEMPLATE,
    read_policy,
    read_taxonomy,
)
from comity.protocol.governance import AssetRule, ColumnClass, Epoch, Policy, Purpose
from comity.protocol.records import decode_body
from command_line import comity
from policy_worlds import BASE
from world import NORTH, RULES, World, policy_body, taxonomy_body

ROOT = Path(__file__).resolve().parents[2]
WRITE = (
    '@id("x") @mode("refuse") @reason("r")\nforbid (principal, action == Action::"materialize", resource{}) '
)
HEAD = WRITE.format("")
COLUMNS = HEAD.replace("materialize", "include")
NEVER, UNKNOWN = "never_satisfied", "name_unpublished"


@pytest.fixture(scope="module")
def names() -> PolicyNames:
    """All that can be known of a bundle: taxonomy, classification and epoch."""
    world = World()
    epoch = decode_body(world.genesis)
    assert isinstance(epoch, Epoch)
    return PolicyNames.of(world.policy, world.taxonomy, epoch)


def marked(text: str) -> tuple[str, int, int]:
    """A text, and the line and column at which it was marked with a caret."""
    before, _, after = text.partition("^")
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


def told(text: str, names: PolicyNames | None) -> list[tuple[int, int, str, str]]:
    found = lint(f"{text}\n{BASE}", names)
    assert all(problem.severity == "warning" for problem in found)
    compile_rules(f"{text}\n{BASE}")
    return [(problem.line, problem.column, problem.code, problem.hint) for problem in found]


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        # Either side of every operator
        (f'{HEAD}when {{ ^"car" == context.purpose }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ context.purpose != ^"car" }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ ["care", ^"car"].contains(context.purpose) }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ context.purpose == (if context.solo then "care" else ^"car") }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ context.input_purposes.contains(^"car") }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ context["input_purposes"].containsAny(["care", ^"car"]) }};', UNKNOWN, "care?"),
        (f'{HEAD}when {{ context.input_classes.containsAll([^"helth"]) }};', UNKNOWN, "health?"),
        (f'{HEAD}when {{ ["health", ^"helth"].containsAny(context.input_classes) }};', UNKNOWN, "health?"),
        (f'{HEAD}when {{ ["health", ^"helth"].containsAll(context.input_classes) }};', UNKNOWN, "health?"),
        (f'{HEAD}when {{ context.approvals == ["agent", ^"agnt"] }};', UNKNOWN, "agent?"),
        (f'{HEAD}when {{ context.input_owners.contains(^"clinic-nort.example") }};', UNKNOWN, f"{NORTH}?"),
        (f'{HEAD}when {{ principal.member == ^"clinic-nort.example" }};', UNKNOWN, f"{NORTH}?"),
        (f'{HEAD}when {{ [^"institut.example"].contains(resource.writer) }};', UNKNOWN, "institute.example?"),
        (f'{COLUMNS}when {{ [^"quasi_identifer"].contains(resource.column_class) }};', UNKNOWN, "quasi_identifier?"),
        (f'{HEAD}when {{ resource in [DataClass::"health", DataClass::^"helth"] }};', UNKNOWN, "health?"),
        (f'{HEAD}when {{ resource is Asset in DataClass::^"helth" }};', UNKNOWN, "health?"),
        # Whole ids
        (f'{WRITE.format(f" == Asset::^{chr(34)}{NORTH}/realeased{chr(34)}")};', UNKNOWN, f"{NORTH}/released?"),
        (f'{HEAD}when {{ resource.name == ^"{NORTH}/realeased" }};', UNKNOWN, f"{NORTH}/released?"),
        (f'{HEAD}when {{ resource == Asset::^"clinic-nort.example/released" }};', UNKNOWN, f"{NORTH}/released?"),
        (f'{HEAD}when {{ principal == Subject::^"spiffe://clinic-nort.example/operator/1" }};', UNKNOWN,
         f"spiffe://{NORTH}/operator/1?"),
        (f'{HEAD}when {{ context.code_authors.contains(^"spiffe://nowhere/agent") }};', UNKNOWN, ""),
        # Patterns
        (f'{HEAD}when {{ resource.name like ^"*:*" || context.solo }};', "comparison_constant", ""),
        (f'{HEAD}when {{ context.purpose like ^"survivl*" }};', UNKNOWN, "survival_study?"),
        (f'{HEAD}when {{ context.purpose like ^"care" }};', "like_without_wildcard", '== "care" or like "care*"'),
        # Needs
        (f'@id("x") @mode("defer") @reason("r") @needs(^"tier(at_least=2)")\n{HEAD.partition(chr(10))[2]};',
         "constant_in_version", ""),
    ],
)  # fmt: skip
def test_words_that_nobody_has(text: str, code: str, hint: str, names: PolicyNames) -> None:
    text, line, column = marked(text)
    found = [each for each in told(text, names) if each[2] != NEVER]
    assert [each[:3] for each in found] == [(line, column, code)]
    if hint:
        assert found[0][3] == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f'{HEAD}when {{ resource.name == ^"released" }};', "clinic-north.example/released?"),
        (f'{HEAD}when {{ principal.delegators.contains(^"operator/7f3a") }};', "a SPIFFE id, "),
        (f'{HEAD}when {{ [^"Production"].contains(resource.realm) }};', "production?"),
        (f'{HEAD}when {{ context.approvals.containsAny([^"Agent"]) }};', "agent?"),
    ],
)
def test_words_that_nobody_can_have(text: str, hint: str, names: PolicyNames) -> None:
    text, line, column = marked(text)
    found = [each for each in told(text, names) if each[2] != NEVER]
    assert [each[:3] for each in found] == [(line, column, "comparison_constant")]
    assert found[0][3].startswith(hint)


def test_a_whole_id_is_asked_for_where_nothing_is_known() -> None:
    for text in (
        f'{HEAD}when {{ resource.name == "released" }};',
        WRITE.format(' == Asset::"released"') + ";",
    ):
        found = [each for each in lint(f"{text}\n{BASE}") if each.code != NEVER]
        assert len(found) == 1
        assert (
            found[0].hint == "the whole id: its writer's domain, then its path, as in clinic.example/released"
        )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"{HEAD}when {{ context.tier >= ^2 }};", "constant_in_version"),
        (f"{HEAD}unless {{ context.tier < ^2 }};", "constant_in_version"),
        (f"{HEAD}unless {{ !context.^fresh }};", "constant_in_version"),
        (f"{HEAD}when {{ context.input_tier_min == ^2 }};", "constant_in_version"),
        (f"{HEAD}when {{ principal.^member != resource.writer }};", "comparison_constant"),
        (f"{COLUMNS}when {{ resource.asset.writer != principal.member }};", "comparison_constant"),
        (f"{COLUMNS}when {{ context.columns == ^0 }};", "comparison_constant"),
        (f"{HEAD}when {{ context.tier + ^1 > 4 }};", "comparison_constant"),
        (f'{HEAD}when {{ ^"a" == "b" }};', "comparison_constant"),
        (f"{HEAD}when {{ !(principal == principal) }};", "comparison_constant"),
    ],
)
def test_conditions_that_are_the_same_for_every_request(text: str, code: str) -> None:
    text, line, column = marked(text) if "^" in text else (text, 0, 0)
    found = told(text, None)
    assert {each[2] for each in found} == {code, NEVER}
    if line:
        assert (line, column, code) in [each[:3] for each in found]


@pytest.mark.parametrize(
    "condition",
    [
        "unless { context.fresh }",
        "when { context.tier < 2 }",
        "when { principal.member == resource.writer }",
    ],
)
def test_a_condition_that_always_holds_is_told_of_a_rule_that_fires(condition: str) -> None:
    assert {each[2] for each in told(f"{HEAD}{condition};", None)} <= {
        "constant_in_version",
        "comparison_constant",
    }
    assert told(f"{HEAD}{condition};", None)


@pytest.mark.parametrize(
    "condition",
    [
        "when { context.weight > 500000 && context.weight < 400000 }",
        "when { context.items > 2 && (context.solo || context.items >= 3) && !(context.items > 1) }",
        "when { context.items > 2 } unless { context.items != 1 }",
        "when { context.weight == 5 && context.weight != 5 }",
        "when { 7 < context.items && 7 >= context.items }",
        "when { context.input_tier_min == 3 && context.input_tier_min < context.tier }",
        'when { context.purpose == "care" && context.purpose == "study" }',
        'when { ["care", "study"].contains(context.purpose) && context.purpose like "b*" }',
        "when { context.ticket && !context.ticket }",
        "unless { context.ticket || !context.ticket }",
        'when { context.approvals.contains("dpo") && context.approvals.isEmpty() }',
        'when { context.approvals.contains("a/b") && !context.approvals.contains("a") }',
        'when { context.approvals == ["a/b"] }',
        'when { context.approvals.containsAny(["a", "b"]) && context.approvals.isEmpty() }',
        'when { resource.realm like "preview*" && resource.realm == "production" }',
        'when { resource.realm like "test*" }',
        'when { resource in DataClass::"a/b" } unless { resource in DataClass::"a" }',
        'when { principal in AuthorityClass::"a" && !(principal in AuthorityClass::"a") }',
        'when { ["a", "b"].containsAll(context.input_classes) && context.input_classes.contains("c") }',
        "when { context.columns + context.items > 0 && !(context.columns + context.items > 0) }",
    ],
)
def test_contradictions(condition: str) -> None:
    found = told(f"{HEAD}{condition};", None)
    assert NEVER in [each[2] for each in found]
    assert (2, 1) in [each[:2] for each in found if each[2] == NEVER]


def test_what_is_too_long_to_walk_counts_as_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = f"{HEAD}when {{ context.ticket && !context.ticket }};"
    monkeypatch.setattr("comity.attestation.policy_satisfaction.STEPS_MAX", 2)
    assert told(rule, None) == []
    monkeypatch.undo()
    assert [each[2] for each in told(rule, None)] == [NEVER]


def test_a_scope_contradicts_a_condition() -> None:
    text = WRITE.format(' in DataClass::"a/b"') + 'unless { resource in DataClass::"a" };'
    assert [each[2] for each in told(text, None)] == [NEVER]


@pytest.mark.parametrize(
    "condition",
    [
        "when { context.weight > 400000 && context.weight < 500000 }",
        "when { context.weight > 500000 || context.weight < 400000 }",
        'when { context.approvals.contains("a") && !context.approvals.contains("a/b") }',
        'when { context.purpose == "care" || context.purpose == "study" }',
        "when { (context.items == 1 || context.items == 2) && (context.items == 2 || context.items == 3) }",
        "when { context.items != 3 && context.items < 3 && context.items > 1 }",
        "when { context.columns - context.items > 5 }",
        "when { context.weight * -1 < -5 }",
        'when { !context.approvals.containsAll(["a", "b"]) && context.approvals.contains("a") }',
        'when { context.approvals.containsAny(["a", "b"]) && !context.approvals.contains("a") }',
        'when { resource.realm like "preview/*" }',
        'when { resource.name like "*/released" }',
        "when { if context.ticket then context.solo else !context.solo }",
        "when { context.input_tier_min == 3 || context.columns == 0 }",
        'when { context.input_owners.contains(resource.writer) } unless { ["a.b"].containsAll(context.input_owners) }',
        "when { resource is Asset }",
    ],
)
def test_what_can_be_meant_is_left_alone(condition: str) -> None:
    assert told(f"{HEAD}{condition};", None) == []


@pytest.mark.parametrize(
    ("text", "satisfiable"),
    [
        # Nothing that is pooled has columns of a class; nothing of that name is pooled; health has no parent.
        ('include", resource in DataClass::"pooled") when { resource.column_class == "plain" }', False),
        ('include", resource in DataClass::"released") when { resource.column_class == "plain" }', True),
        (
            f'materialize", resource == Asset::"{NORTH}/patients") when {{ resource in DataClass::"pooled" }}',
            False,
        ),
        (
            f'materialize", resource in DataClass::"pooled") when {{ resource.name == "{NORTH}/released" }}',
            False,
        ),
        ('materialize", resource in DataClass::"pooled") when { resource.name like "*/patients" }', True),
        ('materialize", resource in DataClass::"pooled") when { resource.name like "*/pooled" }', True),
        (
            # An asset that no rule classes has the classes of its inputs.
            'materialize", resource in DataClass::"health") when { resource in DataClass::"forbidden" }',
            True,
        ),
    ],
)
def test_a_rule_that_the_classification_never_lets_fire(
    text: str, *, satisfiable: bool, names: PolicyNames
) -> None:
    rule = f'@id("x") @mode("refuse") @reason("r")\nforbid (principal, action == Action::"{text};'
    found = lint(f"{rule}\n{BASE}", names)
    patterns = {each.code for each in found}
    if satisfiable:
        assert patterns == set()
    else:
        assert patterns == {NEVER}
        assert "classification" in found[0].message
    assert lint(f"{rule}\n{BASE}") == ()


def test_the_first_rule_that_matches_an_asset_classes_it() -> None:
    names = columns_policy(AssetRule("*/raw", "pooled"), AssetRule("*/**", "released"))
    text = HEAD + f'when {{ resource.name == "{NORTH}/{{}}" && resource in DataClass::"released" }};\n{BASE}'
    assert [each.code for each in lint(text.replace("{}", "raw"), names)] == [NEVER]
    assert lint(text.replace("{}", "raw2"), names) == ()


def columns_policy(*assets: AssetRule) -> PolicyNames:
    return PolicyNames.of(
        Policy(
            salt=bytes(16),
            language="cedar-4",
            rules="",
            assets=assets,
            purposes=(Purpose("care", ("time",)),),
        )
    )


LISTED = AssetRule(
    "*/released", "released", columns=(ColumnClass("time", "plain"), ColumnClass("age", "quasi"))
)
BARE = AssetRule("*/pooled", "pooled")
NAMED_ONLY = (
    '@id("a") permit (principal, action == Action::"materialize", resource) {};\n'
    '@id("b") permit (principal, action == Action::"include", resource) when {{ resource.named }};'
)
NEEDLESS = (
    '@id("x") @mode("restrict") @reason("r")\n'
    'forbid (principal, action == Action::"include", resource{}) unless {{ resource.named }};\n'
)


@pytest.mark.parametrize(
    ("rules", "assets", "escapes"),
    [
        (BASE + NEEDLESS.format(""), (BARE,), "*/pooled"),
        (BASE + NEEDLESS.format(' in DataClass::"pooled"'), (LISTED, BARE), "*/pooled"),
        (BASE + NEEDLESS.format(' in DataClass::"released"'), (LISTED, BARE), ""),
        (BASE + NEEDLESS.format(""), (LISTED, BARE), ""),
        (BASE + COLUMNS + 'when { resource.column_class == "quasi" };', (LISTED, BARE), ""),
        (
            BASE + NEEDLESS.format("") + HEAD.replace('"x"', '"y"') + "when { context.columns == 0 };",
            (BARE,),
            "",
        ),
        (
            NAMED_ONLY.format("when { context.columns > 0 }"),
            (BARE,),
            "",
        ),
        (
            NAMED_ONLY.format(""),
            (BARE,),
            "*/pooled",
        ),
        (BASE, (BARE,), ""),
    ],
)
def test_column_rules_that_an_output_without_declared_columns_escapes(
    rules: str, assets: Sequence[AssetRule], escapes: str
) -> None:
    found = [each for each in lint(rules, columns_policy(*assets)) if each.code == "columns_optional"]
    assert [escapes in each.message for each in found] == ([True] if escapes else [])
    assert [each for each in lint(rules) if each.code == "columns_optional"] == []


# Texts of which there is nothing to say


def examples_of_the_pages() -> dict[str, str]:
    found: dict[str, str] = {}
    for page in sorted((ROOT / "docs" / "spec").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)):
            if block.startswith("@id("):
                found[f"{page.stem}-{number}"] = block
        for number, quoted in enumerate(re.findall(r'rules: "((?:[^"\\]|\\.)*)"', text)):
            found[f"{page.stem}-rules-{number}"] = quoted.replace('\\"', '"').replace("\\n", "\n")
    return found


EXAMPLES = examples_of_the_pages()


@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_nothing_is_wrong_with_the_examples_of_the_pages(example: str) -> None:
    assert lint(EXAMPLES[example]) == ()


def test_there_are_examples_on_the_pages() -> None:
    assert {name.partition("-")[0] for name in EXAMPLES} >= {"policy", "governance"}


def test_nothing_is_wrong_with_the_templates(tmp_path: Path) -> None:
    for name, text in (
        ("taxonomy.toml", TAXONOMY_TEMPLATE),
        ("policy.toml", POLICY_TEMPLATE),
        ("policy.cedar", RULES_TEMPLATE),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert lint(RULES_TEMPLATE) == ()
    assert site_problems(tmp_path) == ()


def test_nothing_is_wrong_with_the_policy_of_the_demo() -> None:
    assert site_problems(ROOT / "scripts" / "demo_main" / "site") == ()


def site_problems(site: Path) -> tuple[object, ...]:
    policy = read_policy(site / "policy.toml").policy
    return lint(policy.rules, PolicyNames.of(policy, read_taxonomy(site / "taxonomy.toml")))


def test_nothing_is_wrong_with_the_rules_of_the_tests(names: PolicyNames) -> None:
    assert lint(RULES) == ()
    assert lint(RULES, PolicyNames.of(policy_body(), taxonomy_body())) == ()
    assert lint(RULES, names) == ()


def test_what_other_policies_of_the_epoch_publish_is_known() -> None:
    rule = HEAD + 'when { context.input_classes.contains("imaging") };\n' + BASE
    other = policy_body(assets=(AssetRule("*/scans", "imaging"),))
    assert [each.code for each in lint(rule, PolicyNames.of(policy_body()))] == [UNKNOWN]
    assert lint(rule, PolicyNames.of(policy_body(), others=(other,))) == ()


def test_a_pattern_that_no_classed_asset_matches() -> None:
    text, line, column = marked(f'{HEAD}when {{ resource.name like ^"*/Released" }};\n{BASE}')
    (found,) = lint(text, columns_policy(LISTED, BARE))
    assert (found.line, found.column, found.code, found.hint) == (line, column, UNKNOWN, "*/released?")
    assert lint(text.replace("Released", "released"), columns_policy(LISTED, BARE)) == ()


@pytest.mark.parametrize(("tier", "said"), [(1, {}), (2, {"warnings": 2, "errors": 0})])
def test_warnings_fail_the_command_only_where_it_is_strict(
    tmp_path: Path, tier: int, said: dict[str, int]
) -> None:
    rules = tmp_path / "policy.cedar"
    rules.write_text(f"{BASE}{HEAD}when {{ context.tier >= {tier} }};\n", encoding="utf-8")
    relaxed = comity("policy", "lint", rules, "--json").json
    assert said.items() <= relaxed.items()
    assert comity("policy", "lint", rules, "--strict", "--json", status=int(bool(said))).json == relaxed


def test_the_command_knows_the_classification(tmp_path: Path) -> None:
    for name, text in (("policy.toml", POLICY_TEMPLATE), ("policy.cedar", RULES_TEMPLATE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    comity("policy", "lint", tmp_path / "policy.toml", "--strict")
    with (tmp_path / "policy.cedar").open("a", encoding="utf-8") as rules:
        rules.write(HEAD + 'when { resource.name == "clinic.example/realeased" };')
    problems = comity("policy", "lint", tmp_path / "policy.toml", "--strict", "--json", status=1).json[
        "problems"
    ]
    assert [(p["code"], p["hint"]) for p in problems] == [(UNKNOWN, "clinic.example/released?")]
