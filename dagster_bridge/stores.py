"""What the IO managers of assets can do about their versions; said before the decision.

It is read from the definitions, once: so a step and whoever launches its run say the same. What a run configures
otherwise (a resource that it swaps) is not seen, and an asset of which nothing is known can neither be taken back nor
be made where nobody reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import dagster as dg

from comity.dagster_bridge.dagster_internals import assets_defs_of
from comity.dagster_bridge.storage import Reversibility

Stores: TypeAlias = Mapping[str, Reversibility]
"""By asset (its key with /), where a store of versions keeps it: what that can do about one that was found wrong."""
NO_STORES: Final[Stores] = MappingProxyType({})


@runtime_checkable
class KeepsVersions(Protocol):
    """An IO manager over a store of versions, which can keep results out of readers' sight, too."""

    @property
    def reversibility(self) -> Reversibility:
        """What it can do about a version that was found wrong."""
        ...


def stores_of(definitions: dg.Definitions) -> Stores:
    """The assets that are kept in stores of versions."""
    return dict(_stores(definitions))


def _stores(definitions: dg.Definitions) -> Iterator[tuple[str, Reversibility]]:
    shared: Mapping[str, Any] = definitions.resources or {}
    for assets in assets_defs_of(definitions):
        own: Mapping[str, Any] = assets.resource_defs
        outputs = {output.name: output for output in assets.node_def.output_defs}
        for name, key in assets.keys_by_output_name.items():
            output = outputs.get(name)
            if output is None or output.dagster_type.is_nothing:
                # Its function writes by itself, who knows where.
                continue
            manager_key = assets.get_io_manager_key_for_asset_key(key)
            manager = own.get(manager_key, shared.get(manager_key))
            if isinstance(manager, KeepsVersions):
                yield "/".join(key.path), manager.reversibility
