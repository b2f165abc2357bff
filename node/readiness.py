"""What a node tells the service manager that started it: that it serves, that it is alive, that it ends.

The protocol is systemd's sd_notify(3): datagrams of `NAME=value` to the Unix socket that `NOTIFY_SOCKET` names. Without
that variable nothing is told. `WATCHDOG_USEC` says how long the manager waits for a sign of life.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from comity.protocol.errors import ConfigError

log = structlog.get_logger("comity.node")

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
PATH_BYTES_MAX: Final = 107
"""What sun_path of a Unix socket has room for, on Linux."""
WATCHDOG_S_MIN: Final = 0.5
"""A shorter patience would make the node busy with saying that it is alive."""
WATCHDOG_S_MAX: Final = 86_400.0


class Readiness:
    """The road to the service manager, where there is one.

    Args:
        address: the socket's path, or its abstract name with `@` before it; empty where nobody listens.
        watchdog_s: how long the manager waits for a sign of life; 0 where it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = address
        self._watchdog_s = watchdog_s

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Readiness:
        """What the service manager says of itself.

        Raises:
            ConfigError: the variables are none of a service manager.
        """
        address = environment.get(SOCKET, "")
        if address and (address[0] not in "/@" or len(address.encode()) > PATH_BYTES_MAX):
            raise ConfigError(
                f"{SOCKET} is neither a path nor an abstract name of at most {PATH_BYTES_MAX} bytes"
            )
        said = environment.get(WATCHDOG, "")
        if not said or not address:
            return cls(address)
        if not said.isascii() or not said.isdecimal() or len(said) > len("86400000000"):
            raise ConfigError(f"{WATCHDOG} is no number of microseconds up to a day")
        seconds = int(said) / 1e6
        if not WATCHDOG_S_MIN <= seconds <= WATCHDOG_S_MAX:
            raise ConfigError(f"{WATCHDOG} is not between {WATCHDOG_S_MIN} s and a day")
        return cls(address, seconds)

    def ready(self, status: str) -> None:
        """The node serves. `status` is one line that the manager shows."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The node was asked to end, and does."""
        self._tell("STOPPING=1")

    async def watch(self) -> None:
        """Give a sign of life twice in the manager's patience, from the event loop: one that hangs gives none."""
        if not self._watchdog_s:
            return
        while True:
            self._tell("WATCHDOG=1")
            await trio.sleep(self._watchdog_s / 2)

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        name = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as road:
            # A manager that does not read must not hold up the event loop.
            road.setblocking(False)
            try:
                road.sendto(text.encode(), name)
            except OSError as exc:
                log.warning("manager_not_told", detail=exc.strerror or "")
