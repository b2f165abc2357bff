"""Policy rules: from the text of a bundle to what the engine evaluates, or to what is wrong and where.

A rule is a Cedar policy with annotations. Everything that a text may say is checked here, once, against a
vocabulary that belongs to the engine, so that evaluation meets no surprise.

Spec: docs/spec/policy.md sections 2 to 5.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal, TypeAlias

import cedarpy

from comity.attestation.policy_annotations import Annotations, Effects
from comity.attestation.policy_diagnosis import parse, syntax_problem, type_problems
from comity.attestation.policy_guard import (
    PROBLEMS_MAX,
    EngineError,
    LintProblem,
    Positions,
    Statement,
    engine_call,
    on_deep_stack,
    read_statements,
)
from comity.protocol.errors import DecodeError

_cedarpy: Any = cedarpy
"""Some of its annotations are dicts of nobody knows what, which a strict check refuses."""

Action: TypeAlias = Literal["materialize", "include"]
Effect: TypeAlias = Literal["permit", "forbid"]

ACTIONS: Final[tuple[Action, ...]] = ("materialize", "include")

REPORTED_MAX: Final = 20
"""Problems that the text of one `DecodeError` lists."""
COMPILED_MAX: Final = 64
"""Compiled texts that are kept: bundles and owner policies of the epochs in use."""

# The part of Cedar's expressions that rules may use, by the names of Cedar's JSON policy format.
_OPERANDS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "&&", "||", "+", "-", "*", "in"), ("left", "right")),
    **dict.fromkeys(("contains", "containsAll", "containsAny"), ("left", "right")),
    **dict.fromkeys(("!", "neg", "isEmpty"), ("arg",)),
    **dict.fromkeys(("is", "like"), ("left", "in")),
    "if-then-else": ("if", "then", "else"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a bundle.

    Attributes:
        actions: those whose evaluation it takes part in, by its scope.
        effects: what it does to the outcome when it is satisfied.
        unconditional: every request of its actions satisfies it.
        facts: the attributes of the context that its conditions read.
        attributes: the attributes of entities that its conditions read.
        policy: its text as a `permit` (see `Slice`).
    """

    id: str
    effect: Effect
    actions: tuple[Action, ...]
    effects: Effects
    unconditional: bool
    facts: frozenset[str]
    attributes: frozenset[str]
    policy: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """The rules that take part in the evaluation of one action, ready for the engine.

    The engine holds each of them as a `permit`, so that one evaluation names every rule that is satisfied:
    beside a satisfied `forbid` it would keep silent on whether any `permit` is. What the satisfied rules
    amount to is computed in `policy_engine`.

    Attributes:
        rules: by the position that the engine knows them by.
        policies: None where nothing has to be evaluated: no rule, or unconditional permits only.
        facts: the attributes of the context that some rule reads; the engine is given no others.
    """

    rules: tuple[Rule, ...]
    policies: cedarpy.PolicySet | None = field(repr=False, compare=False)
    facts: frozenset[str]


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """The rules of one bundle.

    Attributes:
        digest: SHA-256 of the text.
        attributes: the attributes of entities that some rule reads; the engine is given no others.
    """

    digest: bytes
    rules: tuple[Rule, ...] = field(repr=False)
    attributes: frozenset[str] = field(repr=False)
    materialize: Slice = field(repr=False)
    include: Slice = field(repr=False)


