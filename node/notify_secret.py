"""The secret that a webhook's receiver shares with this node: a file of the owner alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from comity.node.owner_files import read_file
from comity.protocol.errors import ConfigError

SECRET_BYTES_MIN: Final = 32
"""As many as the digest has that it keys (RFC 2104, section 3)."""
SECRET_BYTES_MAX: Final = 4_096


def read_secret(home: Path, file: str) -> bytes:
    """The secret; empty where the settings name no file.

    Args:
        file: relative to the home.

    Raises:
        ConfigError: it is missing or too short, or others may read it.
    """
    if not file:
        return b""
    path = home / file
    data, shared = read_file(path, SECRET_BYTES_MAX)
    if shared:
        raise ConfigError(f"{path}: others can read or write this secret: chmod 600 {path}")
    secret = data.strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"{path}: a secret has at least {SECRET_BYTES_MIN} bytes, e.g. by openssl rand -hex 32"
        )
    return secret
