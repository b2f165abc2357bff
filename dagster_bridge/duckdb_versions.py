"""Versions of assets in one DuckDB database: which there are, which one counts, and the view that shows it.

    comity.versions                  a row for each version: slot, digest, sidecar, number
    comity_versions.v_<random>       its rows, in a table of its own that is never changed
    <schema>.<name>                  a view of the version that counts; the last part of the asset's key is its name

A version with the number 0 is staged; of the others of a slot the one with the highest number counts, and the others
are kept. To promote one is to number it and to make the view anew, in one transaction: rows are not moved. The view of
a partitioned asset shows all of its partitions, with their keys in a column `comity_partition`.

Every function here is given a connection, and those that change anything are called within a transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from comity.dagster_bridge.duckdb_connection import Connection, asked
from comity.dagster_bridge.files import FILE_BYTES_MAX, NAME_BYTES_MAX, SIDECAR_BYTES_MAX, FileError
from comity.dagster_bridge.storage import Slot
from comity.protocol.errors import ConfigError

OWN_SCHEMA: Final = "comity"
VERSIONS_SCHEMA: Final = "comity_versions"
DEFAULT_SCHEMA: Final = "main"
PARTITION_COLUMN: Final = "comity_partition"
"""In the view of a partitioned asset: the partition's key."""
FORM: Final = 1
"""Of these tables. A program that knows an older one leaves the database alone."""

PARTITIONS_SHOWN: Final = 1_000
"""Partitions that the view of one asset shows: with more, every look at it takes seconds. It says so then."""
CELL_BYTES_MIN: Final = 1
"""What a cell takes in memory at least, to know of a table that is too large before it is read."""
_RANDOM_BYTES: Final = 8
_RESERVED: Final = ("information_schema", "pg_catalog", "system", "temp")
"""Schemas of DuckDB's own."""

_MADE: Final = f"""
CREATE SCHEMA IF NOT EXISTS {OWN_SCHEMA};
CREATE SCHEMA IF NOT EXISTS {VERSIONS_SCHEMA};
CREATE TABLE IF NOT EXISTS {OWN_SCHEMA}.form (form INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS {OWN_SCHEMA}.versions (
    name VARCHAR NOT NULL, asset VARCHAR NOT NULL, partition VARCHAR NOT NULL, digest VARCHAR NOT NULL,
    number BIGINT NOT NULL, sidecar BLOB NOT NULL, staged_at BIGINT NOT NULL, promoted_at BIGINT NOT NULL
);
"""
_COLUMNS: Final = (
    "name, asset, partition, digest, number, CASE WHEN octet_length(sidecar) <= ? THEN sidecar END"
)
_Row: TypeAlias = tuple[str, str, str, str, int, bytes]


@dataclass(frozen=True, slots=True)
class Version:
    """One version: the name of its table, its slot, the digest that it was staged with, and what vouches for it."""

    name: str
    asset: str
    partition: str
    digest: str
    number: int
    sidecar: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a user of DuckDB alone finds an asset."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def folded(self) -> tuple[str, str]:
        """The name as DuckDB compares it, at the least: it does not tell upper from lower case."""
        return self.schema.casefold(), self.name.casefold()


def shown_as(path: Sequence[str]) -> Shown:
    """The schema and the name of an asset's view. Different assets have different ones, but for upper and lower case.

    Raises:
        ConfigError: a part of the key cannot stand there.
    """
    for part in path:
        if not part or "/" in part or not part.isprintable() or len(part.encode()) > NAME_BYTES_MAX:
            raise ConfigError(
                f"{part[:80]!r} in an asset key cannot be the name of a table: it is printable, without /, and of at"
                f" most {NAME_BYTES_MAX} bytes"
            )
    schema = "/".join(path[:-1]) or DEFAULT_SCHEMA
    folded = schema.casefold()
    if folded.startswith(OWN_SCHEMA) or folded in _RESERVED:
        raise ConfigError(
            f"the asset {'/'.join(path)} would be shown in the schema {schema!r}, which is not for assets: give it"
            " another key"
        )
    return Shown(schema, path[-1])


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def table_of(name: str) -> str:
    """The table of a version, in SQL."""
    return f"{quoted(VERSIONS_SCHEMA)}.{quoted(name)}"


