"""What partners publish, as external assets in one's own asset graph, with their provenance."""

from __future__ import annotations

import base64
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import dagster as dg
import msgspec

from comity.dagster_bridge.asset_facts import ASSET_KEY, COLUMN_SCHEMA
from comity.dagster_bridge.failures import term_values
from comity.dagster_bridge.files import (
    SIDECAR_BYTES_MAX,
    SIDECAR_ENDING,
    FileError,
    read_file,
    slot_of_file,
)
from comity.dagster_bridge.gate import HOME_VARIABLE
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.table_formats import FORMATS
from comity.node.client import NodeClient, NodeError, NodeUnreachableError, PartnerAsset, ReadForm
from comity.protocol.errors import ConfigError

CACHE_FILE: Final = "partner-assets.json"
"""In the node's home: what was last answered, so that definitions load while the node is down. Bytes are
verified when they are read, whatever this file says."""
CACHE_BYTES_MAX: Final = 16 * 1_048_576
PARTITIONS_MAX: Final = 10_000
"""Partitions of one partner asset: as many as an intent can have made. Of more, the newest are shown."""
EXCHANGE_FILES_MAX: Final = 100_000
"""Files of the exchange that are looked through: whoever shares the folder can fill it."""
SHOWN_MAX: Final = 1_000
"""Published partitions that one call has the node look at; the next call goes on with the others."""
_NO_DIGEST: Final = "0" * 64
"""No bytes are read here: only the records beside them are shown to the node."""


log = logging.getLogger("comity.dagster_bridge")


def partner_assets(
    home: Path | str | None = None,
    *,
    exchange: Path | str | None = None,
    client: NodeClient | None = None,
    io_manager_key: str = "io_manager",
    group_name: str = "partners",
) -> list[dg.AssetSpec]:
    """External assets for what partners publish, keyed `<member>/<path>`, partitions included.

    What is published is what lies in the exchange with its records; the node says what of it has sound lineage.
    What Dagster cannot hold is left out, with a warning in the log: no partner stops the definitions of another.

    Args:
        home: the home of this organization's node; otherwise COMITY_HOME.
        exchange: the directory shared with partners, as the IO manager has it. Without it these are the assets
            whose lineage the node holds, published or not, and their columns are not shown.
        client: a client of the node, instead of its home.
        io_manager_key: the IO manager that reads them; it must verify (GovernedFilesIOManager).
        group_name: the asset group that they appear in.

    Raises:
        ConfigError: no node is named.
        NodeError: the node gives no answer, and has given none before.
    """
    client, place = client_and_home(home, client)
    # A wrong name of a group is the caller's, and is said before anything of a partner is looked at.
    dg.AssetSpec("named", group_name=group_name)
    published = _published(Path(exchange)) if exchange is not None else None
    try:
        assets = _known(client, place, published)
    except NodeUnreachableError:
        cached = _read_cache(place)
        if cached is None:
            raise
        assets = cached
    else:
        _write_cache(place, assets)
    shown = (
        [replace(row, columns=[]) for row in assets] if published is None else _lying_there(assets, published)
    )
    ordered = sorted(shown, key=lambda each: (each.asset, each.partition))
    specs = (
        _spec_if_possible(asset, list(rows), group_name, io_manager_key)
        for asset, rows in groupby(ordered, key=lambda each: each.asset)
    )
    return [spec for spec in specs if spec is not None]


def newest_of_partners(
    client: NodeClient, home: Path | None, exchange: Path | str | None = None
) -> list[PartnerAsset]:
    """The newest version of each partition of partners' assets, as the node knows them now.

    Args:
        exchange: the directory shared with partners: then only what is published there, with its records.

    Raises:
        NodeError: the node gives no answer.
    """
    published = _published(Path(exchange)) if exchange is not None else None
    assets = _known(client, home, published)
    return assets if published is None else _lying_there(assets, published)


def client_and_home(home: Path | str | None, client: NodeClient | None) -> tuple[NodeClient, Path | None]:
    """The client that is asked, and the home of its node where that is known.

    Raises:
        ConfigError: no node is named.
    """
    named = home if home is not None else os.environ.get(HOME_VARIABLE)
    place = Path(named) if named else None
    if client is not None:
        return client, place
    if place is None:
        raise ConfigError(f"no node is named: set {HOME_VARIABLE}, or give home=...")
    return NodeClient.of_home(place), place


def _known(
    client: NodeClient, home: Path | None, published: Mapping[tuple[str, str], Path] | None
) -> list[PartnerAsset]:
    """What the node knows, after it was shown what of the published it did not."""
    assets = client.partner_assets()
    if published is not None and _show(client, home, published, assets):
        assets = client.partner_assets()
    return assets


