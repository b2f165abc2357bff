"""Hypothesis strategies for the value model and for every form of the protocol, read from its types."""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec
import msgspec.inspect as mi
from hypothesis import strategies as st

from comity.protocol import accountability, bundle, envelope, execution, frames, governance
from comity.protocol.encoding import Form
from comity.protocol.identifiers import SHOWN
from comity.protocol.limits import INT_MAX, INT_MIN
from comity.protocol.outcome import Extent, ranges_of

MODULES = (accountability, bundle, envelope, execution, frames, governance)
"""Importing them defines every form of the protocol."""

SMALL = 3
"""Elements of a generated list: laws of encoding show in few."""

ASCENDING = {("Ask", "relied"), ("Vote", "adverse"), ("Permit", "votes"), ("Refusal", "votes")}
"""Fields that hold a set of ids."""

integers = st.integers(INT_MIN, INT_MAX) | st.integers(-200, 300)
scalars = st.booleans() | integers | st.text(max_size=40) | st.binary(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""The value model. Maps come in any order: `encode` sorts them."""


def forms() -> list[type[Form]]:
    """Every form of the protocol, by name."""
    found: set[type[Form]] = set()
    queue: list[type[Form]] = [Form]
    while queue:
        for form in queue.pop().__subclasses__():
            queue.append(form)
            if form.__module__.startswith("comity.protocol."):
                found.add(form)
    return sorted(found, key=lambda form: form.__name__)


@functools.cache
def of_form(form: type[Form]) -> st.SearchStrategy[Any]:
    """Well-formed values of a form. Optional fields are absent half of the time."""
    if form is Extent:
        return st.builds(
            lambda items, columns: Extent(ranges_of(items), ranges_of(columns)), _indices, _indices
        )
    fields: dict[str, st.SearchStrategy[Any]] = {}
    info = mi.type_info(form)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        if (form.__name__, field.name) in ASCENDING:
            fields[field.name] = _of_type(field.type).map(lambda ids: tuple(sorted(set(ids))))
        elif field.required:
            fields[field.name] = _of_type(field.type)
        else:
            absent = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            fields[field.name] = st.just(absent) | _of_type(field.type)
    return st.builds(form, **fields)


_indices = st.sets(st.integers(0, 40), max_size=8)


def _of_type(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.BoolType():
            return st.booleans()
        case mi.IntType():
            assert info.ge is not None
            high = info.le if info.le is not None else (info.lt or 0) - 1
            return st.integers(info.ge, high)
        case mi.StrType():
            return _texts(info.pattern, info.min_length or 0, info.max_length)
        case mi.BytesType():
            low = info.min_length or 0
            return st.binary(min_size=low, max_size=min(info.max_length or 64, max(low, 64)))
        case mi.LiteralType():
            return st.sampled_from(info.values)
        case mi.EnumType():
            return st.sampled_from(list(info.cls))
        case mi.VarTupleType():
            low = info.min_length or 0
            high = min(info.max_length if info.max_length is not None else SMALL, max(low, SMALL))
            return st.lists(_of_type(info.item_type), min_size=low, max_size=high).map(tuple)
        case mi.TupleType():
            return st.tuples(*(_of_type(item) for item in info.item_types))
        case mi.DictType():
            return st.dictionaries(_of_type(info.key_type), _of_type(info.value_type), max_size=SMALL)
        case mi.UnionType():
            return st.one_of(*(_of_type(t) for t in info.types if not isinstance(t, mi.NoneType)))
        case mi.StructType():
            return of_form(info.cls)
        case _:
            raise AssertionError(f"a form holds a {type(info).__name__}")


@functools.cache
def _texts(pattern: str | None, low: int, high: int | None) -> st.SearchStrategy[str]:
    if pattern == SHOWN:
        seen = st.characters(exclude_categories=["Cs"]).filter(lambda c: re.match(SHOWN, c) is not None)
        return st.text(seen, min_size=low, max_size=min(high or 24, 24))
    if pattern is not None:
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= (high or 64))
    return st.text(min_size=low, max_size=min(high or 24, 24))
