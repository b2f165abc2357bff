"""What the definitions declare of an output beyond names: the types of its columns, and where its rows belong.

What was staged is held against it, as it is against the permit: a table that breaks what was declared of it is not what
was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import TermForm

if TYPE_CHECKING:
    from comity.dagster_bridge.tables import Table

Window: TypeAlias = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared of one output.

    Attributes:
        types: columns with the type that is declared of them, by its name in Arrow (`int64`, `timestamp[us]`).
        belongs: columns with what each of their values has to be for a row of this partition: a key, or a time
            from the first to before the second.
    """

    types: Mapping[str, str] = field(default_factory=dict[str, str])
    belongs: Mapping[str, str | Window] = field(default_factory=dict[str, "str | Window"])


NOTHING: Final = Declared()


def require_declared(schema: Any, some: Table, declared: Declared) -> None:
    """Check what was staged against what is declared of it. A column that was withheld cannot be looked at.

    Args:
        schema: Arrow's, of all its columns; None where the format holds no types.
        some: those of its columns that rows are placed by, as far as they are there.

    Raises:
        UnwritableError: a column is of another type, or a row belongs to another partition.
    """
    if not declared.types and not declared.belongs:
        return
    from comity.dagster_bridge.table_columns import outside_of, same_type, type_names

    types = type_names(schema) if schema is not None else {}
    for column, wanted in declared.types.items():
        found = types.get(column)
        if found is not None and not same_type(found, wanted):
            message = f"the column {column!r} is of type {found}; declared is {wanted}"
            raise UnwritableError(TermForm("staged_type_differs", {"type": found}, message=message))
    for column, wanted_rows in declared.belongs.items():
        outside = outside_of(some, column, wanted_rows)
        if outside:
            message = f"{outside} rows belong to another partition, by the column {column!r}"
            raise UnwritableError(
                TermForm("staged_rows_of_another_partition", {"rows": outside}, message=message)
            )
