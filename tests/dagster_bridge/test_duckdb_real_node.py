"""Under a real node: tables in a database are lineage, are refused when they were changed, and are rolled back."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest
import trio

from api_calls import solo
from comity.dagster_bridge import GovernedDuckDBIOManager, govern
from comity.node.client import VerificationForm
from dagster_runs import failure, materialized
from houses import RunningHouse, short_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Pipeline:
    """`plain/a`, whose values the test gives, and `plain/b`, which is a copy of what it reads."""

    def __init__(self, house: RunningHouse, database: Path) -> None:
        self.database = database
        self.values = [1]
        self.read: list[list[int]] = []

        @dg.asset(key=["plain", "a"])
        def a() -> pd.DataFrame:
            return pd.DataFrame({"n": self.values})

        @dg.asset(key=["plain", "b"], ins={"a": dg.AssetIn(key=["plain", "a"])})
        def b(a: pd.DataFrame) -> pd.DataFrame:
            self.read.append(list(a["n"]))
            return a

        self.assets: list[Any] = [a, b]
        home = str(house.home.path)
        self.resources = {"io_manager": GovernedDuckDBIOManager(database=str(database), home=home)}
        definitions = dg.Definitions(assets=self.assets, resources=self.resources)
        govern(definitions, home=home, purpose="survival_study", wait_max_s=20.0)

    async def run(self, *names: str) -> dg.ExecuteInProcessResult:
        call = functools.partial(
            dg.materialize,
            self.assets,
            selection=dg.AssetSelection.assets(*(dg.AssetKey(["plain", n]) for n in names)),
            resources=self.resources,
            raise_on_error=False,
        )
        return await trio.to_thread.run_sync(call)

    async def make(self, *values: int) -> str:
        """Make `plain/a` of these values. Answers with the actuation."""
        self.values = list(values)
        result = await self.run("a")
        assert result.success
        record: str = materialized(result)["plain/a"]["comity/record"]
        return record

    def do(self, sql: str) -> list[Any]:
        with duckdb.connect(str(self.database)) as connection:
            return connection.execute(sql).fetchall()


async def test_a_table_is_lineage_and_one_that_was_changed_is_refused(place: Path) -> None:
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "study.duckdb")
        first = await pipeline.make(1, 2)
        result = await pipeline.run("b")
        assert result.success
        assert [each["actuation"] for each in materialized(result)["plain/b"]["comity/inputs"]] == [first]
        shown = await house.ask(lambda client: client.lineage("plain/b"), "reader")
        assert {row["media_type"] for row in shown["actuations"]} == {"application/vnd.comity.table.v1"}
        ((name,),) = pipeline.do("SELECT name FROM comity.versions WHERE asset = 'plain/a'")
        pipeline.do(f"UPDATE comity_versions.{name} SET n = 7 WHERE n = 1")
        _, metadata = failure(await pipeline.run("b"), "plain__b")
        assert "content_changed" in {cause["code"] for cause in metadata["comity/causes"]}
        assert pipeline.read == [[1, 2]]
        pipeline.do(f"UPDATE comity_versions.{name} SET n = 1 WHERE n = 7")
        assert (await pipeline.run("b")).success


async def test_a_rolled_back_version_is_replaced_by_the_one_before(place: Path) -> None:
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "study.duckdb")
        first = await pipeline.make(1)
        second = await pipeline.make(2)
        form = VerificationForm(second, "failed")
        assert (await house.ask(lambda client: client.verify_version(form), "operator")).counts
        assert pipeline.do("SELECT n FROM plain.a") == [(2,)], "nobody has come by yet"
        result = await pipeline.run("b")
        assert result.success
        assert (pipeline.read, pipeline.do("SELECT n FROM plain.a")) == ([[1]], [(1,)])
        assert [each["actuation"] for each in materialized(result)["plain/b"]["comity/inputs"]] == [first]
        # The next one is made over the one that stands.
        await pipeline.make(3)
        assert pipeline.do("SELECT n FROM plain.a") == [(3,)]
