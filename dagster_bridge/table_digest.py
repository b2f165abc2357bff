"""The digest of a table that lies in no file of its own: SHA-256 of its columns in a form of their own.

docs/spec/table.md. It is of what the table says, not of how a database or Arrow lays it out: chunks, slices,
dictionaries, compression and what lies below a missing value make no difference. Importing this imports pyarrow.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from comity.dagster_bridge.table_formats import UnwritableError
from comity.dagster_bridge.tables import Table, shows_no_value
from comity.node.client import TermForm
from comity.protocol.encoding import pack

# Neither has types for what is done here: bytes of arrays are looked at as they lie in memory.
pa: Any = importlib.import_module("pyarrow")
pc: Any = importlib.import_module("pyarrow.compute")
np: Any = importlib.import_module("numpy")

TABLE_MEDIA_TYPE: Final = "application/vnd.comity.table.v1"
FORM: Final = "comity-table-1"

DECIMAL_BYTES: Final = 16
_WORDS: Final = 2
"""Words of eight bytes in a decimal."""
_MICROSECONDS: Final = "us"

_FIXED: Final = (
    *((getattr(pa, f"int{bits}")(), f"int{bits}", f"<i{bits // 8}") for bits in (8, 16, 32, 64)),
    *((getattr(pa, f"uint{bits}")(), f"uint{bits}", f"<u{bits // 8}") for bits in (8, 16, 32, 64)),
    (pa.float32(), "float", "<f4"),
    (pa.float64(), "double", "<f8"),
    (pa.date32(), "date", "<i4"),
    (pa.time64(_MICROSECONDS), "time", "<i8"),
    *((pa.timestamp(unit), f"timestamp[{unit}]", "<i8") for unit in ("s", "ms", "us", "ns")),
    (pa.timestamp(_MICROSECONDS, tz="UTC"), "instant", "<i8"),
)
"""Types of a fixed size: in Arrow, in the form, and how numpy calls their bytes."""


@dataclass(frozen=True, slots=True)
class TableDigest:
    """SHA-256 of a table's form (hex), and how many bytes that is."""

    digest: str
    size: int


@shows_no_value
def plain_table(table: Table) -> Table:
    """The table in the types that the form has: without dictionaries, views and zones; times in microseconds.

    Raises:
        UnwritableError: a column is of a type that the form does not have, or its values lose something.
    """
    columns = [_plain_column(str(name), table.column(index)) for index, name in enumerate(table.column_names)]
    return pa.Table.from_arrays(columns, names=[str(name) for name in table.column_names])


@shows_no_value
def table_digest(table: Table) -> TableDigest:
    """The digest of a table.

    Raises:
        UnwritableError: a column is of a type that the form does not have.
    """
    hashing, size = hashlib.sha256(), 0
    for part in table_form(table):
        hashing.update(part)
        size += len(part)
    return TableDigest(hashing.hexdigest(), size)


def table_form(table: Table) -> Iterator[Any]:
    """The bytes of a table's form, in parts."""
    plain = plain_table(table)
    header: list[Any] = [FORM, int(plain.num_rows), [[str(f.name), _type_name(f.type)] for f in plain.schema]]
    yield pack(header)
    for column in plain.columns:
        # One part of a table after the other, so that no more than a column is in memory twice.
        yield from _column_form(column)


def _plain_column(name: str, column: Any) -> Any:
    kind = column.type
    wanted = _plain_type(kind)
    if wanted is None:
        raise UnwritableError(
            TermForm(
                "column_not_writable",
                {"column": name},
                message=f"the column {name!r} is of type {kind}, which a database table is not given: cast it to a"
                " plain type, or make each of its fields a column",
            )
        )
    if kind == wanted:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowException:
        raise UnwritableError(
            TermForm(
                "column_not_writable",
                {"column": name},
                message=f"values of the column {name!r} lose something as {wanted}: round them first",
            )
        ) from None


def _plain_type(kind: Any) -> Any:
    """The type of the form for a type of Arrow; None where there is none."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_date(kind):
        return pa.date32()
    if types.is_time(kind):
        return pa.time64(_MICROSECONDS)
    if types.is_timestamp(kind):
        # A zone is how a time is shown; which one it was is not kept.
        return kind if kind.tz is None else pa.timestamp(_MICROSECONDS, tz="UTC")
    if types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if types.is_decimal128(kind) else None
    if types.is_null(kind):
        # A database has no column without a type.
        return pa.int32()
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    if binary or types.is_fixed_size_binary(kind):
        return pa.binary()
    fixed = any(kind == each for each, _, _ in _FIXED)
    return kind if fixed or types.is_boolean(kind) else None


def _type_name(kind: Any) -> str:
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_binary(kind):
        return "bytes"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return next(name for each, name, _ in _FIXED if each == kind)


def _column_form(column: Any) -> Iterator[Any]:
    """Which rows have a value, then the values."""
    here = np.concatenate([np.empty(0, dtype=bool), *(_present(chunk) for chunk in column.chunks)])
    yield np.packbits(here, bitorder="little").tobytes()
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        yield from _texts_form(column)
    elif pa.types.is_boolean(column.type):
        values = [chunk.fill_null(False).to_numpy(zero_copy_only=False) for chunk in column.chunks]
        yield np.packbits(np.concatenate([np.empty(0, dtype=bool), *values]), bitorder="little").tobytes()
    else:
        for chunk in column.chunks:
            if len(chunk):
                yield _bytes_of(_decimals(chunk) if pa.types.is_decimal(chunk.type) else _numbers(chunk))


def _present(chunk: Any) -> Any:
    return chunk.is_valid().to_numpy(zero_copy_only=False)


def _numbers(chunk: Any) -> Any:
    """Values of a fixed size; zero where there is none, and one kind of what is not a number."""
    (name,) = (name for each, _, name in _FIXED if each == chunk.type)
    if pa.types.is_temporal(chunk.type):
        chunk = chunk.view(pa.int32() if pa.types.is_date(chunk.type) else pa.int64())
    values = chunk.fill_null(0).to_numpy().astype(name, copy=False)
    if pa.types.is_floating(chunk.type):
        none = np.isnan(values)
        if none.any():
            values = np.where(none, np.array(np.nan, dtype=name), values)
    return values


def _decimals(chunk: Any) -> Any:
    """Two words for each value, the lower one first."""
    words = np.frombuffer(chunk.buffers()[1], dtype="<u8")
    values = words[chunk.offset * _WORDS : (chunk.offset + len(chunk)) * _WORDS].reshape(-1, _WORDS)
    return np.where(_present(chunk)[:, None], values, 0).astype("<u8") if chunk.null_count else values


def _texts_form(column: Any) -> Iterator[Any]:
    """Where each text or byte string ends, counted over the whole column, then all of them."""
    large = pa.large_string() if pa.types.is_string(column.type) else pa.large_binary()
    chunks = [chunk.cast(large) for chunk in column.chunks if len(chunk)]
    empty = "" if pa.types.is_string(column.type) else b""
    chunks = [chunk.fill_null(empty) if chunk.null_count else chunk for chunk in chunks]
    before = 0
    spans: list[tuple[Any, int, int]] = []
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, dtype="<i8")[chunk.offset : chunk.offset + len(chunk) + 1]
        first, last = int(ends[0]), int(ends[-1])
        yield _bytes_of((ends[1:] - first + before).astype("<i8", copy=False))
        before += last - first
        spans.append((data, first, last))
    for data, first, last in spans:
        if last > first:
            yield memoryview(data)[first:last]


def _bytes_of(values: Any) -> memoryview:
    return memoryview(np.ascontiguousarray(values)).cast("B")
