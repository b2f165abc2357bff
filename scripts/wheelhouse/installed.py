"""What an installation of Comity brings: the packages that `comity[node,dagster,duckdb]` needs here, directly or not.

Read from the metadata of an environment, which may hold more (tests and checks have tools of their own). It is
what was resolved for this Python on this platform; markers can ask for other packages elsewhere.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = "comity"
EXTRAS: Final = frozenset({"node", "dagster", "duckdb"})
INTERPRETER_S_MAX: Final = 600.0
"""Against a hang: it takes a moment, and a machine can be busy."""


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package and the names of those that it needs."""

    name: str
    version: str
    needs: frozenset[str]


def folders_of(python: Path) -> list[str]:
    """The folders in which an interpreter finds packages, without those that the caller's variables add."""
    said = subprocess.run(
        [str(python), "-I", "-c", "import json, sys; print(json.dumps(sys.path))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=INTERPRETER_S_MAX,
    ).stdout
    found: list[str] = json.loads(said)
    return found


def resolved(python: Path) -> dict[str, Package]:
    """Comity and all that it needs with its extras, by canonical name.

    Raises:
        SystemExit: something that is needed is not installed, so the answer would be too short.
    """
    by_name: dict[str, Distribution] = {}
    for found in distributions(path=folders_of(python)):
        by_name.setdefault(canonicalize_name(found.name), found)
    extras: dict[str, frozenset[str]] = {}
    needs: dict[str, frozenset[str]] = {}
    ahead: list[tuple[str, frozenset[str]]] = [(ROOT, EXTRAS)]
    while ahead:
        name, asked = ahead.pop()
        known = extras.get(name)
        if known is not None and asked <= known:
            continue
        if name not in by_name:
            raise SystemExit(f"{name} is needed and not installed for {python}")
        extras[name] = asked | (known or frozenset())
        required = _required(by_name[name], extras[name])
        needs[name] = frozenset(each for each, _ in required)
        ahead += required
    return {name: Package(name, by_name[name].version, needs[name]) for name in sorted(needs)}


def _required(found: Distribution, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """What a package needs here with these extras, and with which extras of theirs."""
    required: list[tuple[str, frozenset[str]]] = []
    for line in found.requires or ():
        each = Requirement(line)
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            required.append((canonicalize_name(each.name), frozenset(each.extras)))
    return required
