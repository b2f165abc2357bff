"""Which assets' writes can be taken back, by what their IO managers can prove; said before the decision.

It is read from the definitions, once: so a step and whoever launches its run say the same. What a run configures
otherwise (a resource that it swaps) is not seen, and an asset of which nothing is known cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import dagster as dg

from comity.dagster_bridge.dagster_internals import assets_defs_of
from comity.dagster_bridge.storage import Reversibility


@runtime_checkable
class KeepsVersions(Protocol):
    """An IO manager that says what it can do about a version that was found wrong."""

    @property
    def reversibility(self) -> Reversibility: ...


def reversible_assets(definitions: dg.Definitions) -> frozenset[str]:
    """The assets (keys with /) whose versions before the newest are kept and can be put back."""
    return frozenset(_reversible(definitions))


def _reversible(definitions: dg.Definitions) -> Iterator[str]:
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
            if isinstance(manager, KeepsVersions) and manager.reversibility == "versioned":
                yield "/".join(key.path)
