"""What was staged is held against what the definitions declare: types of columns, and the partition of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.dagster_bridge import GovernedFilesIOManager
from comity.dagster_bridge.table_columns import outside_of, same_type, type_names
from comity.dagster_bridge.table_formats import UnwritableError
from dagster_runs import failure, materialize
from fake_node import FakeNode, execute, fake_home, restricted

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

DAYS = dg.DailyPartitionsDefinition("2026-01-01", timezone="Europe/Berlin")
CLINICS = dg.StaticPartitionsDefinition(["north", "south"])


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


def run(
    node: FakeNode,
    tmp_path: Path,
    table: Any,
    partition: str | None = None,
    form: str = "parquet",
    **options: Any,
) -> dg.ExecuteInProcessResult:
    def made() -> Any:
        return table

    asset: dg.AssetsDefinition = dg.asset(made, name="released", **options)
    resources = {"io_manager": GovernedFilesIOManager(base=str(tmp_path / "own"), format=form)}
    return materialize(node, asset, resources=resources, partition=partition)


def cause(result: dg.ExecuteInProcessResult) -> str:
    code: str = failure(result, "released")[1]["comity/causes"][0]["code"]
    return code


def schema(**types: str) -> dict[str, Any]:
    columns = [dg.TableColumn(name, type=kind) for name, kind in types.items()]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


# Types


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        ({"n": "int64", "name": "string"}, True),
        ({"n": "int32", "name": "string"}, False),
        ({"n": "double", "name": "string"}, False),
        # What Dagster fills in where nothing was declared, and words that Arrow does not know, bind nobody.
        ({"n": "string", "name": "string"}, True),
        ({"n": "BIGINT", "name": "some text"}, True),
    ],
)
def test_a_column_is_of_the_type_that_is_declared(
    node: FakeNode, tmp_path: Path, declared: dict[str, str], *, fits: bool
) -> None:
    table = pd.DataFrame({"n": [1, 2], "name": ["a", "b"]})
    result = run(node, tmp_path, table, metadata=schema(**declared))
    assert result.success is fits
    if not fits:
        assert cause(result) == "staged_type_differs"
        assert "'n' is of type int64" in failure(result, "released")[0]
        assert [each.code for each in node.discards[0].causes] == ["staged_type_differs"]


def test_a_file_without_types_is_held_to_none(node: FakeNode, tmp_path: Path) -> None:
    table = pd.DataFrame({"n": [1, 2]})
    assert run(node, tmp_path, table, form="csv", metadata=schema(n="timestamp[us]")).success


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.dictionary(pa.int8(), pa.string()), "string"),
        (pa.large_string(), "string"),
        (pa.large_binary(), "binary"),
        (pa.timestamp("us"), "timestamp[us]"),
        (pa.int16(), "int16"),
    ],
)
def test_how_a_column_is_laid_out_is_not_its_type(kind: Any, name: str) -> None:
    (found,) = type_names(pa.schema([("c", kind)])).values()
    assert same_type(found, name)


# Partitions


def local(text: str) -> datetime:
    """A time without a zone."""
    return datetime.fromisoformat(text)


def day(*times: Any) -> pd.DataFrame:
    return pd.DataFrame({"at": list(times), "n": range(len(times))})


BERLIN = ZoneInfo("Europe/Berlin")
BY_DAY: dict[str, Any] = {"partitions_def": DAYS, "metadata": {"partition_expr": "at"}}


@pytest.mark.parametrize(
    ("table", "outside"),
    [
        (day(local("2026-01-02T00:00:00"), local("2026-01-02T23:59:59")), 0),
        (day(local("2026-01-02T00:00:00"), local("2026-01-03T00:00:00")), 1),
        (day(local("2026-01-01T23:59:59"), local("2026-01-02T00:00:00")), 1),
        # In the zone of the partitions the day begins at 23:00 UTC of the day before.
        (day(datetime(2026, 1, 1, 23, tzinfo=UTC), datetime(2026, 1, 2, 22, 59, tzinfo=UTC)), 0),
        (day(datetime(2026, 1, 2, 23, tzinfo=UTC)), 1),
        (day(datetime(2026, 1, 2, 12, tzinfo=BERLIN)), 0),
        (day(date(2026, 1, 2), date(2026, 1, 2)), 0),
        (day(date(2026, 1, 2), date(2026, 1, 9), date(2026, 1, 9)), 2),
        (day("2026-01-02", "2026-01-02T13:00:00"), 0),
        (day("2026-01-02", "2026-01-04"), 1),
        (day(local("2026-01-02T00:00:00"), None), 1),
        (day(), 0),
    ],
)
def test_every_row_is_of_the_time_of_its_partition(
    node: FakeNode, tmp_path: Path, table: pd.DataFrame, outside: int
) -> None:
    result = run(node, tmp_path, table, "2026-01-02", **BY_DAY)
    assert result.success is (outside == 0), failure(result, "released") if not result.success else ""
    if outside:
        assert cause(result) == "staged_rows_of_another_partition"
        assert f"{outside} rows belong to another partition" in failure(result, "released")[0]


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize(("clinics", "fits"), [(["north", "north"], True), (["north", "south"], False)])
def test_every_row_is_of_the_key_of_its_partition(
    node: FakeNode, tmp_path: Path, form: str, clinics: list[str], *, fits: bool
) -> None:
    table = pd.DataFrame({"clinic": clinics})
    options: dict[str, Any] = {"partitions_def": CLINICS, "metadata": {"partition_expr": "clinic"}}
    assert run(node, tmp_path, table, "north", form, **options).success is fits


def test_each_dimension_has_its_column(node: FakeNode, tmp_path: Path) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "clinic": CLINICS})
    options: dict[str, Any] = {
        "partitions_def": both,
        "metadata": {"partition_expr": {"day": "at", "clinic": "clinic"}},
    }
    key = str(dg.MultiPartitionKey({"day": "2026-01-02", "clinic": "north"}))
    table = pd.DataFrame({"at": [local("2026-01-02T00:00:00")], "clinic": ["north"]})
    assert run(node, tmp_path, table, key, **options).success
    for column, value in (("at", local("2026-01-03T00:00:00")), ("clinic", "south")):
        result = run(node, tmp_path, table.assign(**{column: value}), key, **options)
        assert cause(result) == "staged_rows_of_another_partition"


@pytest.mark.parametrize(
    ("named", "problem"),
    [({"day": "at"}, "for each of clinic, day"), ("at", "for each of clinic, day")],
)
def test_a_dimension_without_a_column_is_said(
    node: FakeNode, tmp_path: Path, named: Any, problem: str
) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "clinic": CLINICS})
    key = str(dg.MultiPartitionKey({"day": "2026-01-02", "clinic": "north"}))
    options: dict[str, Any] = {"partitions_def": both, "metadata": {"partition_expr": named}}
    result = run(node, tmp_path, pd.DataFrame({"at": [1]}), key, **options)
    assert problem in failure(result, "released")[0]
    assert node.actuations == []


def test_a_partition_column_that_is_withheld_cannot_be_looked_at(node: FakeNode, tmp_path: Path) -> None:
    node.decisions["released"] = restricted(["n"])
    table = pd.DataFrame({"clinic": ["south"], "n": [1]})
    options: dict[str, Any] = {"partitions_def": CLINICS, "metadata": {"partition_expr": "clinic"}}
    assert run(node, tmp_path, table, "north", **options).success


def test_a_partition_column_of_another_kind_is_no_error_of_arrows(node: FakeNode, tmp_path: Path) -> None:
    """Whose text holds values."""
    result = run(node, tmp_path, pd.DataFrame({"at": [b"secret-value"]}), "2026-01-02", **BY_DAY)
    text = failure(result, "released")[0]
    assert "secret-value" not in text
    assert node.actuations == []


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=30), st.integers(-3, 3))
def test_rows_outside_are_counted_as_in_words(values: list[int | None], wanted: int) -> None:
    table = pa.table({"n": pa.array(values, pa.int64())})
    assert outside_of(table, "n", str(wanted)) == sum(each != wanted for each in values)
    assert outside_of(table, "none", str(wanted)) == 0


def test_what_is_no_time_is_unwritable() -> None:
    with pytest.raises(UnwritableError):
        outside_of(
            pa.table({"at": ["yesterday"]}),
            "at",
            (local("2026-01-01T00:00:00"), local("2026-01-02T00:00:00")),
        )
