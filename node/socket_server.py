"""An ASGI application on a Unix socket of the owner alone, by Hypercorn's trio worker."""

from __future__ import annotations

import errno
import logging
import socket
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as ServerConfig
from hypercorn.config import Sockets
from hypercorn.trio.run import worker_serve

from comity.protocol.errors import ConfigError

QUEUE_MAX: Final = 1_024
"""Callers that may wait to be accepted."""
PROBE_S: Final = 2.0
KEEP_ALIVE_S: Final = 5
"""A connection without a request: a client opens another at no cost."""


def open_socket(path: Path) -> socket.socket:
    """Listen on a path. A socket that nobody answers on any more is removed.

    Raises:
        ConfigError: a program answers on it, something else has its name, or it cannot be made.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Until here it is guarded by its folder, which the owner alone may look into.
        path.chmod(0o600)
        listener.listen(QUEUE_MAX)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        raise ConfigError(f"socket {path} cannot be made: {exc.strerror or exc}") from exc
    return listener


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        if path.exists():
            raise ConfigError(f"{path} is there, and is no socket")
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(PROBE_S)
    try:
        probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        remove_socket(path)
    except OSError as exc:
        if exc.errno != errno.EAGAIN:
            raise ConfigError(f"socket {path}: {exc.strerror or exc}") from exc
        raise ConfigError(f"a program answers on {path} already") from exc
    else:
        raise ConfigError(f"a program answers on {path} already: is this node running?")
    finally:
        probe.close()


async def serve_on_socket(app: Any, path: Path, *, task_status: trio.TaskStatus[list[str]]) -> None:
    """Serve until cancelled, then remove the socket. What is answered is safe to ask again.

    Raises:
        ConfigError: as `open_socket`.
    """
    listener = open_socket(path)
    config = ServerConfig()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.include_server_header = False
    try:
        await worker_serve(
            ASGIWrapper(app), config, sockets=Sockets([], [listener], []), task_status=task_status
        )
    finally:
        listener.close()
        remove_socket(path)


def remove_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
