"""The files of a governed process: inputs that are verified before it starts, and what it stages.

    <folder of the first output>/.next/work-<random>/inputs/<name>/<file>      what was verified, and nothing else
    <folder of the first output>/.next/work-<random>/outputs/<name>/<file>     what the process makes

The process is given copies, so that what it reads is what was verified, whatever happens to the files meanwhile. The
work folder lies on the disk of the outputs, is its owner's alone, and goes with the process that made it: it is locked
while that one lives, and the next one takes away what is not.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.dagster_bridge.declared import Declared
from comity.dagster_bridge.files import (
    NEXT_FOLDER,
    NEXT_MAX,
    SIDECAR_BYTES_MAX,
    FileError,
    FileMissingError,
    Place,
    read_file,
    sidecar_of,
    unfinished,
)
from comity.dagster_bridge.files_storage import FilesStorage, StagedFile
from comity.dagster_bridge.process_plan import VERSIONS_MAX, PlannedInput, PlannedOutput
from comity.dagster_bridge.storage import Measured, Slot
from comity.dagster_bridge.table_formats import FORMATS, MEDIA_TYPES, UnwritableError
from comity.node.client import NodeClient, PermittedOutput, ReadAnswer, ReadForm, TermForm

_WORK: Final = "work-"
_LOCK: Final = "lock"
_PRIVATE: Final = 0o700
_READ_ONLY: Final = 0o400


@dataclass(frozen=True, slots=True)
class NamedTable(FilesStorage):
    """A table under a name of its own, instead of one that follows from its asset. Implements `Storage`."""

    file: Path

    def path(self, slot: Slot) -> Path:
        del slot
        return self.file


@dataclass(frozen=True, slots=True)
class NamedBytes(FilesStorage):
    """A file that is no table to us: it is made whole, or not at all. Implements `Storage`."""

    file: Path
    media_type: str

    def path(self, slot: Slot) -> Path:
        del slot
        return self.file

    def verify(self, staged: StagedFile, permitted: PermittedOutput, declared: Declared) -> Measured:
        del declared  # of bytes that are no table nothing is declared
        found = read_file(staged.beside)
        if found is None or found.data != staged.prepared.data:
            raise UnwritableError(
                TermForm("staged_bytes_changed", message="what was staged is not what was written")
            )
        require_whole(permitted)
        return self.describe(staged)

    def describe(self, staged: StagedFile) -> Measured:
        return Measured(staged.digest, len(staged.prepared.data), self.media_type, 0, ())


def require_whole(permitted: PermittedOutput) -> None:
    """Check that nothing of an output is withheld: in bytes that are no table nothing could be held to that.

    Raises:
        UnwritableError: something is.
    """
    if permitted.mode != "execute" or permitted.obligations or permitted.columns or not permitted.all_columns:
        message = f"{permitted.asset} may be made only in part, or as a table: no bytes but a table's can be held to it"
        raise UnwritableError(
            TermForm("restriction_not_enforceable", {"asset": permitted.asset}, message=message)
        )


def storage_of(output: PlannedOutput, file: Path) -> FilesStorage:
    """Where an output is kept."""
    place = Place(file.parent, shared=False, versions=output.versions)
    form = FORMATS.get(output.format)
    if form is None:
        # Of the class that it is derived from nothing looks at the form.
        return NamedBytes(place, "parquet", file, output.media_type)
    return NamedTable(place, form, file)


@dataclass(frozen=True, slots=True)
class ReadInput:
    """An input as it was found, and the actuation that vouches for it; empty where no policy speaks of it."""

    data: bytes
    actuation: str


class InputRefusedError(FileError):
    """An input's bytes are not admitted.

    Attributes:
        causes: why.
    """

    def __init__(self, message: str, causes: list[TermForm]) -> None:
        super().__init__(message)
        self.causes = causes


def finish_recorded(client: NodeClient, asset: str, partition: str, file: Path) -> None:
    """Put in place what was recorded of an own asset, and whose writer ended before it lay there.

    Raises:
        FileError: the disk refuses.
        NodeError: the node gives no answer.
    """
    # How many versions are kept is for whoever writes next to say: none is taken away here.
    place = Place(file.parent, shared=False, versions=VERSIONS_MAX)
    place.finish(file)
    for beside in unfinished(file)[-NEXT_MAX:]:
        found = read_file(beside)
        if found is None:
            continue
        answer = client.read(ReadForm("", asset, found.digest, len(found.data), partition))
        if answer.admitted and answer.sidecar:
            place.write(sidecar_of(beside), sidecar_bytes(answer.sidecar))
            place.finish(file)


def read_input(
    client: NodeClient, intent: str, read: PlannedInput, file: Path, *, verified: bool
) -> ReadInput:
    """Read an input once, and have those bytes verified.

    Args:
        verified: whether policy speaks of it; otherwise it is only read.

    Raises:
        InputRefusedError: the bytes are not admitted.
        FileError: there is no file, or it cannot be read.
        NodeError: the node gives no answer.
    """
    if verified and not read.partners:
        finish_recorded(client, read.asset, read.partition, file)
    data, answer = _asked(client, intent, read, file) if verified else (_bytes_of(file), None)
    if answer is not None and answer.put_back and not read.partners:
        # The node's organization has rolled back what lies there. The version before may be kept.
        Place(file.parent, shared=False, versions=VERSIONS_MAX).put_back(file, answer.put_back)
    if answer is not None and not answer.admitted:
        # Its writer may have been putting file and sidecar in place, one after the other.
        data, answer = _asked(client, intent, read, file)
        if not answer.admitted:
            causes = answer.causes or [TermForm("read_refused")]
            reasons = "; ".join(cause.message or cause.code for cause in causes)
            raise InputRefusedError(f"{read.asset} is not admitted: {reasons} ({file})", causes)
    return ReadInput(data, answer.actuation if answer is not None else "")


def _asked(client: NodeClient, intent: str, read: PlannedInput, file: Path) -> tuple[bytes, ReadAnswer]:
    data = _bytes_of(file)
    sidecar = read_file(sidecar_of(file), SIDECAR_BYTES_MAX)
    beside = base64.b64encode(sidecar.data).decode("ascii") if sidecar is not None else ""
    digest = hashlib.sha256(data).hexdigest()
    return data, client.read(ReadForm(intent, read.asset, digest, len(data), read.partition, beside))


def _bytes_of(file: Path) -> bytes:
    found = read_file(file)
    if found is None:
        raise FileMissingError(f"{file}: there is no such file: an input of the process")
    return found.data


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Where the process finds its inputs, and puts what it makes."""

    path: Path

    def put_input(self, name: str, file: Path, data: bytes) -> Path:
        """Lay a verified input where the process reads it.

        Raises:
            FileError: the disk refuses.
        """
        return self._lay("inputs", name, file, data)

    def output(self, name: str, file: Path) -> Path:
        """Where the process is to write an output.

        Raises:
            FileError: the disk refuses.
        """
        return self._lay("outputs", name, file, None)

    def _lay(self, kind: str, name: str, file: Path, data: bytes | None) -> Path:
        path = self.path / kind / name / file.name
        try:
            path.parent.mkdir(_PRIVATE, parents=True)
            if data is not None:
                path.write_bytes(data)
                path.chmod(_READ_ONLY)
        except OSError as exc:
            raise FileError(f"{path} cannot be written: {exc.strerror}") from exc
        return path


