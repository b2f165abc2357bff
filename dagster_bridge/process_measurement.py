"""What is measured of a process before it is asked for: its command, and the files that are named as its code.

Where it is a Python of this very environment, so are the distributions that it can import. The encoding:
docs/spec/evidence.md.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.dagster_bridge.measurement import BYTES_MAX, FILES_MAX, CodeMeasurement, measure_context
from comity.node.client import ContextForm
from comity.protocol.encoding import encode
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import sha256

PROCESS_DOMAIN: Final = "comity process v1"


@dataclass(frozen=True, slots=True)
class ProcessMeasurement:
    """The digest (hex) of command and files. `context` is None where nothing is known of what the command loads."""

    digest: str
    files: int
    context: ContextForm | None


def program_of(command: Sequence[str]) -> Path:
    """The file that a command starts.

    Raises:
        ConfigError: there is no such program.
    """
    found = shutil.which(command[0])
    if found is None:
        raise ConfigError(f"{command[0]}: there is no such program, or it may not be run")
    return Path(found)


def measure_process(command: Sequence[str], folder: Path, names: Sequence[str]) -> ProcessMeasurement:
    """Measure a command and the files that are named as its code; folders stand for all files below.

    Raises:
        ConfigError: a file cannot be read, or there are more files or bytes than a program has.
    """
    listed: list[list[str | bytes]] = []
    size = 0
    try:
        for path in sorted({each for name in names for each in _files(folder / name)}):
            data = path.read_bytes()
            size += len(data)
            if len(listed) >= FILES_MAX or size > BYTES_MAX:
                raise ConfigError(f"the code is more than {FILES_MAX} files or {BYTES_MAX} bytes of them")
            name = Path(os.path.relpath(path, folder)).as_posix()
            if not name.isprintable():
                raise ConfigError(f"the code holds a file whose name is not printable: {name!r}")
            listed.append([name, sha256(data)])
        words = [word.encode("utf-8", "surrogateescape") for word in command]
    except OSError as exc:
        raise ConfigError(f"the code cannot be measured: {exc}") from exc
    listed.sort(key=lambda row: row[0])
    digest = sha256(encode({"domain": PROCESS_DOMAIN, "command": words, "files": listed})).hex()
    context = None
    if is_this_python(program_of(command)):
        context = measure_context(CodeMeasurement(folder, digest, len(listed)))
    return ProcessMeasurement(digest, len(listed), context)


def is_this_python(program: Path) -> bool:
    """Whether a program is the Python that runs this: then it can import what this one can.

    By its folder: an environment's interpreter is a link to one that other environments use, too.
    """
    here = Path(sys.executable)
    return program.parent == here.parent and program.resolve() == here.resolve()


def _files(path: Path) -> Iterator[Path]:
    """The regular files of a name: itself, or all below. Hidden folders and caches are no code.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such file of the code")
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield from (Path(folder, name) for name in files if Path(folder, name).is_file())
