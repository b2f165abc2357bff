"""The lattice of outcomes: mode x extent x obligations.

An outcome says how far one class of items may go. Outcomes combine by the meet: the lower mode, the common
extent, all obligations of both. The meet is commutative, associative and idempotent, so the order in which
rules, bundles and scopes are consulted never matters (law 6). A claim is *supported* by an outcome that
permits at least as much.

Spec: docs/spec/outcome.md.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from comity.protocol.encoding import Form, encode
from comity.protocol.identifiers import Code, Int, ShortText
from comity.protocol.limits import COLUMNS_MAX, ITEMS_MAX


class Mode(enum.StrEnum):
    """The defined set of modes, from the least permissive."""

    REFUSE = "refuse"
    """It is wrong; the causes say why."""
    DEFER = "defer"
    """Something named is missing; the needs say what."""
    RESTRICT = "restrict"
    """Part of the work, or under obligations."""
    EXECUTE = "execute"
    """All that was asked."""

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS: Final = {mode: rank for rank, mode in enumerate(Mode)}

_Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=max(ITEMS_MAX, COLUMNS_MAX))]
Range: TypeAlias = tuple[_Index, _Index]
"""First and last index, both included."""
Ranges: TypeAlias = Annotated[tuple[Range, ...], msgspec.Meta(max_length=512)]
"""A set of indices: ascending ranges that neither overlap nor touch."""

Parameter: TypeAlias = Int | ShortText


class Term(Form, frozen=True):
    """A stable code with typed parameters. People read the code's page; programs read the parameters."""

    code: Code
    parameters: Annotated[dict[ShortText, Parameter], msgspec.Meta(max_length=8)] = {}  # noqa: RUF012  # msgspec copies it


class Obligation(Term, frozen=True):
    """Something that the actuation must do, e.g. `min_group_rows` with `column` and `rows`."""


class Need(Term, frozen=True):
    """Something whose arrival would lift a deferral, e.g. `approval` with `class`."""


class Cause(Form, frozen=True):
    """Why an outcome is less than *execute*.

    `rule` is the `@id` of the policy rule that fired, or empty where an invariant of the protocol did.
    """

    code: Code
    rule: ShortText = ""
    parameters: Annotated[dict[ShortText, Parameter], msgspec.Meta(max_length=8)] = {}  # noqa: RUF012  # msgspec copies it


_EXTENT_EMPTY: Final = Cause(code="extent_empty")


class Extent(Form, frozen=True):
    """Which of the declared items and columns of one class: indices into the intent's own lists.

    Any subset of an extent is permitted where the extent is. A class that declares no columns has none in any
    extent.
    """

    items: Ranges = ()
    columns: Ranges = ()

    def __post_init__(self) -> None:
        if not (ranges_are_canonical(self.items) and ranges_are_canonical(self.columns)):
            raise ValueError("ranges ascend, each first <= last, with a gap between neighbours")


class Outcome(Form, frozen=True):
    """What may happen to one class of items, and why not more."""

    mode: Mode
    extent: Extent
    obligations: tuple[Obligation, ...] = ()
    needs: tuple[Need, ...] = ()
    causes: tuple[Cause, ...] = ()


_T = TypeVar("_T", Obligation, Need, Cause)


def union(*groups: tuple[_T, ...]) -> tuple[_T, ...]:
    """All terms of the groups, each once, in the order of their canonical bytes."""
    return tuple(
        term for _, term in sorted({encode(term): term for group in groups for term in group}.items())
    )


def contains(outer: tuple[_T, ...], inner: tuple[_T, ...]) -> bool:
    """Whether every term of `inner` is in `outer`."""
    return {encode(term) for term in inner} <= {encode(term) for term in outer}


def ranges_of(indices: set[int] | frozenset[int]) -> Ranges:
    """Write a set of indices as ranges."""
    ranges: list[Range] = []
    for index in sorted(indices):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return tuple(ranges)


def indices_of(ranges: Ranges) -> frozenset[int]:
    return frozenset(index for first, last in ranges for index in range(first, last + 1))


def ranges_are_canonical(ranges: Ranges) -> bool:
    """Ascending, each first <= last, with a gap between neighbours."""
    before: int | None = None
    for first, last in ranges:
        if first > last or (before is not None and before + 1 >= first):
            return False
        before = last
    return True


def ranges_meet(left: Ranges, right: Ranges) -> Ranges:
    """The common indices, in time linear in the number of ranges."""
    common: list[Range] = []
    i = j = 0
    while i < len(left) and j < len(right):
        first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if first <= last:
            common.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(common)


def ranges_count(ranges: Ranges) -> int:
    return sum(last - first + 1 for first, last in ranges)


def full_extent(items: int, columns: int) -> Extent:
    """The extent of a class with that many items and declared columns."""
    return Extent(
        items=((0, items - 1),) if items else (),
        columns=((0, columns - 1),) if columns else (),
    )


def extent_meet(left: Extent, right: Extent) -> Extent:
    return Extent(
        items=ranges_meet(left.items, right.items), columns=ranges_meet(left.columns, right.columns)
    )


def extent_within(inner: Extent, outer: Extent) -> bool:
    return inner == outer or extent_meet(inner, outer) == inner


def extent_is_empty(extent: Extent, full: Extent) -> bool:
    """No item is left, or no column of an output that has columns."""
    return not extent.items or (bool(full.columns) and not extent.columns)


def execute(full: Extent) -> Outcome:
    """The top of the lattice for a class of that extent."""
    return Outcome(mode=Mode.EXECUTE, extent=full)


def normal(outcome: Outcome, full: Extent) -> Outcome:
    """Bring mode and extent into agreement.

    An empty extent is *refuse*, and says so whatever else refused: a cause that depended on what was known first
    would make the meet depend on the order. *Execute* with less than the whole extent, or with an obligation,
    is *restrict*.
    """
    mode = outcome.mode
    causes = outcome.causes
    if extent_is_empty(outcome.extent, full):
        if _EXTENT_EMPTY not in causes:
            causes = union(causes, (_EXTENT_EMPTY,))
        mode = Mode.REFUSE
    elif mode is Mode.EXECUTE and (outcome.obligations or outcome.extent != full):
        mode = Mode.RESTRICT
    if mode is outcome.mode and causes is outcome.causes:
        return outcome
    return msgspec.structs.replace(outcome, mode=mode, causes=causes)


def meet(left: Outcome, right: Outcome, full: Extent) -> Outcome:
    """The greatest outcome that both permit, with the causes and needs of both."""
    return normal(
        Outcome(
            mode=left.mode if left.mode.rank <= right.mode.rank else right.mode,
            extent=extent_meet(left.extent, right.extent),
            obligations=union(left.obligations, right.obligations),
            needs=union(left.needs, right.needs),
            causes=union(left.causes, right.causes),
        ),
        full,
    )


def supports(own: Outcome, claim: Outcome) -> bool:
    """Whether a vote of outcome `own` approves everything that `claim` says (docs/spec/decision.md section 5).

    The claim's mode is at or below its own, its extent a subset, its obligations a superset; and both are at
    least *restrict*, for nothing less is ever claimed.
    """
    return (
        Mode.RESTRICT.rank <= claim.mode.rank <= own.mode.rank
        and extent_within(claim.extent, own.extent)
        and contains(claim.obligations, own.obligations)
    )
