"""An IO manager for tables in a DuckDB database that keeps to the permit on write and verifies lineage on read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field

from comity.dagster_bridge.asset_facts import ASSET_KEY, asset_name
from comity.dagster_bridge.duckdb_connection import BUSY_MAX_S, BUSY_MOST_S
from comity.dagster_bridge.duckdb_input import FoundTable, TableInput
from comity.dagster_bridge.duckdb_storage import DuckDBStorage, PreparedTable, WrittenTable
from comity.dagster_bridge.governed_io_manager import GovernedIOManager
from comity.dagster_bridge.storage import Slot
from comity.dagster_bridge.verified_read import InputAsset
from comity.protocol.errors import ConfigError


class GovernedDuckDBIOManager(GovernedIOManager):
    """Keeps tables in one DuckDB database file: each asset is a view by its own name, of the version that counts.

    Partners exchange files: their assets are read, and own ones are published, by `GovernedFilesIOManager`. An asset
    that no policy speaks of is kept in the same way, and nothing vouches for it.
    """

    database: str = Field(description="The database file, in a folder of the organization's own.")
    busy_max_s: float = Field(
        default=BUSY_MAX_S,
        description="Seconds for which the database is waited for while another process has it open.",
        gt=0,
        le=BUSY_MOST_S,
    )

    _written_kind: ClassVar[type] = WrittenTable

    def _storage(self, way: str) -> DuckDBStorage:
        own = DuckDBStorage(Path(self.database), self.versions, self.busy_max_s)
        return own if way == "staged" else own.apart(way)

    def _folder(self) -> Path:
        return Path(self.database).parent

    def _put(self, slot: Slot, prepared: PreparedTable) -> None:
        storage = self._storage("staged")
        storage.require_place(slot)
        storage.promote(slot, storage.stage(slot, prepared), b"")

    def _table_written(self, written: WrittenTable) -> object:
        return self._storage("staged").adopt(written).table

    def _input(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> TableInput:
        name = asset_name(key, metadata)
        if ASSET_KEY in metadata:
            raise ConfigError(
                f"{name} is a partner's, and partners exchange files: have it read by GovernedFilesIOManager"
                " (partner_assets(io_manager_key=...))"
            )
        return TableInput(name, self._storage("staged"), tuple(key.path))

    def _parsed(self, asset: InputAsset[Any], found: FoundTable, *, as_arrow: bool) -> object:
        from comity.dagster_bridge.data_frames import pandas_frame

        del asset
        return found.content.table if as_arrow else pandas_frame(found.content.table)
