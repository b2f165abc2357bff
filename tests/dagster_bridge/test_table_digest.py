"""The digest of a table is of what it says, whatever lays it out: docs/spec/table.md."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from comity.dagster_bridge.table_digest import plain_table, table_digest, table_form
from comity.dagster_bridge.table_formats import UnwritableError

PAGE = Path(__file__).parents[2] / "docs" / "spec" / "table.md"


def digest(table: Any) -> str:
    return table_digest(table).digest


# The golden vector


def whole() -> Any:
    """A table with a column of every type of the page, with missing values, and with those that are easily lost."""
    utc = dt.UTC
    moment = dt.datetime.fromisoformat("2024-02-29T12:30:15.250")
    before = dt.datetime.fromisoformat("1969-12-31")
    kinds: dict[str, tuple[Any, list[Any]]] = {
        "bool": (pa.bool_(), [True, None, False]),
        **{f"int{n}": (getattr(pa, f"int{n}")(), [-(2 ** (n - 1)), None, 7]) for n in (8, 16, 32, 64)},
        **{f"uint{n}": (getattr(pa, f"uint{n}")(), [2**n - 1, None, 7]) for n in (8, 16, 32, 64)},
        "float": (pa.float32(), [-0.0, math.nan, None]),
        "double": (pa.float64(), [-0.0, math.nan, None]),
        "decimal": (pa.decimal128(20, 2), [decimal.Decimal("-12.34"), None, decimal.Decimal("0.01")]),
        "text": (pa.string(), ["é", None, ""]),
        "bytes": (pa.binary(), [b"\x00\xff", None, b""]),
        "date": (pa.date32(), [moment.date(), None, dt.date(1969, 12, 31)]),
        "time": (pa.time64("us"), [moment.time(), None, dt.time()]),
        "s": (pa.timestamp("s"), [moment.replace(microsecond=0), None, before]),
        **{each: (pa.timestamp(each), [moment, None, before]) for each in ("ms", "us", "ns")},
        "instant": (
            pa.timestamp("us", "UTC"),
            [moment.replace(tzinfo=utc), None, dt.datetime(1970, 1, 1, tzinfo=utc)],
        ),
    }
    return pa.table(
        {name: pa.array(values, kind, from_pandas=False) for name, (kind, values) in kinds.items()}
    )


def test_the_golden_vector() -> None:
    said = table_digest(whole())
    assert (said.size, said.digest) == (GOLDEN_SIZE, GOLDEN)


GOLDEN_SIZE = 727
GOLDEN = "c2a7bf543bb5908f7879e020a8c6ba68c67bef612959024e4cb7cf4d57008f75"


def test_the_example_of_the_page_is_right() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Example")[2].partition("## 1.")[0]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} ?)+)$", text, re.MULTILINE)
    table = pa.table({"n": pa.array([1, None, -2], pa.int16()), "s": pa.array(["a", None, "é"])})
    assert [bytes(part).hex(" ") for part in table_form(table)] == lines
    said = table_digest(table)
    assert f"SHA-256   {said.digest}\n" in text
    assert f"has {said.size} bytes" in text


def written_by_the_page(table: Any) -> bytes:
    """The form by what the page says, cell by cell, without Arrow's buffers."""
    import msgpack

    header = ["comity-table-1", table.num_rows, [[name, PAGE_TYPES[name]] for name in table.column_names]]
    out = [msgpack.packb(header, use_bin_type=True)]
    for name in table.column_names:
        cells = [
            cell.value if cell.is_valid and hasattr(cell, "value") else cell.as_py() for cell in table[name]
        ]
        out.append(bits([cell is not None for cell in cells]))
        kind = PAGE_TYPES[name]
        if kind == "bool":
            out.append(bits([bool(cell) for cell in cells]))
        elif kind in ("text", "bytes"):
            values = [cell.encode() if isinstance(cell, str) else cell or b"" for cell in cells]
            out += [struct.pack("<q", sum(map(len, values[: row + 1]))) for row in range(len(values))]
            out += values
        elif kind.startswith("decimal"):
            out += [int((cell or 0) * 100).to_bytes(16, "little", signed=True) for cell in cells]
        else:
            numbers = [0 if cell is None else cell for cell in cells]
            out += [
                NAN[kind] if math.isnan(number) else struct.pack(PAGE_PACKED[kind], number)
                for number in numbers
            ]
    return b"".join(out)


