"""An asset in files, as an input: where its file may lie, and what is beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from comity.dagster_bridge.files import (
    NEXT_MAX,
    SIDECAR_BYTES_MAX,
    FileError,
    FileMissingError,
    Place,
    ReadFile,
    read_file,
    sidecar_of,
    unfinished,
)
from comity.dagster_bridge.table_formats import Format
from comity.dagster_bridge.verified_read import Found, words_of


@dataclass(frozen=True, slots=True)
class FormattedFile:
    """A file with its format."""

    file: ReadFile
    form: Format


FoundFile: TypeAlias = Found[FormattedFile]


@dataclass(frozen=True, slots=True)
class FileInput:
    """Where an asset's files may lie, in which formats. Implements `InputAsset`."""

    name: str
    partners: bool
    place: Place
    path: Sequence[str]
    forms: tuple[Format, ...]

    def paths(self, partition: str) -> dict[Format, Path]:
        """Where the file of one partition may lie, by format."""
        return {form: self.place.path(self.path, partition, form) for form in self.forms}

    def apart(self, way: str) -> FileInput:
        return replace(self, place=self.place.apart(way))

    def find(self, partition: str) -> FoundFile:
        found: list[FoundFile] = []
        for form, path in self.paths(partition).items():
            recovered = not self.partners and self.place.finish(path)
            file = read_file(path)
            if file is not None:
                sidecar = read_file(sidecar_of(path), SIDECAR_BYTES_MAX)
                found.append(
                    _found(file, form, sidecar.data if sidecar is not None else b"", recovered=recovered)
                )
        if len(found) == 1:
            return found[0]
        where = " and ".join(str(path) for path in self.paths(partition).values())
        if not found:
            raise FileMissingError(
                f"there is no file of {self.words(partition)} yet, at {where}: make it, or wait until"
                f" {'its writer has published it' if self.partners else 'its step has'}"
            )
        raise FileError(f"{len(found)} files for {self.words(partition)} at {where}")

    def unfinished(self, partition: str) -> Iterator[FoundFile]:
        for form, path in self.paths(partition).items():
            for beside in unfinished(path)[-NEXT_MAX:]:
                file = read_file(beside)
                if file is not None:
                    yield _found(file, form, b"")

    def finish(self, partition: str, found: FoundFile, sidecar: bytes) -> None:
        del partition
        # `find`, which comes next, puts the pair in its place.
        self.place.write(sidecar_of(found.content.file.path), sidecar)

    def put_back(self, partition: str, digest: str) -> bool:
        return any(self.place.put_back(path, digest) for path in self.paths(partition).values())

    def words(self, partition: str) -> str:
        return words_of(self.name, partition)


def _found(file: ReadFile, form: Format, sidecar: bytes, *, recovered: bool = False) -> FoundFile:
    return Found(FormattedFile(file, form), file.digest, len(file.data), str(file.path), sidecar, recovered)
