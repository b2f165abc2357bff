"""A DuckDB database of governed tables, for tests: what its owner sees in it, and what a step writes and reads."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa

from comity.dagster_bridge import GovernedDuckDBIOManager, WrittenTable
from comity.dagster_bridge.duckdb_storage import DuckDBStorage
from comity.dagster_bridge.storage import Slot
from dagster_runs import failure, materialize
from fake_node import FakeNode

RELEASED = Slot(("released",))
EVERY_TYPE = pa.table(
    {
        "b": pa.array([True, None, False]),
        "i": pa.array([-(2**63), None, 2**63 - 1], pa.int64()),
        "u": pa.array([2**64 - 1, 0, None], pa.uint64()),
        "f": pa.array([float("nan"), -0.0, None], pa.float64()),
        "d": pa.array(
            [Decimal("-1.25"), None, Decimal("99999999999999999999999999.99")], pa.decimal128(38, 2)
        ),
        "s": pa.array(["", "\u00e9\u0000'\"", None]),
        "x": pa.array([b"", b"\x00\xff", None]),
        "day": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
        "clock": pa.array([dt.time(23, 59, 59, 999_999), None, dt.time(0)], pa.time64("us")),
        "at": pa.array([0, None, -1], pa.timestamp("ns")),
        "instant": pa.array([0, None, -1], pa.timestamp("us", "UTC")),
        'a name; with "quotes" -- and more': pa.array([1, 2, 3], pa.int8()),
    }
)
"""A column of each type that a version in a database has."""


class Own:
    """The organization's database, and one where its work writes by itself."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "own" / "study.duckdb"
        self.scratch = folder / "scratch.duckdb"

    def resources(self, **options: Any) -> dict[str, Any]:
        return {"io_manager": GovernedDuckDBIOManager(database=str(self.path), **options)}

    def storage(self, versions: int = 2, **options: Any) -> DuckDBStorage:
        return DuckDBStorage(self.path, versions, **options)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What a user of DuckDB alone sees."""
        with duckdb.connect(str(self.path), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def do(self, sql: str) -> None:
        """What somebody does who has the file."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)

    def tables(self) -> int:
        return int(
            self.ask("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'comity_versions'")[0][0]
        )


def frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"time": [1, 2, 3], "sex": [1, 1, 2], **columns})


def returning(table: object, partitions: dg.PartitionsDefinition[str] | None = None) -> dg.AssetsDefinition:
    @dg.asset(name="released", partitions_def=partitions)
    def made() -> Any:
        return table

    return made


def writing(own: Own, table: pd.DataFrame, name: str = "t") -> dg.AssetsDefinition:
    """An asset whose function writes its table by itself, by SQL."""

    @dg.asset(name="released")
    def made() -> Any:
        with duckdb.connect(str(own.scratch)) as connection:
            connection.register("given", table)
            connection.execute("CREATE OR REPLACE TABLE t AS SELECT * FROM given")
        return WrittenTable(own.scratch, name)

    return made


def consumed(node: FakeNode, own: Own, annotation: Any = pd.DataFrame, **options: Any) -> Any:
    """What whoever comes next reads of `released`, verified."""
    seen: list[Any] = []

    @dg.asset(name="released")
    def made() -> pd.DataFrame:
        raise AssertionError

    def consumer(released: Any) -> None:
        seen.append(released)

    consumer.__annotations__["released"] = annotation
    result = materialize(
        node,
        made,
        dg.asset(consumer),
        select=["consumer"],
        resources=own.resources(**options),
        unbound_writes="allow",
    )
    if not result.success:
        text, metadata = failure(result, "consumer")
        raise ReadFailedError(text, [cause["code"] for cause in metadata.get("comity/causes", [])])
    return seen[0]


class ReadFailedError(Exception):
    def __init__(self, text: str, codes: list[str]) -> None:
        super().__init__(text)
        self.codes = codes


def made_often(node: FakeNode, own: Own, *values: int, **options: Any) -> list[str]:
    """Versions of these values. Answers with their digests."""
    for value in values:
        assert materialize(node, returning(frame(n=[value] * 3)), resources=own.resources(**options)).success
    return [said.digest for said in node.actuations[-len(values) :]]


def shown(own: Own) -> int:
    ((value,),) = own.ask("SELECT DISTINCT n FROM released")
    return int(value)