@contextlib.contextmanager
def work_folder(near: Path) -> Generator[WorkFolder, None, None]:
    """A work folder on the disk of a file, for as long as the context lasts.

    Raises:
        FileError: the disk refuses.
    """
    root = near.parent / NEXT_FOLDER
    path = root / f"{_WORK}{secrets.token_hex(16)}"
    lock = -1
    try:
        root.mkdir(_PRIVATE, parents=True, exist_ok=True)
        _sweep(root)
        path.mkdir(_PRIVATE)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise FileError(f"{path} cannot be made: {exc.strerror}") from exc
    try:
        yield WorkFolder(path)
    finally:
        _remove(path)
        os.close(lock)


def _sweep(root: Path) -> None:
    """Take away the work folders of processes that are gone."""
    for old in root.glob(f"{_WORK}*"):
        with contextlib.suppress(OSError):
            lock = os.open(old / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                # Held by whoever made the folder, and let go by the system when that one ends, however it ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
            finally:
                os.close(lock)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def sidecar_bytes(sidecar: str) -> bytes:
    """The bytes of a sidecar that the node gave.

    Raises:
        FileError: it is not base64.
    """
    try:
        return base64.b64decode(sidecar, validate=True)
    except binascii.Error as exc:
        raise FileError(f"the node's sidecar is not base64: {exc}") from exc


def media_type_of(output: PlannedOutput) -> str:
    """What the intent says that an output will be."""
    form = FORMATS.get(output.format)
    return output.media_type or (MEDIA_TYPES[form] if form is not None else "")
