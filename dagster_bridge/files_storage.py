"""The store of versions that keeps files: staged beside their place, swapped at once, the versions before kept."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comity.dagster_bridge.declared import Declared, require_declared
from comity.dagster_bridge.files import FileError, Place, read_file, sidecar_of
from comity.dagster_bridge.held_to_permit import obliged_columns, require_within
from comity.dagster_bridge.storage import Measured, Reversibility, Slot, WrittenFile
from comity.dagster_bridge.table_formats import MEDIA_TYPES, Format, UnwritableError
from comity.node.client import TermForm

if TYPE_CHECKING:
    from comity.dagster_bridge.tables import Table
    from comity.node.client import PermittedOutput


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """The bytes of a file. `adopted` says that the work has made them by itself."""

    data: bytes
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class StagedFile:
    """New bytes beside the place that they are to take, what they were when they were written, and their digest."""

    path: Path
    beside: Path
    prepared: PreparedFile
    digest: str


@dataclass(frozen=True, slots=True)
class FilesStorage:
    """Files below a place, in one format. Implements `Storage`."""

    place: Place
    form: Format

    @property
    def reversibility(self) -> Reversibility:
        return "versioned" if self.place.versions else "swap"

    def path(self, slot: Slot) -> Path:
        """The file of a slot.

        Raises:
            ConfigError: the names do not make a file below the place.
        """
        return self.place.path(slot.path, slot.partition, self.form)

    def require_place(self, slot: Slot) -> None:
        self.path(slot)

    def prepare(self, table: Table) -> PreparedFile:
        from comity.dagster_bridge.tables import table_bytes

        return PreparedFile(table_bytes(table, self.form))

    def adopt(self, written: WrittenFile) -> PreparedFile:
        found = read_file(written.path)
        if found is None:
            raise FileError(f"{written.path} is not there: a function that returns it has written it")
        return PreparedFile(found.data, adopted=True)

    def stage(self, slot: Slot, prepared: PreparedFile) -> StagedFile:
        path, data = self.path(slot), prepared.data
        # What was recorded before and is not in its place yet comes first: it is the version before.
        self.place.finish(path)
        self.place.sweep(path, time.time())
        with ThreadPoolExecutor(max_workers=1) as beside_the_disk:
            hashing = beside_the_disk.submit(hashlib.sha256, data)
            beside = self.place.write_beside(path, data)
            return StagedFile(path, beside, prepared, hashing.result().hexdigest())

    def verify(self, staged: StagedFile, permitted: PermittedOutput, declared: Declared) -> Measured:
        from comity.dagster_bridge.tables import described

        found = read_file(staged.beside)
        if found is None or found.data != staged.prepared.data:
            # Whoever changed it between two lines of ours is neither the work nor us.
            raise UnwritableError(
                TermForm("staged_bytes_changed", message="what was staged is not what was written")
            )
        wanted = {*obliged_columns(permitted), *declared.belongs}
        table = described(found.data, self.form, wanted, whole=staged.prepared.adopted)
        require_within(table.names, table.some, permitted)
        require_declared(table.schema, table.some, declared)
        return Measured(staged.digest, len(found.data), MEDIA_TYPES[self.form], table.rows, table.names)

    def describe(self, staged: StagedFile) -> Measured:
        return Measured(staged.digest, len(staged.prepared.data), MEDIA_TYPES[self.form], 0, ())

    def promote(self, slot: Slot, staged: StagedFile, sidecar: bytes) -> None:
        del slot
        self.place.write(sidecar_of(staged.beside), sidecar)
        self.place.finish(staged.path)

    def put_back(self, slot: Slot, digest: str) -> bool:
        path = self.path(slot)
        self.place.finish(path)
        found = read_file(path)
        return (found is not None and found.digest == digest) or self.place.put_back(path, digest)

    def discard(self, staged: StagedFile) -> None:
        staged.beside.unlink(missing_ok=True)
