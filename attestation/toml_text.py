"""TOML, as this project reads and writes it: bounded, and with errors that name the file.

Written is what `tomllib` reads back as the same value; there is no general writer.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import DIGEST_BYTES

DATE: Final = "a date and time in UTC in whole seconds, e.g. 2026-03-01T12:00:00Z"
DIGEST: Final = f"{2 * DIGEST_BYTES} hex digits in lower case"
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_AT_LINE: Final = re.compile(r" \(at (?:line (\d+), (column \d+)|(end of document))\)$")
_KEY: Final = re.compile(r"\s*(?:\[\[?\s*)?([A-Za-z0-9_.\"-]{1,80})\s*(?:=|\])")
_TWICE: Final = ("Cannot overwrite a value", "Cannot declare", "Cannot mutate")
"""What `tomllib` says of a key or a table that stands in the file already."""

CARD: Final = "the card of a node"
COALITION: Final = "a coalition file"
POLICY: Final = "a policy"
ROOTS: Final = "a roots file"
TAXONOMY: Final = "a taxonomy"
SETTINGS: Final = "the settings of a node"
_ROOTS: Final = frozenset({"coalition", "epoch_number", "epoch"})
_TELLING: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    (CARD, frozenset({"organization_key", "node_key"})),
    (COALITION, frozenset({"members", "records", "draft"})),
    (ROOTS, _ROOTS),
    (TAXONOMY, frozenset({"classes"})),
    (POLICY, frozenset({"rules", "assets", "purposes"})),
    (SETTINGS, frozenset({"listen"})),
)
"""What a file is, by keys that files of other kinds lack; but a coalition file has all keys of roots, too."""


def parse_toml(text: str | bytes, bytes_max: int, source: str) -> dict[str, Any]:
    """Read a document. `source` names it in errors.

    Raises:
        ConfigError: longer than `bytes_max`, not UTF-8, or not TOML; the message names line and key, as far as
            there are.
    """
    data = b""
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > bytes_max:
            raise ConfigError(f"{source}: longer than {bytes_max} bytes")
        if data.startswith(_BYTE_ORDER_MARK):
            raise ConfigError(f"{source}:1: begins with a byte order mark: save it as UTF-8 without one")
        return tomllib.loads(data.decode())
    except UnicodeError as exc:
        raise ConfigError(f"{source}: not UTF-8 text") from exc
    except (ValueError, OverflowError, RecursionError) as exc:
        # Besides TOMLDecodeError: numbers too long for Python, and arrays too deep for its stack.
        raise ConfigError(_malformed(str(exc), data, source)) from exc


def _malformed(problem: str, data: bytes, source: str) -> str:
    """What the reader says of a text, with the line, and the key that the line begins with."""
    at = _AT_LINE.search(problem)
    if at is None:
        return f"{source}: not TOML: {problem}"
    lines = data.decode().rstrip().splitlines() or [""]
    number = int(at[1]) if at[1] else len(lines)
    key = _KEY.match(lines[number - 1]) if number <= len(lines) else None
    where = f"{source}:{number}: " + (f"{key[1]}: " if key is not None else "")
    said = problem.removesuffix(at[0])
    if said.startswith(_TWICE):
        return f"{where}it stands in this file already, and may stand once: {said}"
    return f"{where}not TOML: {said} ({at[2] or at[3]})"


def require_kind(values: Mapping[str, object], wanted: str, source: str) -> None:
    """Check that a file is not plainly one of another kind. Whether it is sound is for its reader to say.

    Raises:
        ConfigError: it is; the message says what the file is.
    """
    found = [kind for kind, keys in _TELLING if keys & values.keys()]
    if ROOTS in found and (COALITION in found or not values.keys() >= _ROOTS):
        found.remove(ROOTS)
    # A file with keys of several kinds may be a wrong one of this kind: its reader names the key and its line.
    if found and wanted not in found:
        raise ConfigError(f"{source}: this is {found[0]}, not {wanted}")


def quote(text: str) -> str:
    """A basic string. JSON escapes what TOML wants escaped, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def date_of(seconds: int) -> str:
    """An offset date-time in UTC of whole seconds since 1970."""
    return (_START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(value: object) -> int:
    """Whole seconds since 1970 of a date-time.

    Raises:
        ValueError: not a date-time in UTC, in whole seconds, from 1970 on.
    """
    if not isinstance(value, datetime) or value.utcoffset() != timedelta(0) or value.microsecond:
        raise ValueError(f"not {DATE}")
    seconds = (value - _START) // timedelta(seconds=1)
    if seconds < 0:
        raise ValueError("before 1970")
    return seconds


def digest_of(value: object) -> bytes:
    """The digest that a string writes in hex.

    Raises:
        ValueError: it does not, or in another way than `bytes.hex` does.
    """
    if not isinstance(value, str) or len(value) != 2 * DIGEST_BYTES or bytes.fromhex(value).hex() != value:
        raise ValueError(f"not {DIGEST}")
    return bytes.fromhex(value)
