"""What partners publish, as external assets in one's own asset graph, with their provenance."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import dagster as dg
import msgspec

from comity.dagster_bridge.failures import term_values
from comity.dagster_bridge.gate import HOME_VARIABLE
from comity.dagster_bridge.step_facts import ASSET_KEY, COLUMN_SCHEMA
from comity.node.client import NodeClient, NodeUnreachableError, PartnerAsset
from comity.protocol.errors import ConfigError

CACHE_FILE: Final = "partner-assets.json"
"""In the node's home: what was last answered, so that definitions load while the node is down. Bytes are
verified when they are read, whatever this file says."""
CACHE_BYTES_MAX: Final = 16 * 1_048_576
PARTITIONS_MAX: Final = 10_000
"""Partitions of one partner asset: as many as an intent can have made."""


def partner_assets(
    home: Path | str | None = None,
    *,
    client: NodeClient | None = None,
    io_manager_key: str = "io_manager",
    group_name: str = "partners",
) -> list[dg.AssetSpec]:
    """External assets for what partners publish, keyed `<member>/<path>`.

    Args:
        home: the home of this organization's node; otherwise COMITY_HOME.
        client: a client of the node, instead of its home.
        io_manager_key: the IO manager that reads them; it must verify (GovernedFilesIOManager).
        group_name: the asset group that they appear in.

    Raises:
        ConfigError: no node is named.
        NodeError: the node gives no answer, and has given none before.
    """
    named = home if home is not None else os.environ.get(HOME_VARIABLE)
    place = Path(named) if named else None
    if client is None:
        if place is None:
            raise ConfigError(f"no node is named: set {HOME_VARIABLE}, or give partner_assets(home=...)")
        client = NodeClient.of_home(place)
    try:
        assets = client.partner_assets()
    except NodeUnreachableError:
        cached = _read_cache(place)
        if cached is None:
            raise
        assets = cached
    else:
        _write_cache(place, assets)
    ordered = sorted(assets, key=lambda each: (each.asset, each.partition))
    return [
        _spec(asset, list(rows), group_name).with_io_manager_key(io_manager_key)
        for asset, rows in groupby(ordered, key=lambda each: each.asset)
    ]


def _spec(asset: str, rows: list[PartnerAsset], group_name: str) -> dg.AssetSpec:
    newest = max(rows, key=lambda each: (each.made_at, each.generation))
    partitions = [each.partition for each in rows if each.partition]
    if len(partitions) > PARTITIONS_MAX:
        raise ConfigError(f"{asset} has more than {PARTITIONS_MAX} partitions")
    governance = newest.governance
    metadata: dict[str, Any] = {
        ASSET_KEY: asset,
        "comity/member": asset.partition("/")[0],
        "comity/actuation": newest.actuation,
        "comity/digest": newest.digest,
        "comity/generation": newest.generation,
        "comity/made_at": dg.MetadataValue.timestamp(float(newest.made_at)),
        "comity/media_type": newest.media_type,
        "comity/owners": dg.MetadataValue.json(governance.owners),
        "comity/tier": governance.tier,
        "comity/realm": governance.realm,
        "comity/purpose": governance.purpose,
        "comity/data_classes": dg.MetadataValue.json(governance.data_classes),
        "comity/restrictions": dg.MetadataValue.json(term_values(governance.restrictions)),
    }
    if newest.columns:
        columns = [dg.TableColumn(name=name) for name in newest.columns]
        metadata[COLUMN_SCHEMA] = dg.TableSchema(columns=columns)
    return dg.AssetSpec(
        key=dg.AssetKey(asset.split("/")),
        description=f"Published by {asset.partition('/')[0]}; admitted by this organization's node.",
        metadata=metadata,
        group_name=group_name,
        partitions_def=dg.StaticPartitionsDefinition(partitions) if partitions else None,
    )


def _read_cache(home: Path | None) -> list[PartnerAsset] | None:
    if home is None:
        return None
    try:
        with (home / CACHE_FILE).open("rb") as file:
            data = file.read(CACHE_BYTES_MAX + 1)
    except OSError:
        return None
    try:
        return msgspec.json.decode(data, type=list[PartnerAsset]) if len(data) <= CACHE_BYTES_MAX else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _write_cache(home: Path | None, assets: Iterable[PartnerAsset]) -> None:
    """Keep the answer where that is possible: a home that this user may not write to is no error."""
    if home is None:
        return
    beside = home / f".{secrets.token_hex(16)}.partial"
    try:
        beside.write_bytes(msgspec.json.encode(list(assets)))
        beside.replace(home / CACHE_FILE)
    except OSError:
        beside.unlink(missing_ok=True)
