"""Canonical MessagePack: the one way in which a value is written.

The value model is small on purpose: booleans, integers of 64 bits signed, UTF-8 text, byte strings, arrays,
and maps with text keys. There is no nil (what is absent is left out), no float and no extension type. Map
keys are unique and sorted by their UTF-8 bytes; every length and integer takes its shortest form.

`decode` reads, checks the type, writes again and compares (law 1): bytes that another encoder could have
written for the same value are rejected, so one value has one digest. Nothing is ever re-encoded in order to
verify a signature; the bytes themselves travel.

Spec: docs/spec/encoding.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import msgpack
import msgspec

from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.limits import DEPTH_MAX, INT_MAX, INT_MIN, ITEMS_MAX, STRING_BYTES_MAX
from comity.protocol.measuring import measure

Value: TypeAlias = "bool | int | str | bytes | list[Any] | dict[str, Any]"

T = TypeVar("T")

_PLAIN_TEXT: Final = STRING_BYTES_MAX // 4
"""UTF-8 takes at most four bytes for one code point: a text of fewer characters fits."""
_NOT_CANONICAL = "not canonical: the bytes are not the shortest form, or a key stands twice"


# gc=False: what is frozen holds nothing that was made after it, so no cycle goes through it.
class Form(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base of every structure that is written in canonical MessagePack.

    A required field is always written. An optional one has the empty value of its type as its default, or
    None, and is absent when it is empty: no optional field, known or not, is ever written empty. Unknown
    fields are kept in the bytes, which are never rewritten, and are ignored by this reader unless a field
    `critical` of the same map, a list of names, lists them.
    """


def pack(value: Value) -> bytes:
    """Write an already canonical value (sorted maps, allowed types).

    Raises:
        LocalProtocolError: the value is outside of the model.
    """
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=False)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise LocalProtocolError(f"not encodable: {exc}") from exc
    return packed


def encode(form: msgspec.Struct | Value) -> bytes:
    """Write a form, or a plain value, canonically.

    Raises:
        LocalProtocolError: the value holds a float, a null, an integer beyond 64 bits signed, a text longer than
            `STRING_BYTES_MAX`, or a map with keys that are not text; or it is nested deeper than `DEPTH_MAX`.
    """
    plain = _written_plainly(form) if isinstance(form, Form) else None
    if plain is not None:
        return plain
    value = msgspec.to_builtins(form, builtin_types=(bytes,), order="sorted")
    problem = _problem(value, 0)
    if problem is not None:
        raise LocalProtocolError(f"not encodable: {problem}")
    return pack(value)


def decode_value(data: bytes, bytes_max: int, array_max: int = ITEMS_MAX) -> Value:
    """Read one canonical value. `array_max` bounds the length of each array in it.

    Raises:
        DecodeError: longer than `bytes_max`, malformed, outside of the value model, nested deeper than
            `DEPTH_MAX`, or not canonical.
    """
    value = _unpack(data, bytes_max, array_max)
    problem = _problem(value, 0)
    if problem is not None:
        raise DecodeError(problem)
    if pack(value) != data:
        raise DecodeError(_NOT_CANONICAL)
    return value


def decode_plain(data: bytes, shape: type[T], bytes_max: int) -> T | None:
    """Read what is plainly one canonical value of a type within the model, as most are. Else None.

    None is no verdict: `decode_value` or `decode` looks closer and says what is wrong, if anything is.
    """
    return _read_plainly(data, shape, bytes_max, ITEMS_MAX)


def decode(data: bytes, form: type[T], bytes_max: int, array_max: int = ITEMS_MAX) -> T:
    """Read one canonical value of the given form.

    Raises:
        DecodeError: as `decode_value`; or the value is not of the form; or a field is written although it equals
            its default; or a field named in `critical` is not known here.
    """
    typed = _read_plainly(data, form, bytes_max, array_max)
    if typed is not None:
        return typed
    value = _unpack(data, bytes_max, array_max)
    try:
        # `builtin_types`: else a text would do for bytes, as base64.
        typed = msgspec.convert(value, form, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise DecodeError(f"not a {form.__name__}: {exc}") from exc
    again = msgspec.to_builtins(typed, builtin_types=(bytes,), order="sorted")
    if pack(again) == data:
        # The form says all that there is: its types are within the model, and the bytes are the only ones for it.
        return typed
    # Outside of the model, another spelling of the same value, or fields that this reader does not know.
    problem = _problem(value, 0)
    if problem is not None:
        raise DecodeError(problem)
    if pack(value) != data:
        raise DecodeError(_NOT_CANONICAL)
    _compare_known(again, value, form.__name__)
    return typed


_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}
"""One for each form that is read: making one takes longer than reading."""


def _decoder(form: type[T]) -> msgspec.msgpack.Decoder[T]:
    known = _decoders.get(form)
    if known is None:
        known = _decoders[form] = msgspec.msgpack.Decoder(form)
    return known


