"""What a partner, or whoever can write to the shared folder, might do to a file.

They change a value in it, or put back an older one.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True, slots=True)
class Tampering:
    """One changed value in a file that is as readable as before."""

    path: Path
    column: str
    row: int
    before: Any
    after: Any
    still_readable: bool


@contextmanager
def one_value_changed(path: Path, column: str) -> Generator[Tampering]:
    """Change one value of a Parquet file, and restore the very bytes in the end.

    The file keeps its owner, its mode and its sidecar; only what is in it differs.
    """
    original = path.read_bytes()
    table = pd.read_parquet(path)
    row = len(table) // 2
    before = table[column].iloc[row]
    after = before + 1
    table.loc[row, column] = after
    try:
        table.to_parquet(path, index=False)
        again = pd.read_parquet(path)
        readable = again.equals(table) and not again.equals(pd.read_parquet(io.BytesIO(original)))
        yield Tampering(path, column, row, before.item(), after.item(), readable)
    finally:
        path.write_bytes(original)


@dataclass(frozen=True, slots=True)
class Replay:
    """An older file in place of a newer one. `differ` says whether their bytes do."""

    path: Path
    differ: bool


@contextmanager
def older_in_place(path: Path, older: bytes, sidecar: Path, beside: bytes) -> Generator[Replay]:
    """Put a file of before in place, with the sidecar that lay beside it, and restore both in the end.

    Both keep their owner and mode.
    """
    newest, vouching = path.read_bytes(), sidecar.read_bytes()
    try:
        path.write_bytes(older)
        sidecar.write_bytes(beside)
        yield Replay(path, older != newest)
    finally:
        path.write_bytes(newest)
        sidecar.write_bytes(vouching)