def _lying_there(
    assets: Iterable[PartnerAsset], published: Mapping[tuple[str, str], Path]
) -> list[PartnerAsset]:
    return [row for row in assets if (row.asset, row.partition) in published]


def _published(exchange: Path) -> dict[tuple[str, str], Path]:
    """The asset partitions that lie in the exchange with a sidecar, and where that is. Names are not trusted."""
    found: dict[tuple[str, str], Path] = {}
    seen = 0
    for folder, folders, files in os.walk(exchange):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            seen += 1
            if seen > EXCHANGE_FILES_MAX:
                log.warning(
                    "%s holds more than %d files; the others are left out", exchange, EXCHANGE_FILES_MAX
                )
                return found
            if not name.endswith(SIDECAR_ENDING):
                continue
            sidecar = Path(folder) / name
            below = sidecar.with_name(name.removesuffix(SIDECAR_ENDING)).relative_to(exchange)
            slot = slot_of_file(below, FORMATS)
            if slot is not None and len(slot[0]) > 1:
                found["/".join(slot[0]), slot[1]] = sidecar
    return found


def _show(
    client: NodeClient,
    home: Path | None,
    published: Mapping[tuple[str, str], Path],
    known: Iterable[PartnerAsset],
) -> bool:
    """Have the node look at what vouches for those published slots that it does not know. Whether there were any.

    Raises:
        NodeUnreachableError: nobody answers.
    """
    own = _own_member(home)
    held = {(row.asset, row.partition) for row in known}
    unknown = [slot for slot in published if slot not in held and slot[0].partition("/")[0] != own]
    if len(unknown) > SHOWN_MAX:
        log.warning("%d published partitions are new; %d of them are looked at now", len(unknown), SHOWN_MAX)
    for asset, partition in unknown[:SHOWN_MAX]:
        try:
            sidecar = read_file(published[asset, partition], SIDECAR_BYTES_MAX)
            if sidecar is not None:
                encoded = base64.b64encode(sidecar.data).decode("ascii")
                client.read(
                    ReadForm(
                        intent="",
                        asset=asset,
                        partition=partition,
                        digest=_NO_DIGEST,
                        size=0,
                        sidecar=encoded,
                    )
                )
        except NodeUnreachableError:
            raise
        except (NodeError, FileError) as exc:
            log.warning("%a %a is left out: %s", asset, partition, exc)
    return bool(unknown)


def _own_member(home: Path | None) -> str:
    try:
        governed = read_governed_assets(home)
    except ConfigError:
        return ""
    return governed.member if governed is not None else ""


def _spec_if_possible(
    asset: str, rows: list[PartnerAsset], group_name: str, io_manager_key: str
) -> dg.AssetSpec | None:
    """The external asset, or None where Dagster takes no such asset."""
    try:
        return _spec(asset, rows, group_name).with_io_manager_key(io_manager_key)
    except Exception as exc:  # noqa: BLE001  # whatever Dagster minds must not stop everybody's definitions
        log.warning(
            "the partner's asset %a is left out: Dagster does not take it (%s)", asset, type(exc).__name__
        )
        return None


def _partitions(asset: str, rows: list[PartnerAsset]) -> list[str]:
    """The partitions that Dagster can hold, the newest of too many, in the order of their names."""
    newest_first = sorted(rows, key=lambda each: (each.made_at, each.partition), reverse=True)
    held: list[str] = []
    for row in newest_first:
        if not row.partition:
            continue
        try:
            dg.StaticPartitionsDefinition([row.partition])
        except Exception as exc:  # noqa: BLE001  # see _spec_if_possible
            log.warning(
                "partition %a of %a is left out: Dagster does not take it (%s)",
                row.partition,
                asset,
                type(exc).__name__,
            )
            continue
        held.append(row.partition)
    if len(held) > PARTITIONS_MAX:
        log.warning("%a has %d partitions; the newest %d are kept", asset, len(held), PARTITIONS_MAX)
    return sorted(held[:PARTITIONS_MAX])


def _spec(asset: str, rows: list[PartnerAsset], group_name: str) -> dg.AssetSpec:
    partitions = _partitions(asset, rows)
    among = set(partitions) or {""}
    # Raises where no partition is left: then there is no such asset to show.
    newest = max(
        (row for row in rows if row.partition in among), key=lambda each: (each.made_at, each.generation)
    )
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
        # A record names columns, not their types; Dagster would call them all strings.
        columns = [dg.TableColumn(name=name, type="unknown") for name in newest.columns]
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