_again = msgspec.msgpack.Encoder(order="sorted")


def _written_plainly(form: Form) -> bytes | None:
    """A form whose every value is of its field's type, written; most are. Else None, for a closer look.

    Types are within the model, so what can be read as the form is. Both writers spell alike, which a test holds.
    """
    try:
        data = _again.encode(form)
        if len(data) > STRING_BYTES_MAX:
            return None
        _decoder(type(form)).decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return None
    return data


def _read_plainly(data: bytes, form: type[T], bytes_max: int, array_max: int) -> T | None:
    """A form that is written as this reader would write it, with nothing unknown in it; most are. Else None.

    It is read straight into its type, so that nothing is ever built that the form has no place for. What is
    longer than the bounds of arrays and texts is left to the closer look that counts them.
    """
    if len(data) > min(bytes_max, array_max, STRING_BYTES_MAX):
        return None
    try:
        typed = _decoder(form).decode(data)
        return typed if _again.encode(typed) == data else None
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return None


def _unpack(data: bytes, bytes_max: int, array_max: int) -> Value:
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data)} bytes where at most {bytes_max} are allowed")
    measure(data, array_max)
    try:
        value: Value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=min(len(data), STRING_BYTES_MAX),
            max_bin_len=len(data),
            # A list is allocated when its length is read: nested lengths that lie must stay cheap.
            max_array_len=min(len(data), array_max),
            max_map_len=len(data),
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as exc:
        # ExtraData, StackError, FormatError, OutOfData and bad UTF-8 are all ValueErrors or UnpackExceptions.
        raise DecodeError(f"malformed MessagePack: {type(exc).__name__}") from exc
    return value


def _problem(value: Any, depth: int) -> str | None:
    """What puts a value outside of the model, or None."""
    kind: type[object] = value.__class__
    if kind is str:
        return "a text that is too long" if _is_too_long(value) else None
    if kind is bytes or kind is bool:
        return None
    if kind is int:
        return None if INT_MIN <= value <= INT_MAX else "an integer beyond 64 bits signed"
    if depth >= DEPTH_MAX:
        return f"nested deeper than {DEPTH_MAX}"
    if kind is list or kind is tuple:
        for item in value:
            if not _is_plain(item) and (problem := _problem(item, depth + 1)) is not None:
                return problem
        return None
    if kind is dict:
        last: str | None = None
        for key, item in value.items():
            if type(key) is not str:
                return "a map key that is not text"
            if last is not None and key <= last:
                return f"map keys out of order at {key[:80]!r}"
            last = key
            if not _is_plain(item) and (problem := _problem(item, depth + 1)) is not None:
                return problem
        return None
    return "a null" if value is None else f"a value of type {kind.__name__}"


def _is_plain(value: Any) -> bool:
    """Whether a value is plainly within the model: most are, and need no closer look."""
    kind: type[object] = value.__class__
    return (
        kind is bytes or (kind is str and len(value) < _PLAIN_TEXT) or (kind is int and 0 <= value <= INT_MAX)
    )


def _is_too_long(text: str) -> bool:
    # UTF-8 takes at most four bytes for one code point, so most texts need not be written to be measured.
    return len(text) * 4 > STRING_BYTES_MAX and len(text.encode(errors="surrogatepass")) > STRING_BYTES_MAX


def _is_map(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _compare_known(again: Any, value: Any, where: str) -> None:
    """Reject written defaults and unknown critical fields; accept other unknown fields.

    `again` is the value as this reader understands it; a difference means a field that is unknown here, or
    one that is written although it equals its default.
    """
    if _is_map(again) and _is_map(value):
        for key in value:
            if key in again:
                _compare_known(again[key], value[key], f"{where}.{key[:80]}")
        unknown = {key: item for key, item in value.items() if key not in again}
        if unknown:
            _check_unknown(unknown, value.get("critical", []), where)
        return
    if _is_array(again) and _is_array(value):
        if len(again) != len(value):
            raise DecodeError(f"{where}: not the canonical list")
        for left, right in zip(again, value, strict=True):
            _compare_known(left, right, where)
        return
    if again != value:
        raise DecodeError(f"{where}: not the canonical value")


def _check_unknown(unknown: dict[str, Any], critical: Any, where: str) -> None:
    if not _is_array(critical) or not all(isinstance(name, str) for name in critical):
        raise DecodeError(f"{where}: `critical` is not a list of names")
    # The word itself is known in every form, also where the table does not list it.
    names = frozenset(critical) - {"critical"}
    for key, item in unknown.items():
        if key in names:
            raise DecodeError(f"{where}: the critical field {key[:80]!r} is not known here")
        if item in (0, False, "", b"", [], {}):
            raise DecodeError(f"{where}: the field {key[:80]!r} is written although it is empty")
