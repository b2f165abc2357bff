"""Files of assets: where they lie, how they appear all at once, and how they are read.

    <base>/<asset path>[/<partition>].<ending>                  the organization's own
    <exchange>/<member>/<asset path>[/<partition>].<ending>     what partners see <file>.comity
    the sidecar: the records that vouch for the file

Nothing here trusts names or files that a partner made.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.protocol.errors import ComityError, ConfigError

SIDECAR_ENDING: Final = ".comity"

FILE_BYTES_MAX: Final = 4 * 1_073_741_824
"""One file: it is held in memory once, so that what is parsed is what was hashed."""
SIDECAR_BYTES_MAX: Final = 8 * 1_048_576
"""One sidecar: an actuation with its decision, so it fits a request to the node."""
NAME_BYTES_MAX: Final = 255
"""One name in a directory: what common file systems hold, sidecar's ending included."""

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_SHARED_FILE: Final = 0o644
_SHARED_FOLDER: Final = 0o755


class FileError(ComityError):
    """A file cannot be written or read; the message names it."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The bytes of a file with their SHA-256 (hex), read once."""

    path: Path
    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that assets are kept in. What is shared can be read by other users of the machine."""

    root: Path
    shared: bool

    def path(self, asset: Sequence[str], partition: str, ending: str) -> Path:
        """The file of one partition of an asset.

        Raises:
            ConfigError: the names do not make a file below the root.
        """
        parts = [_checked(part) for part in asset]
        if partition:
            parts.append(_partition_name(partition))
        if len(f"{parts[-1]}.{ending}{SIDECAR_ENDING}".encode()) > NAME_BYTES_MAX:
            raise ConfigError(f"the name {parts[-1][:80]!r}... is too long for a file")
        return self.root.joinpath(*parts[:-1], f"{parts[-1]}.{ending}")

    def write(self, path: Path, data: bytes) -> None:
        """Put a file in place at once: it is written beside its place, flushed to disk and renamed.

        Raises:
            FileError: the disk refuses.
        """
        beside = path.with_name(f".{secrets.token_hex(16)}.partial")
        try:
            mode = _SHARED_FOLDER if self.shared else _PRIVATE_FOLDER
            self.root.mkdir(mode, parents=True, exist_ok=True)
            path.parent.mkdir(mode, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(beside, flags, _SHARED_FILE if self.shared else _PRIVATE_FILE)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            _flush_folder(path.parent)
        except OSError as exc:
            raise FileError(f"{path} cannot be written: {exc.strerror}") from exc


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of a file lies."""
    return path.with_name(path.name + SIDECAR_ENDING)


def read_file(path: Path, bytes_max: int = FILE_BYTES_MAX) -> ReadFile | None:
    """Read a regular file into memory, once, and hash it; None where there is none.

    Links are not followed and pipes are not waited for: either may lie in a shared folder.

    Raises:
        FileError: it is no regular file, larger than `bytes_max`, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise FileError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise FileError(f"{path} is no regular file")
            if found.st_size > bytes_max:
                raise FileError(f"{path} is larger than {bytes_max} bytes")
            data = file.read(found.st_size + 1)
    except OSError as exc:
        raise FileError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) > found.st_size:
        raise FileError(f"{path} grows while it is read")
    return ReadFile(path, data, hashlib.sha256(data).hexdigest())


def _checked(part: str) -> str:
    """A part of an asset key as the name of a file or folder: never a way out of the root, never hidden."""
    if not part or part.startswith(".") or any(char in part for char in "/\\") or not part.isprintable():
        raise ConfigError(f"{part!r} in an asset key cannot be the name of a file")
    return part


def _partition_name(partition: str) -> str:
    """A partition key as a file's name: what is not plain is written as %XX."""
    quoted = urllib.parse.quote(partition, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _flush_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