def are_here(connection: Connection) -> bool:
    """Whether the database has versions.

    Raises:
        FileError: a newer program has made them.
    """
    found = asked(
        connection,
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database()"
        " AND schema_name = ? AND table_name IN ('form', 'versions')",
        OWN_SCHEMA,
    )
    if found != [(2,)]:
        return False
    form = asked(connection, f"SELECT max(form) FROM {OWN_SCHEMA}.form")  # noqa: S608  # our own name
    if form != [(FORM,)]:
        raise FileError(
            f"the database is of form {form[0][0]}, and this program knows {FORM}: use a newer one"
        )
    return True


def make(connection: Connection) -> None:
    """Make the tables of versions where there are none.

    Raises:
        FileError: a newer program has made them.
    """
    if are_here(connection):
        return
    connection.execute(_MADE)
    connection.execute(f"INSERT INTO {OWN_SCHEMA}.form VALUES (?)", [FORM])  # noqa: S608  # our own name


def versions_of(connection: Connection, slot: Slot) -> list[Version]:
    """All versions of a slot: those that are staged first, the oldest first, then the others by number.

    Raises:
        FileError: what stands there was not written by this program.
    """
    if not are_here(connection):
        return []
    rows = asked(
        connection,
        f"SELECT {_COLUMNS} FROM {OWN_SCHEMA}.versions WHERE asset = ? AND partition = ?"  # noqa: S608  # our own names
        " ORDER BY number, staged_at, name",
        SIDECAR_BYTES_MAX,
        slot.name,
        slot.partition,
    )
    try:
        return [Version(*row) for row in msgspec.convert(rows, list[_Row])]
    except msgspec.ValidationError as exc:
        raise FileError(
            f"{OWN_SCHEMA}.versions has a row of {slot.words()} that is none of ours: {exc}"
        ) from None


def require_place(connection: Connection, slot: Slot) -> None:
    """Check that an asset can be shown under its name.

    Raises:
        ConfigError: another asset, or something that is none of ours, has that name.
    """
    shown = shown_as(slot.path)
    assets: set[str] = set()
    if are_here(connection):
        found = asked(connection, f"SELECT DISTINCT asset FROM {OWN_SCHEMA}.versions WHERE number > 0")  # noqa: S608  # our own name
        assets = {str(asset) for (asset,) in found}
    for other in sorted(assets - {slot.name}):
        if shown_as(other.split("/")).folded == shown.folded:
            raise ConfigError(
                f"{slot.name} and {other} cannot be kept in one database: DuckDB does not tell their names apart;"
                " give one of them another key, or a database of its own"
            )
    if slot.name in assets:
        return
    things = asked(
        connection,
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
        " UNION ALL SELECT schema_name, view_name FROM duckdb_views()"
        " WHERE database_name = current_database() AND NOT internal",
    )
    if any(Shown(str(schema), str(name)).folded == shown.folded for schema, name in things):
        raise ConfigError(
            f"{shown.sql} is there already and was not made by Comity: drop or rename it, or give {slot.name} another"
            " database"
        )


def write_rows(connection: Connection, table: Any) -> str:
    """Write an Arrow table where no view shows it. Answers with its name."""
    name = f"v_{secrets.token_hex(_RANDOM_BYTES)}"
    connection.register("comity_incoming", table)
    try:
        connection.execute(f"CREATE TABLE {table_of(name)} AS SELECT * FROM comity_incoming")  # noqa: S608  # our own names
    finally:
        connection.unregister("comity_incoming")
    return name


def add_staged(connection: Connection, slot: Slot, name: str, digest: str, now_ms: int) -> None:
    """Say of which slot a table is staged."""
    connection.execute(
        f"INSERT INTO {OWN_SCHEMA}.versions VALUES (?, ?, ?, ?, 0, ''::BLOB, ?, 0)",  # noqa: S608  # our own name
        [name, slot.name, slot.partition, digest, now_ms],
    )


