"""The institute's pipeline: what the clinics release is pooled, and survival is estimated from it.

The clinics' assets appear here by themselves, with their provenance, as external assets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pandas as pd

from comity.dagster_bridge import GovernedFilesIOManager, govern, partner_assets, partner_sensor

HOME = Path(os.environ["DAGSTER_HOME"]).parent
CLINICS: Mapping[str, dg.AssetIn] = {
    "north": dg.AssetIn(dg.AssetKey(["clinic-north.example", "released"])),
    "south": dg.AssetIn(dg.AssetKey(["clinic-south.example", "released"])),
}


@dg.asset(ins=CLINICS)
def pooled(north: pd.DataFrame, south: pd.DataFrame) -> pd.DataFrame:
    """The patients whom both clinics released."""
    return pd.concat([north, south], ignore_index=True)


@dg.asset
def survival(pooled: pd.DataFrame) -> pd.DataFrame:
    """Kaplan-Meier curves by sex, and a Cox model of sex, performance status and decade of age."""
    from lifelines import CoxPHFitter, KaplanMeierFitter

    tables: list[pd.DataFrame] = []
    for sex, rows in pooled.groupby("sex"):
        curve = KaplanMeierFitter().fit(rows["time"], rows["status"]).survival_function_
        tables.append(
            pd.DataFrame(
                {"statistic": "survival", "of": f"sex={sex}", "time": curve.index, "value": curve.iloc[:, 0]}
            )
        )
    complete = pooled[["time", "status", "sex", "ph.ecog", "age_decade"]].dropna()
    cox = CoxPHFitter().fit(complete, "time", "status")
    for statistic, values in (("coefficient", cox.params_), ("standard_error", cox.standard_errors_)):
        tables.append(
            pd.DataFrame(
                {"statistic": statistic, "of": values.index, "time": 0.0, "value": values.to_numpy()}
            )
        )
    return pd.concat(tables, ignore_index=True)


@dg.asset(ins=CLINICS)
def enrolment(north: pd.DataFrame, south: pd.DataFrame) -> pd.DataFrame:
    """How many patients each clinic has released."""
    return pd.DataFrame({"clinic": ["north", "south"], "patients": [len(north), len(south)]})


@dg.asset(key=["drafts", "events_by_ecog"])
def events_by_ecog(pooled: pd.DataFrame) -> pd.DataFrame:
    """Deaths by performance status: what an agent was asked to look into."""
    grouped = pooled.groupby("ph.ecog")["status"]
    return grouped.agg(patients="size", deaths="sum").reset_index()


ASSETS = (pooled, survival, enrolment, events_by_ecog)
JOBS = {
    asset.key.path[-1]: dg.define_asset_job(f"make_{asset.key.path[-1]}", selection=[asset])
    for asset in ASSETS
}

defs = govern(
    dg.Definitions(
        assets=[*ASSETS, *partner_assets()],
        jobs=list(JOBS.values()),
        sensors=[
            partner_sensor(
                "pooling",
                watch=["clinic-north.example/released", "clinic-south.example/released"],
                job=JOBS["pooled"],
                exchange=os.environ["COMITY_EXCHANGE"],
                minimum_interval_seconds=1,
                default_status=dg.DefaultSensorStatus.RUNNING,
            )
        ],
        executor=dg.in_process_executor,
        resources={
            "io_manager": GovernedFilesIOManager(
                base=str(HOME / "assets"), exchange=os.environ["COMITY_EXCHANGE"]
            )
        },
    ),
    purpose="survival_study",
    wait_max_s=float(os.environ.get("COMITY_WAIT_S", "60")),
)
