"""What holds of the lint for every text: it does not raise, and what it calls impossible the engine never does."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.attestation.policy_engine import ColumnFacts, PolicyFault, PolicyRequest, evaluate
from comity.attestation.policy_lint import PolicyNames, lint
from comity.attestation.policy_places import Places, parts
from comity.attestation.policy_rules import Action, compile_rules, examine
from comity.attestation.policy_satisfaction import Premises, constant, possible
from comity.attestation.policy_vocabulary import glob, meets
from comity.protocol.governance import AssetRule, ColumnClass
from comity.protocol.identifiers import pattern_matches
from policy_worlds import BASE, FORBIDS, PERMITS, any_request, numbered

MEMBERS = ("clinic.example", "other.example", "third.example")
CLASSES = ("health", "health/steward", "health/dpo", "research", "region-eu/care")
RELEASED = AssetRule(
    "*/released",
    "health/steward",
    columns=(ColumnClass("c0", "quasi_identifier"), ColumnClass("c1", "plain")),
)
NAMES = PolicyNames(
    authority_classes=frozenset(CLASSES),
    data_classes=frozenset(CLASSES),
    column_classes=frozenset({"quasi_identifier", "plain"}),
    purposes=frozenset({"survival", "audit"}),
    assets=(RELEASED,),
    patterns=frozenset({RELEASED.pattern}),
    members=frozenset(MEMBERS),
    namespaces=frozenset(MEMBERS),
)


def quoted(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f'"{text}"' for text in texts])


def listed(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(texts, min_size=1, max_size=3).map(lambda found: f"[{', '.join(found)}]")


WORDS = {
    "member": quoted(*MEMBERS, "Clinic"),
    "class": quoted(*CLASSES, "helth", "health/"),
    "purpose": quoted("survival", "audit", "care"),
    "kind": quoted("person", "agent", "automation", "robot"),
    "realm": quoted("production", "preview/x", "preview"),
    "name": quoted(*(f"{member}/released" for member in MEMBERS), "other.example/pooled", "released"),
    "column class": quoted("", "quasi_identifier", "plain", "quasi"),
    "person": quoted(*(f"spiffe://{member}/operator/1" for member in MEMBERS), "operator/1"),
    "like": quoted("*", "clinic*", "*/released", "*/Released", "production", "preview*", "a*t", "*e*l*"),
}
SETS = {
    "context.approvals": "class",
    "context.input_classes": "class",
    "context.input_owners": "member",
    "context.input_purposes": "purpose",
    "context.code_authors": "person",
    "principal.delegators": "person",
}
TEXTS = {"principal.member": "member", "principal.kind": "kind", "context.purpose": "purpose"}
ASSET_TEXTS = {"writer": "member", "realm": "realm", "name": "name"}
NUMBERS = ("context.tier", "context.input_tier_min", "context.items", "context.columns", "principal.depth")


@st.composite
def atoms(draw: st.DrawFn, action: Action) -> list[st.SearchStrategy[str]]:
    """Comparisons of a few attributes only, so that a condition of several of them says much of one."""
    asset = "resource" if action == "materialize" else "resource.asset"
    texts = TEXTS | {f"{asset}.{name}": word for name, word in ASSET_TEXTS.items()}
    truths = ["context.fresh", "context.ticket", "true", "false"]
    if action == "include":
        texts["resource.column_class"] = "column class"
        truths.append("resource.named")
    text = draw(st.sampled_from(sorted(texts)))
    many = draw(st.sampled_from(sorted(SETS)))
    numbers = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=2))
    word, element, classes = WORDS[texts[text]], WORDS[SETS[many]], WORDS["class"]
    number = st.one_of(
        st.integers(-1, 4).map(str),
        st.sampled_from(numbers),
        st.sampled_from(numbers),
        st.tuples(
            st.sampled_from(numbers), st.sampled_from("+-*"), st.sampled_from((*numbers, "-1", "2"))
        ).map(lambda sides: f"({sides[0]} {sides[1]} {sides[2]})"),
    )
    compare = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))
    equal = st.sampled_from(("==", "!="))
    each = st.sampled_from(("containsAll", "containsAny"))
    themes = (
        [st.tuples(number, compare, number).map(" ".join)],
        [
            st.tuples(equal, word).map(lambda d: f"{text} {d[0]} {d[1]}"),
            st.tuples(equal, word).map(lambda d: f"{d[1]} {d[0]} {text}"),
            WORDS["like"].map(lambda pattern: f"{text} like {pattern}"),
            listed(word).map(lambda words: f"{words}.contains({text})"),
            st.just(f"principal.member == {asset}.writer"),
        ],
        [
            element.map(lambda literal: f"{many}.contains({literal})"),
            st.tuples(each, listed(element)).map(lambda d: f"{many}.{d[0]}({d[1]})"),
            st.tuples(each, listed(element)).map(lambda d: f"{d[1]}.{d[0]}({many})"),
            listed(element).map(lambda words: f"{many} == {words}"),
            st.just(f"{many}.isEmpty()"),
        ],
        [classes.map(lambda name: f"principal in AuthorityClass::{name}")],
        [
            classes.map(lambda name: f"resource in DataClass::{name}"),
            st.tuples(classes, classes).map(lambda d: f"resource in [DataClass::{d[0]}, DataClass::{d[1]}]"),
            WORDS["name"].map(lambda name: f"resource in Asset::{name}"),
            WORDS["name"].map(lambda name: f"{asset} == Asset::{name}"),
        ],
    )
    return [st.sampled_from(truths), *draw(st.sampled_from(themes)), *draw(st.sampled_from(themes))]


@st.composite
def conditions(draw: st.DrawFn, action: Action) -> str:
    chosen: str = draw(
        st.recursive(
            st.one_of(*draw(atoms(action))),
            lambda inner: st.one_of(
                st.tuples(inner, inner).map(lambda d: f"({d[0]} && {d[1]})"),
                st.tuples(inner, inner).map(lambda d: f"({d[0]} || {d[1]})"),
                inner.map(lambda one: f"!({one})"),
                st.tuples(inner, inner, inner).map(lambda d: f"(if {d[0]} then {d[1]} else {d[2]})"),
            ),
            max_leaves=6,
        )
    )
    return chosen


def of_this_version(request: PolicyRequest) -> PolicyRequest:
    context = request.context
    least = context.input_tier_min if context.input_tier_min != 2 else 3
    return replace(
        request, context=replace(context, tier=context.tier % 2, fresh=False, input_tier_min=least)
    )


def classed(request: PolicyRequest) -> PolicyRequest:
    """A request as a bundle with the classification above makes it."""
    if not pattern_matches(RELEASED.pattern, request.asset):
        columns = tuple(ColumnFacts(column.name, "", named=column.named) for column in request.columns)
        return replace(request, columns=columns)
    classes = {column.name: column.column_class for column in RELEASED.columns}
    columns = tuple(
        ColumnFacts(column.name, classes.get(column.name, ""), named=column.named)
        for column in request.columns
    )
    return replace(request, data_classes=(RELEASED.data_class,), columns=columns)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_what_the_engine_finds_satisfied_is_never_called_impossible(data: st.DataObject) -> None:
    action: Action = data.draw(st.sampled_from(("materialize", "include")))
    kind, condition = data.draw(st.sampled_from(("when", "unless"))), data.draw(conditions(action))
    rule = (
        '@id("x") @mode("refuse") @reason("r")\n'
        f'forbid (principal, action == Action::"{action}", resource) {kind} {{ {condition} }};'
    )
    examined = examine(rule)
    assert examined.problems == ()
    (written,) = examined.written
    body = written.policy["conditions"][0]["body"]
    for seed in range(10):
        request = any_request(random.Random(data.draw(st.integers(0, 10_000), label=f"seed {seed}")))
        request = classed(of_this_version(replace(request, writer=request.member)))
        said = evaluate(compile_rules(BASE + rule), request)
        if isinstance(said, PolicyFault) or (action == "include" and not request.columns):
            continue
        satisfied = "x" in {cause.rule for cause in said.causes}
        for names in (PolicyNames(), NAMES):
            for this_version in (False, True):
                premises = Premises(action, this_version, names)
                assert possible(premises, written.policy) or not satisfied
                value = constant(premises, body)
                if value is not None:
                    assert satisfied is (value == (kind == "when"))


PIECES = (
    *('permit (principal, action == Action::"include", resource)', "forbid (principal, action, resource)"),
    *('@id("a")', '@mode("refuse")', '@reason("r")', '@needs("approval(class=)")', '@obliges("x")'),
    *(
        "when {",
        "unless {",
        "}",
        ";",
        "(",
        ")",
        "[",
        "]",
        "&&",
        "||",
        "!",
        "if",
        "then",
        "else",
        ".",
        ",",
        "-",
    ),
    *("==", "!=", "<", "in", "is", "like", "context", "principal", "resource", "Asset", 'DataClass::"x"'),
    *(
        ".contains",
        ".containsAny",
        ".isEmpty",
        ".tier",
        ".purpose",
        '["approvals"]',
        ".column_class",
        ".asset",
    ),
    *(
        '"a*\\u{0}"',
        '"\\*"',
        '""',
        "1",
        "9223372036854775807",
        "true",
        "\ud800",
        "\x00",
        "\u202e",
        "\n",
        "//",
        "é",
    ),
)


@given(
    st.one_of(
        st.text(max_size=80),
        st.text(st.characters(codec=None), max_size=20),
        st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join),
        st.tuples(st.sampled_from(FORBIDS), st.integers(0, 200), st.sampled_from(PIECES)).map(
            lambda d: f"@id('x') {d[0]}"[: d[1]] + d[2] + d[0][d[1] :]
        ),
        st.tuples(
            st.sampled_from((*FORBIDS, *PERMITS)), st.sampled_from(PIECES), st.sampled_from(PIECES)
        ).map(lambda d: f'@id("x") {d[0]}'.replace(d[1], d[2])),
    )
)
@settings(max_examples=250, deadline=None)
def test_no_text_makes_the_lint_raise(text: str) -> None:
    assert lint(text) == lint(text)
    lint(text, NAMES)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_sound_rule_makes_the_lint_raise(data: st.DataObject) -> None:
    action: Action = data.draw(st.sampled_from(("materialize", "include")))
    rules = [
        f'permit (principal, action == Action::"{action}", resource) when {{ {condition} }};'
        for condition in data.draw(st.lists(conditions(action), min_size=1, max_size=3))
    ]
    for names in (None, NAMES):
        assert all(problem.severity == "warning" for problem in lint(numbered(*rules), names))


def test_the_deepest_and_longest_rules_are_walked() -> None:
    shapes = (
        "(" * 14 + "context.ticket" + ")" * 14,
        "!!!!(" * 12 + "context.ticket" + ")" * 12,
        "1" + " + context.tier - 1" * 60 + " > 0",
        "(" + "1" + " + context.tier * 1" * 60 + ' == 3) || context.purpose == "x"',
        "if context.ticket then true else " * 30 + "context.solo",
        "(if context.ticket then true else " * 12 + "false" + ")" * 12,
        "context.ticket" + " && context.solo || context.ticket" * 45,
        "(context.ticket || context.solo && " * 14 + "true" + ")" * 14,
        "if " * 30 + "context.ticket" + " then context.solo else context.ticket" * 30,
        # Each `if` is looked at twice: without a bound, a million times here.
        "if " * 20 + "context.items * 2 == 1" + " then context.items * 2 > 6 else context.items * 2 > 8" * 20,
    )
    for shape in shapes:
        text = f'{BASE}@id("x") permit (principal, action, resource) when {{ {shape} }};'
        compile_rules(text)
        lint(text, NAMES)


def test_every_literal_and_attribute_has_its_place() -> None:
    texts = [
        *(f'@id("x") {each}' for each in (*FORBIDS, *PERMITS)),
        (
            '@id("x") permit (principal in AuthorityClass::"a", action in [Action::"include"], resource)\n'
            'when { context["purpose"] == "a\\"b" && -context.tier < -1 && [1, 2].contains(context.tier + 3) }\n'
            'unless { resource.asset is Asset in DataClass::"a" || ["x", "y"].containsAny(context["approvals"]) };'
        ),
    ]
    for text in texts:
        (written,) = examine(text).written
        places = Places(written)
        for condition in written.policy["conditions"]:
            for part in parts(condition["body"]):
                value = part.get("Value")
                if isinstance(value, str) or type(value) is int:
                    said = places.of(part).text.strip('"').replace('\\"', '"')
                    assert said == str(value).lstrip("-")
                elif "." in part:
                    assert places.of(part).text.strip('"') == part["."]["attr"]


@given(st.text("ab*", max_size=8), st.text("ab*", max_size=8), st.text("ab", max_size=6))
def test_patterns_that_one_text_matches_meet(one: str, other: str, text: str) -> None:
    literal = tuple(text)
    assert meets(glob(one), glob(other)) == meets(glob(other), glob(one))
    if meets(glob(one), literal) and meets(glob(other), literal):
        assert meets(glob(one), glob(other))
    assert meets(glob(text), literal)
