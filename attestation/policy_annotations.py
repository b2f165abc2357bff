"""The annotations of a rule: its name, and what it does to the outcome when it is satisfied.

Spec: docs/spec/policy.md section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.attestation.policy_diagnosis import Located, nearest
from comity.attestation.policy_guard import Statement
from comity.protocol.errors import DecodeError
from comity.protocol.limits import INT_MAX, INT_MIN, NAME_BYTES_MAX
from comity.protocol.outcome import Mode, Need, Obligation, Parameter

Terms: TypeAlias = tuple[tuple[str, dict[str, Parameter]], ...]
"""Codes, each with its parameters sorted by name."""

ANNOTATIONS: Final = ("id", "mode", "reason", "needs", "obliges")
MODES: Final = ("refuse", "defer", "restrict")

TERMS_MAX: Final = 8
"""Needs or obligations of one rule, and parameters of one term: people read them."""

_RULE_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TERM = re.compile(r"[ ]*(?P<code>[a-z][a-z0-9_]{0,63})[ ]*(?:\((?P<parameters>[^()]*)\)[ ]*)?")
_PARAMETER = re.compile(r"[ ]*(?P<name>[a-z][a-z0-9_]{0,63})[ ]*=[ ]*(?P<value>[!-<>-~]+)[ ]*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_INTEGER_CHARS_MAX: Final = len(str(INT_MIN))
"""A longer one is beyond 64 bits; turning a very long text into a number takes time."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a rule does to the outcome when it is satisfied. `mode` is *execute* for a permit."""

    mode: Mode = Mode.EXECUTE
    reason: str = ""
    needs: tuple[Need, ...] = ()
    obliges: tuple[Obligation, ...] = ()


@dataclass(slots=True)
class Annotations:
    """The annotations of one rule, being checked.

    Attributes:
        given: name and value, unescaped; an annotation without a value has an empty one.
        actions: those that the scope of the rule admits.
        problems: what was found wrong.
    """

    statement: Statement
    given: Mapping[str, str]
    actions: tuple[str, ...]
    problems: list[Located] = field(default_factory=list[Located])

    def id(self, taken: set[str]) -> str:
        """The rule's id, which no other rule may have. It is added to those that are taken."""
        value = self.given.get("id")
        if value is None:
            self._wrong("id", "annotation_missing", "every rule has an `@id`")
            return ""
        if _RULE_ID.fullmatch(value) is None:
            what = "an id has 1 to 64 of a-z, 0-9, `.`, `_`, `-`, and begins with a letter or digit"
            self._wrong("id", "id_malformed", what)
        elif value in taken:
            self._wrong("id", "id_twice", f"another rule has the id `{value}`")
        taken.add(value)
        return value

    def effects(self, effect: str) -> Effects:
        """What the rule does. Only if no problem was found it may be used."""
        for name in self.given:
            if name not in ANNOTATIONS:
                self._wrong(name, "annotation_unknown", f"`@{name}` is unknown", nearest(name, ANNOTATIONS))
        if effect == "permit":
            for name in ANNOTATIONS[1:]:
                if name in self.given:
                    self._wrong(name, "annotation_unwanted", f"a permit has no `@{name}`")
            return Effects()
        mode, reason = self._mode(), self._reason()
        if mode is None:
            return Effects()
        needs = self._terms("needs", "a defer") if mode is Mode.DEFER else self._unwanted("needs", "a defer")
        return Effects(
            mode=mode,
            reason=reason,
            needs=tuple(Need(code=code, parameters=parameters) for code, parameters in needs),
            obliges=self._obliges(mode),
        )

    def _wrong(self, name: str, code: str, message: str, hint: str = "") -> None:
        """A problem at an annotation's value or name, or at the rule's effect where it is absent."""
        found = next((each for each in self.statement.annotations if each.name.text == name), None)
        if found is None:
            token = self.statement.effect
        elif code in ("annotation_unknown", "annotation_unwanted"):
            token = found.name
        else:
            token = found.value or found.name
        self.problems.append((token, code, message, hint))

    def _mode(self) -> Mode | None:
        value = self.given.get("mode")
        choice = " | ".join(MODES)
        if value is None:
            self._wrong("mode", "annotation_missing", "a forbid says with `@mode` how far it goes", choice)
            return None
        if value not in MODES:
            self._wrong(
                "mode", "mode_unknown", f"no rule has the mode `{value}`", nearest(value, MODES) or choice
            )
            return None
        return Mode(value)

    def _reason(self) -> str:
        value = self.given.get("reason")
        if value is None:
            self._wrong("reason", "annotation_missing", "a forbid says with `@reason` why, as a code")
            return ""
        if _CODE.fullmatch(value) is None:
            what = "a reason is a code: 1 to 64 of a-z, 0-9 and `_`, first a letter"
            self._wrong("reason", "reason_malformed", what)
        return value

    def _obliges(self, mode: Mode) -> tuple[Obligation, ...]:
        if mode is not Mode.RESTRICT:
            self._unwanted("obliges", "a restrict")
            return ()
        if len(self.actions) != 1:
            what = "the scope of a restrict names one action: a column left out, or an obligation"
            self._wrong("mode", "restrict_actions", what, 'action == Action::"include"')
            return ()
        if self.actions == ("include",):
            self._unwanted("obliges", 'a restrict on action == Action::"materialize"')
            return ()
        terms = self._terms("obliges", "a restrict on materialize")
        for code, parameters in terms:
            if code == "min_group_rows" and not _is_min_group_rows(parameters):
                what = "min_group_rows has `rows`, an integer from 1, and perhaps `column`"
                self._wrong("obliges", "obligation_malformed", what, "min_group_rows(rows=5)")
        return tuple(Obligation(code=code, parameters=parameters) for code, parameters in terms)

    def _terms(self, name: str, whose: str) -> Terms:
        value = self.given.get(name)
        if value is None:
            self._wrong(name, "annotation_missing", f"{whose} has `@{name}`", "code(name=value, ...); code")
            return ()
        try:
            return parse_terms(value)
        except DecodeError as exc:
            self._wrong(name, "terms_malformed", str(exc), "code(name=value, ...); code")
            return ()

    def _unwanted(self, name: str, whose: str) -> Terms:
        if name in self.given:
            self._wrong(name, "annotation_unwanted", f"`@{name}` belongs to {whose}")
        return ()


