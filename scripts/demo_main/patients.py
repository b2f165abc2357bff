"""The data: the NCCTG lung cancer study, as `lifelines` ships it, and how the demo gives it to two clinics.

Loprinzi CL et al., Journal of Clinical Oncology 12(3):601-607, 1994: 228 patients with the institution that
treated them. Nothing here knows of Comity; the direct fits are what the pipeline's result is held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

NORTH: Final = (1, 3, 5, 6, 7, 10, 33)
"""Institutions of Clinic North, which also treated the one patient without institution."""
SOUTH: Final = (2, 4, 11, 12, 13, 15, 16, 21, 22, 26, 32)
GROUP_ROWS_MIN: Final = 5
STUDIED: Final = ("time", "status", "sex", "ph.ecog", "age_decade")
"""What the purpose of the study names."""

Fits = dict[tuple[str, str, float], float]
"""Value by statistic, of what, and time (0 for the model's)."""


def all_patients() -> pd.DataFrame:
    """Everybody, in the order of the study."""
    from lifelines.datasets import load_lung

    patients: pd.DataFrame = load_lung()
    return patients


def clinic_patients(patients: pd.DataFrame, institutions: tuple[int, ...]) -> pd.DataFrame:
    """Whom a clinic has treated; Clinic North also the patient without institution."""
    wanted = patients["inst"].isin(institutions)
    if institutions == NORTH:
        wanted |= patients["inst"].isna()
    return patients[wanted]


def corrected(registry: Path) -> tuple[pd.DataFrame, str]:
    """A clinic's registry with one follow-up a day longer, of a patient who is released; and what was changed."""
    rows = pd.read_csv(registry)
    sizes = rows.groupby("inst")["inst"].transform("size")
    row = int(rows.index[sizes >= GROUP_ROWS_MIN][0])
    before = int(rows["time"].iloc[row])
    rows.loc[row, "time"] = before + 1
    return rows, f"row {row} of its registry: time {before} became {before + 1}"


def released_directly(patients: pd.DataFrame) -> pd.DataFrame:
    """The rows and columns that the policy lets out, found without Comity."""
    sizes = patients.groupby("inst")["inst"].transform("size")
    kept = patients[sizes >= GROUP_ROWS_MIN]
    return kept.assign(age_decade=kept["age"] // 10 * 10)[list(STUDIED)]


def fit_directly(rows: pd.DataFrame) -> Fits:
    """Kaplan-Meier by sex on all rows, and a Cox model on those without missing values."""
    from lifelines import CoxPHFitter, KaplanMeierFitter

    fits: Fits = {}
    for sex in sorted(rows["sex"].unique()):
        group = rows[rows["sex"] == sex]
        fitter = KaplanMeierFitter().fit(durations=group["time"], event_observed=group["status"])
        for time, value in fitter.survival_function_["KM_estimate"].items():
            fits["survival", f"sex={sex}", float(str(time))] = float(value)
    model = CoxPHFitter().fit(rows.dropna(), duration_col="time", event_col="status")
    for covariate in ("sex", "ph.ecog", "age_decade"):
        fits["coefficient", covariate, 0.0] = float(model.params_[covariate])
        fits["standard_error", covariate, 0.0] = float(model.standard_errors_[covariate])
    return fits


def fits_of_table(table: pd.DataFrame) -> Fits:
    """The estimates in the table that the pipeline has made."""
    rows: Sequence[Mapping[Any, Any]] = table.to_dict(orient="records")
    return {(str(row["statistic"]), str(row["of"]), float(row["time"])): float(row["value"]) for row in rows}


def greatest_difference(left: Fits, right: Fits) -> float:
    """The largest difference between two sets of estimates; infinite where they are not of the same things."""
    if left.keys() != right.keys() or not left:
        return float("inf")
    return max(abs(left[key] - right[key]) for key in left)
