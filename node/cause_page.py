"""What is said of one stable code: what it means, who can mend it and by which command, and how that is printed.

The texts stand in `node/cause_texts_*.py` and nowhere else: `comity cause CODE`, `comity why` and the pages under
docs/causes are made from them. docs/spec/causes.md lists the codes and their parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Parameter: TypeAlias = int | str
Family: TypeAlias = Literal[
    "cause", "need", "obligation", "decline", "problem", "policy fault", "verification", "node", "bridge"
]

FAMILIES: Final[Mapping[Family, str]] = {
    "cause": "why an outcome is less than execute, or why lineage is none",
    "need": "what would lift a deferral",
    "obligation": "what the work has to see to",
    "decline": "why a member gave no vote",
    "problem": "why a node could not answer another's request",
    "policy fault": "why a policy could not be evaluated; the voter abstains",
    "verification": "why a record or a bundle is not genuine",
    "node": "why the local node does not do what a program beside it asked",
    "bridge": "why a step of Dagster is stopped in its own process",
}
"""What the codes of a family answer."""
NOBODY: Final = "nobody, for this intent or record"


@dataclass(frozen=True, slots=True)
class CausePage:
    """One code in one family.

    Attributes:
        effect: what it does to an outcome; empty where it is no cause.
        who: who can mend it.
        how: what that is done by, in a sentence; beside it the `commands`, with placeholders in capitals.
        related: codes of any family.
        example: parameters as a cause or need of this code has them.
    """

    code: str
    family: Family
    meaning: str
    who: str
    how: str
    commands: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    example: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    effect: Literal["", "refuses", "defers", "explains"] = ""


def _page(
    family: Family,
    effect: Literal["", "refuses", "defers", "explains"],
    texts: tuple[str, str, str, str],
    commands: tuple[str, ...],
    related: str,
    example: Mapping[str, Parameter],
) -> CausePage:
    code, meaning, who, how = texts
    return CausePage(code, family, meaning, who, how, commands, tuple(related.split()), dict(example), effect)


def refuses(
    code: str,
    meaning: str,
    who: str,
    how: str,
    /,
    *commands: str,
    related: str = "",
    **example: Parameter,
) -> CausePage:
    """A cause that refuses."""
    return _page("cause", "refuses", (code, meaning, who, how), commands, related, example)


def defers(
    code: str,
    meaning: str,
    who: str,
    how: str,
    /,
    *commands: str,
    related: str = "",
    **example: Parameter,
) -> CausePage:
    """A cause that defers: what is missing may still come."""
    return _page("cause", "defers", (code, meaning, who, how), commands, related, example)


def explains(
    code: str,
    meaning: str,
    who: str,
    how: str,
    /,
    *commands: str,
    related: str = "",
    **example: Parameter,
) -> CausePage:
    """A cause that changes no outcome."""
    return _page("cause", "explains", (code, meaning, who, how), commands, related, example)


def needed(
    code: str,
    meaning: str,
    who: str,
    how: str,
    /,
    *commands: str,
    related: str = "",
    **example: Parameter,
) -> CausePage:
    """A need."""
    return _page("need", "", (code, meaning, who, how), commands, related, example)


def said(
    family: Family, code: str, meaning: str, who: str, how: str, /, *commands: str, related: str = ""
) -> CausePage:
    """A code of another family; it has no parameters."""
    return _page(family, "", (code, meaning, who, how), commands, related, {})
