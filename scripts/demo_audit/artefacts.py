"""Files of a kept demo, read within bounds and never written: a database is opened as a copy of its own.

A link is followed nowhere, neither in a file's place nor in that of a folder above it: what lies in a kept folder was
perhaps put there by somebody else, and everything that is read is inside of it. The way to the kept folder itself is
the reader's own, and is followed before anything is read (`evidence.read_evidence`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from comity.protocol.errors import ComityError

FILE_BYTES_MAX: Final = 16 * 2**20
"""One file that is read as a whole: the largest of a demo, its bundle, has some 100 kB."""
COPY_BYTES_MAX: Final = 512 * 2**20
"""The databases of one organization together: those of a demo have a few MB; more would fill the temporary folder."""
COPY_FILES_MAX: Final = 2_000
"""Files of one organization's databases: Dagster has one for each run, a demo some twenty."""


class AuditError(ComityError):
    """An artefact is missing, or is not what it should be; the message names it."""


def unlinked(path: Path) -> Path:
    """The path, in which nothing is a link.

    Raises:
        AuditError: it leads elsewhere than it says.
    """
    if os.path.realpath(path) != os.path.abspath(path):  # noqa: PTH100  Path.resolve raises for links in a circle
        raise AuditError(f"{path}: a link leads there, and none is followed")
    return path


def read_file(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        AuditError: there is no such file, it is larger than `FILE_BYTES_MAX`, or a link leads there.
    """
    try:
        if not unlinked(path).is_file():
            raise AuditError(f"{path}: no such file")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise AuditError(f"{path}: {exc.strerror}") from exc
    if len(data) > FILE_BYTES_MAX:
        raise AuditError(f"{path}: more than {FILE_BYTES_MAX} bytes")
    return data


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, in the order of their names.

    Raises:
        AuditError: there is no such folder, it holds more than `COPY_FILES_MAX` files, or a link, or one leads there.
    """
    found: list[Path] = []
    try:
        if not unlinked(folder).is_dir():
            raise AuditError(f"{folder}: no such folder")
        for path in folder.rglob("*"):
            if path.is_symlink():
                raise AuditError(f"{path}: a link, and none is followed")
            if path.is_file():
                found.append(path)
            if len(found) > COPY_FILES_MAX:
                raise AuditError(f"{folder}: more than {COPY_FILES_MAX} files")
    except OSError as exc:
        raise AuditError(f"{folder}: {exc.strerror}") from exc
    return sorted(found)


@contextmanager
def copied(base: Path, paths: Iterable[Path]) -> Generator[Path]:
    """Copies of files below `base`, under the same names in a folder that is gone afterwards.

    Raises:
        AuditError: more than `COPY_BYTES_MAX`, one that cannot be read, or to which a link leads.
    """
    with tempfile.TemporaryDirectory(prefix="comity-audit-") as folder:
        left = COPY_BYTES_MAX
        for path in paths:
            target = Path(folder) / path.relative_to(base)
            try:
                left -= unlinked(path).stat().st_size
                if left < 0:
                    raise AuditError(f"{base}: more than {COPY_BYTES_MAX} bytes of databases")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target, follow_symlinks=False)
            except OSError as exc:
                raise AuditError(f"{path}: {exc.strerror}") from exc
        yield Path(folder)