def rows_of(connection: Connection, source: str) -> Any:
    """All rows of a table in SQL, as an Arrow table, in the order in which they were written.

    Raises:
        FileError: it is too large to be held in memory.
    """
    relation = connection.sql(f"SELECT * FROM {source}")  # noqa: S608  # a quoted name
    ((rows,),) = asked(connection, f"SELECT count(*) FROM {source}")  # noqa: S608  # a quoted name
    if rows * len(relation.columns) * CELL_BYTES_MIN > FILE_BYTES_MAX:
        raise FileError(f"{source} has {rows} rows, more than {FILE_BYTES_MAX} bytes")
    return relation.to_arrow_table()


def put_in_place(connection: Connection, slot: Slot, version: Version, kept: int, now_ms: int) -> None:
    """Let a version count from now on: number it, keep so many before it, and show it."""
    versions = [each for each in versions_of(connection, slot) if each.number]
    number = max((each.number for each in versions), default=0) + 1
    connection.execute(
        f"UPDATE {OWN_SCHEMA}.versions SET number = ?, sidecar = ?, promoted_at = ? WHERE name = ?",  # noqa: S608  # our own name
        [number, version.sidecar, now_ms, version.name],
    )
    _show(connection, slot)
    before = [each for each in versions if each.name != version.name]
    for old in before[: max(0, len(before) - kept)]:
        take_away(connection, old.name)


def take_away(connection: Connection, name: str) -> None:
    """Drop a version. What is gone already is no error."""
    connection.execute(f"DELETE FROM {OWN_SCHEMA}.versions WHERE name = ?", [name])  # noqa: S608  # our own name
    connection.execute(f"DROP TABLE IF EXISTS {table_of(name)}")


def sweep(connection: Connection, slot: Slot, staged_before_ms: int) -> None:
    """Take away what was staged so long ago, and that nothing vouches for."""
    old = asked(
        connection,
        f"SELECT name FROM {OWN_SCHEMA}.versions"  # noqa: S608  # our own name
        " WHERE asset = ? AND partition = ? AND number = 0 AND staged_at < ?",
        slot.name,
        slot.partition,
        staged_before_ms,
    )
    for (name,) in old:
        take_away(connection, str(name))


def _show(connection: Connection, slot: Slot) -> None:
    """Make the view of an asset anew."""
    shown = shown_as(slot.path)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(shown.schema)}")
    connection.execute(f"CREATE OR REPLACE VIEW {shown.sql} AS {_selection(connection, slot)}")


def _selection(connection: Connection, slot: Slot) -> str:
    counted = asked(
        connection,
        f"SELECT partition, arg_max(name, number) FROM {OWN_SCHEMA}.versions"  # noqa: S608  # our own name
        " WHERE asset = ? AND number > 0 AND (partition = '') = ? GROUP BY partition ORDER BY partition",
        slot.name,
        not slot.partition,
    )
    names = [str(name) for _, name in counted]
    if not slot.partition:
        return f"SELECT * FROM {table_of(names[0])}"  # noqa: S608  # a quoted name
    if len(names) > PARTITIONS_SHOWN:
        return _says(
            f"{slot.name} has more than {PARTITIONS_SHOWN} partitions: comity.versions names the table of each"
        )
    differs = asked(
        connection,
        "SELECT min(column_name) FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = ?"
        " AND table_name IN (SELECT unnest(?::VARCHAR[])) GROUP BY lower(column_name)"
        " HAVING count(DISTINCT data_type) > 1 ORDER BY 1 LIMIT 1",
        VERSIONS_SCHEMA,
        names,
    )
    if differs:
        return _says(
            f"partitions of {slot.name} differ in the type of {differs[0][0]}: comity.versions names the table of each"
        )
    return " UNION ALL BY NAME ".join(
        f"SELECT {_literal(str(partition))} AS {PARTITION_COLUMN}, * FROM {table_of(str(name))}"  # noqa: S608  # quoted
        for partition, name in counted
    )


def _says(words: str) -> str:
    """A view that cannot be read, and says why."""
    return f"SELECT error({_literal(words)}) AS {PARTITION_COLUMN}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
