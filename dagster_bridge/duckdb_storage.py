"""The store of versions that keeps tables in one DuckDB database file: staged beside each other, shown by a view."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comity.dagster_bridge import duckdb_versions
from comity.dagster_bridge.declared import Declared, require_declared
from comity.dagster_bridge.duckdb_connection import BUSY_MAX_S, Connection, opened, transaction
from comity.dagster_bridge.duckdb_versions import (
    DEFAULT_SCHEMA,
    PARTITION_COLUMN,
    Version,
    quoted,
    rows_of,
    shown_as,
    table_of,
    versions_of,
)
from comity.dagster_bridge.files import APART_FOLDER, FILE_BYTES_MAX, LEFT_OVER_S, FileError
from comity.dagster_bridge.held_to_permit import obliged_columns, require_within
from comity.dagster_bridge.storage import Measured, Reversibility, Slot
from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import TermForm
from comity.protocol.errors import ConfigError

if TYPE_CHECKING:
    from comity.dagster_bridge.table_digest import TableDigest
    from comity.dagster_bridge.tables import Table
    from comity.node.client import PermittedOutput

_LEFT_OVER_MS: Final = LEFT_OVER_S * 1_000


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What a step's function returns that has written its table by itself, into a DuckDB database of its own.

    The table is copied into staging and held against the permit, which nothing has been taken out for: one with more
    than the permit allows is discarded. Its database is opened to be read, so the function has closed it.
    """

    path: Path
    table: str
    schema: str = DEFAULT_SCHEMA


@dataclass(frozen=True, slots=True)
class PreparedTable:
    """A table in the types that the database holds."""

    table: Table


