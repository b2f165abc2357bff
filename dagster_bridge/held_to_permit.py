"""Whether what was read back from staging is what its permit allows: its columns, and the groups of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import TermForm

if TYPE_CHECKING:
    from comity.dagster_bridge.tables import Table
    from comity.node.client import PermittedOutput

NAMED_MAX: Final = 8
"""Columns that an error names."""


def obliged_columns(permitted: PermittedOutput) -> frozenset[str]:
    """The columns whose values the obligations of a permit are about."""
    columns = (term.parameters.get("column") for term in permitted.obligations)
    return frozenset(column for column in columns if isinstance(column, str))


def require_within(names: Sequence[str], obliged: Table, permitted: PermittedOutput) -> None:
    """Check what was written against its permit, whoever wrote it.

    An obligation whose column is withheld itself cannot be looked at in what is left; who took the column out has
    met it.

    Args:
        names: all of its columns.
        obliged: those of its columns that the obligations are about, as far as they are there.

    Raises:
        UnwritableError: it has a column that is not permitted, or a group of rows that is too small.
    """
    from comity.dagster_bridge.tables import column_names, restrict, row_count

    if permitted.columns or not permitted.all_columns:
        beyond = sorted(set(names) - set(permitted.columns))
        if beyond:
            shown = ", ".join(repr(name) for name in beyond[:NAMED_MAX])
            message = f"what was written has columns that are not permitted: {shown}"
            raise UnwritableError(TermForm("staged_column_not_permitted", message=message))
    here = set(column_names(obliged))
    left = [term for term in permitted.obligations if term.parameters.get("column") in here]
    if not left:
        return
    again = restrict(obliged, replace(permitted, columns=sorted(here), obligations=left))
    if again.rows_withheld:
        taken, rows = again.rows_withheld, row_count(obliged)
        message = f"what was written has {taken} of {rows} rows in groups that are too small"
        raise UnwritableError(TermForm("staged_rows_not_permitted", message=message))
