"""The kinds of tables that a step may want to be given: pandas data frames, Arrow tables, polars data frames.

polars is imported here only where the step has imported it before. Importing this imports pandas and pyarrow.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from comity.dagster_bridge.tables import Table, shows_no_value, wants_arrow


def wants_pandas(annotation: object) -> bool:
    """Whether an input's type asks for a pandas data frame, which is also what one is given that asks for nothing."""
    return not wants_arrow(annotation) and not _is_polars(annotation)


def as_wanted(table: object, annotation: object) -> object:
    """A table as an input's type asks for it."""
    if not _is_polars(annotation):
        return table
    return _polars_frame(table)


@shows_no_value
def pandas_frame(table: Table) -> Any:
    """An Arrow table as a pandas data frame."""
    return table.to_pandas()


@shows_no_value
def _polars_frame(table: Table) -> Any:
    return importlib.import_module("polars").from_arrow(table)


def _is_polars(annotation: object) -> bool:
    polars: Any = sys.modules.get("polars")
    return polars is not None and annotation is polars.DataFrame
