"""What a permit withholds is not in the bytes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.dagster_bridge.table_formats import Format, UnwritableError
from comity.dagster_bridge.tables import parse_table, restrict, table_bytes
from comity.node.forms import ModeForm, PermittedOutput, TermForm, WithheldForm


def permitted(
    columns: list[str], *obligations: TermForm, everything: bool = False, mode: ModeForm = "restrict"
) -> PermittedOutput:
    return PermittedOutput("clinic.example/released", "", mode, columns, everything, list(obligations))


def at_least(column: str, rows: int) -> TermForm:
    return TermForm("min_group_rows", {"column": column, "rows": rows})


FREE = permitted([], everything=True, mode="execute")


def rows_of(value: object, output: PermittedOutput) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = restrict(value, output).table.to_pydict()
    return table


def test_columns_outside_of_the_extent_are_dropped() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2], "c": [3]})
    found = restrict(frame, permitted(["c", "a", "absent"]))
    assert found.table.to_pydict() == {"a": [1], "c": [3]}
    assert found.columns_withheld == ("b",)


def test_a_permit_for_all_declared_columns_covers_no_others() -> None:
    frame = pd.DataFrame({"a": [1], "undeclared": [2]})
    found = restrict(frame, permitted(["a"], everything=True, mode="execute"))
    assert found.columns_withheld == ("undeclared",)


def test_where_no_permitted_column_is_there_nothing_is_written() -> None:
    for output in (permitted(["z"]), permitted([])):
        with pytest.raises(UnwritableError) as raised:
            restrict(pd.DataFrame({"a": [1]}), output)
        assert raised.value.cause.code == "columns_none_permitted"


def test_groups_that_are_too_small_and_rows_without_one_are_left_out() -> None:
    frame = pd.DataFrame({"site": [1.0, 1.0, 2.0, None, float("nan")], "n": [1, 2, 3, 4, 5]})
    found = restrict(frame, permitted(["n"], at_least("site", 2)))
    assert found.table.to_pydict() == {"n": [1, 2]}
    assert found.withheld == (WithheldForm("min_group_rows", "site", 3, ["2", "null"]),)
    table = pa.table({"site": [1.0, 1.0, float("nan"), float("nan")], "n": [1, 2, 3, 4]})
    assert rows_of(table, permitted(["n"], at_least("site", 2))) == {"n": [1, 2]}


SITES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["x", "y", "z", None])), max_size=30
)


@given(SITES, st.integers(1, 4), st.integers(1, 4))
def test_law_every_group_that_is_written_is_large_enough(
    pairs: list[tuple[str | None, str | None]], left: int, right: int
) -> None:
    frame = pd.DataFrame(
        {"site": [one for one, _ in pairs], "ward": [two for _, two in pairs], "n": range(len(pairs))}
    )
    output = permitted(["site", "ward", "n"], at_least("site", left), at_least("ward", right))
    found = restrict(frame, output)
    for column, rows in (("site", left), ("ward", right)):
        counts = found.table.to_pandas()[column].value_counts(dropna=False)
        assert (counts >= rows).all()
        assert found.table.column(column).null_count == 0
    # What is left and what was taken out make up the whole, and what is left is untouched.
    assert found.table.num_rows + found.rows_withheld == len(pairs)
    assert all(
        pairs[n] == (site, ward) for site, ward, n in zip(*found.table.to_pydict().values(), strict=True)
    )


@given(SITES, st.integers(1, 4))
def test_law_no_more_rows_are_left_out_than_must_be(
    pairs: list[tuple[str | None, str | None]], rows: int
) -> None:
    frame = pd.DataFrame({"site": pd.Series([one for one, _ in pairs], dtype=object), "n": range(len(pairs))})
    kept = rows_of(frame, permitted(["n"], at_least("site", rows)))["n"]
    sites = [one for one, _ in pairs]
    assert kept == [n for n, site in enumerate(sites) if site is not None and sites.count(site) >= rows]


def test_withheld_values_do_not_hide_in_dictionaries_metadata_or_statistics() -> None:
    frame = pd.DataFrame(
        {
            "site": pd.Categorical(
                ["kept", "kept", "WITHHELD"], categories=["WITHHELD", "kept", "UNUSED"], ordered=True
            ),
            "note": ["fine", "fine", "WITHHELD too"],
            "column_WITHHELD": [1, 2, 3],
        }
    )
    frame.attrs["note"] = "WITHHELD as well"
    output = permitted(["site", "note"], at_least("site", 2))
    for form in ("parquet", "csv"):
        data = table_bytes(restrict(frame, output).table, form)
        assert b"WITHHELD" not in data
        assert b"UNUSED" not in data
        back = parse_table(data, form, as_arrow=False)
        assert isinstance(back, pd.DataFrame)
        assert back["note"].tolist() == ["fine", "fine"]
    arrow = pa.table({"site": pa.array(["kept", "kept", "WITHHELD"]).dictionary_encode()})
    arrow = arrow.replace_schema_metadata({"note": "WITHHELD"})
    assert b"WITHHELD" not in table_bytes(
        restrict(arrow, permitted(["site"], at_least("site", 2))).table, "parquet"
    )


def test_order_and_kind_of_categories_survive() -> None:
    kinds = pd.Categorical(["low", "high", "low", None], categories=["low", "mid", "high"], ordered=True)
    back = restrict(pd.DataFrame({"k": kinds}), permitted(["k"])).table.to_pandas()["k"]
    assert list(back.cat.categories) == ["low", "high"]
    assert back.cat.ordered
    assert back.tolist()[:3] == ["low", "high", "low"]


def test_a_nested_dictionary_cannot_be_restricted() -> None:
    nested = pa.array([["a"], ["b"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    with pytest.raises(UnwritableError, match="nests a dictionary"):
        restrict(pa.table({"n": nested}), permitted(["n"]))


FRAMES = st.lists(st.tuples(st.integers(), st.floats(allow_nan=False), st.text(max_size=5)), max_size=10)


@given(FRAMES.filter(lambda rows: all(-(2**63) <= row[0] < 2**63 for row in rows)))
def test_law_equal_tables_give_equal_bytes_and_come_back(rows: list[tuple[int, float, str]]) -> None:
    def frame() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "i": pd.Series([r[0] for r in rows], dtype="int64"),
                "f": pd.Series([r[1] for r in rows], dtype=float),
            }
        ).assign(s=pd.Series([r[2] for r in rows], dtype=object))

    whole = restrict(frame(), FREE).table
    data = table_bytes(whole, "parquet")
    halves = pa.concat_tables([whole.slice(0, len(rows) // 2), whole.slice(len(rows) // 2)])
    assert table_bytes(halves.replace_schema_metadata({"a": "b"}), "parquet") == data
    assert table_bytes(restrict(frame(), FREE).table, "csv") == table_bytes(whole, "csv")
    back = parse_table(data, "parquet", as_arrow=False)
    assert isinstance(back, pd.DataFrame)
    # pandas 3 has a type of its own for text, pandas 2 has none.
    expected = frame().astype({"s": back["s"].dtype})
    pd.testing.assert_frame_equal(back, expected, check_dtype=bool(rows))


def test_the_index_is_no_data_unless_it_has_a_name() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 9])
    assert rows_of(frame, FREE) == {"a": [1, 2]}
    with pytest.raises(UnwritableError, match="reset_index"):
        restrict(frame.rename_axis("patient"), FREE)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]]),
        pa.table([[1], [2]], names=["a", "a"]),
    ],
)
def test_columns_need_names_of_their_own(frame: object) -> None:
    for output in (FREE, permitted(["a"])):
        with pytest.raises(UnwritableError, match="distinct names"):
            restrict(frame, output)


def test_a_withheld_column_that_cannot_be_written_does_not_matter() -> None:
    frame = pd.DataFrame({"a": [1, 2], "odd": [object(), object()]})
    assert rows_of(frame, permitted(["a"])) == {"a": [1, 2]}
    with pytest.raises(UnwritableError, match="cannot be written"):
        restrict(frame, FREE)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("parquet", b""),
        ("parquet", b"PAR1"),
        ("parquet", b"a,b\n1,2\n"),
        ("csv", b""),
        ("csv", b"\xff\xfe\x00"),
    ],
)
def test_bytes_that_are_no_table_are_an_error_with_a_name(form: Format, data: bytes) -> None:
    with pytest.raises(UnwritableError, match=f"no {form} table"):
        parse_table(data, form, as_arrow=False)
