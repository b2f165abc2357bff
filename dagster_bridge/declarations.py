"""Reading what the definitions of an asset declare of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import dagster as dg

from comity.dagster_bridge.asset_facts import COLUMN_SCHEMA
from comity.dagster_bridge.dagster_internals import StepExecutionContext
from comity.dagster_bridge.declared import Declared, Window
from comity.protocol.errors import ConfigError

PARTITION_EXPR: Final = "partition_expr"
"""Metadata of Dagster's own: the column that says to which partition a row belongs; of several dimensions, one each."""
UNTYPED: Final = "string"
"""The type of a column that Dagster fills in where none is declared. It is held against nothing."""


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
