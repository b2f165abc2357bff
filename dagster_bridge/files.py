"""Files of assets: where they lie, how they appear all at once, and how they are read.

    <base>/<asset path>[/partition=<partition>].<ending>                  the organization's own
    <exchange>/<member>/<asset path>[/partition=<partition>].<ending>     what partners see
    <file>.comity                                                         the sidecar: what vouches for it
    .next/<file>.<random>[.comity]                                        what is to take their place
    .versions/<file>.<number>[.comity]                                    what was there before, as configured

No part of an asset's key begins with `partition=`, so a partition and an asset below never share a file.

A file and its sidecar take the place of the ones before only when the node has recorded what was made. Until
then the new bytes lie beside the old pair; from then on their sidecar lies beside them, and whoever comes next
finishes what was not finished (`Place.finish`).

Nothing here trusts names or files that a partner made.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.protocol.errors import ComityError, ConfigError

SIDECAR_ENDING: Final = ".comity"

PARTITION_PREFIX: Final = "partition="
NEXT_FOLDER: Final = ".next"
"""In the folder of a file: what is to take its place. No part of an asset's key begins with a dot."""
VERSIONS_FOLDER: Final = ".versions"
APART_FOLDER: Final = ".apart"
"""In the folder of a file: the versions before it, numbered in the order in which they were replaced."""
_NUMBER_DIGITS: Final = 12
NEXT_MAX: Final = 16
"""Unfinished writes of one file that a read looks at: each is one crash between two lines of a program."""
LEFT_OVER_S: Final = 86_400
"""After so long, bytes that nothing vouches for are of a process that is gone: no write lasts a day."""

FILE_BYTES_MAX: Final = 4 * 1_073_741_824
"""One file: it is held in memory once, so that what is parsed is what was hashed."""
SIDECAR_BYTES_MAX: Final = 8 * 1_048_576
"""One sidecar: an actuation with its decision, so it fits a request to the node."""
NAME_BYTES_MAX: Final = 255
"""One name in a directory: what common file systems hold, sidecar's ending included."""

_RANDOM_BYTES: Final = 8
_BESIDE_BYTES: Final = len(f".{'0' * 2 * _RANDOM_BYTES}{SIDECAR_ENDING}")
"""What the name of an unfinished write and its sidecar adds to that of its file."""

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_SHARED_FILE: Final = 0o644
_SHARED_FOLDER: Final = 0o755


class FileError(ComityError):
    """A file cannot be written or read; the message names it."""


