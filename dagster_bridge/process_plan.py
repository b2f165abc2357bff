"""What a process without an orchestrator is to make, from what, by which command: the words of its intent file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from comity.dagster_bridge.files import NAME_BYTES_MAX
from comity.protocol.errors import ConfigError

FILES_MAX: Final = 64
"""Inputs, or outputs, of one process. More are steps of their own."""
TEXT_MAX: Final = 255
PATH_MAX: Final = 4_096
"""Bytes of a path, as Linux has it."""
VERSIONS_MAX: Final = 1_000
COLUMNS_MAX: Final = 2_000
WAIT_S_MAX: Final = 7 * 24 * 3_600
"""As long as an intent is open."""
NAME_IN_DIRECTORY_MAX: Final = NAME_BYTES_MAX - 64
"""Of a file's name: what is written beside it has a longer one."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_SHOWN_MAX: Final = 80

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Named: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
PathText: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=PATH_MAX)]
FileFormat: TypeAlias = Literal["parquet", "csv", "file"]
"""`file`: bytes that are no table to us; such an output is made whole or not at all."""


class PlannedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process reads. `asset` is whole for a partner's: `clinic-north.example/released`."""

    asset: Named
    file: PathText
    partition: Text = ""

    @property
    def partners(self) -> bool:
        """Whether somebody else has made it: an own asset is named without a member."""
        first, slash, _ = self.asset.partition("/")
        return bool(slash) and "." in first


class PlannedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process makes. `columns` are declared; without them the policy's list holds.

    `versions`: how many versions before the newest are kept beside the file.
    """

    asset: Named
    file: PathText
    partition: Text = ""
    format: FileFormat = "parquet"
    media_type: Text = ""
    columns: Annotated[tuple[Named, ...], msgspec.Meta(max_length=COLUMNS_MAX)] | None = None
    versions: Annotated[int, msgspec.Meta(ge=0, le=VERSIONS_MAX)] = 2


class ProcessPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An intent file, with what the command line adds.

    `folder` is where the intent file lies: its paths are taken from there.
    """

    home: PathText
    folder: PathText
    run: Named
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=4_096)]
    step: Named
    outputs: Annotated[dict[str, PlannedOutput], msgspec.Meta(min_length=1, max_length=FILES_MAX)]
    inputs: Annotated[dict[str, PlannedInput], msgspec.Meta(max_length=FILES_MAX)] = {}
    job: Text = ""
    purpose: Text = ""
    location: Text = ""
    revision: Text = ""
    code: Annotated[tuple[PathText, ...], msgspec.Meta(max_length=FILES_MAX)] = ()
    credential: Text = ""
    ticket: str = ""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_S_MAX)] = 0.0
    quiet_output: bool = False
    """What the command prints goes to the error output, for the output is a program's."""

    def path(self, file: str) -> Path:
        """A file of the intent file, from the folder that it lies in."""
        return Path(self.folder, file)


def read_plan(values: Mapping[str, Any], source: str) -> ProcessPlan:
    """A plan, from the values of an intent file and of the command line.

    Raises:
        ConfigError: it is none; the message names the file and the key.
    """
    try:
        plan = msgspec.convert(values, ProcessPlan)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{source}: {str(exc).replace('$.', '')}") from exc
    for name in (*plan.inputs, *plan.outputs):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{source}: {name[:_SHOWN_MAX]!r} names an input or output: lower-case letters, digits and _, as it"
                " becomes part of an environment variable"
            )
    files: set[Path] = set()
    for name, output in plan.outputs.items():
        path = plan.path(output.file)
        _require_file_name(path, f"{source}: outputs.{name}.file")
        if path in files:
            raise ConfigError(f"{source}: outputs.{name}.file: another output is this file, too")
        files.add(path)
        if output.format == "file" and (not output.media_type or output.columns is not None):
            raise ConfigError(
                f"{source}: outputs.{name}: a format of `file` needs a media_type, and has no columns"
            )
    for name, read in plan.inputs.items():
        _require_file_name(plan.path(read.file), f"{source}: inputs.{name}.file")
    for text in plan.code:
        _require_file_name(plan.path(text), f"{source}: code")
    slots = {(output.asset, output.partition) for output in plan.outputs.values()}
    if len(slots) != len(plan.outputs):
        raise ConfigError(f"{source}: two outputs are one partition of one asset")
    if any("\0" in word for word in plan.command):
        raise ConfigError("the command holds a zero byte")
    return plan


def _require_file_name(path: Path, where: str) -> None:
    text = str(path)
    if not text.isprintable() or path.name in ("", ".", ".."):
        raise ConfigError(f"{where}: no name of a file")
    try:
        size = len(path.name.encode())
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{where}: no text") from exc
    if size > NAME_IN_DIRECTORY_MAX:
        raise ConfigError(f"{where}: the name of the file is longer than {NAME_IN_DIRECTORY_MAX} bytes")
