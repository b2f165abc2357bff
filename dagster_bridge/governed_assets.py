"""Which assets signed policy speaks of, as the node last wrote it down.

A running node is asked about every step. This file serves only when no node answers: what it does not name,
and what does not come from anything that it names, runs as before; everything else, or everything where the
file is missing, waits for the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import pattern_matches

GOVERNED_FILE: Final = "governed.json"
"""In the node's home; written when the node starts and when policy changes."""
BYTES_MAX: Final = 1_048_576
"""Some ten thousand patterns."""


@dataclass(frozen=True, slots=True)
class GovernedAssets:
    """The member that the node is, and the patterns of the assets that its signed policy governs."""

    member: str
    patterns: list[str]

    def name(self, assets: Iterable[str]) -> bool:
        """Whether any of these is governed: ids, those of the own member without its name."""
        return any(
            pattern_matches(pattern, asset) or pattern_matches(pattern, f"{self.member}/{asset}")
            for asset in assets
            for pattern in self.patterns
        )


def read_governed_assets(home: Path | None) -> GovernedAssets | None:
    """What the node wrote down; None where it wrote nothing, or where no home is known.

    Raises:
        ConfigError: the file is there and cannot be read as what it should be.
    """
    if home is None:
        return None
    path = home / GOVERNED_FILE
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) > BYTES_MAX:
        raise ConfigError(f"{path} is longer than {BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=GovernedAssets)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ConfigError(f"{path} is not what a node writes: {exc}") from exc
