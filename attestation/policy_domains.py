"""What is left of the values of an attribute after some conditions on it.

Each kind of domain narrows, and says with None that nothing is left. They may keep too much and never too little: a
rule that is called unsatisfiable is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from comity.attestation.policy_vocabulary import Glob, Kind, can_be_like, fits, glob, meets, with_above
from comity.protocol.identifiers import pattern_matches

CLOSED_UPWARDS: Final[frozenset[Kind]] = frozenset({"authority class", "data class"})
"""Sets of these hold, with a class, all classes that it lies within."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One of two values, or both."""

    may: frozenset[bool] = frozenset({False, True})

    def to(self, value: bool) -> Truth | None:  # noqa: FBT001  # it is the value
        return Truth(frozenset({value})) if value in self.may else None


@dataclass(frozen=True, slots=True)
class Whole:
    """Integers, as intervals that do not touch, in order."""

    intervals: tuple[tuple[int, int], ...]

    @property
    def least(self) -> int:
        return self.intervals[0][0]

    @property
    def most(self) -> int:
        return self.intervals[-1][1]

    def within(self, least: int | None = None, most: int | None = None) -> Whole | None:
        left = tuple(
            (low, high)
            for one, other in self.intervals
            if (low := one if least is None else max(one, least))
            <= (high := other if most is None else min(other, most))
        )
        return Whole(left) if left else None

    def without(self, value: int) -> Whole | None:
        below, above = self.within(most=value - 1), self.within(least=value + 1)
        left = (*(below.intervals if below else ()), *(above.intervals if above else ()))
        return Whole(left) if left else None


@dataclass(frozen=True, slots=True)
class Text:
    """One text.

    Attributes:
        only: all that it may be; None where that is no list.
        never: what it is not.
        shapes: one of them matches; None where nothing is known.
        like: all of them match.
        outside: asset patterns, none of which matches.
    """

    kind: Kind
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()
    shapes: tuple[Glob, ...] | None = None
    like: tuple[Glob, ...] = ()
    outside: tuple[str, ...] = ()

    def among(self, names: Iterable[str]) -> Text | None:
        wanted = frozenset(name for name in names if fits(self.kind, name))
        return replace(self, only=wanted if self.only is None else self.only & wanted).checked()

    def besides(self, names: Iterable[str]) -> Text | None:
        return replace(self, never=self.never.union(names)).checked()

    def matching(self, pattern: Glob) -> Text | None:
        return (
            replace(self, like=(*self.like, pattern)).checked() if can_be_like(self.kind, pattern) else None
        )

    def not_matching(self, pattern: Glob) -> Text | None:
        if self.only is None:
            return self
        return self.besides(name for name in self.only if meets(pattern, _exactly(name)))

    def checked(self) -> Text | None:
        """Itself, if something is left."""
        if self.only is None:
            shapes = self.shapes or (glob("*"),)
            possible = any(all(meets(shape, pattern) for pattern in self.like) for shape in shapes)
            return self if possible else None
        left = frozenset(name for name in self.only - self.never if self._takes(name))
        return replace(self, only=left, never=frozenset()) if left else None

    def _takes(self, name: str) -> bool:
        exactly = _exactly(name)
        return (
            (self.shapes is None or any(meets(shape, exactly) for shape in self.shapes))
            and all(meets(pattern, exactly) for pattern in self.like)
            and not any(pattern_matches(pattern, name) for pattern in self.outside)
        )


def _exactly(name: str) -> Glob:
    return tuple(name)


@dataclass(frozen=True, slots=True)
class Many:
    """A set of texts.

    Attributes:
        has: what is in it.
        lacks: what is not.
        within: all that may be in it; None where that is no list.
        empty: whether it is empty, once that is known.
    """

    kind: Kind
    has: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    within: frozenset[str] | None = None
    empty: bool | None = None

    def _closed(self, names: Iterable[str]) -> frozenset[str]:
        return with_above(names) if self.kind in CLOSED_UPWARDS else frozenset(names)

    def can_have(self, name: str) -> bool:
        wanted = self._closed((name,))
        return (
            self.empty is not True
            and fits(self.kind, name)
            and not wanted & self.lacks
            and (self.within is None or wanted <= self.within)
        )

    def having(self, names: Iterable[str]) -> Many | None:
        wanted = frozenset(names)
        if not all(self.can_have(name) for name in wanted):
            return None
        return replace(self, has=self.has | self._closed(wanted))

    def having_some(self, names: Iterable[str]) -> Many | None:
        possible = [name for name in set(names) if self.can_have(name)]
        if not possible:
            return None
        return self.having(possible) if len(possible) == 1 else self.being_empty(False)

    def lacking(self, names: Iterable[str]) -> Many | None:
        unwanted = self.lacks.union(names)
        # What is in it is closed upwards, so that a class that is lacking is found there.
        if unwanted & self.has or (
            self.empty is False and self.within is not None and self.within <= unwanted
        ):
            return None
        return replace(self, lacks=unwanted)

    def among(self, names: Iterable[str]) -> Many | None:
        allowed = frozenset(names)
        left = allowed if self.within is None else allowed & self.within
        if not self.has <= left or (self.empty is False and not left - self.lacks):
            return None
        return replace(self, within=left)

    def being_empty(self, empty: bool) -> Many | None:  # noqa: FBT001  # it is what is said of it
        if self.empty is not None and self.empty is not empty:
            return None
        if empty and self.has:
            return None
        if not empty and self.within is not None and not self.within - self.lacks:
            return None
        return replace(self, empty=empty)


Domain: TypeAlias = Truth | Whole | Text | Many
