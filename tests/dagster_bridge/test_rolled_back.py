"""Under a real node: a version that was found wrong is out of the way at the next read and the next write."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import trio

from api_calls import solo
from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.dagster_bridge.files import kept_versions
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
    """`plain/a`, whose values the test gives, and `plain/b`, which counts what it reads."""

    def __init__(self, house: RunningHouse, base: Path, **options: Any) -> None:
        self.base = base
        self.values = [1]
        self.passes = True
        self.read: list[list[int]] = []

        @dg.asset(key=["plain", "a"])
        def a() -> pd.DataFrame:
            return pd.DataFrame({"n": self.values})

        @dg.asset(key=["plain", "b"], ins={"a": dg.AssetIn(key=["plain", "a"])})
        def b(a: pd.DataFrame) -> pd.DataFrame:
            self.read.append(list(a["n"]))
            return a

        @dg.asset_check(asset=dg.AssetKey(["plain", "a"]))
        def plausible(a: pd.DataFrame) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=self.passes and len(a) > 0)

        self.parts: list[Any] = [a, b, plausible]
        home = str(house.home.path)
        self.resources = {"io_manager": GovernedFilesIOManager(base=str(base), home=home, **options)}
        definitions = dg.Definitions(assets=self.parts, resources=self.resources)
        govern(definitions, home=home, purpose="survival_study", wait_max_s=20.0)

    async def run(self, *names: str, check: bool = False) -> dg.ExecuteInProcessResult:
        selection: Any
        if check:
            selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["plain", "a"]), "plausible"))
        else:
            selection = dg.AssetSelection.assets(*(dg.AssetKey(["plain", n]) for n in names)).without_checks()
        call = functools.partial(
            dg.materialize,
            self.parts,
            selection=selection,
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

    def on_disk(self) -> list[int]:
        return list(pd.read_parquet(self.base / "plain" / "a.parquet")["n"])


async def fail(house: RunningHouse, version: str) -> None:
    form = VerificationForm(version, "failed")
    said = await house.ask(lambda client: client.verify_version(form), "operator")
    assert said.counts


async def test_a_rolled_back_version_is_replaced_by_the_one_before(place: Path) -> None:
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "own")
        first = await pipeline.make(1)
        second = await pipeline.make(2)
        await fail(house, second)
        assert pipeline.on_disk() == [2], "nobody has come by yet"
        result = await pipeline.run("b")
        assert result.success
        assert (pipeline.read, pipeline.on_disk()) == ([[1]], [1])
        inputs = materialized(result)["plain/b"]["comity/inputs"]
        assert [each["actuation"] for each in inputs] == [first]
        # The next one is made over the one that stands, and that is what comes back when it fails, too.
        third = await pipeline.make(3)
        await fail(house, third)
        assert (await pipeline.run("b")).success
        assert (pipeline.read[-1], pipeline.on_disk()) == ([1], [1])


async def test_the_next_write_is_over_the_version_that_stands(place: Path) -> None:
    """Nobody read in between, and the store keeps one version before: that has to be the one that stands."""
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "own", versions=1)
        await pipeline.make(1)
        await fail(house, await pipeline.make(2))
        await fail(house, await pipeline.make(3))
        assert (await pipeline.run("b")).success
        assert pipeline.read == [[1]]


async def test_a_version_that_is_kept_no_more_is_made_anew(place: Path) -> None:
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "own")
        await pipeline.make(1)
        second = await pipeline.make(2)
        for kept in kept_versions(place / "own" / "plain" / "a.parquet"):
            kept.unlink()
        await fail(house, second)
        result = await pipeline.run("b")
        text, _ = failure(result, "plain__b")
        assert "was rolled back" in text
        assert pipeline.read == []
        await pipeline.make(3)
        assert (await pipeline.run("b")).success
        assert pipeline.read == [[3]]


async def test_a_check_that_failed_bars_its_version_until_it_passes(place: Path) -> None:
    async with solo(place) as house:
        pipeline = Pipeline(house, place / "own")
        await pipeline.make(1)
        pipeline.passes = False
        await pipeline.run(check=True)
        result = await pipeline.run("b")
        _, metadata = failure(result, "plain__b")
        assert "observation_failed" in {cause["code"] for cause in metadata["comity/causes"]}
        pipeline.passes = True
        await pipeline.run(check=True)
        assert (await pipeline.run("b")).success
        assert pipeline.read == [[1]]
