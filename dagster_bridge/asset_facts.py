"""What Dagster's graph of assets says of outputs and inputs, in a running step and before a launch alike.

A step and the launcher that asks for it beforehand have to say the same, to the letter: then the step finds the intent
that was filed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from comity.dagster_bridge.dagster_internals import partition_loading_context
from comity.dagster_bridge.stores import Stores
from comity.node.client import InputForm, OutputForm
from comity.protocol.errors import ConfigError
from comity.protocol.limits import ITEMS_MAX

if TYPE_CHECKING:
    from comity.dagster_bridge.dagster_internals import AssetGraph

ASSET_KEY: Final = "comity/asset"
"""Metadata of an external asset that is a partner's: its whole id, `<member>/<path>`."""
COLUMN_SCHEMA: Final = "dagster/column_schema"

INPUTS_MAX: Final = ITEMS_MAX
"""Asset partitions that one step reads: as many as an intent can make."""


def asset_name(key: dg.AssetKey, metadata: Mapping[str, Any]) -> str:
    """The id of an asset: what its metadata says for a partner's, else its key's path.

    Raises:
        ConfigError: the metadata names no asset.
    """
    named = metadata.get(ASSET_KEY)
    if named is None:
        return "/".join(key.path)
    text = named.value if isinstance(named, dg.TextMetadataValue) else named
    if not isinstance(text, str) or "/" not in text:
        raise ConfigError(f"{ASSET_KEY} of {key.to_user_string()} is {text!r}, not `<member>/<path>`")
    return text


def outputs_made(
    made: Iterable[tuple[str, Mapping[str, Any], bool]],
    partitions: tuple[str, ...],
    stores: Stores,
) -> Iterator[OutputForm]:
    """The outputs of a unit of work.

    Args:
        made: of each asset its name, its metadata and whether it has partitions.
        stores: what their stores can do about their versions.
    """
    for name, metadata, partitioned in made:
        columns = _declared_columns(metadata)
        for partition in partitions if partitioned and partitions else ("",):
            yield OutputForm(
                name,
                partition,
                columns,
                reversible=stores.get(name) == "versioned",
                isolates=name in stores,
            )


def inputs_read(
    where: str,
    graph: AssetGraph,
    instance: dg.DagsterInstance,
    made: tuple[dg.AssetKey, ...],
    read: Mapping[dg.AssetKey, str],
    partitions: tuple[str, ...],
) -> tuple[InputForm, ...]:
    """The slots that a unit of work reads.

    Args:
        where: what is asked for, for errors.
        read: the assets that it reads, each with its name.

    Raises:
        ConfigError: more of them than one intent can hold.
    """
    found: set[tuple[str, str]] = set()
    with partition_loading_context(dynamic_partitions_store=instance):
        for key, name in read.items():
            if not graph.has(key) or graph.get(key).partitions_def is None:
                found.add((name, ""))
                continue
            for child in made:
                if key not in graph.get(child).parent_keys:
                    continue
                for partition in partitions if graph.get(child).partitions_def is not None else (None,):
                    mapped = graph.get_parent_partition_keys_for_child(partition, key, child)
                    found.update((name, str(each)) for each in mapped.partitions_subset.get_partition_keys())
                    if len(found) > INPUTS_MAX:
                        raise ConfigError(
                            f"{where} reads more than {INPUTS_MAX} partitions at once: run it in smaller ranges"
                        )
            if not made:
                found.update((name, each) for each in partitions or ("",))
    return tuple(InputForm(asset=name, partition=partition) for name, partition in sorted(found))


def require_few(where: str, made: int, partitions: int) -> None:
    """Refuse more outputs than one intent holds.

    Raises:
        ConfigError: there are more.
    """
    if made * max(1, partitions) > ITEMS_MAX:
        raise ConfigError(
            f"{where} makes {partitions} partitions of {made} assets at once where at most {ITEMS_MAX} may be"
            " asked for: run it in smaller ranges"
        )


def _declared_columns(metadata: Mapping[str, Any]) -> list[str] | None:
    declared = metadata.get(COLUMN_SCHEMA)
    schema = declared.schema if isinstance(declared, dg.TableSchemaMetadataValue) else declared
    if not isinstance(schema, dg.TableSchema):
        return None
    # A schema without columns declares none: it must not read as a table that has none to protect.
    return [column.name for column in schema.columns] or None
