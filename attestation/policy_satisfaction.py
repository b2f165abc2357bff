"""Whether any request satisfies a condition.

A condition is walked with what is left of every attribute; where nothing is left of one, no request satisfies it. The
walk may call a condition satisfiable that is not, and never the other way round: what it does not understand, it
takes for possible.

Spec: docs/spec/policy.md section 7.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, TypeAlias

from comity.attestation.policy_domains import Domain, Many, Text, Truth, Whole
from comity.attestation.policy_places import Expression, attribute, chain
from comity.attestation.policy_rules import Action
from comity.attestation.policy_vocabulary import (
    INTEGERS,
    SETS,
    TEXTS,
    TIER_ATTESTED_MAX,
    TIER_WITHOUT_INPUTS,
    Glob,
    PolicyNames,
    glob,
    shapes,
    with_above,
)
from comity.protocol.governance import AssetRule
from comity.protocol.limits import COLUMNS_MAX

State: TypeAlias = Mapping[str, Domain]
"""What is left of every attribute, by its name, and of the memberships below."""

STEPS_MAX: Final = 5_000
"""Parts of one rule that are walked. A rule has at most 400 tokens; only nested `if` comes near this, and what
is beyond counts as possible."""

_Narrow: TypeAlias = Callable[[Domain], Domain | None]
_CLASSES: Final = {"AuthorityClass": "principal in", "DataClass": "resource in"}
_TRUTHS: Final = ("fresh", "input_marked", "named", "reversible", "solo", "ticket")


@dataclass(frozen=True)
class Premises:
    """What is taken for granted of a request.

    Attributes:
        this_version: that no more can be than this version does: no evidence is fresh, no tier above 1.
        names: what is published. Only the names that are no other bundle's to give bound anything.
    """

    action: Action
    this_version: bool = False
    names: PolicyNames = PolicyNames()  # noqa: RUF009  # frozen

    @cached_property
    def states(self) -> tuple[State, ...]:
        """Where walks begin: one state for all assets that no rule of the classification matches, one for each rule."""
        rules = self.names.assets
        if rules is None:
            return (self._common,)
        return (self._unclassed(rules), *(self._classed(rules, index) for index in range(len(rules))))

    def _classed(self, rules: tuple[AssetRule, ...], index: int) -> State:
        """The assets of one rule: those that no earlier one matches."""
        rule, earlier = rules[index], tuple(each.pattern for each in rules[:index])
        classes = with_above((rule.data_class,))
        column_classes = frozenset({"", *(column.column_class for column in rule.columns)})
        return {
            **self._common,
            "column_class": Text("column class", only=column_classes),
            "name": Text("asset", shapes=(glob(rule.pattern),), outside=earlier),
            "resource in": Many("data class", has=classes, within=classes),
        }

    @cached_property
    def _common(self) -> dict[str, Domain]:
        state: dict[str, Domain] = {name: Whole((bounds,)) for name, bounds in INTEGERS.items()}
        state.update({name: Truth() for name in _TRUTHS})
        state.update({name: Text(kind, shapes=shapes(kind)) for name, kind in TEXTS.items()})
        state.update({name: Many(kind) for name, kind in SETS.items()})
        state["subject"] = Text("subject", shapes=shapes("subject"))
        state["kind"] = Text("kind", only=frozenset({"person", "agent", "automation"}))
        state["member"] = Text("organization", only=self.names.members)
        state["principal in"] = Many("authority class", within=self.names.known("authority class"))
        state["approvals"] = Many("authority class", within=self.names.known("authority class"))
        state["resource in"] = Many("data class")
        if self.action == "include":
            # It is asked once for each group of columns: there is one at least.
            state["columns"] = Whole(((1, COLUMNS_MAX),))
        if self.this_version:
            state["fresh"] = Truth(frozenset({False}))
            state["tier"] = Whole(((0, TIER_ATTESTED_MAX),))
            state["input_tier_min"] = Whole(
                ((0, TIER_ATTESTED_MAX), (TIER_WITHOUT_INPUTS, TIER_WITHOUT_INPUTS))
            )
        return state

    def _unclassed(self, rules: tuple[AssetRule, ...]) -> State:
        """Of an asset that no rule of the classification matches: its classes are those of its inputs."""
        return {
            **self._common,
            "column_class": Text("column class", only=frozenset({""})),
            "name": Text("asset", shapes=shapes("asset"), outside=tuple(rule.pattern for rule in rules)),
            "resource in": Many("data class", within=self.names.known("data class")),
        }


def possible(premises: Premises, policy: Mapping[str, Any]) -> bool:
    """Whether some request satisfies a rule in Cedar's JSON policy format."""
    return any(possible_from(state, premises, policy) for state in premises.states)


