"""Where everything of one node lies, and who may look at it: the owner alone.

The layout is written here and nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.node.visible import word
from comity.protocol.errors import ConfigError

HOME_VARIABLE: Final = "COMITY_HOME"
NODE_KEY: Final = "node"
TRANSPORT_KEY: Final = "transport"
ORGANIZATION_KEY: Final = "organization"
ROLES: Final = ("bridge", "operator", "reader")
"""Whose tokens there are."""
SOCKET_BYTES_MAX: Final = 103
"""Path of a Unix socket: 104 bytes with the zero at its end on macOS and the BSDs, 108 on Linux."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node."""

    path: Path

    @property
    def word(self) -> str:
        """The folder as one word of a command that people are shown, whatever its name holds."""
        return word(self.path)

    @property
    def config(self) -> Path:
        return self.path / "node.toml"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def key(self, name: str) -> Path:
        """The file of a private key, e.g. of `NODE_KEY`. Its public companion lies beside it."""
        return self.keys / f"{name}.pem"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    def token(self, role: str) -> Path:
        return self.tokens / role

    @property
    def store(self) -> Path:
        return self.path / "store.sqlite3"

    @property
    def socket(self) -> Path:
        return self.path / "node.sock"

    @property
    def coalition(self) -> Path:
        return self.path / "coalition.toml"

    @property
    def card(self) -> Path:
        """What others need to know of this node to take it into a coalition."""
        return self.path / "card.toml"

    @property
    def roots(self) -> Path:
        return self.path / "roots.toml"

    def roots_of(self, epoch: int) -> Path:
        """The roots that pin an epoch by its number, the newest one or an earlier one."""
        return self.path / "roots" / f"epoch-{epoch}.toml"

    @property
    def signed_successors(self) -> Path:
        """Which successor of each epoch this organization has signed from here: never two."""
        return self.path / "signed-successors.json"

    @property
    def governed(self) -> Path:
        """Patterns of what signed policy governs, for programs beside a node that does not run."""
        return self.path / "governed.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def create(self) -> None:
        """Make the folders that are missing, for the owner alone.

        Raises:
            ConfigError: others may look into the home, its path is too long for a socket, or it cannot be
                made.
        """
        if len(os.fsencode(self.socket.absolute())) > SOCKET_BYTES_MAX:
            raise ConfigError(
                f"home {self.path}: the path of its socket {self.socket.name} would be longer than "
                f"{SOCKET_BYTES_MAX} bytes; choose a shorter one"
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.keys, self.tokens, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"home {self.path} cannot be made: {exc.strerror}") from exc
        self.require_private()

    def require_private(self) -> None:
        """Check that nobody else may look into the home.

        Raises:
            ConfigError: it is missing, or others may.
        """
        for folder in (self.path, self.keys, self.tokens):
            try:
                mode = stat.S_IMODE(folder.stat().st_mode)
            except OSError as exc:
                raise ConfigError(
                    f"{folder}: {exc.strerror}; `comity node init` makes the home of a node"
                ) from exc
            if mode & _OTHERS:
                raise ConfigError(f"others may look into {folder} (mode {mode:04o}): chmod 700 {folder}")


def find_home(given: Path | None, environment: Mapping[str, str]) -> Home:
    """The home that was named, else the one that `COMITY_HOME` names, else `~/.comity`."""
    named = environment.get(HOME_VARIABLE)
    return Home((given or Path(named or "~/.comity")).expanduser())
