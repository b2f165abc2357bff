"""The server on the local socket: who says nothing, or half a request, holds up nobody; upgrades are refused."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from api_calls import solo
from comity.node import socket_server
from comity.node.api_access import Message, Receive, Scope, Send
from comity.node.home import Home
from comity.node.socket_server import ANSWER_S, KEEP_ALIVE_S, PIECE_BYTES, open_socket, serve
from houses import short_folder

MOST = 8
LONG = 2**22
"""More than a socket holds that nobody reads."""
HEAD = b"GET /v1/status HTTP/1.1\r\nHost: node\r\n"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Waiting:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.begun += 1
        if scope["path"] == "/wait":
            await self.open.wait()
        start: Message = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % (LONG if scope["path"] == "/long" else 2))],
        }
        await send(start)
        body = b"ok".rjust(LONG) if scope["path"] == "/long" else b"ok"
        await send({"type": "http.response.body", "body": body})


@dataclass
class Door:
    """Where the server listens, and who has come."""

    path: Path
    callers: list[trio.SocketStream] = field(default_factory=list[trio.SocketStream])

    async def connect(self, sent: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_unix_socket(self.path)
        self.callers.append(stream)
        if sent:
            await stream.send_all(sent)
        return stream


@asynccontextmanager
async def served(place: Path, app: Any) -> AsyncGenerator[Door]:
    path = place / "s"
    listener = open_socket(path)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await serve(app, listener, connections_max=MOST)

        nursery.start_soon(run)
        door = Door(path)
        yield door
        nursery.cancel_scope.cancel()
    listener.close()
    for stream in door.callers:
        await stream.aclose()


async def answer_of(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.fail_after(KEEP_ALIVE_S - 2):
        while b"ok" not in data and (part := await stream.receive_some(4_096)):
            data += part
    return data


def request(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode()


async def test_half_open_requests_hold_up_nobody(place: Path) -> None:
    """Ten times as many connections as there is room for, each with half a head: who asks is answered at once."""
    async with served(place, Waiting()) as door:
        half = [await door.connect(HEAD if number % 2 else b"") for number in range(10 * MOST)]
        for _ in range(MOST):
            assert (await answer_of(await door.connect(request()))).startswith(b"HTTP/1.1 200")
        # The oldest of them were closed for it.
        assert await _is_closed(half[0])


async def _is_closed(stream: trio.SocketStream) -> bool:
    with trio.fail_after(KEEP_ALIVE_S - 2):
        try:
            return await stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True


async def test_a_request_that_is_being_answered_is_not_closed_for_another(place: Path) -> None:
    app = Waiting()
    async with served(place, app) as door:
        asked = [await door.connect(request("/wait")) for _ in range(MOST)]
        with trio.fail_after(10):
            while app.begun < MOST:
                await trio.lowlevel.checkpoint()
        late = await door.connect(request())
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert app.begun == MOST
        app.open.set()
        for stream in [*asked, late]:
            assert (await answer_of(stream)).startswith(b"HTTP/1.1 200")


def many(path: str) -> bytes:
    """Requests that are sent at once, before any is answered."""
    return f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n".encode() * 50


async def all_begun(app: Waiting, count: int) -> None:
    with trio.fail_after(10):
        while app.begun < count:
            await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked(0.05)


async def test_who_does_not_read_its_answer_loses_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "ANSWER_S", 0.2)
    app = Waiting()
    async with served(place, app) as door:
        held = [await door.connect(many("/long")) for _ in range(MOST)]
        await all_begun(app, MOST)
        assert (await answer_of(await door.connect(request()))).startswith(b"HTTP/1.1 200")
        # The other requests of who did not read the first answer were not begun.
        assert app.begun == MOST + 1
        # What the socket held is all that ever comes.
        assert len(await answer_of(held[0])) < LONG


async def test_a_long_answer_that_is_read_may_take_long(
    place: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with served(place, Waiting()) as door:
        stream = await door.connect(request("/long"))
        data, whole = 0, False
        while not whole:
            # As much as a socket holds, in nearly the time that there is for a piece.
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.9 * ANSWER_S)
            enough = data + 4 * PIECE_BYTES
            while data < enough and not whole:
                part = await stream.receive_some(PIECE_BYTES)
                assert part
                data, whole = data + len(part), part.endswith(b"ok")
        assert trio.current_time() > 10 * ANSWER_S
        assert data > LONG


async def test_who_sends_many_requests_at_once_has_one_answer_while_others_wait(place: Path) -> None:
    app = Waiting()
    async with served(place, app) as door:
        greedy = [await door.connect(many("/wait")) for _ in range(MOST)]
        await all_begun(app, MOST)
        late = await door.connect(request())
        await trio.testing.wait_all_tasks_blocked(0.05)
        app.open.set()
        assert (await answer_of(late)).startswith(b"HTTP/1.1 200")
        answers = [(await everything_of(stream)).count(b"HTTP/1.1 200") for stream in greedy]
        # One place was wanted.
        assert sorted(answers) == [1] + [50] * (MOST - 1)


async def everything_of(stream: trio.SocketStream) -> bytes:
    """All that comes until nobody is left to send more."""
    data = b""
    with trio.move_on_after(KEEP_ALIVE_S - 2):
        while data.count(b"ok") < 50 and (part := await stream.receive_some(4_096)):
            data += part
    return data


async def test_of_newcomers_that_wait_there_are_so_many(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_server, "NEWCOMERS_MAX", 3)
    app = Waiting()
    async with served(place, app) as door:
        asked = [await door.connect(request("/wait")) for _ in range(MOST)]
        await all_begun(app, MOST)
        waiting = [await door.connect(request()) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(5):
            assert await _is_closed(await door.connect())
        app.open.set()
        for stream in [*asked, *waiting]:
            assert (await answer_of(stream)).startswith(b"HTTP/1.1 200")


async def test_half_a_head_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_server, "KEEP_ALIVE_S", 0.2)
    async with served(place, Waiting()) as door:
        stream = await door.connect(HEAD)
        with trio.fail_after(10):
            # A byte now and then gains no time.
            closed = False
            while not closed:
                with trio.move_on_after(0.05):
                    try:
                        await stream.send_all(b"x")
                        closed = await stream.receive_some(1) == b""
                    except trio.BrokenResourceError:
                        closed = True


def upgrade(token: str) -> bytes:
    lines = [
        "GET /v1/status HTTP/1.1",
        "Host: node",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def sent(home: Home, data: bytes) -> tuple[int, dict[str, Any]]:
    with ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(10)
        connection.connect(str(home.socket))
        connection.sendall(data)
        received = b""
        while b"}" not in received and (part := connection.recv(4_096)):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


async def test_an_upgrade_to_a_web_socket_is_refused_and_is_no_fault(place: Path) -> None:
    async with solo(place) as house:
        token = house.home.token("reader").read_text().strip()
        for given, status, code in ((token, 404, "not_found"), ("", 401, "token_wrong")):
            answered = await trio.to_thread.run_sync(sent, house.home, upgrade(given))
            assert (answered[0], answered[1]["code"]) == (status, code)
        assert (await house.until(lambda said: True))["votes"]
