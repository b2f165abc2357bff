"""What the columns of a table hold: of which type they are, and whether their values are those of one partition.

Importing this imports pandas and pyarrow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from comity.dagster_bridge.tables import Table, pa, pc, pd, shows_no_value


def type_names(schema: Any) -> dict[str, str]:
    """The types of all columns, by their names in Arrow; of a dictionary that of its values."""
    return {str(field.name): str(_plain(field.type)) for field in schema}


def same_type(found: str, wanted: str) -> bool:
    """Whether a column's type is what was declared; a name that Arrow does not know is held against nothing."""
    try:
        return str(_plain(pa.type_for_alias(wanted))) == found
    except (ValueError, pa.ArrowException):
        return True


def _plain(kind: Any) -> Any:
    """A type without how it is laid out in memory."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


@shows_no_value
def outside_of(table: Table, column: str, wanted: str | tuple[datetime, datetime]) -> int:
    """How many rows have another value in a column than wanted, or a time that is not within; none has no value.

    Times without a zone are taken for local ones of the window's zone.

    Raises:
        UnwritableError: the column holds no times where these are wanted.
    """
    if column not in table.column_names or not table.num_rows:
        return 0
    values = table.column(column)
    if pa.types.is_null(values.type):
        return int(table.num_rows)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    inside = _equals(values, wanted) if isinstance(wanted, str) else _within(values, *wanted)
    return int(table.num_rows - (pc.sum(inside).as_py() or 0))


def _equals(values: Any, wanted: str) -> Any:
    return pc.fill_null(pc.equal(values.cast(pa.string()), wanted), fill_value=False)


def _within(values: Any, start: datetime, end: datetime) -> Any:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pa.chunked_array(
            [pa.Array.from_pandas(pd.to_datetime(values.to_pandas(), format="ISO8601"))]
        )
    zone = getattr(values.type, "tz", None)
    kind = pa.timestamp("us", tz=zone)
    if zone is None:
        start, end = start.replace(tzinfo=None), end.replace(tzinfo=None)
    times = values.cast(kind, safe=False)
    after = pc.greater_equal(times, pa.scalar(start, kind))
    return pc.fill_null(pc.and_(after, pc.less(times, pa.scalar(end, kind))), fill_value=False)
