"""The ways in which work can serve its intent, by the harm that they can do, and the realm that each makes things in.

What is made in a realm other than production never reaches it (docs/spec/lineage.md section 2): so a way that is less
harmful needs no other rule to be held to.

Spec: docs/spec/governance.md section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Way: TypeAlias = Literal["dry_run", "sampled", "isolated", "staged"]
"""`dry_run`: made, verified and taken away; `sampled`: a sample of it is kept apart; `isolated`: all of it is kept
apart; `staged`: it takes the place of the version before, once it is verified."""

WAYS: Final[tuple[Way, ...]] = ("dry_run", "sampled", "isolated", "staged")
"""The least harmful first."""
WAYS_MAX: Final = 8
"""Ways that a purpose names: twice as many as there are, for those of later versions."""

_REALMS: Final[Mapping[Way, str]] = MappingProxyType(
    {"dry_run": "preview/dry_run", "sampled": "preview/sampled", "isolated": "preview/isolated"}
)
APART: Final = frozenset(_REALMS.values())
"""Realms of what is made apart: whoever asks for an asset without saying so means none of it."""


def realm_of(way: Way) -> str | None:
    """The realm that is made in; None for `staged`, which is whatever realm the work is in without it."""
    return _REALMS.get(way)


def way_in(realm: str) -> Way:
    """The way of work in a realm."""
    for way, name in _REALMS.items():
        if name == realm:
            return way
    return "staged"


def least_harmful_first(ways: Iterable[str]) -> tuple[Way, ...]:
    """Ways in the order of their harm, each once. One of a later version is none here."""
    named = set(ways)
    return tuple(way for way in WAYS if way in named)
