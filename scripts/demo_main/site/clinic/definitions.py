"""A clinic's pipeline: its patients stay at home, and what it releases is decided by all.

Nothing in it knows of Comity but the IO manager and the last line. `released` returns every column; which of
them are written is no decision of this file. Where it writes by itself, all that it has written is held against the
permit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from comity.dagster_bridge import GovernedFilesIOManager, WrittenFile, govern

HOME = Path(os.environ["DAGSTER_HOME"]).parent


@dg.asset
def patients() -> pd.DataFrame:
    """The clinic's patients, as its own registry exports them."""
    return pd.read_csv(HOME / "registry" / "patients.csv")


@dg.asset
def released(
    patients: pd.DataFrame,
) -> Any:  # Dagster takes no union: a table, or the file that it was written to
    """All that is known of every patient, and the decade of age."""
    table = patients.assign(age_decade=patients["age"] // 10 * 10)
    if "DEMO_WRITES_BY_ITSELF" not in os.environ:
        return table
    path = HOME / "scratch.parquet"
    table.to_parquet(path, index=False)
    return WrittenFile(path)


@dg.asset
def follow_up(released: pd.DataFrame) -> pd.DataFrame:
    """How long the released patients were followed, in days."""
    return released["time"].describe().rename("days").rename_axis("statistic").reset_index()


ASSETS = (patients, released, follow_up)

defs = govern(
    dg.Definitions(
        assets=ASSETS,
        jobs=[
            dg.define_asset_job("release", selection=[patients, released]),
            dg.define_asset_job("release_again", selection=[released]),
            dg.define_asset_job("follow", selection=[follow_up]),
        ],
        executor=dg.in_process_executor,
        resources={
            "io_manager": GovernedFilesIOManager(
                base=str(HOME / "assets"), exchange=os.environ["COMITY_EXCHANGE"], publish=["released"]
            )
        },
    ),
    purpose="survival_study",
)