def possible_from(state: State, premises: Premises, policy: Mapping[str, Any]) -> bool:
    """Whether some request of those that a state admits satisfies a rule."""
    walk = _Walk(premises)
    left: State | None = walk.scope(state, policy)
    for condition in policy["conditions"]:
        if left is None:
            return False
        left = walk.narrowed(left, condition["body"], condition["kind"] == "when")
    return left is not None


def constant(premises: Premises, condition: Expression) -> bool | None:
    """The value of a condition if it is the same for every request."""
    states = premises.states
    if all(_Walk(premises).narrowed(state, condition, True) is None for state in states):
        return False
    if all(_Walk(premises).narrowed(state, condition, False) is None for state in states):
        return True
    return None


class _Walk:
    """One walk through the conditions of a rule."""

    def __init__(self, premises: Premises) -> None:
        self._premises = premises
        self._steps = STEPS_MAX

    def scope(self, state: State, policy: Mapping[str, Any]) -> State | None:
        left: State | None = state
        for variable in ("principal", "resource"):
            said = policy[variable]
            inner = said.get("in", said if said["op"] in ("==", "in") else {})
            entity = inner.get("entity")
            if entity is not None and left is not None:
                operator = "==" if said["op"] == "==" else "in"
                left = self._entities(left, {"Var": variable}, [entity], operator, True)
        return left

    def narrowed(self, state: State, expression: Expression, wanted: bool) -> State | None:  # noqa: FBT001
        """What is left where a condition has the wanted value."""
        self._steps -= 1
        if self._steps < 0:
            return state
        ((operator, below),) = expression.items()
        if operator == "Value":
            return state if below is wanted else None
        if operator == "!":
            return self.narrowed(state, below["arg"], not wanted)
        if operator in ("&&", "||"):
            terms = [(term, wanted) for term in chain(operator, expression)]
            return self._all(state, terms) if (operator == "&&") == wanted else self._some(state, terms)
        if operator == "if-then-else":
            ways = (
                self._all(state, [(below["if"], True), (below["then"], wanted)]),
                self._all(state, [(below["if"], False), (below["else"], wanted)]),
            )
            return _joined(state, ways)
        return self._atom(state, operator, expression, wanted)

    def _all(self, state: State, terms: Sequence[tuple[Expression, bool]]) -> State | None:
        left: State | None = state
        # What branches comes last: it is told apart by what the others leave.
        for term, wanted in sorted(terms, key=lambda t: not t[0].keys().isdisjoint(_BRANCHES)):
            if left is None:
                return None
            left = self.narrowed(left, term, wanted)
        return left

    def _some(self, state: State, terms: Iterable[tuple[Expression, bool]]) -> State | None:
        return _joined(state, [self.narrowed(state, term, wanted) for term, wanted in terms])

    def _atom(self, state: State, operator: str, expression: Expression, wanted: bool) -> State | None:  # noqa: FBT001
        below = expression[operator]
        if operator in _TURNED:
            # Four of the six comparisons are the other two.
            turned, swap, negate = _TURNED[operator]
            sides = (below["right"], below["left"]) if swap else (below["left"], below["right"])
            return self._compared(state, turned, *sides, wanted is not negate)
        if operator in _SETS:
            return self._set(state, operator, expression, wanted)
        if operator == "like" and attribute(below["left"]) in TEXTS:
            pattern = like_pattern(expression)
            return _with(state, _key(below["left"]), lambda d: _like(d, pattern, wanted))
        if operator == "in":
            entities = _entities_of(below["right"])
            if entities is not None:
                return self._entities(state, below["left"], entities, "in", wanted)
        if operator == "is":
            return self._is(state, below, wanted)
        return self._truth(state, expression, wanted)

    def _truth(self, state: State, expression: Expression, wanted: bool) -> State | None:  # noqa: FBT001
        """What is not understood has a value all the same, and the same one wherever it stands."""
        name = attribute(expression)
        key = name if name in _TRUTHS else json.dumps(expression, sort_keys=True)
        return _with({key: Truth(), **state}, key, lambda d: d.to(wanted) if isinstance(d, Truth) else d)

    def _is(self, state: State, below: dict[str, Any], wanted: bool) -> State | None:  # noqa: FBT001
        types = {
            "principal": "Subject",
            "resource": "Asset" if self._premises.action == "materialize" else "Column",
        }
        found = types.get(below["left"].get("Var", ""), below["entity_type"])
        if found != below["entity_type"]:
            return None if wanted else state
        inner = _entities_of(below["in"]) if "in" in below else None
        if inner is not None:
            return self._entities(state, below["left"], inner, "in", wanted)
        return state if wanted or "in" in below else None

    # Comparisons

    def _compared(
        self,
        state: State,
        operator: str,
        left: Expression,
        right: Expression,
        wanted: bool,  # noqa: FBT001
    ) -> State | None:
        one, other = self._range(state, left), self._range(state, right)
        if one is not None and other is not None:
            if operator == "==" and _same(left, right):
                return state if wanted else None
            return _ranges(state, operator, (left, one), (right, other), wanted)
        if operator == "==":
            return self._equal(state, left, right, wanted)
        return self._truth(state, {operator: {"left": left, "right": right}}, wanted)

    def _equal(self, state: State, left: Expression, right: Expression, wanted: bool) -> State | None:  # noqa: FBT001
        if _same(left, right):
            return state if wanted else None
        if "Value" in left:
            left, right = right, left
        value = right.get("Value")
        if "Value" in left and "Value" in right:
            return state if (left == right) is wanted else None
        if isinstance(value, bool):
            return self.narrowed(state, left, value is wanted)
        if isinstance(value, str) and attribute(left) in TEXTS:
            return _with(state, _key(left), lambda d: _among(d, [value], wanted))
        entities = _entities_of(right)
        if entities is not None and "Set" not in right:
            return self._entities(state, left, entities, "==", wanted)
        for one, other in ((left, right), (right, left)):
            texts = _texts_of(other)
            if attribute(one) in SETS and texts is not None and wanted:
                return _with(state, _key(one), partial(_exactly, names=texts))
        return self._truth(state, {"==": {"left": left, "right": right}}, wanted)

    def _range(self, state: State, expression: Expression) -> tuple[int, int] | None:
        """Between what an integer lies; None for what is no integer."""
        ((operator, below),) = expression.items()
        if operator == "Value":
            return (below, below) if type(below) is int else None
        if operator == ".":
            domain = state.get(below["attr"])
            return (domain.least, domain.most) if isinstance(domain, Whole) else None
        if operator == "neg":
            of = self._range(state, below["arg"])
            return None if of is None else (-of[1], -of[0])
        if operator not in ("+", "-", "*", "if-then-else"):
            return None
        names = ("then", "else") if operator == "if-then-else" else ("left", "right")
        one, other = (self._range(state, below[name]) for name in names)
        if one is None or other is None:
            return None
        if operator == "if-then-else":
            return min(one[0], other[0]), max(one[1], other[1])
        if operator == "*":
            products = [a * b for a in one for b in other]
            return min(products), max(products)
        if operator == "-":
            return one[0] - other[1], one[1] - other[0]
        return one[0] + other[0], one[1] + other[1]

    # Memberships

    def _set(self, state: State, operator: str, expression: Expression, wanted: bool) -> State | None:  # noqa: FBT001
        below = expression[operator]
        if operator == "isEmpty":
            one = below["arg"]
            if attribute(one) in SETS:
                return _with(state, _key(one), lambda d: d.being_empty(wanted) if isinstance(d, Many) else d)
            return self._truth(state, expression, wanted)
        left, right = below["left"], below["right"]
        if operator == "containsAny" and attribute(right) in SETS:
            left, right = right, left
        texts = _texts_of(right)
        if attribute(left) in SETS and texts is not None:
            return _with(state, _key(left), lambda d: _holding(d, operator, texts, wanted))
        known = _texts_of(left)
        if known is None:
            return self._truth(state, expression, wanted)
        if texts is not None:
            return state if _HOLDS[operator](set(known), set(texts)) is wanted else None
        if operator == "contains" and attribute(right) in TEXTS:
            return _with(state, _key(right), lambda d: _among(d, known, wanted))
        if operator == "containsAll" and attribute(right) in SETS and wanted:
            return _with(state, _key(right), lambda d: d.among(known) if isinstance(d, Many) else d)
        return self._truth(state, expression, wanted)

    def _entities(
        self,
        state: State,
        left: Expression,
        entities: Sequence[Mapping[str, str]],
        operator: str,
        wanted: bool,  # noqa: FBT001
    ) -> State | None:
        types = {entity["type"] for entity in entities}
        names = [entity["id"] for entity in entities]
        whose = "principal" if left == {"Var": "principal"} else "resource"
        if len(types) == 1 and (left in _OWNERS):
            (kind,) = types
            if kind == "Subject" and whose == "principal":
                return _with(state, "subject", lambda d: _among(d, names, wanted))
            if kind == "Asset" and whose == "resource":
                return _with(state, "name", lambda d: _among(d, names, wanted))
            key = _CLASSES.get(kind, "")
            if operator == "in" and key.startswith(whose):
                return _with(state, key, lambda d: _holding(d, "containsAny", names, wanted))
        expression: Expression = {operator: [left, list(entities)]}
        return self._truth(state, expression, wanted)


