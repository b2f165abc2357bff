"""The names that are in force in a coalition, and what was probably meant by one that is not.

A name that nobody published is no error where it is signed: a later epoch may bring it. But until then nothing
that names it has an effect, so whoever signs is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from comity.node.client import NodeError
from comity.node.coalition_file import CoalitionFile
from comity.node.signing_hand import Hand
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.governance import Epoch, Policy, Taxonomy
from comity.protocol.identifiers import pattern_matches
from comity.protocol.records import decode_body

NAMED_MAX: Final = 12
"""Names that a warning lists where none is near."""


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What an epoch, its taxonomy and its policies name.

    Attributes:
        domains: the namespaces of the members.
        patterns: of the assets that some policy speaks of.
    """

    domains: tuple[str, ...]
    classes: tuple[str, ...]
    purposes: tuple[str, ...]
    data_classes: tuple[str, ...]
    patterns: tuple[str, ...]

    def class_warnings(self, names: Iterable[str]) -> list[str]:
        """Authority classes that no taxonomy in force has."""
        return _unknown("class", "the taxonomy in force", names, self.classes)

    def purpose_warnings(self, names: Iterable[str]) -> list[str]:
        """Purposes that no policy in force names."""
        return _unknown("purpose", "any policy in force", (name for name in names if name), self.purposes)

    def data_class_warnings(self, names: Iterable[str]) -> list[str]:
        """Data classes that no policy in force gives to an asset; `*` stands for all others."""
        return _unknown(
            "data class", "any policy in force", (name for name in names if name != "*"), self.data_classes
        )

    def asset_warnings(self, patterns: Iterable[str]) -> list[str]:
        """Whole patterns of assets that no member writes, or of which no policy in force speaks."""
        warnings: list[str] = []
        for pattern in patterns:
            domain, _, path = pattern.partition("/")
            if domain != "*" and domain not in self.domains:
                warnings += _unknown("member", "this coalition", (domain,), self.domains)
                continue
            if any(_overlap(pattern, each) for each in self.patterns):
                continue
            paths = [each.partition("/")[2] for each in self.patterns]
            warnings += _unknown("asset", "any policy in force", (path,), sorted(set(paths)))
        return warnings


def _overlap(one: str, other: str) -> bool:
    """Whether two patterns may speak of the same asset: one of them matches the other as it is written."""
    first, _, path = one.partition("/")
    second, _, rest = other.partition("/")
    if "*" not in (first, second) and first != second:
        return False
    left, right = f"x/{path}", f"x/{rest}"
    return pattern_matches(left, right) or pattern_matches(right, left)


def _unknown(what: str, where: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    choices = list(known)
    warnings: list[str] = []
    for name in names:
        if name in choices:
            continue
        near = difflib.get_close_matches(name, choices, n=1)
        listed = ", ".join(choices[:NAMED_MAX]) + (", ..." if len(choices) > NAMED_MAX else "")
        hint = f"did you mean {near[0]}?" if near else f"there are {listed or 'none'}"
        warnings.append(f"no {what} {name} is in {where}: {hint}")
    return warnings


def known_names(hand: Hand) -> KnownNames | None:
    """The names in force: as the local node knows them, or, where none runs, as the home's coalition file does.

    None where neither says: nothing is warned of then.
    """
    try:
        return _of_node(hand.reader().coalition())
    except (NodeError, ConfigError):
        pass
    try:
        return names_of_file(hand.coalition())
    except ConfigError:
        return None


def _of_node(said: Any) -> KnownNames:
    policies = [each for each in said["policies"] if each["held"]]
    rules = [rule for policy in policies for rule in policy["assets"]]
    return KnownNames(
        domains=tuple(sorted(name for member in said["members"] for name in member["namespaces"])),
        classes=tuple(each["name"] for each in said["authority_classes"]),
        purposes=tuple(sorted({each["name"] for policy in policies for each in policy["purposes"]})),
        data_classes=tuple(sorted({rule["data_class"] for rule in rules})),
        patterns=tuple(sorted({rule["pattern"] for rule in rules})),
    )


def names_of_file(file: CoalitionFile) -> KnownNames | None:
    """As the newest epoch of a file says. Nothing is verified: it is only warned by this."""
    try:
        epoch: Any = decode_body(file.epochs[-1]) if file.epochs else None
        bodies: dict[bytes, Any] = {
            record.header.body.digest: decode_body(record)
            for kind in ("taxonomy", "policy")
            for record in file.of_kind(kind)
        }
    except DecodeError:
        return None
    if not isinstance(epoch, Epoch):
        return None
    taxonomy = bodies.get(epoch.taxonomy)
    policies = [p for digest in epoch.policies if isinstance(p := bodies.get(digest), Policy)]
    return KnownNames(
        domains=tuple(sorted(name for member in epoch.members for name in member.namespaces)),
        classes=tuple(each.name for each in taxonomy.classes) if isinstance(taxonomy, Taxonomy) else (),
        purposes=tuple(sorted({each.name for policy in policies for each in policy.purposes})),
        data_classes=tuple(sorted({rule.data_class for policy in policies for rule in policy.assets})),
        patterns=tuple(sorted({rule.pattern for policy in policies for rule in policy.assets})),
    )
