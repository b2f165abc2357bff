"""An ASGI application on a Unix socket of the owner alone, by Hypercorn's trio worker."""

from __future__ import annotations

import errno
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as ServerConfig
from hypercorn.events import Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from comity.protocol.errors import ConfigError

QUEUE_MAX: Final = 1_024
"""Callers that may wait to be accepted."""
PROBE_S: Final = 2.0
KEEP_ALIVE_S: Final = 5
"""A connection without a request: a client opens another at no cost. It is also the time for a request's head."""
CONNECTIONS_MAX: Final = 640
"""Connections at one time: those of all requests that may be open, and some that have not said what they want. A
process has a thousand files, and its peers and its store need some."""
NEWCOMERS_MAX: Final = 32
"""Connections that wait for a place, each of which is an open file. More are closed as they come."""
ANSWER_S: Final = 5.0
"""Time in which a caller takes a piece of its answer: it is on this machine. Then its connection is closed."""
PIECE_BYTES: Final = 65_536
"""So that a long answer may take long, and one that nobody reads may not."""


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
    try:
        task_status.started([str(path)])
        await serve(app, listener)
    finally:
        listener.close()
        remove_socket(path)


async def serve(app: Any, listener: socket.socket, *, connections_max: int = CONNECTIONS_MAX) -> None:
    """Serve on a socket that listens, until cancelled.

    Args:
        connections_max: where there are so many and one more comes, the one that has said least for longest is
            closed. Only where all are being answered does the newcomer wait, and then each of them is closed when
            it has had the answer that it waits for.
    """
    config = ServerConfig()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.include_server_header = False
    guests = _Guests(connections_max)
    receive = partial(guests.receive, ASGIWrapper(app), config, WorkerContext(None))
    await trio.serve_listeners(receive, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


class _Connection(TCPServer):
    """One connection, which knows whether it waits for a request, or for the rest of its head.

    It ends when its caller takes too long over an answer. Hypercorn waits for ever, also when all else has ended.
    """

    def __init__(
        self,
        app: ASGIWrapper,
        config: ServerConfig,
        context: WorkerContext,
        stream: trio.SocketStream,
        guests: _Guests,
    ) -> None:
        # It takes either sort of stream; its annotation names only the encrypted one.
        super().__init__(app, config, context, ConnectionState({}), cast("Any", stream))
        self.idle = True
        self._guests = guests
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            await super().run()

    async def end(self) -> None:
        """Close it, leave its place, and drop what was to be answered here: nobody would hear it."""
        self._scope.cancel()
        self._guests.leave(self)
        await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._answer(event.data)
            return
        if isinstance(event, Updated):
            self.idle = event.idle
            if event.idle and self._guests.crowded():
                # It may have sent many requests at once; the next is for whoever waits.
                await self.end()
                return
        await super().protocol_send(event)

    async def _answer(self, data: bytes) -> None:
        """Send something, piece by piece."""
        whole = memoryview(data)
        async with self.send_lock:
            for begin in range(0, len(whole), PIECE_BYTES):
                await trio.lowlevel.checkpoint_if_cancelled()
                taken = False
                # Shielded, so that what ends meanwhile cuts no short answer in two.
                with trio.move_on_after(ANSWER_S, shield=True):
                    try:
                        await self.stream.send_all(whole[begin : begin + PIECE_BYTES])
                        taken = True
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass
                if not taken:
                    await self.end()
                    return


class _Guests:
    """The connections that are open, the oldest first, and how many wait to be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[_Connection, None] = {}
        self._left = trio.Event()
        self._newcomers = 0

    async def receive(
        self, app: ASGIWrapper, config: ServerConfig, context: WorkerContext, stream: trio.SocketStream
    ) -> None:
        """Serve one connection to its end, as soon as there is room for it; with too many waiting, not at all."""
        if self._newcomers >= NEWCOMERS_MAX:
            return
        self._newcomers += 1
        try:
            await self._room()
        finally:
            self._newcomers -= 1
        connection = _Connection(app, config, context, stream, self)
        self._open[connection] = None
        try:
            await connection.run()
        finally:
            self.leave(connection)

    def crowded(self) -> bool:
        """Whether more wait for a place than there are free places."""
        return self._newcomers > self._most - len(self._open)

    def leave(self, connection: _Connection) -> None:
        """Give a place back."""
        self._open.pop(connection, None)
        self._left.set()
        self._left = trio.Event()

    async def _room(self) -> None:
        while len(self._open) >= self._most:
            waiting = next((each for each in self._open if each.idle), None)
            if waiting is None:
                await self._left.wait()
            else:
                await waiting.end()


def remove_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