_BRANCHES: Final = frozenset({"||", "&&", "if-then-else", "!"})
_SETS: Final = frozenset({"contains", "containsAll", "containsAny", "isEmpty"})
_OWNERS: Final[tuple[Expression, ...]] = (
    {"Var": "principal"},
    {"Var": "resource"},
    {".": {"left": {"Var": "resource"}, "attr": "asset"}},
)
_TURNED: Final[Mapping[str, tuple[str, bool, bool]]] = {
    "==": ("==", False, False),
    "!=": ("==", False, True),
    "<": ("<", False, False),
    ">": ("<", True, False),
    "<=": ("<", True, True),
    ">=": ("<", False, True),
}
"""Of each comparison: which it is, with the sides swapped or not, and its opposite or not."""
_HOLDS: Final[Mapping[str, Callable[[set[str], set[str]], bool]]] = {
    "contains": lambda known, texts: texts <= known,
    "containsAll": lambda known, texts: texts <= known,
    "containsAny": lambda known, texts: bool(texts & known),
}


def like_pattern(expression: Expression) -> Glob:
    """The pattern of a `like`."""
    pattern: list[str | dict[str, str]] = expression["like"]["pattern"]
    return tuple(None if isinstance(part, str) else part["Literal"] for part in pattern)


def _joined(state: State, ways: Iterable[State | None]) -> State | None:
    open_ways = [way for way in ways if way is not None]
    if not open_ways:
        return None
    return open_ways[0] if len(open_ways) == 1 else state