def bits(values: list[bool]) -> bytes:
    number = sum(1 << row for row, value in enumerate(values) if value)
    return number.to_bytes(-(-len(values) // 8), "little")


NAN = {"float": bytes.fromhex("0000c07f"), "double": bytes.fromhex("000000000000f87f")}
PAGE_PACKED = {
    **{f"{sign}int{n}": f"<{letter}" for sign, letters in (("", "bhiq"), ("u", "BHIQ"))
       for n, letter in zip((8, 16, 32, 64), letters, strict=True)},
    "float": "<f", "double": "<d", "date": "<i", "time": "<q", "instant": "<q",
    **{f"timestamp[{unit}]": "<q" for unit in ("s", "ms", "us", "ns")},
}  # fmt: skip
PAGE_TYPES = {
    **{name: name for name in ("bool", "text", "bytes", "date", "time", "instant", "float", "double")},
    **{f"{sign}int{n}": f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)},
    "decimal": "decimal(20,2)",
    **{unit: f"timestamp[{unit}]" for unit in ("s", "ms", "us", "ns")},
}


def test_a_stranger_writes_the_same_form_by_the_page() -> None:
    assert b"".join(bytes(part) for part in table_form(whole())) == written_by_the_page(whole())


# Laws

CELLS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "bool": (pa.bool_(), st.booleans()),
    "int16": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), st.floats()),
    "decimal": (pa.decimal128(9, 2), st.decimals(-1000, 1000, places=2)),
    "text": (pa.string(), st.text(max_size=5)),
    "bytes": (pa.binary(), st.binary(max_size=5)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "us": (pa.timestamp("us"), st.datetimes()),
    "instant": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(dt.UTC))),
}


@st.composite
def columns(draw: st.DrawFn, rows_min: int = 0) -> dict[str, Any]:
    rows = draw(st.integers(rows_min, 20))
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=4, unique=True))
    return {
        kind: pa.array(
            draw(st.lists(st.none() | CELLS[kind][1], min_size=rows, max_size=rows)),
            CELLS[kind][0],
            from_pandas=False,
        )
        for kind in kinds
    }


@given(columns(), st.lists(st.integers(0, 20), max_size=4))
def test_chunks_and_slices_make_no_difference(made: dict[str, Any], cuts: list[int]) -> None:
    table = pa.table(made)
    ends = sorted({0, *(cut for cut in cuts if cut < len(table)), len(table)})
    pieces = [table.slice(start, end - start) for start, end in pairwise(ends)]
    padded = pa.concat_tables([*pieces[:1], *pieces, *pieces[-1:]]) if pieces else table
    chunked = padded.slice(len(pieces[0]), len(table)) if pieces else table
    assert digest(chunked) == digest(table)


@pytest.mark.parametrize("cells", [
    pa.array([1, 2, 3]), pa.array([1.5, 2.5, 3.5]), pa.array(["one", "two", "three"]), pa.array([True, True, True]),
    pa.array([decimal.Decimal(1), decimal.Decimal(2), decimal.Decimal(3)]), pa.array([dt.date(2024, 1, 1)] * 3),
])  # fmt: skip
def test_what_lies_below_a_missing_value_makes_no_difference(cells: Any) -> None:
    mask = pa.array([True, False, True]).buffers()[1]
    hidden = pa.Array.from_buffers(cells.type, len(cells), [mask, *cells.buffers()[1:]])
    assert hidden.null_count == 1
    honest = pa.array([cells[0], None, cells[2]], cells.type)
    assert (
        digest(pa.table({"a": hidden})) == digest(pa.table({"a": honest})) != digest(pa.table({"a": cells}))
    )


