"""Tables on their way to and from bytes: what a permit withholds is taken out before the first byte is made.

Everything happens in Arrow. Equal tables give equal bytes, and no byte carries anything of what was
withheld: not in schema metadata, and not in a dictionary's unused values. Importing this imports pandas and
pyarrow.
"""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

from comity.dagster_bridge.table_formats import Format, UnwritableError
from comity.node.client import PermittedOutput, TermForm, WithheldForm

# pyarrow comes without types. Here it is untyped, and nothing of it leaves this module but whole tables.
pa: Any = importlib.import_module("pyarrow")
pc: Any = importlib.import_module("pyarrow.compute")
pq: Any = importlib.import_module("pyarrow.parquet")
pd: Any = importlib.import_module("pandas")

_ARROW_ERRORS: Final = (pa.ArrowException, TypeError, ValueError, OverflowError)
"""What Arrow and pandas raise where they cannot convert. The text holds values, so it is not repeated: a
withheld one would reach Dagster's event log."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

Table: TypeAlias = Any
"""A pyarrow.Table."""
MIN_GROUP_ROWS: Final = "min_group_rows"
"""Obligation: every group of rows that share a value of `column` has at least `rows` rows."""

ROW_GROUP_ROWS: Final = 1_048_576
"""Rows per Parquet row group, fixed so that equal tables give equal bytes."""
VALUES_MAX: Final = 10_000
"""Values that one obligation's report names; they stay in the node's own store."""
_KINDS_SHOWN: Final = 8
"""Types of values that an error names."""
ROUNDS_MAX: Final = 64
"""Passes over all obligations until none takes out a row any more."""


BATCH_ROWS: Final = 16_384
"""Rows of a partner's file that are read at once: a few megabytes of common tables."""
CELL_BYTES_MIN: Final = 8
"""What a cell takes in memory: a number, or a reference to an object."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a table that somebody else made may be: bytes in memory, and the rows that its record says."""

    bytes_max: int
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Restricted:
    """What may be written, and what was taken out."""

    table: Table
    columns_withheld: tuple[str, ...]
    withheld: tuple[WithheldForm, ...]

    @property
    def rows_withheld(self) -> int:
        return sum(each.rows for each in self.withheld)


