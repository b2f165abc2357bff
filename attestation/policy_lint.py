"""What is wrong with a policy text, where, and what was probably meant.

Errors are those for which `compile_rules` refuses the text. Warnings are of rules that compile and say
something else than their author thinks: that can never be satisfied, or name what nobody has published.

Spec: docs/spec/policy.md section 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from comity.attestation.policy_diagnosis import nearest
from comity.attestation.policy_engine import classes_above
from comity.attestation.policy_guard import PROBLEMS_MAX, LintProblem, Positions, Token
from comity.attestation.policy_rules import ACTIONS, Written, examine
from comity.protocol.limits import CHAIN_MAX, COLUMNS_MAX, INT_MAX, INT_MIN, ITEMS_MAX

__all__ = ["LintProblem", "PolicyNames", "lint"]

Expression: TypeAlias = dict[str, Any]

OBLIGATIONS: Final = ("min_group_rows",)
"""What this version can be obliged to. Who meets another obligation does not write at all."""

_PPM: Final = 1_000_000
_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "columns": (0, COLUMNS_MAX),
    "depth": (0, CHAIN_MAX),
    "input_tier_min": (0, 3),
    "input_weight_min": (0, _PPM),
    "items": (1, ITEMS_MAX),
    "tier": (0, 3),
    "weight": (0, _PPM),
}
"""Least and greatest value of each integer of the vocabulary."""

_CLASS: Final = r"[a-z0-9][a-z0-9._/-]*"
_TEXTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "approvals": (_CLASS, ()),
    "column_class": (r"|[a-z][a-z0-9_]{0,63}", ()),
    "input_classes": (_CLASS, ()),
    "input_owners": (r"[a-z0-9][a-z0-9.-]*", ()),
    "input_purposes": (r"[a-z][a-z0-9_]{0,63}", ()),
    "kind": (r"person|agent|automation", ("person", "agent", "automation")),
    "member": (r"[a-z0-9][a-z0-9.-]*", ()),
    "purpose": (r"[a-z][a-z0-9_]{0,63}", ()),
    "realm": (r"production|preview/[a-z0-9][a-z0-9._-]*", ("production", "preview/name")),
    "writer": (r"[a-z0-9][a-z0-9.-]*", ()),
}
"""What each text of the vocabulary can look like, and what it may be where that is a short list."""


@dataclass(frozen=True, slots=True)
class PolicyNames:
    """Names that are published, for finding those that are not. None where they are not known.

    Attributes:
        authority_classes: those of the taxonomy.
        data_classes: those that the bundle's classification gives.
        column_classes: likewise.
        purposes: those that the bundle knows.
    """

    authority_classes: frozenset[str] | None = None
    data_classes: frozenset[str] | None = None
    column_classes: frozenset[str] | None = None
    purposes: frozenset[str] | None = None

    def of_attribute(self, attribute: str) -> frozenset[str] | None:
        """The names that an attribute of the vocabulary can have."""
        if attribute == "approvals":
            return _with_above(self.authority_classes)
        if attribute == "input_classes":
            return _with_above(self.data_classes)
        if attribute == "column_class":
            return None if self.column_classes is None else self.column_classes | {""}
        return self.purposes if attribute in ("purpose", "input_purposes") else None

    def of_entity(self, kind: str) -> frozenset[str] | None:
        """The names that an entity type can have."""
        if kind == "AuthorityClass":
            return _with_above(self.authority_classes)
        return _with_above(self.data_classes) if kind == "DataClass" else None


def _with_above(names: frozenset[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(classes_above(names, {}))


def lint(text: str, names: PolicyNames | None = None) -> tuple[LintProblem, ...]:
    """All that is wrong with the rules of a bundle and what is doubtful, in the order of place.

    Raises:
        EngineError: `policy_stack_missing`.
    """
    examined = examine(text)
    problems = list(examined.problems)
    known = names or PolicyNames()
    for written in examined.written:
        problems.extend(_Doubts(written, examined.positions, known).found())
    if not examined.problems:
        problems.extend(_unpermitted(examined.written))
    return tuple(sorted(set(problems)))[:PROBLEMS_MAX]


def _unpermitted(written: Iterable[Written]) -> Iterator[LintProblem]:
    permitted = {action for each in written if each.rule.effect == "permit" for action in each.rule.actions}
    for action in ACTIONS:
        if action not in permitted:
            what = {
                "materialize": "no rule permits materialize, so everything is refused",
                "include": "no rule permits include, so every table with declared columns is refused",
            }[action]
            yield LintProblem(
                1, 1, f"{action}_unpermitted", what, "warning", "permit (principal, action, resource);"
            )


class _Doubts:
    """What is doubtful in one sound rule."""

    def __init__(self, written: Written, positions: Positions, names: PolicyNames) -> None:
        self._written = written
        self._positions = positions
        self._names = names
        self._problems: list[LintProblem] = []

    def found(self) -> list[LintProblem]:
        policy = self._written.policy
        self._entities()
        self._effects()
        satisfied: list[bool | None] = []
        for condition in policy["conditions"]:
            value = self._value(condition["body"])
            satisfied.append(value if condition["kind"] == "when" or value is None else not value)
        if False in satisfied:
            self._warn(self._written.statement.effect, "never_satisfied", "no request satisfies this rule")
        return self._problems

    def _warn(self, token: Token, code: str, message: str, hint: str = "") -> None:
        problem = self._positions.problem(token.offset, code, message, hint)
        self._problems.append(replace(problem, severity="warning"))

    # Names

    def _effects(self) -> None:
        statement, effects = self._written.statement, self._written.rule.effects
        values = {each.name.text: each.value or each.name for each in statement.annotations}
        for obligation in effects.obliges:
            if obligation.code not in OBLIGATIONS:
                what = f"`{obligation.code}` is no obligation that this version can meet"
                self._warn(
                    values["obliges"], "obligation_unknown", what, nearest(obligation.code, OBLIGATIONS)
                )
        for need in effects.needs:
            if need.code == "approval":
                self._name(
                    values["needs"], self._names.of_attribute("approvals"), need.parameters.get("class", "")
                )

    def _entities(self) -> None:
        for kind, name in self._written.entities:
            token = self._written.statement.find_string(name) or self._written.statement.effect
            self._name(token, self._names.of_entity(kind), name)

    def _name(self, token: Token, known: frozenset[str] | None, name: object) -> None:
        if known is not None and name not in known:
            self._warn(token, "name_unpublished", f"nothing is called `{name}`", nearest(str(name), known))

    # Conditions that have the same value for every request

    def _value(self, expression: Expression) -> bool | None:
        """The value of a condition if it is the same for every request."""
        ((operator, operands),) = expression.items()
        if operator == "Value":
            return operands if isinstance(operands, bool) else None
        if operator in ("&&", "||"):
            parts = [self._value(part) for part in _chain(operator, expression)]
            decisive = operator == "||"
            if decisive in parts:
                return decisive
            return None if None in parts else not decisive
        if operator == "!":
            value = self._value(operands["arg"])
            return None if value is None else not value
        if operator == "if-then-else":
            branches = (
                self._value(operands["if"]),
                self._value(operands["then"]),
                self._value(operands["else"]),
            )
            if branches[0] is None:
                return branches[1] if branches[1] == branches[2] else None
            return branches[1] if branches[0] else branches[2]
        if operator in _COMPARISONS:
            return self._comparison(operator, operands["left"], operands["right"])
        if operator == "contains":
            return self._text(_attribute(operands["left"]), operands["right"], "contains")
        return None

    def _comparison(self, operator: str, left: Expression, right: Expression) -> bool | None:
        if "Value" in left:
            left, right, operator = right, left, _TURNED.get(operator, operator)
        attribute, literal = _attribute(left), right.get("Value")
        if isinstance(literal, str) and operator in ("==", "!="):
            value = self._text(attribute, right, operator)
            return value if operator == "==" or value is None else not value
        if attribute not in _INTEGERS or type(literal) is not int:
            return None
        least, most = _INTEGERS[attribute]
        value = _interval(operator, least, most, literal)
        if value is not None:
            always = "always" if value else "never"
            what = f"`{attribute} {operator} {literal}` {always} holds: it is {least} to {most}"
            self._warn(self._token(attribute, str(abs(literal))), "comparison_constant", what)
        return value

    def _text(self, attribute: str, literal: Expression, operator: str) -> bool | None:
        """False where an attribute can never have, or contain, a text; else None."""
        text = literal.get("Value")
        if attribute not in _TEXTS or not isinstance(text, str):
            return None
        token = self._token(attribute, f'"{text}"')
        pattern, choice = _TEXTS[attribute]
        if re.fullmatch(pattern, text) is None:
            verb = "contains" if operator == "contains" else "is"
            hint = nearest(text, choice) or " | ".join(choice)
            self._warn(token, "comparison_constant", f"`{attribute}` never {verb} `{text}`", hint)
            return False
        self._name(token, self._names.of_attribute(attribute), text)
        return None

    def _token(self, attribute: str, literal: str) -> Token:
        """The literal that stands next to an attribute; where that is not found, the attribute."""
        tokens = self._written.statement.tokens
        uses = [i for i, token in enumerate(tokens) if token.text in (attribute, f'"{attribute}"')]
        for use in uses:
            near = [*tokens[use + 1 : use + 6], *reversed(tokens[max(0, use - 5) : use])]
            found = next((token for token in near if token.text == literal), None)
            if found is not None:
                return found
        return tokens[uses[0]] if uses else self._written.statement.effect


_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_TURNED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _interval(operator: str, least: int, most: int, literal: int) -> bool | None:
    """What comparing every integer of an interval with a literal gives, if it is always the same."""
    if not INT_MIN <= literal <= INT_MAX:
        return None
    if operator in ("==", "!="):
        outside = not least <= literal <= most
        return (operator == "!=") if outside else None
    ends = {_COMPARISONS[operator](least, literal), _COMPARISONS[operator](most, literal)}
    return ends.pop() if len(ends) == 1 else None


def _chain(operator: str, expression: Expression) -> list[Expression]:
    """The operands of a chain such as `a && b && c`, which is nested as deep as it is long."""
    operands: list[Expression] = []
    while operator in expression:
        operands.append(expression[operator]["right"])
        expression = expression[operator]["left"]
    return [expression, *reversed(operands)]


def _attribute(expression: Expression) -> str:
    """The name of the attribute that an expression reads. No two things have attributes of one name."""
    return expression["."]["attr"] if "." in expression else ""
