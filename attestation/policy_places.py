"""Where in its text each part of a rule's conditions stands.

Cedar's JSON policy format has no places. But it keeps the order, and it keeps every literal: so the n-th literal
or attribute of the one is the n-th of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from comity.attestation.policy_guard import Statement, Token
from comity.attestation.policy_rules import Written

Expression: TypeAlias = dict[str, Any]

_ORDER: Final = ("left", "arg", "if", "then", "else", "right", "in")


def operands(expression: Expression) -> tuple[Expression, ...]:
    """The expressions directly below one, in the order in which they are written."""
    ((operator, below),) = expression.items()
    if operator == "Set":
        return tuple(below)
    if operator in ("Value", "Var"):
        return ()
    return tuple(below[name] for name in _ORDER if name in below)


def parts(expression: Expression) -> Iterator[Expression]:
    """An expression and all below it, in the order in which they are written; an attribute after its owner."""
    waiting: list[tuple[Expression, bool]] = [(expression, False)]
    # In a loop: a chain of operators is nested as deep as it is long.
    while waiting:
        part, met = waiting.pop()
        if met or not (below := operands(part)):
            yield part
            continue
        waiting.append((part, True))
        waiting.extend((each, False) for each in reversed(below))


class Places:
    """The tokens of one rule, by what they say."""

    def __init__(self, written: Written) -> None:
        self.effect = written.statement.effect
        scope, conditions = _halves(written.statement)
        self._scope = [token for token in scope if token.text.startswith('"')]
        bodies = [condition["body"] for condition in written.policy["conditions"]]
        written_parts = [part for body in bodies for part in parts(body) if _is_written(part)]
        leaves = [
            token
            for before, token, after in zip(
                ("", *(t.text for t in conditions)),
                conditions,
                (*(t.text for t in conditions[1:]), ""),
                strict=False,
            )
            if _is_leaf(before, token.text, after)
        ]
        # Where the two do not go together, the place is that of the rule: better none than a wrong one.
        same = len(leaves) == len(written_parts)
        self._by_part: Mapping[int, Token] = (
            {id(part): token for part, token in zip(written_parts, leaves, strict=True)} if same else {}
        )

    def of(self, expression: Expression) -> Token:
        """Where an expression stands: itself, else its first number or text, its first attribute, the rule."""
        if id(expression) in self._by_part:
            return self._by_part[id(expression)]
        found = [part for part in parts(expression) if id(part) in self._by_part]
        literal = next((part for part in found if "." not in part), None)
        chosen = literal or next(iter(found), None)
        return self.effect if chosen is None else self._by_part[id(chosen)]

    def of_scope(self, name: str) -> Token:
        """Where the scope names an entity."""
        return next((token for token in self._scope if token.text == f'"{name}"'), self.effect)


def _halves(statement: Statement) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """The scope, and what follows it."""
    start = statement.tokens.index(statement.effect)
    depth = 0
    for index, token in enumerate(statement.tokens[start:], start=start):
        depth += (token.text == "(") - (token.text == ")")
        if token.text == ")" and depth == 0:
            return statement.tokens[start : index + 1], statement.tokens[index + 1 :]
    return statement.tokens[start:], ()


def _is_written(part: Expression) -> bool:
    """Whether a part is one token that can be told from the others."""
    return "." in part or "like" in part or ("Value" in part and type(part["Value"]) is not bool)


def _is_leaf(before: str, token: str, after: str) -> bool:
    named = before == "." and after != "("
    return token.startswith('"') or token.isdigit() or named


def chain(operator: str, expression: Expression) -> list[Expression]:
    """The operands of a chain such as `a && b && c`, which is nested as deep as it is long."""
    found: list[Expression] = []
    while operator in expression:
        found.append(expression[operator]["right"])
        expression = expression[operator]["left"]
    return [expression, *reversed(found)]


def attribute(expression: Expression) -> str:
    """The name of the attribute that an expression reads, else nothing. No two things have one of a name."""
    name: str = expression["."]["attr"] if "." in expression else ""
    return name
