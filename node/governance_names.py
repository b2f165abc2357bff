"""Names in a taxonomy and in policies that name nothing: members that are none, columns that no asset has.

None is an error in its file: a later epoch may bring the member, and a definition the column. Whoever drafts is
told, with file, line and key, and with the name that was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from comity.node.governance_files import FILE_BYTES_MAX
from comity.node.toml_document import Key, TomlDocument, read_toml
from comity.protocol.errors import ConfigError

NameWarning = dict[str, Any]
"""As `comity policy lint` says one: file, line, column, code, message and hint."""


def require_members(option: str, named: Iterable[str], members: Sequence[str]) -> None:
    """Check that an option names members.

    Raises:
        ConfigError: with the nearest member.
    """
    for name in named:
        if name not in members:
            raise ConfigError(f"{option} {name}: no member of this coalition; {_nearest(name, members)}")


def name_warnings(
    policies: Iterable[Path], taxonomy: Path | None, members: Sequence[str] | None = None
) -> list[NameWarning]:
    """What names nothing in files that are sound by themselves.

    Args:
        members: those of the coalition that is drafted; where None, names of members are not looked at.

    Raises:
        ConfigError: a file is missing or not TOML.
    """
    warnings: list[NameWarning] = []
    for path in policies:
        document = read_toml(path, FILE_BYTES_MAX)
        warnings += _column_warnings(document)
        if members is not None:
            warnings += _member_warnings(
                document, ("observers",), document.values.get("observers", ()), members
            )
    if taxonomy is not None and members is not None:
        document = read_toml(taxonomy, FILE_BYTES_MAX)
        for index, entry in enumerate(document.values["classes"]):
            key = ("classes", index, "issuers")
            warnings += _member_warnings(document, key, entry.get("issuers", ()), members)
    return warnings


def _member_warnings(
    document: TomlDocument, key: Key, named: Iterable[str], members: Sequence[str]
) -> Iterator[NameWarning]:
    for name in named:
        if name not in members:
            yield _warning(document, key, "unknown_member", f"no member is {name}", _nearest(name, members))


def _column_warnings(document: TomlDocument) -> Iterator[NameWarning]:
    """Columns that no asset of the policy is known to have, where it says what its assets have."""
    known: list[str] = []
    for index, asset in enumerate(document.values.get("assets", ())):
        columns = _columns_of(asset)
        known += columns
        rows_by = asset.get("rows_by", "")
        if rows_by and columns and rows_by not in columns:
            key = ("assets", index, "rows_by")
            message = f"no column {rows_by} is listed for {asset['pattern']}"
            yield _warning(document, key, "unknown_column", message, _nearest(rows_by, columns))
    for index, purpose in enumerate(document.values.get("purposes", ())):
        for name in purpose.get("columns", ()):
            if name not in known and difflib.get_close_matches(name, known, n=1):
                key = ("purposes", index, "columns")
                message = f"no asset is listed with a column {name}"
                yield _warning(document, key, "unknown_column", message, _nearest(name, known))


def _columns_of(asset: dict[str, Any]) -> list[str]:
    """The names of an asset's columns, in either form of the list."""
    listed: Any = asset.get("columns", ())
    return [each if isinstance(each, str) else each["name"] for each in listed]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"


def _warning(document: TomlDocument, key: Key, code: str, message: str, hint: str) -> NameWarning:
    return {
        "file": document.source,
        "line": document.line_of(key) or 1,
        "column": 1,
        "code": code,
        "message": f"{document.written(key)}: {message}",
        "hint": hint,
    }
