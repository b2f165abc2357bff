"""A clinic's pipeline: its patients stay at home, and what it releases is decided by all.

Nothing in it knows of Comity but the IO manager and the last line. `released` returns every column; which of
them are written is no decision of this file.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pandas as pd

from comity.dagster_bridge import GovernedFilesIOManager, govern

HOME = Path(os.environ["DAGSTER_HOME"]).parent


@dg.asset
def patients() -> pd.DataFrame:
    """The clinic's patients, as its own registry exports them."""
    return pd.read_csv(HOME / "registry" / "patients.csv")


@dg.asset
def released(patients: pd.DataFrame) -> pd.DataFrame:
    """All that is known of every patient, and the decade of age."""
    return patients.assign(age_decade=patients["age"] // 10 * 10)


defs = govern(
    dg.Definitions(
        assets=[patients, released],
        jobs=[dg.define_asset_job("release", selection=[patients, released])],
        executor=dg.in_process_executor,
        resources={
            "io_manager": GovernedFilesIOManager(
                base=str(HOME / "assets"), exchange=os.environ["COMITY_EXCHANGE"], publish=["released"]
            )
        },
    ),
    purpose="survival_study",
)
