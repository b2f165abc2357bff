"""Every form of the protocol: what its types allow, and that what is written is read back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import msgspec.inspect as mi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.protocol.encoding import Form, decode, decode_value, encode
from comity.protocol.errors import DecodeError
from comity.protocol.limits import DEPTH_MAX, INT_MAX, INT_MIN
from comity.protocol.records import BODIES
from reference_encoding import misspell, misspellings, reference_encode
from strategies import forms, of_form

MIB = 1_048_576
FORMS = forms()
SHORT_MAP = 16
"""Entries from which on a map's head has more than one byte."""
EXAMPLES = settings(max_examples=8)
"""For each of sixty forms; the thorough profile is for laws of one type."""

every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


def fields_of(form: type[Form]) -> tuple[mi.Field, ...]:
    info = mi.type_info(form)
    assert isinstance(info, mi.StructType)
    return info.fields


def parts(info: mi.Type, path: str, depth: int) -> Iterator[tuple[str, mi.Type, int]]:
    """A type and every type inside it, with the nesting at which it stands."""
    yield path, info, depth
    match info:
        case mi.StructType():
            for field in info.fields:
                yield from parts(field.type, f"{path}.{field.encode_name}", depth + 1)
        case mi.VarTupleType():
            yield from parts(info.item_type, f"{path}[]", depth + 1)
        case mi.TupleType():
            for item in info.item_types:
                yield from parts(item, f"{path}[]", depth + 1)
        case mi.DictType():
            yield from parts(info.key_type, f"{path} key", depth + 1)
            yield from parts(info.value_type, f"{path} value", depth + 1)
        case mi.UnionType():
            for item in info.types:
                yield from parts(item, path, depth)
        case _:
            pass


@every_form
def test_no_form_holds_a_float_or_anything_outside_of_the_model(form: type[Form]) -> None:
    allowed = (
        mi.BoolType | mi.IntType | mi.StrType | mi.BytesType | mi.LiteralType | mi.EnumType | mi.NoneType
        | mi.VarTupleType | mi.TupleType | mi.DictType | mi.UnionType | mi.StructType
    )  # fmt: skip
    strange = [
        (path, info)
        for path, info, _ in parts(mi.type_info(form), form.__name__, 0)
        if not isinstance(info, allowed)
    ]
    assert strange == []


@every_form
def test_every_integer_is_bounded_within_64_bits(form: type[Form]) -> None:
    for path, info, _ in parts(mi.type_info(form), form.__name__, 0):
        if isinstance(info, mi.IntType):
            high = info.le if info.le is not None else info.lt
            assert info.ge is not None, path
            assert high is not None, path
            assert INT_MIN <= info.ge < high <= INT_MAX, path
        if isinstance(info, mi.LiteralType):
            assert all(type(value) in (int, str) for value in info.values), path


@every_form
def test_every_byte_string_is_bounded(form: type[Form]) -> None:
    for path, info, _ in parts(mi.type_info(form), form.__name__, 0):
        if isinstance(info, mi.BytesType):
            assert info.max_length is not None, path


@every_form
def test_every_optional_field_is_empty_by_default(form: type[Form]) -> None:
    """Then `decode` can tell that a field is written although it is empty, known or not."""
    for field in fields_of(form):
        if not field.required:
            made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            assert made in (None, 0, False, "", b"", (), {}), field.name


@every_form
def test_none_is_never_written(form: type[Form]) -> None:
    for field in fields_of(form):
        if isinstance(field.type, mi.UnionType) and any(isinstance(t, mi.NoneType) for t in field.type.types):
            assert field.default is None, field.name


@every_form
def test_every_form_fits_the_depth(form: type[Form]) -> None:
    deepest = max(depth for _, _, depth in parts(mi.type_info(form), form.__name__, 0))
    assert deepest <= DEPTH_MAX // 2


@every_form
def test_forms_are_frozen_and_leave_out_what_is_empty(form: type[Form]) -> None:
    config = form.__struct_config__
    assert config.frozen
    assert config.omit_defaults


@pytest.mark.parametrize("kind", BODIES)
def test_every_body_is_salted_and_can_name_critical_fields(kind: str) -> None:
    names = {field.name: field for field in fields_of(BODIES[kind])}
    assert names["salt"].required
    assert not names["critical"].required


@every_form
def test_what_is_written_is_read_back(form: type[Form]) -> None:
    @EXAMPLES
    @given(of_form(form))
    def holds(value: Form) -> None:
        data = encode(value)
        assert decode(data, form, MIB) == value
        assert reference_encode(decode_value(data, MIB)) == data

    holds()


@every_form
def test_no_other_spelling_is_read(form: type[Form]) -> None:
    @EXAMPLES
    @given(of_form(form), st.data())
    def holds(value: Form, data: st.DataObject) -> None:
        plain: Any = decode_value(encode(value), MIB)
        wrong = misspell(plain, *data.draw(st.sampled_from(misspellings(plain)), label="part"))
        with pytest.raises(DecodeError):
            decode(wrong, form, MIB)
        if len(plain) > 1:
            head, parts = (
                encode(value)[:1],
                [reference_encode(k) + reference_encode(v) for k, v in plain.items()],
            )
            if len(plain) < SHORT_MAP:
                with pytest.raises(DecodeError):
                    decode(head + b"".join(parts[::-1]), form, MIB)

    holds()


@every_form
def test_unknown_fields_are_passed_over_unless_they_are_critical(form: type[Form]) -> None:
    @EXAMPLES
    @given(of_form(form))
    def holds(value: Form) -> None:
        plain: Any = decode_value(encode(value), MIB)
        if form.__struct_config__.forbid_unknown_fields:
            with pytest.raises(DecodeError):
                decode(encode({**plain, "zz": 1}), form, MIB)
            return
        assert decode(encode({**plain, "zz": 1}), form, MIB) == value
        critical = [*plain.get("critical", []), "zz"][-16:]
        with pytest.raises(DecodeError):
            decode(encode({**plain, "zz": 1, "critical": critical}), form, MIB)

    holds()


@every_form
def test_no_field_is_written_empty(form: type[Form]) -> None:
    @EXAMPLES
    @given(of_form(form), st.data())
    def holds(value: Form, data: st.DataObject) -> None:
        plain: Any = decode_value(encode(value), MIB)
        absent = [f for f in fields_of(form) if not f.required and f.encode_name not in plain]
        if not absent:
            return
        field = data.draw(st.sampled_from(absent), label="field")
        nothing: tuple[Any, ...] = (0, False, "", b"", [], {})
        for empty in nothing:
            with pytest.raises(DecodeError):
                decode(encode({**plain, field.encode_name: empty}), form, MIB)

    holds()


@every_form
def test_a_required_field_cannot_be_missing(form: type[Form]) -> None:
    @EXAMPLES
    @given(of_form(form))
    def holds(value: Form) -> None:
        plain: Any = decode_value(encode(value), MIB)
        for field in fields_of(form):
            if field.required:
                with pytest.raises(DecodeError):
                    decode(encode({k: v for k, v in plain.items() if k != field.encode_name}), form, MIB)

    holds()