@dataclass(frozen=True, slots=True)
class Written:
    """A sound rule with the place where it is written, and as Cedar's JSON policy format has it.

    Attributes:
        entities: type and name of every entity that it names.
    """

    rule: Rule
    statement: Statement
    entities: tuple[tuple[str, str], ...]
    policy: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a text says, as far as it could be read, and all that is wrong with it."""

    written: tuple[Written, ...]
    problems: tuple[LintProblem, ...]
    positions: Positions = field(repr=False)


def compile_rules(text: str) -> CompiledRules:
    """Compile the rules of a bundle. Results are kept: compiling the same text again costs one look-up.

    Raises:
        DecodeError: the text is no sound bundle; the message lists the problems with line and column.
        EngineError: `policy_stack_missing`.
    """
    compiled = _compile(text)
    if isinstance(compiled, CompiledRules):
        return compiled
    listed = "; ".join(str(problem) for problem in compiled[:REPORTED_MAX])
    more = f"; and {len(compiled) - REPORTED_MAX} more" if len(compiled) > REPORTED_MAX else ""
    raise DecodeError(f"policy rules: {listed}{more}")


@functools.lru_cache(maxsize=COMPILED_MAX)
def _compile(text: str) -> CompiledRules | tuple[LintProblem, ...]:
    """Compile, or say why not: a text that failed is kept as failed, so that trying again costs nothing."""
    examined = examine(text)
    if examined.problems:
        return examined.problems
    rules = tuple(written.rule for written in examined.written)
    try:
        materialize, include = on_deep_stack(lambda: (_slice(rules, "materialize"), _slice(rules, "include")))
    except EngineError as exc:
        return (_engine_problem(exc),)
    digest = hashlib.sha256(text.encode()).digest()
    return CompiledRules(
        digest=digest,
        rules=rules,
        attributes=frozenset[str]().union(*(rule.attributes for rule in rules)),
        materialize=materialize,
        include=include,
    )


def _engine_problem(error: EngineError) -> LintProblem:
    """The engine failed on a text that passed every check: so it is no text to be judged by."""
    if error.code == "policy_stack_missing":
        raise error
    return LintProblem(1, 1, "engine_failed", error.detail)


def _slice(rules: tuple[Rule, ...], action: Action) -> Slice:
    own = tuple(rule for rule in rules if action in rule.actions)
    policies: cedarpy.PolicySet | None = None
    if not all(rule.effect == "permit" and rule.unconditional for rule in own):
        text = "\n".join(rule.policy for rule in own)
        policies = engine_call(lambda: cedarpy.PolicySet.from_str(text))
        if len(policies) != len(own):
            raise EngineError("policy_engine_failed", f"{len(policies)} policies of {len(own)} rules")
    facts = frozenset[str]().union(*(rule.facts for rule in own))
    return Slice(rules=own, policies=policies, facts=facts)


def schema_text() -> str:
    """The vocabulary in Cedar's schema syntax."""
    return resources.files("comity.attestation").joinpath("policy.cedarschema").read_text("utf-8")


@functools.cache
def _schema() -> cedarpy.Schema:
    return engine_call(lambda: cedarpy.Schema.from_str(schema_text()))


def examine(text: str) -> Examined:
    """Read a text and say all that is wrong with it, in the order of place.

    Raises:
        EngineError: `policy_stack_missing`.
    """
    read = read_statements(text)
    if not read.statements:
        return Examined((), read.problems, read.positions)
    written, found = on_deep_stack(lambda: _examine(read.statements, read.positions))
    problems = tuple(sorted({*read.problems, *found})[:PROBLEMS_MAX])
    return Examined(written, problems, read.positions)


def _examine(
    statements: tuple[Statement, ...], positions: Positions
) -> tuple[tuple[Written, ...], list[LintProblem]]:
    written: list[Written] = []
    problems: list[LintProblem] = []
    ids: set[str] = set()
    for statement in statements:
        try:
            examination = _Examination(statement)
            # Whatever else a text can do to its reader is told of the text, too.
            rule = engine_call(functools.partial(examination.rule, ids))
        except EngineError as exc:
            problems.append(_engine_problem(exc))
            continue
        problems.extend(
            positions.problem(token.offset, code, message, hint)
            for token, code, message, hint in examination.problems
        )
        if rule is not None and not examination.problems:
            written.append(rule)
        if len(problems) >= PROBLEMS_MAX:
            break
    return tuple(written), problems


