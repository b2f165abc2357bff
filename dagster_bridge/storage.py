"""Where versions of assets are kept: the port, and what every store does in the same way.

What is made goes to a place that no reader sees (`stage`), is read back and held against its permit (`verify`), and
then takes the place of the version before at once (`promote`), or is taken away (`discard`). Between `verify` and
`promote` the node records the new version: from then on it is the one that counts, and whoever comes next finishes what
was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from comity.dagster_bridge.declared import Declared
    from comity.dagster_bridge.tables import Table
    from comity.node.client import PermittedOutput

Reversibility: TypeAlias = Literal["versioned", "swap", "none"]
"""What a store can do about a version that was found wrong: `versioned`: put back the one before, which it keeps;
`swap`: nothing is ever half written, and what was there before is gone; `none`: what was done cannot be taken back."""

P = TypeVar("P")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Slot:
    """One partition of an asset, or all of one that has none: the parts of the asset's key, and the partition."""

    path: tuple[str, ...]
    partition: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.path)

    def words(self) -> str:
        """The slot, for people."""
        return f"partition {self.partition} of {self.name}" if self.partition else self.name


@dataclass(frozen=True, slots=True)
class Measured:
    """What lies in staging, as it was read back: digest (hex) and size of its bytes, its rows and columns."""

    digest: str
    size: int
    media_type: str
    rows: int
    columns: Sequence[str]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """What a step's function returns that has written its table by itself, to a file of its own: where that is.

    The file is copied into staging and held against the permit, which nothing has been taken out for: a table with
    more than the permit allows is discarded.
    """

    path: Path


class Storage(Protocol[P, S]):
    """A store of versions. `P` is a table in its own form, `S` what it knows of one that is staged."""

    @property
    def reversibility(self) -> Reversibility:
        """What it can do about a version that was found wrong."""
        ...

    def require_place(self, slot: Slot) -> None:
        """Check that a slot can be kept under its name. No name that cannot be written begins an attempt.

        Raises:
            ConfigError: it cannot.
            FileError: the disk refuses.
        """
        ...

    def prepare(self, table: Table) -> P:
        """Bring a table into the form that the store keeps. Nothing is written.

        Raises:
            UnwritableError: the store cannot hold it.
        """
        ...

    def adopt(self, written: Any) -> P:
        """Take what the work has written by itself.

        Raises:
            FileError: it cannot be read.
            UnwritableError: the store does not take it.
        """
        ...

    def stage(self, slot: Slot, prepared: P) -> S:
        """Write it where no reader looks.

        Raises:
            FileError: the disk refuses.
        """
        ...

    def verify(self, staged: S, permitted: PermittedOutput, declared: Declared) -> Measured:
        """Read back what is staged, and hold it against its permit and against what is declared of it.

        Raises:
            UnwritableError: it is not what was staged, more than the permit allows, or not what is declared.
            FileError: it cannot be read.
        """
        ...

    def describe(self, staged: S) -> Measured:
        """What was staged, as far as that can be said of something that may be no table: nothing is held against it."""
        ...

    def promote(self, slot: Slot, staged: S, sidecar: bytes) -> None:
        """Put what is staged, which the node has recorded, in the place of the version before, at once.

        Raises:
            FileError: the disk refuses. What is staged stays, and is put in place by whoever comes next.
        """
        ...

    def put_back(self, slot: Slot, digest: str) -> bool:
        """Put a version from before, which has this digest (hex), in the place of the one that is there, at once.

        Returns whether the store has it; one that is in its place already is.

        Raises:
            FileError: the disk refuses.
        """
        ...

    def discard(self, staged: S) -> None:
        """Take away what is staged. What is gone already is no error."""
        ...