def _is_min_group_rows(parameters: Mapping[str, Parameter]) -> bool:
    rows, column = parameters.get("rows"), parameters.get("column", "absent")
    known = set(parameters) <= {"rows", "column"}
    return known and isinstance(rows, int) and rows >= 1 and isinstance(column, str)


def parse_terms(text: str) -> Terms:
    """Read `code` or `code(name=value, ...)`, several joined by `;`. What is written as an integer is one.

    Raises:
        DecodeError: says which part is wrong.
    """
    terms: list[tuple[str, dict[str, Parameter]]] = []
    for part in text.split(";"):
        found = _TERM.fullmatch(part)
        if found is None:
            raise DecodeError(f"`{part.strip()}` is no term")
        term = (found["code"], _parameters(found["parameters"]))
        if term in terms:
            raise DecodeError(f"`{part.strip()}` stands twice")
        terms.append(term)
    if len(terms) > TERMS_MAX:
        raise DecodeError(f"more than {TERMS_MAX} terms")
    return tuple(terms)


def _parameters(text: str | None) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for part in text.split(",") if text is not None else ():
        found = _PARAMETER.fullmatch(part)
        if found is None or len(found["value"]) > NAME_BYTES_MAX:
            raise DecodeError(f"`{part.strip()}` is no parameter")
        if found["name"] in parameters:
            raise DecodeError(f"the parameter `{found['name']}` stands twice")
        parameters[found["name"]] = _value(found["value"])
    if len(parameters) > TERMS_MAX:
        raise DecodeError(f"more than {TERMS_MAX} parameters")
    return dict(sorted(parameters.items()))


def _value(text: str) -> Parameter:
    if _INTEGER.fullmatch(text) is None:
        return text
    if len(text) > _INTEGER_CHARS_MAX or not INT_MIN <= int(text) <= INT_MAX:
        raise DecodeError(f"`{text}` is beyond 64 bits")
    return int(text)
