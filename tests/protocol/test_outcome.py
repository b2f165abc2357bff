"""The lattice of outcomes: its laws, and what a vote supports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.protocol.encoding import decode, encode
from comity.protocol.errors import DecodeError
from comity.protocol.outcome import (
    Cause,
    Extent,
    Mode,
    Need,
    Obligation,
    Outcome,
    Ranges,
    contains,
    execute,
    extent_is_empty,
    extent_meet,
    extent_within,
    full_extent,
    indices_of,
    meet,
    normal,
    ranges_are_canonical,
    ranges_count,
    ranges_meet,
    ranges_of,
    supports,
    union,
)

ITEMS, COLUMNS = 4, 3
FULL = full_extent(ITEMS, COLUMNS)
NO_TABLE = full_extent(ITEMS, 0)

index_sets = st.frozensets(st.integers(0, 40), max_size=20)
obligations = st.lists(
    st.builds(
        lambda code, rows: Obligation(code=code, parameters={"rows": rows}),
        st.sampled_from("ab"),
        st.integers(1, 2),
    ),
    max_size=2,
).map(lambda terms: union(tuple(terms)))
needs = st.lists(st.builds(Need, code=st.sampled_from("pq")), max_size=2).map(
    lambda terms: union(tuple(terms))
)
causes = st.lists(
    st.builds(Cause, code=st.sampled_from("xyz"), rule=st.sampled_from(("", "r"))), max_size=2
).map(lambda terms: union(tuple(terms)))
extents = st.builds(
    lambda items, columns: Extent(ranges_of(items), ranges_of(columns)),
    st.frozensets(st.integers(0, ITEMS - 1)),
    st.frozensets(st.integers(0, COLUMNS - 1)),
)
raw = st.builds(
    Outcome, mode=st.sampled_from(Mode), extent=extents, obligations=obligations, needs=needs, causes=causes
)
outcomes = raw.map(lambda outcome: normal(outcome, FULL))


def joined(left: Outcome, right: Outcome) -> Outcome:
    return meet(left, right, FULL)


# Ranges are sets


@given(index_sets)
def test_ranges_are_a_set_of_indices(indices: frozenset[int]) -> None:
    ranges = ranges_of(indices)
    assert ranges_are_canonical(ranges)
    assert indices_of(ranges) == indices
    assert ranges_count(ranges) == len(indices)


@given(index_sets, index_sets)
def test_the_meet_of_ranges_is_the_intersection(left: frozenset[int], right: frozenset[int]) -> None:
    common = ranges_meet(ranges_of(left), ranges_of(right))
    assert common == ranges_of(left & right)


@given(index_sets, index_sets, index_sets, index_sets)
def test_extents_are_ordered_by_inclusion(
    items: frozenset[int], columns: frozenset[int], more: frozenset[int], other: frozenset[int]
) -> None:
    inner, outer = Extent(ranges_of(items), ranges_of(columns)), Extent(ranges_of(more), ranges_of(other))
    assert extent_within(inner, outer) == (items <= more and columns <= other)
    common = extent_meet(inner, outer)
    assert extent_within(common, inner)
    assert extent_within(common, outer)


@pytest.mark.parametrize(
    "ranges", [((1, 0),), ((0, 1), (2, 3)), ((0, 2), (1, 3)), ((4, 5), (0, 1)), ((0, 0), (0, 0))], ids=repr
)
def test_a_set_of_indices_has_one_spelling(ranges: Ranges) -> None:
    with pytest.raises(ValueError, match="ranges ascend"):
        Extent(items=ranges)
    with pytest.raises(DecodeError, match="ranges ascend"):
        decode(encode({"columns": [list(r) for r in ranges]}), Extent, 100)


# The meet


@given(outcomes)
def test_the_meet_is_idempotent(one: Outcome) -> None:
    assert joined(one, one) == one


@given(outcomes, outcomes)
def test_the_meet_is_commutative(left: Outcome, right: Outcome) -> None:
    assert encode(joined(left, right)) == encode(joined(right, left))


@given(outcomes, outcomes, outcomes)
def test_the_meet_is_associative(left: Outcome, middle: Outcome, right: Outcome) -> None:
    """Also in causes: what is said must not depend on which bundle was asked first."""
    assert encode(joined(joined(left, middle), right)) == encode(joined(left, joined(middle, right)))


@given(outcomes)
def test_execute_is_the_top(one: Outcome) -> None:
    assert joined(execute(FULL), one) == one


@given(outcomes, outcomes)
def test_the_meet_permits_no_more_than_either(left: Outcome, right: Outcome) -> None:
    both = joined(left, right)
    assert both.mode.rank <= min(left.mode.rank, right.mode.rank)
    for one in (left, right):
        assert extent_within(both.extent, one.extent)
        assert contains(both.obligations, one.obligations)
        assert contains(both.causes, one.causes)
        assert contains(both.needs, one.needs)


@given(raw)
def test_normal_is_idempotent(outcome: Outcome) -> None:
    assert normal(normal(outcome, FULL), FULL) == normal(outcome, FULL)


def test_the_modes_are_ordered() -> None:
    assert [mode.value for mode in sorted(Mode, key=lambda m: m.rank)] == [
        "refuse",
        "defer",
        "restrict",
        "execute",
    ]
    for low in Mode:
        for high in Mode:
            found = joined(Outcome(mode=low, extent=FULL), Outcome(mode=high, extent=FULL)).mode
            assert found is min(low, high, key=lambda mode: mode.rank)


# Mode and extent agree


def test_less_than_everything_is_restrict() -> None:
    part = Extent(items=FULL.items, columns=((0, 1),))
    assert normal(Outcome(mode=Mode.EXECUTE, extent=part), FULL).mode is Mode.RESTRICT
    assert normal(execute(FULL), FULL) == execute(FULL)


def test_an_obligation_is_restrict() -> None:
    obliged = Outcome(mode=Mode.EXECUTE, extent=FULL, obligations=(Obligation(code="a"),))
    assert normal(obliged, FULL).mode is Mode.RESTRICT


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    "extent",
    [Extent(), Extent(items=FULL.items), Extent(columns=FULL.columns)],
    ids=["none", "no column", "no item"],
)
def test_an_empty_extent_is_refuse_and_says_so(mode: Mode, extent: Extent) -> None:
    found = normal(Outcome(mode=mode, extent=extent), FULL)
    assert found.mode is Mode.REFUSE
    assert [cause.code for cause in found.causes] == ["extent_empty"]


def test_a_class_without_columns_is_not_empty_for_want_of_them() -> None:
    assert not extent_is_empty(NO_TABLE, NO_TABLE)
    assert normal(execute(NO_TABLE), NO_TABLE).mode is Mode.EXECUTE
    assert extent_is_empty(Extent(), NO_TABLE)


def test_disjoint_restrictions_leave_nothing() -> None:
    """The zip code or the birth date, never both: one bundle forbids the one, one the other."""
    left = Outcome(mode=Mode.RESTRICT, extent=Extent(FULL.items, ((0, 0),)))
    right = Outcome(mode=Mode.RESTRICT, extent=Extent(FULL.items, ((1, 1),)))
    assert joined(left, right).mode is Mode.REFUSE


# Support


@given(outcomes, outcomes, outcomes)
def test_what_a_meet_supports_both_support(left: Outcome, right: Outcome, claim: Outcome) -> None:
    if supports(joined(left, right), claim):
        assert supports(left, claim)
        assert supports(right, claim)


@given(outcomes, outcomes)
def test_the_meet_of_votes_is_supported_by_each(left: Outcome, right: Outcome) -> None:
    """So a permit may claim the meet of its votes; it is a claim where it is at least restrict."""
    both = joined(left, right)
    if both.mode.rank >= Mode.RESTRICT.rank:
        assert supports(left, both)
        assert supports(right, both)


@given(outcomes, outcomes, outcomes)
def test_support_is_transitive(high: Outcome, middle: Outcome, low: Outcome) -> None:
    if supports(high, middle) and supports(middle, low):
        assert supports(high, low)


@given(outcomes, outcomes)
def test_support_is_what_the_specification_says(own: Outcome, claim: Outcome) -> None:
    by_hand = (
        claim.mode in (Mode.RESTRICT, Mode.EXECUTE)
        and (own.mode is Mode.EXECUTE or own.mode is Mode.RESTRICT is claim.mode)
        and indices_of(claim.extent.items) <= indices_of(own.extent.items)
        and indices_of(claim.extent.columns) <= indices_of(own.extent.columns)
        and {encode(o) for o in own.obligations} <= {encode(o) for o in claim.obligations}
    )
    assert supports(own, claim) == by_hand


OWN = Outcome(
    mode=Mode.RESTRICT,
    extent=Extent(items=((0, 2),), columns=((0, 0), (2, 2))),
    obligations=(Obligation(code="a", parameters={"rows": 5}),),
)


@pytest.mark.parametrize(
    ("changes", "supported"),
    [
        ({}, True),
        ({"mode": Mode.EXECUTE}, False),
        ({"extent": Extent(((0, 3),), ((0, 0), (2, 2)))}, False),
        ({"extent": Extent(((0, 2),), ((0, 2),))}, False),
        ({"extent": Extent(((1, 1),), ((2, 2),))}, True),
        ({"obligations": ()}, False),
        ({"obligations": (Obligation(code="a", parameters={"rows": 4}),)}, False),
        ({"obligations": (*OWN.obligations, Obligation(code="b"))}, True),
        ({"causes": (Cause(code="x"),)}, True),
    ],
)
def test_a_vote_supports_no_more_than_it_says(changes: dict[str, Any], *, supported: bool) -> None:
    assert supports(OWN, msgspec.structs.replace(OWN, **changes)) is supported


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.DEFER])
def test_nothing_below_restrict_supports_or_is_claimed(mode: Mode) -> None:
    low = Outcome(mode=mode, extent=FULL)
    assert not supports(execute(FULL), low)
    assert not supports(low, low)
    assert not supports(low, execute(FULL))


@given(outcomes)
def test_an_outcome_survives_the_wire(outcome: Outcome) -> None:
    assert decode(encode(outcome), Outcome, 10_000) == outcome


def test_terms_are_told_apart_by_parameters_and_types() -> None:
    text, number = (
        Obligation(code="a", parameters={"rows": "5"}),
        Obligation(code="a", parameters={"rows": 5}),
    )
    assert len(union((text, number), (number,))) == 2
    assert not contains((text,), (number,))
    assert msgspec.structs.replace(text, parameters={"rows": 5}) == number