class FileMissingError(FileError):
    """A file that is to be read is not there."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The bytes of a file with their SHA-256 (hex), read once."""

    path: Path
    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that assets are kept in. What is shared can be read by other users of the machine.

    Attributes:
        versions: how many versions before the newest are kept of each file.
    """

    root: Path
    shared: bool
    versions: int = 0

    def apart(self, way: str) -> Place:
        """The directory below this one where what is made in another way is kept; without versions before."""
        return Place(self.root / APART_FOLDER / way, shared=False)

    def path(self, asset: Sequence[str], partition: str, ending: str) -> Path:
        """The file of one partition of an asset.

        Raises:
            ConfigError: the names do not make a file below the root.
        """
        parts = [_checked(part) for part in asset]
        if partition:
            parts.append(f"{PARTITION_PREFIX}{_partition_name(partition)}")
        if len(f"{parts[-1]}.{ending}".encode()) + _BESIDE_BYTES > NAME_BYTES_MAX:
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

    def write_beside(self, path: Path, data: bytes) -> Path:
        """Write what is to become a file. `finish` puts it in place once its sidecar lies beside it.

        Raises:
            FileError: the disk refuses.
        """
        beside = path.parent / NEXT_FOLDER / f"{path.name}.{secrets.token_hex(_RANDOM_BYTES)}"
        self.write(beside, data)
        return beside

    def finish(self, path: Path) -> bool:
        """Put in place what was recorded: pairs of new bytes and sidecar, the oldest first. Whether there was any.

        Another process may do the same at the same time: what it has moved is not there any more.

        Raises:
            FileError: the disk refuses.
        """
        moved = False
        try:
            for beside in unfinished(path, sidecars=True):
                file = beside.with_name(beside.name.removesuffix(SIDECAR_ENDING))
                if file.exists():
                    # Else somebody ended between both, and what lies there is new bytes beside an old sidecar.
                    self._keep(path)
                for source, target in ((file, path), (beside, sidecar_of(path))):
                    with contextlib.suppress(FileNotFoundError):
                        source.replace(target)
                        moved = True
            if moved:
                _flush_folder(path.parent)
        except OSError as exc:
            raise FileError(f"{path} cannot be put in place: {exc.strerror}") from exc
        return moved

    def _keep(self, path: Path) -> None:
        """Keep what lies in a place that is about to be taken, as a pair of links, and so many pairs at most."""
        sidecar = sidecar_of(path)
        if not (self.versions and path.is_file() and sidecar.is_file()):
            # Nothing vouches for it: it is no version.
            return
        folder = path.parent / VERSIONS_FOLDER
        folder.mkdir(_SHARED_FOLDER if self.shared else _PRIVATE_FOLDER, exist_ok=True)
        known = kept_versions(path)
        number = int(known[-1].name.rpartition(".")[2]) if known else 0
        # The newest may be this very one, where somebody ended between keeping it and replacing it.
        number += 0 if known and path.samefile(known[-1]) else 1
        kept = folder / f"{path.name}.{number:0{_NUMBER_DIGITS}d}"
        for source, target in ((path, kept), (sidecar, sidecar_of(kept))):
            _link(source, target)
        for old in kept_versions(path)[: -self.versions]:
            old.unlink(missing_ok=True)
            sidecar_of(old).unlink(missing_ok=True)

    def put_back(self, path: Path, digest: str) -> bool:
        """Put a kept version with these bytes (SHA-256, hex) back in place, with its sidecar. Whether there is one.

        Raises:
            FileError: the disk refuses.
        """
        for version in reversed(kept_versions(path)):
            file, sidecar = read_file(version), read_file(sidecar_of(version), SIDECAR_BYTES_MAX)
            if file is None or sidecar is None or file.digest != digest:
                continue
            # As a new version is put in place: a crash in between is finished by whoever comes next.
            beside = self.write_beside(path, file.data)
            self.write(sidecar_of(beside), sidecar.data)
            self.finish(path)
            return True
        return False

    def sweep(self, path: Path, now: float) -> None:
        """Take away unfinished bytes that nothing vouches for, if they are older than any write lasts."""
        for beside in unfinished(path):
            with contextlib.suppress(OSError):
                if beside.stat().st_mtime < now - LEFT_OVER_S:
                    beside.unlink()

    def make_private(self, folder: str) -> None:
        """Make a directory below the root that nobody else can enter, whoever writes into it.

        Raises:
            FileError: the disk refuses.
        """
        path = self.root / folder
        try:
            self.root.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            path.mkdir(_PRIVATE_FOLDER, exist_ok=True)
            path.chmod(_PRIVATE_FOLDER)
        except OSError as exc:
            raise FileError(f"{path} cannot be made: {exc.strerror}") from exc


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of a file lies."""
    return path.with_name(path.name + SIDECAR_ENDING)


def unfinished(path: Path, *, sidecars: bool = False) -> list[Path]:
    """What is to take the place of a file: new bytes, or with `sidecars` the sidecars of such. The oldest first.

    Raises:
        FileError: the folder cannot be read.
    """
    ending = SIDECAR_ENDING if sidecars else ""
    wanted = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}{re.escape(ending)}")
    found: list[tuple[int, Path]] = []
    try:
        with os.scandir(path.parent / NEXT_FOLDER) as entries:
            for entry in entries:
                if wanted.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise FileError(f"{path.parent} cannot be read: {exc.strerror}") from exc
    return [beside for _, beside in sorted(found)]


def _link(source: Path, target: Path) -> None:
    """Let a file lie in a second place; as a copy, on file systems that have no links."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        beside = target.with_name(f".{secrets.token_hex(16)}.partial")
        shutil.copyfile(source, beside)
        beside.replace(target)


def kept_versions(path: Path) -> list[Path]:
    """The versions before a file that are kept, the oldest first."""
    wanted = re.compile(rf"{re.escape(path.name)}\.[0-9]{{{_NUMBER_DIGITS}}}")
    try:
        return sorted(
            each for each in (path.parent / VERSIONS_FOLDER).iterdir() if wanted.fullmatch(each.name)
        )
    except (FileNotFoundError, NotADirectoryError):
        return []


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
    if part.startswith(PARTITION_PREFIX):
        raise ConfigError(f"{part!r} in an asset key begins like the file of a partition: {PARTITION_PREFIX}")
    return part


def _partition_name(partition: str) -> str:
    """A partition key as part of a file's name: what is not plain is written as %XX."""
    return urllib.parse.quote(partition, safe="")


def slot_of_file(below: Path, endings: Iterable[str]) -> tuple[tuple[str, ...], str] | None:
    """The asset's path and the partition that a file below a root is of; None for any other file."""
    ending = next((each for each in endings if below.name.endswith(f".{each}")), None)
    if ending is None:
        return None
    last = below.name.removesuffix(f".{ending}")
    folders = below.parts[:-1]
    if last.startswith(PARTITION_PREFIX):
        return folders, urllib.parse.unquote(last.removeprefix(PARTITION_PREFIX))
    return (*folders, last), ""


def _flush_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
