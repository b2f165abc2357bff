"""The words that rules compare with: what each attribute can hold, and which names are published.

Spec: docs/spec/policy.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from comity.attestation.policy_diagnosis import nearest
from comity.attestation.policy_engine import classes_above
from comity.protocol.governance import AssetRule, Epoch, Policy, Taxonomy
from comity.protocol.identifiers import (
    AssetId,
    ClassName,
    Code,
    MemberId,
    Realm,
    SpiffeId,
    member_of,
    pattern_matches,
)
from comity.protocol.limits import CHAIN_MAX, COLUMNS_MAX, ITEMS_MAX, NAME_BYTES_MAX

Kind: TypeAlias = Literal[
    "asset",
    "authority class",
    "column class",
    "data class",
    "kind",
    "organization",
    "purpose",
    "realm",
    "subject",
]
"""What a text is the name of."""
Glob: TypeAlias = tuple[str | None, ...]
"""Characters, and None for any number of any characters."""

PPM: Final = 1_000_000
INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "columns": (0, COLUMNS_MAX),
    "depth": (0, CHAIN_MAX),
    "input_tier_min": (0, 3),
    "input_weight_min": (0, PPM),
    "items": (1, ITEMS_MAX),
    "tier": (0, 3),
    "weight": (0, PPM),
}
"""Least and greatest value of each integer of the vocabulary."""
TIER_ATTESTED_MAX: Final = 1
"""The highest tier that evidence gives in this version: docs/spec/evidence.md section 3."""
TIER_WITHOUT_INPUTS: Final = 3
"""`input_tier_min` of what has no inputs."""

TEXTS: Final[Mapping[str, Kind]] = {
    "column_class": "column class",
    "kind": "kind",
    "member": "organization",
    "name": "asset",
    "purpose": "purpose",
    "realm": "realm",
    "writer": "organization",
}
SETS: Final[Mapping[str, Kind]] = {
    "approvals": "authority class",
    "code_authors": "subject",
    "code_reviewers": "subject",
    "delegators": "subject",
    "input_classes": "data class",
    "input_owners": "organization",
    "input_purposes": "purpose",
}
ENTITIES: Final[Mapping[str, Kind]] = {
    "Asset": "asset",
    "AuthorityClass": "authority class",
    "DataClass": "data class",
    "Subject": "subject",
}
KIND_OF: Final[Mapping[str, Kind]] = {**TEXTS, **SETS}
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": ("person", "agent", "automation"),
    "realm": ("production", "preview/name"),
}
"""What a text may be where that is a short list."""

_FORMS: Final[Mapping[Kind, Any]] = {
    "asset": AssetId,
    "authority class": ClassName,
    "column class": Code,
    "data class": ClassName,
    "kind": Literal["person", "agent", "automation"],
    "organization": MemberId,
    "purpose": Code,
    "realm": Realm,
    "subject": SpiffeId,
}
_LOWER: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_CHARACTERS: Final[Mapping[Kind, frozenset[str]]] = {
    "asset": _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ._-/"),
    "authority class": _LOWER | frozenset("._-/"),
    "column class": _LOWER | frozenset("_"),
    "data class": _LOWER | frozenset("._-/"),
    "kind": _LOWER,
    "organization": _LOWER | frozenset(".-"),
    "purpose": _LOWER | frozenset("_"),
    "realm": _LOWER | frozenset("._-/"),
    "subject": _LOWER | frozenset("._-/:"),
}
_SHAPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "asset": ("*/*",),
    "kind": ("person", "agent", "automation"),
    "realm": ("production", "preview/*"),
    "subject": ("spiffe://*/*",),
}
_WANTED: Final[Mapping[Kind, str]] = {
    "asset": "the whole id: its writer's domain, then its path, as in clinic.example/released",
    "subject": "a SPIFFE id, as in spiffe://clinic.example/operator/7f3a",
}


def fits(kind: Kind, text: str) -> bool:
    """Whether a text can be the name of such a thing at all."""
    if text == "" and kind == "column class":
        return True
    try:
        msgspec.convert(text, _FORMS[kind], strict=True)
    except msgspec.ValidationError:
        return False
    return True


def glob(pattern: str) -> Glob:
    """A pattern in which every `*` stands for any characters. It takes no less than an `AssetPattern` does."""
    return tuple(None if c == "*" else c for c in pattern.replace("**", "*"))


def meets(one: Glob, other: Glob) -> bool:
    """Whether some text matches both."""
    if max(sum(c is not None for c in each) for each in (one, other)) > NAME_BYTES_MAX:
        return False
    seen = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if (i, j) == (len(one), len(other)):
            return True
        a = one[i] if i < len(one) else ""
        b = other[j] if j < len(other) else ""
        following: list[tuple[int, int]] = []
        if a is None:
            following += [(i + 1, j), (i, j + 1)]
        if b is None:
            following += [(i, j + 1), (i + 1, j)]
        if a is not None and a == b:
            following.append((i + 1, j + 1))
        for place in following:
            if place not in seen and place[0] <= len(one) and place[1] <= len(other):
                seen.add(place)
                waiting.append(place)
    return False


def shapes(kind: Kind) -> tuple[Glob, ...] | None:
    """What every name of that kind matches one of; None where all of them look alike."""
    known = _SHAPES.get(kind)
    return None if known is None else tuple(glob(shape) for shape in known)


def can_be_like(kind: Kind, pattern: Glob) -> bool:
    """Whether a name of that kind can match a pattern."""
    if not _CHARACTERS[kind].issuperset(c for c in pattern if c is not None):
        return False
    return any(meets(pattern, shape) for shape in shapes(kind) or (glob("*"),))


def with_above(names: Iterable[str]) -> frozenset[str]:
    """Classes and all that they lie within by their paths."""
    return frozenset(classes_above(names, {}))


@dataclass(frozen=True, slots=True)
class PolicyNames:
    """Names that are published, for finding those that are not. None where they are not known.

    Attributes:
        authority_classes: those of the taxonomy.
        data_classes: those that the bundle's classification gives.
        column_classes: likewise.
        purposes: those that the bundle knows.
        assets: the classification of the bundle.
        patterns: of the assets that some classification knows.
        members: the organizations of the epoch.
        namespaces: those in which they write assets.
    """

    authority_classes: frozenset[str] | None = None
    data_classes: frozenset[str] | None = None
    column_classes: frozenset[str] | None = None
    purposes: frozenset[str] | None = None
    assets: tuple[AssetRule, ...] | None = None
    patterns: frozenset[str] | None = None
    members: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        policy: Policy,
        taxonomy: Taxonomy | None = None,
        epoch: Epoch | None = None,
        others: Iterable[Policy] = (),
    ) -> PolicyNames:
        """What the rules of a policy may name.

        Args:
            policy: whose rules are looked at.
            taxonomy: of its epoch, if it is known.
            epoch: the one that the policy is in force in, if it is known.
            others: the other policies of that epoch; what they class may flow into what this one judges.
        """
        every = (policy, *others)
        rules = [rule for each in every for rule in each.assets]
        return cls(
            authority_classes=None if taxonomy is None else frozenset(c.name for c in taxonomy.classes),
            data_classes=frozenset(rule.data_class for rule in rules),
            column_classes=frozenset(c.column_class for rule in policy.assets for c in rule.columns),
            purposes=frozenset(purpose.name for each in every for purpose in each.purposes),
            assets=policy.assets,
            patterns=frozenset(rule.pattern for rule in rules),
            members=None if epoch is None else frozenset(member.id for member in epoch.members),
            namespaces=None if epoch is None else frozenset(n for m in epoch.members for n in m.namespaces),
        )

    def known(self, kind: Kind) -> frozenset[str] | None:
        """All names of a kind, where they are known and can be listed."""
        listed: Mapping[Kind, frozenset[str] | None] = {
            "authority class": None if self.authority_classes is None else with_above(self.authority_classes),
            "column class": None if self.column_classes is None else self.column_classes | {""},
            "data class": None if self.data_classes is None else with_above(self.data_classes),
            "organization": self.members,
            "purpose": self.purposes,
        }
        return listed.get(kind)

    def has(self, kind: Kind, text: str) -> bool:
        """Whether something is called that, as far as is known."""
        known = self.known(kind)
        if known is not None:
            return text in known
        if kind == "subject":
            return self.members is None or member_of(text) in self.members
        if kind == "asset":
            return (self.namespaces is None or member_of(text) in self.namespaces) and (
                self.patterns is None or any(pattern_matches(pattern, text) for pattern in self.patterns)
            )
        return True

    def has_like(self, kind: Kind, pattern: Glob) -> bool:
        """Whether something has a name that matches a pattern, as far as is known."""
        known = self.patterns if kind == "asset" else self.known(kind)
        return known is None or any(meets(pattern, glob(name)) for name in known)

    def nearest(self, kind: Kind, text: str) -> str:
        """What was probably meant, as a question; else what a name of that kind looks like; may be empty."""
        if kind == "subject":
            near = nearest(member_of(text), self.members or ())
            meant = text.replace(member_of(text), near[:-1], 1) + "?" if near else ""
            return meant or ("" if fits(kind, text) else _WANTED[kind])
        if kind == "asset":
            return self._nearest_asset(text) or ("" if fits(kind, text) else _WANTED[kind])
        choice = CHOICES.get(kind, ())
        return nearest(text, (self.known(kind) or frozenset(choice)) - {""}) or " | ".join(choice)

    def _nearest_asset(self, text: str) -> str:
        """By whole ids; then, for a path without its writer, by the paths."""
        candidates = list(self._assets_beside(text))
        near = nearest(text, candidates)
        if near or fits("asset", text):
            return near
        by_path = {candidate.partition("/")[2]: candidate for candidate in reversed(candidates)}
        found = nearest(text.rpartition("/")[2], by_path)
        return f"{by_path[found[:-1]]}?" if found else ""

    def _assets_beside(self, text: str) -> Iterator[str]:
        """The ids and patterns that a text may have been meant as."""
        domain, slash, _ = text.partition("/")
        writers = sorted(self.namespaces or ())
        if slash and (not writers or domain in writers):
            writers = [domain]
        for pattern in sorted(self.patterns or ()):
            first, _, path = pattern.partition("/")
            if first != "*":
                yield pattern
            elif writers:
                yield from (f"{writer}/{path}" for writer in writers)
            else:
                yield pattern
