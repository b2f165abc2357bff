"""A TOML file with the place of every key, so that an error can say the line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from comity.attestation.toml_text import parse_toml, require_kind
from comity.node.owner_files import read_file
from comity.protocol.errors import ConfigError

Key: TypeAlias = tuple[str | int, ...]
"""Names of tables and keys, and indices in arrays of tables, from the top."""

_HEADER: Final = re.compile(r"\s*(\[\[|\[)([^\]]+)\]\]?\s*(?:#.*)?")
_ASSIGNMENT: Final = re.compile(r"\s*((?:\"[^\"]*\"|'[^']*'|[A-Za-z0-9_.\s-])+?)\s*=")


@dataclass(frozen=True, slots=True)
class TomlDocument:
    """What a file says. `source` is its name for errors."""

    source: str
    text: str
    values: dict[str, Any]

    def error(self, key: Key, problem: str) -> ConfigError:
        """An error that names file, line and key."""
        line = self.line_of(key)
        where = self.source if line is None else f"{self.source}:{line}"
        return ConfigError(f"{where}: {_written(key)}: {problem}")

    def require_kind(self, wanted: str) -> None:
        """Raises: ConfigError: the file is plainly one of another kind, and the message says of which."""
        require_kind(self.values, wanted, self.source)

    def unknown(self, key: Key, known: Sequence[str]) -> ConfigError:
        """The error for a key that nobody reads, with the nearest one that somebody does."""
        near = difflib.get_close_matches(str(key[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return self.error(key, f"unknown key; {hint}")

    def unknown_value(self, key: Key, what: str, name: str, known: Sequence[str]) -> ConfigError:
        """The error for a value that names nothing, with the nearest name that names something."""
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
        return self.error(key, f"no {what} {name}; {hint}")

    def written(self, key: Key) -> str:
        """A key as people read it: `members[1].nodes[0].key`."""
        return _written(key)

    def line_of(self, key: Key) -> int | None:
        """The line of a key, else of the table that it would stand in; None where that is the top."""
        best: tuple[int, int] | None = None
        for number, found in self._places():
            # `a.b = 1` is a place of `a`, too, and an inline table is one of all that stands in it.
            common = 0
            while common < min(len(key), len(found)) and key[common] == found[common]:
                common += 1
            reached = common if common in (len(key), len(found)) else 0
            if reached and (best is None or reached > best[0]):
                best = (reached, number)
        return None if best is None else best[1]

    def _places(self) -> Iterator[tuple[int, Key]]:
        """Every table header and key at the beginning of a line. Text in several lines may pose as one."""
        counts: dict[Key, int] = {}
        table: Key = ()
        for number, line in enumerate(self.text.splitlines(), start=1):
            header = _HEADER.fullmatch(line)
            if header is not None:
                names = _names(header[2])
                if names is None:
                    continue
                table = _resolved(names[:-1], counts) + names[-1:]
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                yield number, table
                continue
            assignment = _ASSIGNMENT.match(line)
            names = _names(assignment[1]) if assignment is not None else None
            if names is not None:
                yield number, table + names


def read_toml(path: Path, bytes_max: int) -> TomlDocument:
    """Read a file.

    Raises:
        ConfigError: it is missing, unreadable, longer than `bytes_max`, or not TOML.
    """
    data, _ = read_file(path, bytes_max)
    return toml_document(data, bytes_max, str(path))


def toml_document(text: str | bytes, bytes_max: int, source: str) -> TomlDocument:
    """Read a text.

    Raises:
        ConfigError: longer than `bytes_max`, or not TOML.
    """
    values = parse_toml(text, bytes_max, source)
    return TomlDocument(source, text if isinstance(text, str) else text.decode(), values)


def _names(dotted: str) -> Key | None:
    """The parts of a dotted key, read by the TOML reader itself; None for what is none."""
    try:
        value: Any = tomllib.loads(f"{dotted} = 0")
    except (ValueError, RecursionError):
        return None
    names: list[str] = []
    while isinstance(value, dict):
        ((name, value),) = cast("dict[str, Any]", value).items()
        names.append(name)
    return tuple(names)


def _resolved(names: Key, counts: dict[Key, int]) -> Key:
    """Names with the index of the array element that stands open at each."""
    key: Key = ()
    for name in names:
        key = (*key, name)
        if key in counts:
            key = (*key, counts[key])
    return key


def _written(key: Key) -> str:
    """A key as people read it: `members[1].nodes[0].key`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
