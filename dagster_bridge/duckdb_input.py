"""An asset in a DuckDB database, as an input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from comity.dagster_bridge.duckdb_storage import DuckDBStorage, KeptTable
from comity.dagster_bridge.files import NEXT_MAX, FileMissingError
from comity.dagster_bridge.storage import Slot
from comity.dagster_bridge.verified_read import Found, words_of

FoundTable: TypeAlias = Found[KeptTable]


@dataclass(frozen=True, slots=True)
class TableInput:
    """An own asset in its database. Implements `InputAsset`."""

    name: str
    storage: DuckDBStorage
    path: Sequence[str]

    @property
    def partners(self) -> bool:
        """Partners exchange files."""
        return False

    def apart(self, way: str) -> TableInput:
        return replace(self, storage=self.storage.apart(way))

    def find(self, partition: str) -> FoundTable:
        kept = self.storage.current(self._slot(partition))
        if kept is None:
            raise FileMissingError(
                f"there is no version of {self.words(partition)} yet, in {self.storage.path}: make it, or wait until"
                " its step has"
            )
        return self._found(kept)

    def unfinished(self, partition: str) -> Iterator[FoundTable]:
        for kept in self.storage.unfinished(self._slot(partition), NEXT_MAX):
            yield self._found(kept)

    def finish(self, partition: str, found: FoundTable, sidecar: bytes) -> None:
        self.storage.finish(self._slot(partition), found.content.version.name, sidecar)

    def put_back(self, partition: str, digest: str) -> bool:
        return self.storage.put_back(self._slot(partition), digest)

    def words(self, partition: str) -> str:
        return words_of(self.name, partition)

    def _slot(self, partition: str) -> Slot:
        return Slot(tuple(self.path), partition)

    def _found(self, kept: KeptTable) -> FoundTable:
        digest, version = kept.digest, kept.version
        where = f"{version.name} in {self.storage.path}"
        return Found(kept, digest.digest, digest.size, where, version.sidecar)
