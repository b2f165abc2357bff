"""A pipeline under a real node: its answers are what the bridge takes them for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio

from api_calls import solo
from comity.dagster_bridge import GovernedFilesIOManager, govern
from dagster_runs import failure, materialized, stripped
from houses import short_folder
from world import COLUMNS, NEEDED


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def lung() -> pd.DataFrame:
    """Two institutions of five patients each, and one of a single patient."""
    return pd.DataFrame({name: [1] * 5 + [2] * 5 + [99] for name in COLUMNS})


def pipeline(ran: list[str]) -> list[Any]:
    @dg.asset
    def patients() -> pd.DataFrame:
        return lung()

    @dg.asset
    def released(patients: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        return dg.Output(patients, metadata={"preview": "inst 99"})

    @dg.asset_check(asset=released)
    def plausible(released: pd.DataFrame) -> dg.AssetCheckResult:
        ran.append("plausible")
        return dg.AssetCheckResult(passed=True)

    @dg.multi_asset(outs={"a": dg.AssetOut(key=["plain", "a"]), "menu": dg.AssetOut()})
    def several() -> Iterator[dg.Output[Any]]:
        yield dg.Output(lung(), "a")
        yield dg.Output(lung(), "menu")

    @dg.asset
    def card() -> pd.DataFrame:
        return lung()

    @dg.asset(key=["forbidden", "x"], retry_policy=dg.RetryPolicy(max_retries=2))
    def x() -> pd.DataFrame:
        ran.append("x")
        return lung()

    return [patients, released, plausible, several, card, x]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
async def test_a_pipeline_is_decided_restricted_verified_and_refused(place: Path) -> None:
    base, ran = place / "own", list[str]()
    async with solo(place) as house:
        parts = pipeline(ran)
        govern(
            dg.Definitions(assets=parts),
            home=house.home.path,
            purpose="survival_study",
            wait_max_s=20.0,
        )
        resources = {"io_manager": GovernedFilesIOManager(base=str(base), home=str(house.home.path))}

        async def run(selection: Any = None) -> dg.ExecuteInProcessResult:
            call = functools.partial(
                dg.materialize, parts, selection=selection, resources=resources, raise_on_error=False
            )
            return await trio.to_thread.run_sync(call)

        result = await run()
        made = materialized(result)
        assert set(made) == {"patients", "released", "plain/a", "menu", "card"}
        # What is restricted: columns, groups, and what the function says of them.
        written = pq.read_table(base / "released.parquet")
        assert (set(written.column_names), written.num_rows) == (set(NEEDED), 10)
        assert (made["released"]["comity/outcome"], made["released"]["comity/rows_withheld"]) == (
            "restrict",
            1,
        )
        assert made["released"]["comity/inputs"][0]["asset"].endswith(".example/patients")
        assert not [each for each in stripped(result) if "inst 99" in each]
        # Of one function's assets, one is governed and the other is not: both are under its permit.
        assert made["plain/a"]["comity/content"] == "bound"
        assert made["plain/a"]["comity/permit"] == made["menu"]["comity/permit"]
        assert not [key for key in made["card"] if key.startswith("comity/")]
        # What is refused says why, once.
        _, metadata = failure(result, "forbidden__x")
        assert metadata["comity/outcome"] == "refuse"
        assert metadata["comity/causes"]
        assert not any(event.is_step_up_for_retry for event in result.all_events)
        assert ran == ["plausible"]
        # An altered file is parsed neither by an asset nor by a check.
        pq.write_table(pa.table({"time": [1]}), base / "released.parquet")
        checks = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("released"), "plausible"))
        result = await run(checks)
        assert failure(result, "released_plausible")[1]["comity/causes"][0]["code"] == "content_changed"
        assert ran == ["plausible"]
