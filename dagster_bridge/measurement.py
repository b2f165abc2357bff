"""What a process measures of itself: the code of its code location and the distributions that it can import.

It is evidence of trust tier 1 (software measured): it finds mix-ups and remote tampering, and says nothing
against who operates the machine. The lists that are hashed, and their encoding: docs/spec/evidence.md.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.node.client import ContextForm
from comity.protocol.encoding import encode
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import sha256

CODE_DOMAIN: Final = "comity code v1"
DISTRIBUTIONS_DOMAIN: Final = "comity distributions v1"

FILES_MAX: Final = 10_000
"""Python files of one code location. More means that the root is a home or an environment, not a project."""
BYTES_MAX: Final = 256 * 1_048_576
"""Bytes of those files together: what is hashed in about a second."""
DISTRIBUTIONS_MAX: Final = 4_000
"""Distributions on the import path: an image with every package of a large company has some hundred."""
RECORD_BYTES_MAX: Final = 64 * 1_048_576
"""One RECORD: the largest packages list some ten thousand files."""

_SUFFIX: Final = ".py"
_NOT_CODE: Final = frozenset({"__pycache__", "node_modules"})
_METADATA_FILES: Final = ("METADATA", "entry_points.txt")


@dataclass(frozen=True, slots=True)
class CodeMeasurement:
    """The digest (hex) of a code location's Python files, and how many there are."""

    root: Path
    digest: str
    files: int


@dataclass(frozen=True, slots=True)
class DistributionsMeasurement:
    """The digest (hex) of the installed distributions, and how many there are."""

    digest: str
    count: int


def code_root(definitions: Path) -> Path:
    """The directory that is measured for a file of definitions.

    It is the topmost package that the file lies in; for a file outside of any package, its directory.
    """
    root = definitions.resolve().parent
    while (root / "__init__.py").is_file() and (root.parent / "__init__.py").is_file():
        root = root.parent
    return root


def measure_code(root: Path) -> CodeMeasurement:
    """Hash every Python file below a directory.

    Hidden directories, virtual environments and caches are left out; links to directories are not followed.

    Raises:
        ConfigError: the root is no directory, a file cannot be read, or there are more files or bytes than
            one code location has.
    """
    if not root.is_dir():
        raise ConfigError(f"code_root {root} is not a directory")
    listed: list[list[str | bytes]] = []
    size = 0
    try:
        for path in _python_files(root):
            data = path.read_bytes()
            size += len(data)
            if len(listed) >= FILES_MAX or size > BYTES_MAX:
                raise ConfigError(
                    f"{root} holds more than {FILES_MAX} Python files or {BYTES_MAX} bytes of them;"
                    " name the package that holds the definitions: govern(defs, code_root=...)"
                )
            listed.append([path.relative_to(root).as_posix(), sha256(data)])
    except OSError as exc:
        raise ConfigError(f"the code location {root} cannot be measured: {exc}") from exc
    for name, _ in listed:
        if not str(name).isprintable():
            raise ConfigError(f"the code location {root} holds a file whose name is not printable: {name!r}")
    return CodeMeasurement(root, _digest(CODE_DOMAIN, "files", listed), len(listed))


def measure_distributions(search_path: Sequence[str]) -> DistributionsMeasurement:
    """Hash what the installers recorded of every distribution on an import path.

    Raises:
        ConfigError: a RECORD cannot be read, or there are more distributions than a process has.
    """
    found: set[tuple[str, str, bytes]] = set()
    try:
        for place in dict.fromkeys(os.path.realpath(entry or ".") for entry in search_path):
            if not Path(place).is_dir():
                continue
            for entry in os.scandir(place):
                if entry.name.endswith(".dist-info") and entry.is_dir():
                    found.add(_distribution(Path(entry.path)))
                    if len(found) > DISTRIBUTIONS_MAX:
                        raise ConfigError(f"more than {DISTRIBUTIONS_MAX} distributions on the import path")
    except OSError as exc:
        raise ConfigError(f"the installed distributions cannot be measured: {exc}") from exc
    listed: list[list[str | bytes]] = [list(row) for row in sorted(found)]
    return DistributionsMeasurement(_digest(DISTRIBUTIONS_DOMAIN, "distributions", listed), len(listed))


@functools.cache
def _own_distributions() -> DistributionsMeasurement:
    """Once for the process, however many code locations it loads: what was imported does not change with the disk."""
    return measure_distributions(sys.path)


@functools.lru_cache(maxsize=8)
def measure_context(code: CodeMeasurement) -> ContextForm:
    """The measurement of this process, made once: what was imported does not change under it.

    Raises:
        ConfigError: as `measure_distributions`.
    """
    distributions = _own_distributions()
    return ContextForm(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=sysconfig.get_platform(),
        distributions=distributions.digest,
        distributions_count=distributions.count,
        code=code.digest,
        code_files=code.files,
    )


def _digest(domain: str, name: str, listed: list[list[str | bytes]]) -> str:
    return sha256(encode({"domain": domain, name: sorted(listed, key=lambda row: row[0])})).hex()


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_CODE
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            if name.endswith(_SUFFIX):
                yield Path(folder, name)


def _distribution(info: Path) -> tuple[str, str, bytes]:
    """Name, version and the digest of what was installed, of one `.dist-info` directory."""
    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    record = info / "RECORD"
    digest = _record_digest(record, info.name) if record.is_file() else b""
    return re.sub(r"[-_.]+", "-", name).lower(), version, digest


def _record_digest(record: Path, info_name: str) -> bytes:
    """SHA-256 over the rows of a RECORD that do not depend on where and by what it was installed.

    Rows outside of the site directory are scripts, which name their interpreter; byte code has no digest; and
    of its own directory only the metadata and the entry points come from the package.
    """
    size = record.stat().st_size
    if size > RECORD_BYTES_MAX:
        raise ConfigError(f"{record} has {size} bytes where at most {RECORD_BYTES_MAX} are allowed")
    own = tuple(f"{info_name}/{name}" for name in _METADATA_FILES)
    rows: list[str] = []
    for line in record.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        path, _, rest = line.rpartition(",")[0].rpartition(",")
        path = path.strip('"')
        if path.startswith(("..", "/")) or "__pycache__" in path:
            continue
        if path.startswith(f"{info_name}/") and path not in own:
            continue
        rows.append(f"{path},{rest}\n")
    return hashlib.sha256("".join(sorted(rows)).encode("utf-8", errors="surrogateescape")).digest()
