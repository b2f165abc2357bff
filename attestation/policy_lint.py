"""What is wrong with a policy text, where, and what was probably meant.

Errors are those for which `compile_rules` refuses the text. Warnings are of rules that compile and say
something else than their author thinks: that can never be satisfied, or name what nobody has published.

Spec: docs/spec/policy.md section 7.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from comity.attestation.policy_diagnosis import nearest
from comity.attestation.policy_guard import PROBLEMS_MAX, LintProblem, Positions, Token
from comity.attestation.policy_places import Expression, Places, attribute, parts
from comity.attestation.policy_rules import ACTIONS, Action, Written, examine
from comity.attestation.policy_satisfaction import (
    Premises,
    constant,
    like_pattern,
    possible,
    possible_from,
)
from comity.attestation.policy_vocabulary import (
    CHOICES,
    ENTITIES,
    INTEGERS,
    KIND_OF,
    SETS,
    TEXTS,
    TIER_ATTESTED_MAX,
    Kind,
    PolicyNames,
    fits,
)

__all__ = ["LintProblem", "PolicyNames", "lint"]

_Premises: TypeAlias = Mapping[Action, Premises]

OBLIGATIONS: Final = ("min_group_rows",)
"""What this version can be obliged to. Who meets another obligation does not write at all."""


def lint(text: str, names: PolicyNames | None = None) -> tuple[LintProblem, ...]:
    """All that is wrong with the rules of a bundle and what is doubtful, in the order of place.

    Raises:
        EngineError: `policy_stack_missing`.
    """
    examined = examine(text)
    problems = list(examined.problems)
    known = _Known(names or PolicyNames())
    for written in examined.written:
        problems.extend(_Doubts(written, examined.positions, known).found())
    if not examined.problems:
        problems.extend(_unpermitted(examined.written))
        problems.extend(_columns_optional(examined.written, examined.positions, known))
    return tuple(sorted(set(problems)))[:PROBLEMS_MAX]


class _Known:
    """What is known of the requests that can be, from the least to the most."""

    def __init__(self, names: PolicyNames) -> None:
        self.names = names
        self.language: _Premises = {action: Premises(action) for action in ACTIONS}
        self.version: _Premises = {action: Premises(action, this_version=True) for action in ACTIONS}
        self.published: _Premises = {
            action: Premises(action, this_version=True, names=names) for action in ACTIONS
        }


# Of all rules together


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


def _columns_optional(
    written: Iterable[Written], positions: Positions, known: _Known
) -> Iterator[LintProblem]:
    """The first rule on columns that an output escapes by declaring none.

    Signed policy refuses that of assets whose columns it classes, and rules can speak of it. So a rule on columns is
    in doubt if it picks assets among those of the classification and one of them has no classed columns, or if
    nothing in the whole classification has.
    """
    rules = tuple(written)
    spoken = any("materialize" in each.rule.actions and "columns" in each.rule.facts for each in rules)
    assets = known.names.assets
    if assets is None or spoken:
        return
    premises = known.published["include"]
    for each in rules:
        if each.rule.actions != ("include",) or not _is_on_columns(each, rules):
            continue
        picked = [
            asset
            for asset, state in zip(assets, premises.states[1:], strict=True)
            if possible_from(state, premises, each.policy)
        ]
        bare = [asset for asset in picked if not asset.columns]
        if bare and (len(picked) < len(assets) or len(bare) == len(picked)):
            what = f"an output of `{bare[0].pattern}` that declares no columns escapes this rule on columns"
            hint = "refuse `materialize` when { context.columns == 0 }, or class the asset's columns"
            problem = positions.problem(each.statement.effect.offset, "columns_optional", what, hint)
            yield replace(problem, severity="warning")
            return


def _is_on_columns(written: Written, rules: Iterable[Written]) -> bool:
    """Whether a rule takes columns away, or gives only some of them."""
    if written.rule.effect == "forbid":
        return True
    permits = [each.rule for each in rules if each.rule.effect == "permit" and "include" in each.rule.actions]
    return bool(written.rule.attributes & {"column_class", "named"}) and not any(
        rule.unconditional for rule in permits
    )


# Of one rule


@dataclass(frozen=True, slots=True)
class _Word:
    """A text that a rule names something by, and what it names.

    Attributes:
        where: the attribute that it is compared with, or the entity type.
        kinds: what it can be the name of: one of these.
    """

    text: str
    token: Token
    where: str
    kinds: tuple[Kind, ...]


class _Doubts:
    """What is doubtful in one sound rule."""

    def __init__(self, written: Written, positions: Positions, known: _Known) -> None:
        self._written = written
        self._positions = positions
        self._known = known
        self._names = known.names
        self._places = Places(written)
        self._problems: list[LintProblem] = []

    def found(self) -> list[LintProblem]:
        self._annotations()
        self._scope()
        for condition in self._written.policy["conditions"]:
            for atom in _atoms(condition["body"]):
                if not self._words(atom):
                    self._constant(atom)
        self._satisfied()
        return self._problems

    def _warn(self, token: Token, code: str, message: str, hint: str = "") -> None:
        problem = self._positions.problem(token.offset, code, message, hint)
        self._problems.append(replace(problem, severity="warning"))

    def _satisfied(self) -> None:
        """Whether any request satisfies the rule; with the classification, unless a name is in doubt already."""
        actions, effect = self._written.rule.actions, self._written.statement.effect

        def ever(premises: _Premises) -> bool:
            return any(possible(premises[action], self._written.policy) for action in actions)

        if not ever(self._known.language):
            self._warn(effect, "never_satisfied", "no request satisfies this rule")
        elif not ever(self._known.version):
            self._warn(effect, "never_satisfied", "no request satisfies this rule in this version")
        elif all(each.code != "name_unpublished" for each in self._problems) and not ever(
            self._known.published
        ):
            self._warn(effect, "never_satisfied", "with this classification, no request satisfies this rule")

    # Names

    def _annotations(self) -> None:
        statement, effects = self._written.statement, self._written.rule.effects
        values = {each.name.text: each.value or each.name for each in statement.annotations}
        for obligation in effects.obliges:
            if obligation.code not in OBLIGATIONS:
                what = f"`{obligation.code}` is no obligation that this version can meet"
                self._warn(
                    values["obliges"], "obligation_unknown", what, nearest(obligation.code, OBLIGATIONS)
                )
        for need in effects.needs:
            name = str(need.parameters.get("class", ""))
            if need.code == "approval" and (name or self._names.authority_classes is not None):
                self._name(_Word(name, values["needs"], "class", ("authority class",)))
            at_least = need.parameters.get("at_least")
            if need.code == "tier" and isinstance(at_least, int) and at_least > TIER_ATTESTED_MAX:
                what = f"nothing meets this need: {_VERSION_LIMITS['tier']}"
                self._warn(values["needs"], "constant_in_version", what)

    def _scope(self) -> None:
        for variable in ("principal", "resource"):
            said = self._written.policy[variable]
            entities: tuple[Any, ...] = (said.get("entity"), said.get("in", {}).get("entity"))
            for entity in entities:
                if entity is not None:
                    self._name(_entity_word(entity, self._places.of_scope(entity["id"])))

    def _words(self, atom: Expression) -> bool:
        """Warn of the names in an atom. Whether one of them makes it constant."""
        found = [self._name(word) for word in self._words_of(atom)]
        return any([*found, *(self._like(part) for part in parts(atom) if "like" in part)])

    def _words_of(self, atom: Expression) -> Iterator[_Word]:
        for part in parts(atom):
            value: Any = part.get("Value")
            if "Value" in part and not isinstance(value, str | int):
                yield _entity_word(value["__entity"], self._places.of(part))
            ((operator, below),) = part.items()
            if operator in _COMPARED:
                sides = (below["left"], below["right"])
                for one, other in (sides, sides[::-1]):
                    attributes = sorted(_attributes(one))
                    kinds: tuple[Kind, ...] = tuple(dict.fromkeys(KIND_OF[name] for name in attributes))
                    for literal in _literals(other) if attributes else ():
                        yield _Word(literal["Value"], self._places.of(literal), attributes[0], kinds)

    def _name(self, word: _Word) -> bool:
        """Warn of a name that nothing has. Whether nothing can have it at all."""
        text, kinds = word.text, word.kinds
        if any(fits(kind, text) and self._names.has(kind, text) for kind in kinds):
            return False
        hint = next((hint for kind in kinds if (hint := self._names.nearest(kind, text))), "")
        if not any(fits(kind, text) for kind in kinds):
            if word.where in (*ENTITIES, "class"):
                self._warn(word.token, "name_unpublished", f"nothing can be called `{text}`", hint)
                return True
            verb = "contains" if word.where in SETS else "is"
            self._warn(word.token, "comparison_constant", f"`{word.where}` never {verb} `{text}`", hint)
            return True
        self._warn(word.token, "name_unpublished", f"nothing is called `{text}`", hint)
        return False

    def _like(self, part: Expression) -> bool:
        name, pattern = attribute(part["like"]["left"]), like_pattern(part)
        token, text = self._places.of(part), "".join("*" if c is None else c for c in pattern)
        if None not in pattern:
            what = "`like` without `*` is a comparison with the whole text"
            self._warn(token, "like_without_wildcard", what, f'== "{text}" or like "{text}*"')
        if name not in TEXTS:
            return False
        if None not in pattern:
            return self._name(_Word(text, token, name, (TEXTS[name],)))
        if constant(self._known.language["include"], part) is not False and not self._names.has_like(
            TEXTS[name], pattern
        ):
            hint = self._names.nearest(TEXTS[name], text)
            self._warn(token, "name_unpublished", f"nothing is called like `{text}`", hint)
        return False

    # Conditions that have the same value for every request

    def _constant(self, atom: Expression) -> None:
        for premises, code in (
            (self._known.language, "comparison_constant"),
            (self._known.version, "constant_in_version"),
        ):
            values = {constant(premises[action], atom) for action in self._written.rule.actions}
            if len(values) != 1 or None in values:
                continue
            (value,) = values
            said = f"{_said(atom)} {'always' if value else 'never'} holds"
            limits = self._limits(atom, this_version=premises is self._known.version)
            self._warn(self._places.of(atom), code, f"{said}: {limits}" if limits else said)
            return

    def _limits(self, atom: Expression, *, this_version: bool) -> str:
        """Why an atom is constant, by the attributes in it."""
        names = {attribute(part) for part in parts(atom)} - {""}
        if this_version:
            return "; ".join(_VERSION_LIMITS[name] for name in sorted(names & _VERSION_LIMITS.keys()))
        if names == {"member", "writer"}:
            return "the writer of an output is the organization of who asks"
        if names == {"columns"} and self._written.rule.actions == ("include",):
            return "include is asked of declared columns only, so there is one at least"
        if len(names) != 1:
            return ""
        (name,) = names
        if name in INTEGERS:
            return f"`{name}` is {INTEGERS[name][0]} to {INTEGERS[name][1]}"
        return f"`{name}` is {' or '.join(CHOICES[name])}" if name in CHOICES else ""


_VERSION_LIMITS: Final[Mapping[str, str]] = {
    "fresh": "in this version no evidence is fresh",
    "input_tier_min": "this version attests tier 0 and 1 only, and 3 stands for no inputs",
    "tier": "this version attests tier 0 and 1 only",
}
_COMPARED: Final = frozenset({"==", "!=", "contains", "containsAll", "containsAny"})


def _entity_word(entity: Mapping[str, str], token: Token) -> _Word:
    kind = ENTITIES[entity["type"]]
    return _Word(entity["id"], token, entity["type"], (kind,))


def _atoms(expression: Expression) -> Iterator[Expression]:
    """The parts of a condition that `&&`, `||`, `!` and `if` connect, but for literals and tests of types."""
    waiting = [expression]
    # In a loop: a chain of operators is nested as deep as it is long.
    while waiting:
        part = waiting.pop()
        ((operator, below),) = part.items()
        if operator in ("&&", "||"):
            waiting += [below["left"], below["right"]]
        elif operator == "!":
            waiting.append(below["arg"])
        elif operator == "if-then-else":
            waiting += [below["if"], below["then"], below["else"]]
        elif operator != "Value" and (operator != "is" or "in" in below):
            yield part


def _spread(expression: Expression) -> Iterator[Expression]:
    """What a value can come from: itself, the members of a set, the branches of an `if`."""
    waiting = [expression]
    while waiting:
        part = waiting.pop()
        if "Set" in part:
            waiting += part["Set"]
        elif "if-then-else" in part:
            waiting += [part["if-then-else"]["then"], part["if-then-else"]["else"]]
        else:
            yield part


def _attributes(expression: Expression) -> set[str]:
    return {attribute(part) for part in _spread(expression)} & KIND_OF.keys()


def _literals(expression: Expression) -> Iterator[Expression]:
    return (part for part in _spread(expression) if isinstance(part.get("Value"), str))


def _said(atom: Expression) -> str:
    """A comparison as it is written where it is one of an attribute with a number; else in words."""
    ((operator, below),) = atom.items()
    if operator == ".":
        return f"`{below['attr']}`"
    if operator not in ("==", "!=", "<", "<=", ">", ">="):
        return "this"
    sides = [attribute(side) or _literal(side.get("Value")) for side in (below["left"], below["right"])]
    return f"`{sides[0]} {operator} {sides[1]}`" if all(sides) else "this"


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | int) else ""
