"""What Cedar says of a rule that it does not take, in our words and with a place.

Cedar's sentences change with its versions. They are for people and are never judged; one that is not known
here is handed on as it is.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import cedarpy

from comity.attestation.policy_guard import Statement, Token
from comity.protocol.limits import NAME_BYTES_MAX

_ACTIONS: Final = ("materialize", "include")
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "Subject": ("delegators", "depth", "kind", "member"),
    "Asset": ("name", "realm", "writer"),
    "Column": ("asset", "column_class", "named"),
    "context": (
        "approvals",
        "code_authors",
        "code_reviewers",
        "columns",
        "fresh",
        "input_classes",
        "input_marked",
        "input_owners",
        "input_purposes",
        "input_tier_min",
        "input_weight_min",
        "items",
        "purpose",
        "reversible",
        "solo",
        "ticket",
        "tier",
        "weight",
    ),
}
"""The attributes of the schema, for hints: the schema itself is what is checked against."""
ENTITY_TYPES: Final = ("Action", "Asset", "AuthorityClass", "Column", "DataClass", "Subject")

Located: TypeAlias = tuple[Token, str, str, str]
"""Where, code, message, hint."""


def parse(text: str) -> dict[str, Any] | str:
    """One rule in Cedar's JSON policy format, or Cedar's message."""
    try:
        parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as exc:
        return str(exc)
    return parsed


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that a misspelt word probably means, as a question, or nothing."""
    found = difflib.get_close_matches(word, list(names), n=1)
    return f"{found[0]}?" if found else ""


_SYNTAX: Final[tuple[tuple[re.Pattern[str], str, str, tuple[str, ...]], ...]] = (
    (
        re.compile(r"invalid policy effect: (\w+)"),
        "effect_unknown",
        "`{}` is neither permit nor forbid",
        ("permit", "forbid"),
    ),
    (
        re.compile(r"invalid policy condition: (\w+)"),
        "syntax",
        "`{}` is neither when nor unless",
        ("when", "unless"),
    ),
    (
        re.compile(r"invalid variable(?: in the policy scope)?: (\w+)"),
        "variable_unknown",
        "`{}` is no variable",
        ("principal", "action", "resource", "context"),
    ),
    (
        re.compile(r"`(\w+)` is not a valid method"),
        "operator_unsupported",
        "`{}` is no method of the language of rules",
        ("contains", "containsAll", "containsAny", "isEmpty"),
    ),
    (re.compile(r"`(\w+)` is not a valid function"), "operator_unsupported", "`{}` is no function", ()),
    (re.compile(r"duplicate annotation: @(\w+)"), "annotation_twice", "`@{}` stands twice", ()),
    (re.compile(r"integer (?:literal|parse error)()"), "integer_large", "integers fit 64 bits signed", ()),
)


def syntax_problem(statement: Statement, message: str) -> Located:
    """Why a rule could not be parsed. Cedar's messages have no place, so it is looked for."""
    for pattern, code, sentence, names in _SYNTAX:
        found = pattern.search(message)
        if found is not None:
            word = found[1]
            token = _last(statement, word) if code == "annotation_twice" else statement.find(word)
            return token or _longest_number(statement), code, sentence.format(word), nearest(word, names)
    if message.startswith("unexpected"):
        token = _first_unexpected(statement)
        return token, "syntax", f"`{token.text}` is not expected here", ""
    return _quoted(statement, message) or statement.effect, "syntax", message, ""


def _last(statement: Statement, word: str) -> Token | None:
    return next((token for token in reversed(statement.tokens) if token.text == word), None)


def _longest_number(statement: Statement) -> Token:
    numbers = [token for token in statement.tokens if token.text.isdigit()]
    return max(numbers, key=lambda token: len(token.text), default=statement.effect)


def _first_unexpected(statement: Statement) -> Token:
    """The token at which parsing stops: the end of the shortest beginning that nothing can complete."""
    start = statement.tokens[0].offset
    low, high = 1, len(statement.tokens)
    while low < high:
        middle = (low + high) // 2
        beginning = statement.text[: statement.tokens[middle - 1].end - start]
        said = parse(beginning)
        if isinstance(said, str) and said.startswith("unexpected token"):
            high = middle
        else:
            low = middle + 1
    return statement.tokens[low - 1]


def _quoted(statement: Statement, message: str) -> Token | None:
    """The first token that a message quotes."""
    found = (statement.find(word) for word in re.findall(r"[`']([^`']+)[`']", message))
    return next((token for token in found if token is not None), None)


_ATTRIBUTE = re.compile(r"attribute `([^`]+)` (?:in (context) for|on entity type `(\w+)`).* not found")
_ACTION = re.compile(r"unrecognized action `Action::\"(.*)\"`")
_ENTITY_TYPE = re.compile(r"unrecognized entity type `([^`]+)`")
_APPLIES = "unable to find an applicable action"


def type_problems(statement: Statement, messages: list[str]) -> Iterator[Located]:
    """The problems that the type check found, each once."""
    seen: set[tuple[int, str]] = set()
    for message in sorted(messages, key=lambda message: _APPLIES in message):
        if _APPLIES in message and seen:
            continue
        problem = _type_problem(statement, message)
        place = (problem[0].offset, problem[1])
        if place not in seen:
            seen.add(place)
            yield problem


def _type_problem(statement: Statement, message: str) -> Located:
    if (found := _ATTRIBUTE.search(message)) is not None:
        owner = found[2] or found[3]
        sentence = f"{owner} has no attribute `{found[1]}`"
        token = _attribute(statement, found[1]) or statement.effect
        other = _owner_of(found[1])
        hint = f"{other} has it" if other else nearest(found[1], ATTRIBUTES.get(owner, ()))
        return token, "attribute_unknown", sentence, hint
    if (found := _ACTION.search(message)) is not None:
        return (
            statement.find(found[1]) or statement.effect,
            "action_unknown",
            f"there is no action `{found[1]}`",
            nearest(found[1], _ACTIONS),
        )
    if (found := _ENTITY_TYPE.search(message)) is not None:
        sentence = f"there is no entity type `{found[1]}`"
        return (
            statement.find(found[1]) or statement.effect,
            "entity_type_unknown",
            sentence,
            nearest(found[1], ENTITY_TYPES),
        )
    if _APPLIES in message:
        return statement.effect, "scope_empty", "no action has this kind of principal and resource", ""
    sentence = re.sub(r"^for policy `[^`]*`, ", "", message)[:NAME_BYTES_MAX]
    return _condition(statement), "type_wrong", sentence, ""


def _owner_of(attribute: str) -> str:
    return next((owner for owner, names in ATTRIBUTES.items() if attribute in names), "")


def _attribute(statement: Statement, name: str) -> Token | None:
    """The first use of an attribute: after a dot, or in square brackets."""
    tokens = statement.tokens
    for before, token in itertools.pairwise(tokens):
        if (before.text == "." and token.text == name) or (before.text == "[" and token.text == f'"{name}"'):
            return token
    return None


def _condition(statement: Statement) -> Token:
    """Where the conditions begin: Cedar does not say more of a type error."""
    return next((token for token in statement.tokens if token.text in ("when", "unless")), statement.effect)
