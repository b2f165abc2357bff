"""The data and the direct fits that the pipeline's result is held against."""

from __future__ import annotations

import math

import pytest

from demo_main.patients import (
    NORTH,
    SOUTH,
    STUDIED,
    all_patients,
    clinic_patients,
    fit_directly,
    greatest_difference,
    released_directly,
)


def test_every_patient_is_of_one_clinic() -> None:
    patients = all_patients()
    north, south = clinic_patients(patients, NORTH), clinic_patients(patients, SOUTH)
    assert (len(patients), len(north), len(south)) == (228, 93, 135)
    assert sorted([*north.index, *south.index]) == sorted(patients.index)


def test_the_rows_that_the_policy_lets_out() -> None:
    patients = all_patients()
    rows = released_directly(patients)
    assert tuple(rows.columns) == STUDIED
    assert len(rows) == 217
    assert len(released_directly(clinic_patients(patients, NORTH))) == 86
    assert len(released_directly(clinic_patients(patients, SOUTH))) == 131


def test_fits_differ_where_rows_differ() -> None:
    rows = released_directly(all_patients())
    fits = fit_directly(rows)
    assert greatest_difference(fits, fit_directly(rows.sample(frac=1, random_state=7))) < 1e-9
    changed = rows.copy()
    changed.loc[changed.index[0], "sex"] = 3 - changed["sex"].iloc[0]
    assert greatest_difference(fits, fit_directly(changed)) > 1e-3
    assert greatest_difference(fits, {}) == math.inf


def test_the_estimates_are_those_of_the_literature() -> None:
    """Women live longer (hazard ratio about 0.55), a worse performance status shortens life."""
    fits = fit_directly(released_directly(all_patients()))
    assert math.exp(fits["coefficient", "sex", 0.0]) == pytest.approx(0.55, abs=0.02)
    assert fits["coefficient", "ph.ecog", 0.0] > 0