@dataclass(frozen=True, slots=True)
class StagedTable:
    """The name of a table that no view shows, and the digest of what was written into it."""

    slot: Slot
    name: str
    digest: TableDigest


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A version as it was read, once: its rows, their digest, and what vouches for it."""

    version: Version
    table: Table
    digest: TableDigest


@dataclass(frozen=True, slots=True)
class DuckDBStorage:
    """Tables in a database file. Implements `Storage`.

    Attributes:
        versions: how many versions before the newest are kept of each slot.
        busy_max_s: how long the database is waited for while another process has it.
    """

    path: Path
    versions: int = 0
    busy_max_s: float = BUSY_MAX_S

    @property
    def reversibility(self) -> Reversibility:
        return "versioned" if self.versions else "swap"

    def apart(self, way: str) -> DuckDBStorage:
        """The database beside this one where what is made in another way is kept; without versions before."""
        return replace(self, path=self.path.parent / APART_FOLDER / way / self.path.name, versions=0)

    def require_place(self, slot: Slot) -> None:
        """Check that an asset can be kept here under its name.

        Raises:
            ConfigError: it cannot.
            FileError: the database cannot be read.
        """
        shown_as(slot.path)
        _require_text(slot.partition)
        if self.path.exists():
            with self._opened(writes=False) as connection:
                duckdb_versions.require_place(connection, slot)

    def prepare(self, table: Table) -> PreparedTable:
        from comity.dagster_bridge.table_digest import plain_table

        plain = plain_table(table)
        names = [str(name) for name in plain.column_names]
        folded = {name.casefold() for name in names}
        if not names or len(folded) != len(names) or not all(names) or PARTITION_COLUMN in folded:
            message = (
                "the columns of a database table need names that differ by more than upper and lower case, and are not"
                f" {PARTITION_COLUMN}"
            )
            raise UnwritableError(TermForm("columns_not_named", message=message))
        if plain.nbytes > FILE_BYTES_MAX:
            message = f"the table takes more than {FILE_BYTES_MAX} bytes in memory"
            raise UnwritableError(TermForm("table_too_large", {"bytes_max": FILE_BYTES_MAX}, message=message))
        return PreparedTable(plain)

    def adopt(self, written: WrittenTable) -> PreparedTable:
        if not written.path.exists():
            raise FileError(f"{written.path} is not there: a function that returns it has written it")
        with opened(written.path, writes=False, busy_max_s=self.busy_max_s) as connection:
            table = rows_of(connection, f"{quoted(written.schema)}.{quoted(written.table)}")
        return self.prepare(table)

    def stage(self, slot: Slot, prepared: PreparedTable) -> StagedTable:
        from comity.dagster_bridge.table_digest import table_digest

        now_ms = _now_ms()
        with ThreadPoolExecutor(max_workers=1) as beside_the_disk:
            hashing = beside_the_disk.submit(table_digest, prepared.table)
            with self._changed() as connection:
                duckdb_versions.require_place(connection, slot)
                duckdb_versions.sweep(connection, slot, now_ms - _LEFT_OVER_MS)
                name = duckdb_versions.write_rows(connection, prepared.table)
                digest = hashing.result()
                duckdb_versions.add_staged(connection, slot, name, digest.digest, now_ms)
        return StagedTable(slot, name, digest)

    def verify(self, staged: StagedTable, permitted: PermittedOutput, declared: Declared) -> Measured:
        from comity.dagster_bridge.table_digest import table_digest

        with self._opened(writes=False) as connection:
            table = rows_of(connection, table_of(staged.name))
        if table_digest(table) != staged.digest:
            # Whoever changed it between two lines of ours is neither the work nor us.
            raise UnwritableError(
                TermForm("staged_bytes_changed", message="what was staged is not what was written")
            )
        names = [str(name) for name in table.column_names]
        wanted = {*obliged_columns(permitted), *declared.belongs}
        some = table.select([name for name in names if name in wanted])
        require_within(names, some, permitted)
        require_declared(table.schema, some, declared)
        return _measured(staged, int(table.num_rows), names)

    def describe(self, staged: StagedTable) -> Measured:
        return _measured(staged, 0, [])

    def promote(self, slot: Slot, staged: StagedTable, sidecar: bytes) -> None:
        if not self.finish(slot, staged.name, sidecar):
            raise FileError(f"what was staged of {slot.words()} is not in {self.path} any more")

    def finish(self, slot: Slot, name: str, sidecar: bytes) -> bool:
        """Let a staged version that the node has recorded take its place. Whether it is there, or was in its place.

        Raises:
            FileError: the database refuses.
        """
        with self._changed() as connection:
            found = next((each for each in versions_of(connection, slot) if each.name == name), None)
            if found is not None and not found.number:
                version = replace(found, sidecar=sidecar)
                duckdb_versions.put_in_place(connection, slot, version, self.versions, _now_ms())
            return found is not None

    def put_back(self, slot: Slot, digest: str) -> bool:
        if not self.path.exists():
            return False
        with self._changed() as connection:
            versions = [each for each in versions_of(connection, slot) if each.number]
            for version in reversed(versions):
                if version.digest != digest or not version.sidecar:
                    continue
                if _kept(connection, version).digest.digest != digest:
                    continue
                if version is not versions[-1]:
                    duckdb_versions.put_in_place(connection, slot, version, self.versions, _now_ms())
                return True
        return False

    def discard(self, staged: StagedTable) -> None:
        with self._changed() as connection:
            duckdb_versions.take_away(connection, staged.name)

    def current(self, slot: Slot) -> KeptTable | None:
        """The version of a slot that counts, read once; None where there is none.

        Raises:
            FileError: the database cannot be read.
            UnwritableError: its table holds what no version does.
        """
        if not self.path.exists():
            return None
        with self._opened(writes=False) as connection:
            promoted = [each for each in versions_of(connection, slot) if each.number]
            return _kept(connection, promoted[-1]) if promoted else None

    def unfinished(self, slot: Slot, most: int) -> Iterator[KeptTable]:
        """What was staged last of a slot and is not in its place, so many at most, the oldest first.

        Each is read when it is asked for, and passed over where it has gone.

        Raises:
            FileError: the database cannot be read.
        """
        for version in self._staged(slot)[-most:]:
            with self._opened(writes=False) as connection:
                if version not in versions_of(connection, slot):
                    continue
                found = _kept(connection, version)
            yield found

    def _staged(self, slot: Slot) -> list[Version]:
        if not self.path.exists():
            return []
        with self._opened(writes=False) as connection:
            return [each for each in versions_of(connection, slot) if not each.number]

    def _opened(self, *, writes: bool) -> Any:
        return opened(self.path, writes=writes, busy_max_s=self.busy_max_s)

    @contextmanager
    def _changed(self) -> Generator[Connection]:
        """One transaction."""
        with self._opened(writes=True) as connection, transaction(connection):
            duckdb_versions.make(connection)
            yield connection


def _kept(connection: Connection, version: Version) -> KeptTable:
    from comity.dagster_bridge.table_digest import table_digest

    table = rows_of(connection, table_of(version.name))
    return KeptTable(version, table, table_digest(table))


def _measured(staged: StagedTable, rows: int, names: list[str]) -> Measured:
    from comity.dagster_bridge.table_digest import TABLE_MEDIA_TYPE

    return Measured(staged.digest.digest, staged.digest.size, TABLE_MEDIA_TYPE, rows, names)


def _require_text(partition: str) -> None:
    if not partition.isprintable():
        raise ConfigError(f"the partition {partition[:80]!r} has characters that cannot be shown in a view")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
