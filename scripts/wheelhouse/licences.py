"""The licence gate: every package that Comity brings is under a licence of licences.toml, by its own word or by ours.

What a package says is taken from the bill of materials. SPDX expressions are read by license-expression; of
several statements of one package each has to hold, of the sides of an OR one.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from license_expression import ExpressionError, get_spdx_licensing
from packaging.utils import canonicalize_name

from wheelhouse.sbom import describe

RULES_FILE: Final = Path(__file__).with_name("licences.toml")
_SPDX: Final = get_spdx_licensing()


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody read where a package's metadata name no SPDX licence."""

    says: tuple[str, ...]
    expression: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed, with reasons; what was read of which package; older ways to say a licence."""

    allowed: Mapping[str, str]
    packages: Mapping[str, Reading]
    beside: Mapping[str, str]


def rules_of(text: str) -> Rules:
    """Read the rules.

    Raises:
        SystemExit: a reason is missing, or no SPDX licence is named.
    """
    document = tomllib.loads(text)
    packages = {
        name: Reading(tuple(entry["says"]), entry["is"], entry["reason"])
        for name, entry in document["packages"].items()
    }
    rules = Rules(document["allowed"], packages, document["beside"])
    silent = [name for name, reason in rules.allowed.items() if not reason.strip()]
    silent += [name for name, reading in packages.items() if not reading.reason.strip()]
    if silent:
        raise SystemExit(f"licences.toml: without a reason: {', '.join(silent)}")
    for expression in (*rules.allowed, *rules.beside.values(), *(r.expression for r in packages.values())):
        if _parsed(expression) is None:
            raise SystemExit(f"licences.toml: {expression!r} is no SPDX licence")
    return rules


def _parsed(expression: str) -> Any:
    """An expression of SPDX licences; None where it is none."""
    try:
        return _SPDX.parse(expression, validate=True, strict=True)
    except ExpressionError:
        return None


def _holds(expression: Any, allowed: Mapping[str, str]) -> bool:
    if isinstance(expression, _SPDX.OR):
        return any(_holds(each, allowed) for each in expression.args)
    if isinstance(expression, _SPDX.AND):
        return all(_holds(each, allowed) for each in expression.args)
    # With an exception it is another licence, which would have to be named with it.
    return str(expression) in allowed


def statements(component: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a package says of its licence: SPDX expressions, and names that are none."""
    spdx: list[str] = []
    names: list[str] = []
    for entry in component.get("licenses", ()):
        licence = entry.get("license", {})
        said = entry.get("expression") or licence.get("id")
        if said is not None:
            spdx.append(said)
        else:
            names.append(licence.get("name", ""))
    return tuple(spdx), tuple(names)


def problem_of(component: Mapping[str, Any], rules: Rules) -> str | None:
    """Why a package may not be brought along; None where it may."""
    spdx, names = statements(component)
    if not spdx:
        reading = rules.packages.get(canonicalize_name(component["name"]))
        if reading is None:
            return f"names no SPDX licence ({', '.join(names) or 'nothing'}), and licences.toml has no entry for it"
        if reading.says != names:
            return (
                f"says {list(names)} now, where licences.toml has {list(reading.says)}: to be looked at again"
            )
        spdx, names = (reading.expression,), ()
    unknown = [name for name in names if name not in rules.beside]
    if unknown:
        return f"says moreover {', '.join(unknown)}, which licences.toml does not know"
    for said in (*spdx, *(rules.beside[name] for name in names)):
        parsed = _parsed(said)
        if parsed is None:
            return f"says {said!r}, which is no expression of SPDX licences"
        if not _holds(parsed, rules.allowed):
            return f"is under {said}, which licences.toml does not allow"
    return None


def problems(document: Mapping[str, Any], rules: Rules) -> list[str]:
    """What is wrong with the licences of a bill of materials, and which entries nobody needs any more."""
    found = [
        f"{component['name']} {component['version']}: {problem}"
        for component in document["components"]
        if (problem := problem_of(component, rules)) is not None
    ]
    speaking = {
        canonicalize_name(component["name"])
        for component in document["components"]
        if statements(component)[0]
    }
    found += [
        f"{name}: names an SPDX licence now; its entry in licences.toml is not needed"
        for name in sorted(speaking & set(rules.packages))
    ]
    return found


def main() -> None:
    """Judge the environment of this interpreter. Ends with 1 where a package may not be brought along."""
    rules = rules_of(RULES_FILE.read_text(encoding="utf-8"))
    document = describe(Path(sys.executable))
    found = problems(document, rules)
    for problem in found:
        print(problem)
    if found:
        raise SystemExit(1)
    print(f"{len(document['components'])} packages, all under licences of {RULES_FILE.name}")


if __name__ == "__main__":
    main()
