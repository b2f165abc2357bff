"""Work in a way that is less harmful than to take a version's place: what it makes is kept apart, or taken away.

Which way is chosen is the node's answer to the step (docs/spec/governance.md section 4). Here it is held to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from comity.dagster_bridge.tables import Table

SAMPLE_ROWS_MAX: Final = 1_000
"""Rows of a sample: enough to see whether the work does what it should."""
KEPT_APART: Final = frozenset({"sampled", "isolated"})
"""The ways whose results are kept where no reader of the asset looks, and are read by the same way's next step."""


def sample_of(value: object) -> Table:
    """A sample of a table's rows: all of a small one, else so many at even distances, the first among them.

    It is the same for the same table. What an obligation says of groups is held against the sample.

    Raises:
        UnwritableError: it is no table.
    """
    from comity.dagster_bridge.tables import arrow_table, row_count

    table: Any = arrow_table(value)
    rows = row_count(table)
    if rows <= SAMPLE_ROWS_MAX:
        return table
    return table.take([rows * each // SAMPLE_ROWS_MAX for each in range(SAMPLE_ROWS_MAX)])