def _key(expression: Expression) -> str:
    """The name under which an attribute is kept. The writer of an output is its requester's organization."""
    name = attribute(expression)
    return "member" if name == "writer" else name


def _same(left: Expression, right: Expression) -> bool:
    return left == right or (_key(left) != "" and _key(left) == _key(right))


def _with(state: State, key: str, narrow: _Narrow) -> State | None:
    left = narrow(state[key])
    return None if left is None else {**state, key: left}


def _among(domain: Domain, names: Sequence[str], wanted: bool) -> Domain | None:  # noqa: FBT001
    if not isinstance(domain, Text):
        return domain
    return domain.among(names) if wanted else domain.besides(names)


def _like(domain: Domain, pattern: Glob, wanted: bool) -> Domain | None:  # noqa: FBT001
    if not isinstance(domain, Text):
        return domain
    return domain.matching(pattern) if wanted else domain.not_matching(pattern)


def _exactly(domain: Domain, names: Sequence[str]) -> Domain | None:
    if not isinstance(domain, Many):
        return domain
    left = domain.among(names)
    return None if left is None else left.having(names)


def _holding(domain: Domain, operator: str, names: Sequence[str], wanted: bool) -> Domain | None:  # noqa: FBT001
    if not isinstance(domain, Many):
        return domain
    if operator == "containsAny":
        return domain.having_some(names) if wanted else domain.lacking(names)
    if wanted:
        return domain.having(names)
    if len(set(names)) == 1:
        return domain.lacking(names)
    return None if domain.has.issuperset(names) else domain


