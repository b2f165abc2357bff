"""Small files of the owner: read within a bound, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from comity.protocol.errors import ConfigError

OWNER_ONLY: Final = 0o600
PUBLIC: Final = 0o644
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@contextmanager
def _translated(path: Path, doing: str) -> Generator[None, None, None]:
    """The one place where errors of the file system become ours."""
    try:
        yield
    except OSError as exc:
        folder = path.parent
        if doing == "written" and isinstance(exc, FileNotFoundError):
            raise ConfigError(
                f"{path}: cannot be written: there is no folder {folder}; make it first"
            ) from exc
        raise ConfigError(f"{path}: cannot be {doing}: {exc.strerror or exc}") from exc


def read_file(path: Path, bytes_max: int) -> tuple[bytes, bool]:
    """The file's bytes, and whether others may read or write it, or another user owns it.

    Both are of one open file, so that it cannot be exchanged in between.

    Raises:
        ConfigError: it is missing, unreadable, longer than `bytes_max`, or no regular file.
    """
    with _translated(path, "read"):
        # Non-blocking, or opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise ConfigError(f"{path}: not a regular file")
            data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: longer than {bytes_max} bytes")
    foreign = state.st_uid not in (os.geteuid(), 0)
    return data, foreign or bool(stat.S_IMODE(state.st_mode) & _OTHERS)


def write_file(path: Path, data: bytes, *, mode: int = OWNER_ONLY, replace: bool = True) -> None:
    """Write a file whole: whoever reads it, at any time and after any crash, sees the old bytes or the new.

    Raises:
        ConfigError: it cannot be written, or is there already and `replace` is false.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with _translated(path, "written"):
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if replace:
                draft.replace(path)
            else:
                # A link, unlike a renaming, fails where the name is taken.
                path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the folder's list of names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