def shows_no_value(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let no error of Arrow, pandas or a value's own class out: its text may hold what is to be withheld.

    The one place where foreign exceptions become ours. Nothing of the foreign one is chained.
    """

    @functools.wraps(function)
    def shielded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        kind = ""
        try:
            return function(*args, **kwargs)
        except UnwritableError:
            raise
        except Exception as exc:  # noqa: BLE001  # a value's own class may raise anything
            kind = type(exc).__name__
        raise _unwritable("not_a_table", f"the table cannot be handled: {kind}")

    return shielded


def is_table(value: object) -> bool:
    """Whether a value is a table that can be written: pandas' or Arrow's, or one that streams itself."""
    return isinstance(value, (pd.DataFrame, pa.Table)) or streams_itself(value)


def streams_itself(value: object) -> bool:
    """Whether a value names its columns and gives itself as a stream of Arrow, as polars and DuckDB's relations do."""
    kind: Any = type(value)
    return hasattr(kind, "__arrow_c_stream__") and hasattr(kind, "columns")


def names_of(value: object) -> frozenset[object]:
    """The names of a table's columns, or of several tables'; none for anything else."""
    if isinstance(value, pd.DataFrame):
        frame: Any = value
        return frozenset(frame.columns)
    if isinstance(value, pa.Table):
        table: Table = value
        return frozenset(table.column_names)
    if streams_itself(value):
        stream: Any = value
        return frozenset(stream.columns)
    if isinstance(value, Mapping):
        several = cast("Mapping[object, object]", value)
        return frozenset(name for each in several.values() if is_table(each) for name in names_of(each))
    return frozenset()


@shows_no_value
def arrow_table(value: object) -> Table:
    """A value as an Arrow table.

    An unnamed index is no data and is left out.

    Raises:
        UnwritableError: it is no table, its columns have no distinct text names, its index has names, or a
            column holds values that Arrow cannot write.
    """
    if isinstance(value, pd.DataFrame):
        frame: Any = value
        if any(name is not None for name in frame.index.names):
            raise _unwritable("index_named", "the index of the table has names: call reset_index() on it")
        _check_names(list(frame.columns))
        try:
            return pa.Table.from_pandas(frame, preserve_index=False)
        except _ARROW_ERRORS:
            raise _column_not_writable(frame) from None
    if isinstance(value, pa.Table):
        table: Table = value
        _check_names(list(table.column_names))
        return table
    if streams_itself(value):
        streamed: Table = pa.table(value)
        _check_names(list(streamed.column_names))
        return _without_views(streamed)
    if value is None:
        raise _unwritable(
            "not_a_table",
            "there is no value to write: annotate a function that returns nothing with -> None, and nothing is",
        )
    raise _unwritable(
        "not_a_table",
        f"a {type(value).__name__} is no table: return a pandas DataFrame or an Arrow table, or give this"
        " asset another IO manager",
    )


def _without_views(table: Table) -> Table:
    """The table with texts and byte strings as every reader and format knows them."""
    kinds = ((pa.types.is_string_view, pa.string()), (pa.types.is_binary_view, pa.binary()))
    for position, field in enumerate(table.schema):
        for is_view, plain in kinds:
            if is_view(field.type):
                table = table.set_column(position, field.name, table.column(position).cast(plain))
    return table


@shows_no_value
def restrict(value: object, permitted: PermittedOutput) -> Restricted:
    """Take out of a table what its permit withholds: rows first, for which withheld columns may count.

    Raises:
        UnwritableError: it is no table, an obligation is unknown or cannot be met, no permitted column is
            left, or one nests fields that the permit cannot name.
    """
    obligations = [_min_group_rows(term) for term in permitted.obligations]
    if isinstance(value, pd.DataFrame) and (permitted.columns or not permitted.all_columns):
        # A withheld column that Arrow cannot write is no reason to refuse: it is dropped before.
        frame: Any = value
        wanted = set(permitted.columns) | {column for column, _ in obligations}
        _check_names(list(frame.columns))
        dropped = [name for name in frame.columns if name not in wanted]
        value = frame.drop(columns=dropped)
    else:
        dropped = []
    table = arrow_table(value)
    narrowed = permitted.mode == "restrict" or bool(obligations)
    kept, withheld = _meet_obligations(table, obligations)
    if withheld:
        table = table.filter(kept)
    if permitted.columns or not permitted.all_columns:
        names = [name for name in table.column_names if name in set(permitted.columns)]
        dropped += [name for name in table.column_names if name not in names]
        if not names:
            raise _unwritable("columns_none_permitted", "the permit allows none of the table's columns")
        table = table.select(names)
        if permitted.mode == "restrict" and not permitted.all_columns:
            _check_flat(table)
    if narrowed or dropped:
        table = _without_unused_values(table)
    return Restricted(table, tuple(sorted(dropped)), tuple(withheld))


@shows_no_value
def table_bytes(table: Table, form: Format) -> bytes:
    """Write a table: the same bytes for the same table, whatever its chunks and metadata.

    Raises:
        UnwritableError: the format cannot hold a column.
    """
    sink = io.BytesIO()
    try:
        if form == "csv":
            table.to_pandas().to_csv(sink, index=False, lineterminator="\n")
        else:
            schema = pa.schema([_bare(field) for field in table.schema])
            columns = [column.cast(field.type) for column, field in zip(table.columns, schema, strict=True)]
            plain = pa.Table.from_arrays(columns, schema=schema).combine_chunks()
            pq.write_table(plain, sink, compression="zstd", version="2.6", row_group_size=ROW_GROUP_ROWS)
    except _ARROW_ERRORS:
        kinds = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise _unwritable("column_not_writable", f"no {form} file can hold all of {kinds}") from None
    return sink.getvalue()


@shows_no_value
def parse_table(data: bytes, form: Format, *, as_arrow: bool, bounds: Bounds | None = None) -> object:
    """Read a table from bytes that were verified before: a pandas DataFrame, or an Arrow table.

    Args:
        bounds: what the table may be, where somebody else made it.

    Raises:
        UnwritableError: the bytes are no such table, or it is larger than it may be.
    """
    try:
        if form == "csv":
            if bounds is not None:
                _check_csv(data, bounds)
            frame: Any = pd.read_csv(io.BytesIO(data))
            return pa.Table.from_pandas(frame, preserve_index=False) if as_arrow else frame
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read() if bounds is None else _read_within(file, bounds)
        return table if as_arrow else table.to_pandas()
    except (pa.ArrowException, ValueError, OSError):
        raise _unwritable("not_a_table", f"the bytes are no {form} table") from None


@dataclass(frozen=True, slots=True)
class Described:
    """A table of which some columns were read: the names of all, how many rows there are, and those columns.

    `schema` is that of all its columns; None where the format holds no types.
    """

    names: tuple[str, ...]
    rows: int
    some: Table
    schema: Any


@shows_no_value
def described(data: bytes, form: Format, columns: Iterable[str], *, whole: bool = False) -> Described:
    """Read of a table what it is, and the values of some of its columns where it has them.

    Args:
        whole: read all of it, to know that it can be read.

    Raises:
        UnwritableError: the bytes are no such table.
    """
    try:
        if form == "csv":
            table = pa.Table.from_pandas(pd.read_csv(io.BytesIO(data)), preserve_index=False)
            names = tuple(column_names(table))
            return Described(names, row_count(table), table.select(sorted(set(columns) & set(names))), None)
        file = pq.ParquetFile(pa.BufferReader(data))
        names = tuple(str(name) for name in file.schema_arrow.names)
        if whole:
            file.read()
        some = file.read(columns=sorted(set(columns) & set(names)))
        return Described(names, int(file.metadata.num_rows), some, file.schema_arrow)
    except (pa.ArrowException, ValueError, OSError):
        raise _unwritable("not_a_table", f"the bytes are no {form} table") from None


def _read_within(file: Any, bounds: Bounds) -> Table:
    """Read a Parquet file some rows at a time: a few bytes of it may stand for any number of values."""
    rows = int(file.metadata.num_rows)
    if bounds.rows is not None and rows != bounds.rows:
        raise _unwritable(
            "rows_not_as_signed", f"the file says {rows} rows, its record {bounds.rows}", rows=rows
        )
    _check_size(rows * len(file.schema_arrow.names) * CELL_BYTES_MIN, bounds)
    size = 0
    batches: list[Any] = []
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        size += batch.nbytes
        _check_size(size, bounds)
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _check_csv(data: bytes, bounds: Bounds) -> None:
    """A line that ends early has as many cells as the first one."""
    lines = data.count(b"\n") + data.count(b"\r")
    columns = data.partition(b"\n")[0].count(b",") + 1
    _check_size(len(data) + lines * columns * CELL_BYTES_MIN, bounds)


def _check_size(size: int, bounds: Bounds) -> None:
    if size > bounds.bytes_max:
        raise _unwritable(
            "table_too_large",
            f"the table takes more than {bounds.bytes_max} bytes in memory, the bound on what partners make:"
            " give the IO manager a larger partner_bytes_max if it is wanted",
            bytes_max=bounds.bytes_max,
        )


def wants_arrow(annotation: object) -> bool:
    """Whether an input's type asks for an Arrow table."""
    return annotation is pa.Table


def row_count(table: Table) -> int:
    """Rows of a table."""
    return int(table.num_rows)


def column_names(table: Table) -> list[str]:
    """Names of a table's columns, in order."""
    return [str(name) for name in table.column_names]


def _unwritable(code: str, message: str, **parameters: int | str) -> UnwritableError:
    return UnwritableError(TermForm(code, parameters, message=message))


def _check_names(names: Sequence[object]) -> None:
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise _unwritable("columns_not_named", "the columns of a table need distinct names that are text")


def _min_group_rows(term: TermForm) -> tuple[str, int]:
    """Column and least number of rows of an obligation."""
    if term.code != MIN_GROUP_ROWS:
        raise _unwritable(
            "obligation_unknown",
            f"the permit asks for {term.code}, which this version cannot do",
            obligation=term.code,
        )
    column, rows = term.parameters.get("column"), term.parameters.get("rows")
    if set(term.parameters) != {"column", "rows"} or not isinstance(column, str):
        raise _unwritable("obligation_invalid", f"{MIN_GROUP_ROWS} takes a column and a number of rows")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise _unwritable(
            "obligation_invalid", f"{MIN_GROUP_ROWS} asks for {rows!r} rows, not for one or more"
        )
    return column, rows


def _meet_obligations(table: Table, obligations: Iterable[tuple[str, int]]) -> tuple[Any, list[WithheldForm]]:
    """Which rows stay, as a mask, and what each obligation takes out.

    Taking out a row for one column may make a group of another too small, so passes are made until none does.
    """
    import numpy as np

    kept: Any = np.ones(row_count(table), dtype=bool)
    groups: list[tuple[str, int, Any, list[str]]] = []
    for column, rows in sorted(set(obligations)):
        if column not in table.column_names:
            raise _unwritable(
                "obligation_column_missing",
                f"the permit asks for groups by {column!r}, and the table has no such column",
                column=column,
            )
        codes, values = _group_codes(table.column(column))
        groups.append((column, rows, codes, values))
    taken: dict[str, Any] = {column: np.zeros_like(kept) for column, _, _, _ in groups}
    for _ in range(ROUNDS_MAX):
        before = int(kept.sum())
        for column, rows, codes, values in groups:
            counts = np.bincount(codes[kept & (codes >= 0)], minlength=len(values) or 1)
            small = kept & ((codes < 0) | (counts[np.maximum(codes, 0)] < rows))
            taken[column] |= small
            kept &= ~small
        if int(kept.sum()) == before:
            break
    else:
        raise _unwritable("obligation_unmet", "the obligations of the permit take out rows without end")
    withheld = [
        WithheldForm(MIN_GROUP_ROWS, column, int(taken[column].sum()), _named(codes[taken[column]], values))
        for column, _, codes, values in groups
        if taken[column].any()
    ]
    return pa.array(kept), withheld


def _group_codes(column: Any) -> tuple[Any, list[str]]:
    """A column's groups: the index of each row's value, -1 for none, and the values."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_null(array.type):
        return array.is_null().to_numpy(zero_copy_only=False).astype("int64") * -1, []
    if pa.types.is_floating(array.type):
        # Not a number is no value: it is equal to nothing, so it makes no group.
        array = pc.if_else(pc.is_nan(array), None, array)
    try:
        encoded = array.dictionary_encode()
    except pa.ArrowException:
        raise _unwritable("obligation_column_invalid", f"rows cannot be grouped by a {array.type}") from None
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype("int64")
    return codes, [_text(value) for value in encoded.dictionary.to_pylist()]


def _named(codes: Any, values: list[str]) -> list[str]:
    names: set[str] = {values[code] if code >= 0 else "null" for code in codes.tolist()}
    return sorted(names)[:VALUES_MAX]


def _text(value: object) -> str:
    """A group's value for people: a whole number has no fraction, although missing values made it a float."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _without_unused_values(table: Table) -> Table:
    """The table with dictionaries that hold what its rows use: other values would tell what was withheld."""
    for position, field in enumerate(table.schema):
        if _nests_extension(field.type):
            # What it keeps beside its values is its own: neither its parameters nor its storage can be narrowed.
            raise _unwritable(
                "column_not_restrictable",
                f"column {field.name!r} has an extension type, which may hold withheld values: cast it to a"
                " plain type",
                column=field.name,
            )
        if pa.types.is_dictionary(field.type) and not _nests_dictionary(field.type.value_type):
            column = _compacted(table.column(position))
            table = table.set_column(position, pa.field(field.name, column.type, field.nullable), column)
        elif _nests_dictionary(field.type):
            raise _unwritable(
                "column_not_restrictable",
                f"column {field.name!r} nests a dictionary, which may hold withheld values",
                column=field.name,
            )
    return table


def _compacted(column: Any) -> Any:
    """A dictionary column with the same values, order and flags, without the unused ones."""
    import numpy as np

    array = column.unify_dictionaries().combine_chunks()
    used = np.unique(array.indices.drop_null().to_numpy(zero_copy_only=False))
    position = np.zeros(len(array.dictionary) + 1, dtype="int64")
    position[used] = np.arange(len(used))
    codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    indices = pa.array(
        position[codes], type=array.type.index_type, mask=array.indices.is_null().to_numpy(False)
    )
    return pa.DictionaryArray.from_arrays(
        indices, array.dictionary.take(pa.array(used)), ordered=array.type.ordered
    )


def _nests_dictionary(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return True
    return any(_nests_dictionary(field.type) for field in _fields_of(kind))


def _nests_extension(kind: Any) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _nests_extension(kind.value_type)
    return any(_nests_extension(field.type) for field in _fields_of(kind))


def _fields_of(kind: Any) -> list[Any]:
    """The fields inside of a type: one for a list, several for a structure."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return [kind.field(index) for index in range(kind.num_fields)]


def _check_flat(table: Table) -> None:
    """Refuse columns that hold named fields: a permit names columns, and a field may be a withheld one."""
    for field in table.schema:
        if _nests_fields(field.type):
            raise _unwritable(
                "column_not_restrictable",
                f"column {field.name!r} holds fields of its own, which a permit for columns cannot withhold:"
                " make each a column",
                column=field.name,
            )


def _nests_fields(kind: Any) -> bool:
    # A map is a list of structures to Arrow. Its keys are values, and may name anything.
    named = pa.types.is_struct(kind) or pa.types.is_union(kind)
    return named or any(_nests_fields(field.type) for field in _fields_of(kind))


def _bare(field: Any) -> Any:
    """A field without metadata, however deep: Parquet keeps Arrow's schema whole."""
    kind = field.type
    inner = [] if isinstance(kind, pa.BaseExtensionType) else [_bare(each) for each in _fields_of(kind)]
    if pa.types.is_struct(kind):
        kind = pa.struct(inner)
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(inner[0])
    elif pa.types.is_list(kind):
        kind = pa.list_(inner[0])
    elif pa.types.is_fixed_size_list(kind):
        kind = pa.list_(inner[0], kind.list_size)
    elif pa.types.is_map(kind):
        key, item = _bare(kind.key_field), _bare(kind.item_field)
        kind = pa.map_(key, item, keys_sorted=kind.keys_sorted)
    return pa.field(field.name, kind, field.nullable)


def _column_not_writable(frame: Any) -> UnwritableError:
    """Which column of a data frame Arrow cannot take, without its values."""
    for name in frame.columns:
        try:
            pa.Array.from_pandas(frame[name])
        except _ARROW_ERRORS:
            kinds = sorted({type(value).__name__ for value in frame[name]})[:_KINDS_SHOWN]
            return _unwritable(
                "column_not_writable",
                f"column {name!r} cannot be written: it holds values of types {', '.join(kinds)}",
                column=name,
            )
    return _unwritable("column_not_writable", "a column cannot be written")