def _ranges(
    state: State,
    operator: str,
    left: tuple[Expression, tuple[int, int]],
    right: tuple[Expression, tuple[int, int]],
    wanted: bool,  # noqa: FBT001
) -> State | None:
    (one, (one_least, one_most)), (other, (other_least, other_most)) = left, right
    if operator == "==":
        apart = one_most < other_least or other_most < one_least
        same = one_least == one_most == other_least == other_most
        if (apart and wanted) or (same and not wanted):
            return None
    elif (one_least >= other_most) if wanted else (one_most < other_least):
        return None
    left_of: State | None = state
    for attr, value, is_left in (
        (one, (other_least, other_most), True),
        (other, (one_least, one_most), False),
    ):
        if left_of is not None and _key(attr) and value[0] == value[1]:
            bounded = partial(_bounded, operator=operator, value=value[0], is_left=is_left, wanted=wanted)
            left_of = _with(left_of, _key(attr), bounded)
    return left_of


def _bounded(domain: Domain, operator: str, value: int, is_left: bool, wanted: bool) -> Domain | None:  # noqa: FBT001
    """An integer compared with a number, on the left of it or on its right."""
    if not isinstance(domain, Whole):
        return domain
    if operator == "==":
        return domain.within(value, value) if wanted else domain.without(value)
    if is_left:
        return domain.within(most=value - 1) if wanted else domain.within(least=value)
    return domain.within(least=value + 1) if wanted else domain.within(most=value)


def _texts_of(expression: Expression) -> list[str] | None:
    """The texts of a text or of a set of texts; None where there is anything else."""
    members: list[Expression] = expression.get("Set", [expression])
    texts = [member.get("Value") for member in members]
    return (
        [text for text in texts if isinstance(text, str)] if all(isinstance(t, str) for t in texts) else None
    )


def _entities_of(expression: Expression) -> list[dict[str, str]] | None:
    """The entities of an entity or of a set of them; None where there is anything else."""
    members: list[Expression] = expression.get("Set", [expression])
    found = [m["Value"]["__entity"] for m in members if isinstance(m.get("Value"), dict)]
    return found if len(found) == len(members) else None