@given(columns(rows_min=1), st.data())
def test_another_cell_another_digest(made: dict[str, Any], data: st.DataObject) -> None:
    table = pa.table(made)
    name = data.draw(st.sampled_from(sorted(made)))
    row = data.draw(st.integers(0, table.num_rows - 1))
    cells = made[name].to_pylist()
    value = data.draw(st.none() | CELLS[name][1])
    if same(cells[row], value, single=name == "float"):
        return
    changed = pa.array([*cells[:row], value, *cells[row + 1 :]], made[name].type, from_pandas=False)
    assert digest(pa.table({**made, name: changed})) != digest(table)


def same(one: Any, other: Any, *, single: bool) -> bool:
    """Whether two cells hold the same, with the sign of zero, and all that is not a number as one."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        form = "<f" if single else "<d"
        return struct.pack(form, one) == struct.pack(form, other)
    return bool(one == other) and (one is None) == (other is None)


@given(columns(rows_min=2))
def test_the_order_of_columns_and_rows_counts(made: dict[str, Any]) -> None:
    table = pa.table(made)
    turned = pa.table(dict(reversed(made.items())))
    assert (digest(turned) == digest(table)) == (len(made) == 1)
    reverse = table.take(list(reversed(range(len(table)))))
    palindrome = list(table_form(reverse)) == list(table_form(table))
    cells = [column.to_pylist() for column in table.columns]
    really = all(
        same(one, other, single=False)
        for each in cells
        for one, other in zip(each, reversed(each), strict=True)
    )
    assert palindrome == really
    assert (digest(reverse) == digest(table)) == really


@given(columns())
def test_another_name_or_one_row_more_counts(made: dict[str, Any]) -> None:
    table = pa.table(made)
    assert digest(table.rename_columns([f"{name}_" for name in table.column_names])) != digest(table)
    longer = pa.concat_tables([table, pa.table({name: pa.nulls(1, c.type) for name, c in made.items()})])
    assert digest(longer) != digest(table)


@pytest.mark.parametrize(("one", "other"), [
    (pa.int32(), pa.int64()), (pa.int32(), pa.uint32()), (pa.float32(), pa.float64()),
    (pa.string(), pa.binary()), (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("s"), pa.timestamp("ms")),
    (pa.decimal128(9, 2), pa.decimal128(9, 3)), (pa.decimal128(9, 2), pa.decimal128(10, 2)),
    (pa.date32(), pa.int32()), (pa.time64("us"), pa.int64()),
])  # fmt: skip
def test_another_type_another_digest(one: Any, other: Any) -> None:
    assert digest(pa.table({"a": pa.nulls(3, one)})) != digest(pa.table({"a": pa.nulls(3, other)}))


def texts(cast: Callable[[Any], Any]) -> Any:
    return pa.table({"a": cast(pa.array(["x", None, "y", "x"]))})


@pytest.mark.parametrize("cast", [
    lambda a: a.cast(pa.large_string()), lambda a: a.dictionary_encode(), lambda a: a.cast(pa.string_view()),
])  # fmt: skip
def test_how_arrow_keeps_texts_makes_no_difference(cast: Callable[[Any], Any]) -> None:
    assert digest(texts(cast)) == digest(texts(lambda a: a))


def test_a_zone_is_how_a_time_is_shown() -> None:
    times = pa.array([0, None, 1_700_000_000_000_000], pa.timestamp("us", "UTC"))
    there = times.cast(pa.timestamp("us", "Europe/Zurich"))
    assert digest(pa.table({"a": there})) == digest(pa.table({"a": times}))


@pytest.mark.parametrize("column", [
    pa.array([[1]]), pa.array([{"a": 1}]), pa.array([dt.timedelta(1)]), pa.array([1], pa.float16()),
    pa.array([decimal.Decimal(1)], pa.decimal256(60, 2)), pa.array([1], pa.time64("ns")),
    pa.array([1], pa.timestamp("ns", "UTC")), pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
])  # fmt: skip
def test_what_has_no_form_is_refused(column: Any) -> None:
    with pytest.raises(UnwritableError) as caught:
        plain_table(pa.table({"a": column}))
    assert caught.value.cause.code == "column_not_writable"
    with pytest.raises(UnwritableError):
        table_digest(pa.table({"a": column}))
