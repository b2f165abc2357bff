"""The tokens of the local API: one file per role, for the owner alone. They authorise a call, never a statement."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from comity.node.home import ROLES, Home
from comity.node.owner_files import read_file, write_file
from comity.protocol.errors import ConfigError

TOKEN_BYTES: Final = 32
TOKEN_FILE_BYTES_MAX: Final = 4_096


def make_tokens(home: Home) -> None:
    """Make a token for every role that has none, readable by the owner alone.

    Raises:
        ConfigError: a file cannot be written.
    """
    for role in ROLES:
        path = home.token(role)
        if not path.exists():
            write_file(path, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode(), replace=False)


def read_token(path: Path) -> bytes:
    """A token.

    Raises:
        ConfigError: the file is missing, empty, or others may read it.
    """
    data, shared = read_file(path, TOKEN_FILE_BYTES_MAX)
    if shared:
        raise ConfigError(f"{path}: others can read or write this token: chmod 600 {path}")
    token = data.strip()
    if len(token) < TOKEN_BYTES:
        raise ConfigError(f"{path}: not a token; remove the file and start the node: it makes a new one")
    return token


def read_tokens(home: Home) -> dict[str, bytes]:
    """The token of every role.

    Raises:
        ConfigError: as `read_token`.
    """
    return {role: read_token(home.token(role)) for role in ROLES}
