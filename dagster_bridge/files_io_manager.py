"""An IO manager for tables in files that keeps to the permit on write and verifies lineage on read.

It puts the file in its place at once, and lays the records that vouch for it beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import dagster as dg
from pydantic import Field

from comity.dagster_bridge.asset_facts import ASSET_KEY, asset_name
from comity.dagster_bridge.files import SIDECAR_BYTES_MAX, FileError, Place, read_file, sidecar_of
from comity.dagster_bridge.files_input import FileInput, FoundFile
from comity.dagster_bridge.files_storage import FilesStorage, PreparedFile
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_io_manager import GovernedIOManager, Publish
from comity.dagster_bridge.storage import Slot, WrittenFile
from comity.dagster_bridge.table_formats import FORMATS, Format
from comity.dagster_bridge.verified_read import Found, InputAsset
from comity.node.client import PermittedOutput
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import pattern_matches

PARTNER_BYTES_MAX: Final = 536_870_912
"""A partner's table in memory, unless configured: a few compressed bytes may stand for any number of values."""


class GovernedFilesIOManager(GovernedIOManager):
    """Keeps tables as Parquet or CSV files below an own directory, and exchanges them through a shared one.

    A partner's asset is an external asset whose metadata names it, as `partner_assets()` makes them; it is
    read from the exchange. An asset that no policy speaks of is kept as a plain file.
    """

    base: str = Field(description="The organization's own directory for files of assets.")
    exchange: str = Field(default="", description="The directory that is shared with partners.")
    publish: list[str] = Field(
        default=[],
        description="Assets that are copied to the exchange, by path; * is one part, a last ** the rest.",
    )
    format: str = Field(default="parquet", description="How own assets are written: parquet or csv.")
    partner_bytes_max: int = Field(
        default=PARTNER_BYTES_MAX,
        description="Bytes that one partition of a partner's table may take in memory.",
        gt=0,
    )

    _written_kind: ClassVar[type] = WrittenFile

    def _storage(self, way: str) -> FilesStorage:
        place = self._own() if way == "staged" else self._own().apart(way)
        return FilesStorage(place, self._format())

    def _folder(self) -> Path:
        return Path(self.base)

    def _put(self, slot: Slot, prepared: PreparedFile) -> None:
        path = self._own().path(slot.path, slot.partition, self._format())
        self._own().finish(path)
        self._own().write(path, prepared.data)

    def _table_written(self, written: WrittenFile) -> object:
        from comity.dagster_bridge.tables import parse_table

        return parse_table(self._storage("staged").adopt(written).data, self._format(), as_arrow=True)

    def _input(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> FileInput:
        name = asset_name(key, metadata)
        if ASSET_KEY in metadata:
            # The partner decides about the format of its files.
            forms = tuple(FORMATS.values())
            return FileInput(name, partners=True, place=self._shared(), path=name.split("/"), forms=forms)
        return FileInput(name, partners=False, place=self._own(), path=key.path, forms=(self._format(),))

    def _parsed(self, asset: InputAsset[Any], found: FoundFile, *, as_arrow: bool) -> object:
        from comity.dagster_bridge.tables import Bounds, parse_table

        bounds = Bounds(self.partner_bytes_max, found.rows) if asset.partners else None
        content = found.content
        return parse_table(content.file.data, content.form, as_arrow=as_arrow, bounds=bounds)

    def _publication(self, permitted: PermittedOutput, slot: Slot) -> Publish | None:
        path = self._published_path(permitted.asset.partition("/")[0], slot)
        if path is None:
            return None

        def publish(prepared: PreparedFile, sidecar: bytes) -> None:
            self._shared().write(path, prepared.data)
            self._shared().write(sidecar_of(path), sidecar)

        return publish

    def _published_path(self, member: str, slot: Slot) -> Path | None:
        """Where a copy for partners goes, if this asset is published."""
        if not any(pattern_matches(f"*/{pattern}", f"*/{slot.name}") for pattern in self.publish):
            return None
        return self._shared().path([member, *slot.path], slot.partition, self._format())

    def _admitted(self, asset: InputAsset[Any], partition: str, found: Found[Any]) -> None:
        """Bring the partners' copy of an own file up to it, where its writer ended before it had done so."""
        governed = read_governed_assets(self._home()) if not asset.partners and self.publish else None
        if governed is None:
            return
        path = self._published_path(governed.member, Slot(tuple(asset.name.split("/")), partition))
        sidecar = read_file(sidecar_of(found.content.file.path), SIDECAR_BYTES_MAX)
        if path is None or sidecar is None:
            return
        try:
            shared = read_file(sidecar_of(path), SIDECAR_BYTES_MAX)
            if shared is None and not found.recovered and not path.exists():
                # Never published: reading an asset does not publish it.
                return
            if shared is None or shared.data != sidecar.data:
                self._shared().write(path, found.content.file.data)
                self._shared().write(sidecar_of(path), sidecar.data)
        except FileError:
            # Who reads may not be who publishes. The next write publishes, too.
            return

    def _format(self) -> Format:
        form = FORMATS.get(self.format)
        if form is None:
            raise ConfigError(f"the format of files is {self.format!r}, not one of {', '.join(FORMATS)}")
        return form

    def _own(self) -> Place:
        return Place(Path(self.base), shared=False, versions=self.versions)

    def _shared(self) -> Place:
        if not self.exchange:
            raise ConfigError("the IO manager has no exchange: give the directory shared with partners")
        return Place(Path(self.exchange), shared=True)