class _Examination:
    """One look at one rule. Runs on the deep stack."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self.problems: list[tuple[Any, str, str, str]] = []

    def rule(self, ids: set[str]) -> Written | None:
        """The rule, if no problem was found; its id joins those that are taken."""
        statement = self._statement
        parsed = engine_call(lambda: parse(statement.text))
        if isinstance(parsed, str):
            self.problems.append(syntax_problem(statement, parsed))
            return None
        if parsed["templates"]:
            self.problems.append((statement.effect, "template_unsupported", "a rule has no slots", ""))
            return None
        (policy,) = parsed["staticPolicies"].values()
        checked = engine_call(lambda: _cedarpy.validate_policies(statement.text, _schema()))
        self.problems.extend(type_problems(statement, [error.error for error in checked.errors]))
        if not checked.validation_passed and not checked.errors:
            self.problems.append((statement.effect, "type_wrong", "does not fit the vocabulary", ""))
        reading = Reading()
        reading.of(policy)
        for code, word in reading.unsupported:
            token = statement.find(word) or statement.effect
            self.problems.append((token, code, _UNSUPPORTED[code].format(word), ""))
        given = {name: value or "" for name, value in policy.get("annotations", {}).items()}
        actions = _actions(policy["action"])
        annotations = Annotations(statement, given, actions)
        rule = Rule(
            id=annotations.id(ids),
            effect=policy["effect"],
            actions=actions,
            effects=annotations.effects(policy["effect"]),
            unconditional=_is_unconditional(policy),
            facts=frozenset(reading.facts),
            attributes=frozenset(reading.attributes),
            policy=_as_permit(statement),
        )
        self.problems.extend(annotations.problems)
        return Written(rule, statement, tuple(reading.entities), policy)


def _as_permit(statement: Statement) -> str:
    start = statement.effect.offset - statement.tokens[0].offset
    return f"{statement.text[:start]}permit{statement.text[start + len(statement.effect.text) :]}"


def _actions(scope: dict[str, Any]) -> tuple[Action, ...]:
    if scope["op"] == "All":
        return ACTIONS
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    named = {entity["id"] for entity in entities if entity["type"] == "Action"}
    return tuple(action for action in ACTIONS if action in named)


def _is_unconditional(policy: dict[str, Any]) -> bool:
    """Whether a rule narrows nothing. `is` alone does not: each action has one type of either."""
    scopes = (policy["principal"], policy["resource"])
    return not policy["conditions"] and all(s["op"] in ("All", "is") and "in" not in s for s in scopes)


_UNSUPPORTED: Final = {
    "column_named": "columns are known by their facts only, so no rule can name one",
    "context_whole": "rules read the attributes of the context, not the context itself",
    "operator_unsupported": "`{}` is no part of the language of rules",
}


class Reading:
    """What the scope and the conditions of one rule read, and what in them is outside of the language."""

    def __init__(self) -> None:
        self.facts: set[str] = set()
        self.attributes: set[str] = set()
        self.entities: list[tuple[str, str]] = []
        self.unsupported: list[tuple[str, str]] = []

    def of(self, policy: dict[str, Any]) -> None:
        """Read a rule in Cedar's JSON policy format."""
        for scope in (policy["principal"], policy["action"], policy["resource"]):
            inner = scope.get("in", {})
            for entity in (scope.get("entity"), *scope.get("entities", ()), inner.get("entity")):
                if entity is not None:
                    self._entity(entity)
        expressions: list[dict[str, Any]] = [condition["body"] for condition in policy["conditions"]]
        # In a loop: a chain of operators is nested as deep as it is long.
        while expressions:
            ((operator, operands),) = expressions.pop().items()
            expressions.extend(self._operands(operator, operands))

    def _entity(self, entity: dict[str, Any]) -> None:
        self.entities.append((entity["type"], entity["id"]))
        if entity["type"] == "Column":
            self.unsupported.append(("column_named", "Column"))

    def _operands(self, operator: str, operands: Any) -> Iterable[dict[str, Any]]:
        """Look at one expression. Returns those below it."""
        if operator == "Value":
            if isinstance(operands, bool | int | str):
                return ()
            if "__entity" in operands:
                self._entity(operands["__entity"])
            else:
                self.unsupported.append(("operator_unsupported", "a value of this kind"))
            return ()
        if operator == "Var":
            if operands == "context":
                self.unsupported.append(("context_whole", "context"))
            return ()
        if operator == ".":
            if operands["left"] == {"Var": "context"}:
                self.facts.add(operands["attr"])
                return ()
            self.attributes.add(operands["attr"])
            return (operands["left"],)
        if operator == "Set":
            return tuple(operands)
        if operator in _OPERANDS:
            return tuple(operands[name] for name in _OPERANDS[operator] if name in operands)
        self.unsupported.append(("operator_unsupported", operator))
        return ()
