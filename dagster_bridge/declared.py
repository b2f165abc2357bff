"""What the definitions declare of an output beyond names: the types of its columns, and where its rows belong.

What was staged is held against it, as it is against the permit: a table that breaks what was declared of it is not what
was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import dagster as dg

from comity.dagster_bridge.asset_facts import COLUMN_SCHEMA
from comity.dagster_bridge.dagster_internals import StepExecutionContext
from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import TermForm
from comity.protocol.errors import ConfigError

if TYPE_CHECKING:
    from comity.dagster_bridge.tables import Table

PARTITION_EXPR: Final = "partition_expr"
"""Metadata of Dagster's own: the column that says to which partition a row belongs; of several dimensions, one each."""
UNTYPED: Final = "string"
"""The type of a column that Dagster fills in where none is declared. It is held against nothing."""

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


def declared_of(context: StepExecutionContext, key: dg.AssetKey, partition: str) -> Declared:
    """What the definitions declare of one partition of an asset.

    Raises:
        ConfigError: `partition_expr` names no column for a dimension of the asset's partitions.
    """
    node = context.job_def.asset_layer.get(key)
    metadata = node.metadata
    said = metadata.get(COLUMN_SCHEMA)
    schema: object = said.schema if isinstance(said, dg.TableSchemaMetadataValue) else said
    columns: Sequence[dg.TableColumn] = schema.columns if isinstance(schema, dg.TableSchema) else ()
    types = {column.name: column.type for column in columns if column.type != UNTYPED}
    return Declared(types, _belongs(node.partitions_def, metadata.get(PARTITION_EXPR), partition, key))


def _belongs(
    partitions: dg.PartitionsDefinition[Any] | None, named: Any, partition: str, key: dg.AssetKey
) -> dict[str, str | Window]:
    named = named.value if isinstance(named, (dg.TextMetadataValue, dg.JsonMetadataValue)) else named
    if partitions is None or not partition or named is None:
        return {}
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        keys = partitions.get_partition_key_from_str(partition).keys_by_dimension
        dimensions = {each.name: each.partitions_def for each in partitions.partitions_defs}
        if not isinstance(named, Mapping) or set(cast("Mapping[str, Any]", named)) != set(dimensions):
            raise ConfigError(
                f"{PARTITION_EXPR} of {key.to_user_string()} names a column for each of {', '.join(sorted(dimensions))}"
            )
        by_dimension = cast("Mapping[str, object]", named)
        return {
            str(by_dimension[name]): _wanted(each, keys[name]) for name, each in sorted(dimensions.items())
        }
    if not isinstance(named, str):
        raise ConfigError(
            f"{PARTITION_EXPR} of {key.to_user_string()} is {named!r:.80}, not the name of a column"
        )
    return {named: _wanted(partitions, partition)}


def _wanted(partitions: dg.PartitionsDefinition[Any], key: str) -> str | Window:
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        window = partitions.time_window_for_partition_key(key)
        return window.start, window.end
    return key


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
