"""Who may call the local API, and how much one call may cost: tokens, roles, and the bounds of a request.

An ASGI layer before the application: a request without a known token is answered before a byte of its body is
read. Tokens are files that `comity node init` makes, one per role.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec
import structlog
import trio

from comity.node.forms import Problem

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX: Final = 4 * 1_048_576
"""One request: a step with ten thousand partitions, or a record of the largest kind in base64."""
DRAINED_BYTES_MAX: Final = 8 * BODY_BYTES_MAX
"""Of a body that is too long so much is read and dropped: who still sends would miss the answer."""
REQUESTS_MAX: Final = 512
"""Requests at one time. Most of them wait for a decision; a run with more steps at once waits its turn."""
BODY_TIMEOUT_S: Final = 30.0
"""For the whole body of a request, over a socket of this machine."""

_SCHEME: Final = b"Bearer "
_TOKEN_WRONG: Final = Problem(
    "token_wrong",
    "the token is missing or unknown",
    "send `Authorization: Bearer TOKEN` with a token from the node's home",
)

log = structlog.get_logger("comity.node.api")


def _uncounted(role: str, status: int) -> None:
    del role, status


class Doorkeeper:
    """Lets a request through to the application with its role, or answers it with a problem.

    Args:
        tokens: role to token.
        count: is told the role and the status of every request.
    """

    def __init__(
        self, app: App, tokens: Mapping[str, bytes], count: Callable[[str, int], None] = _uncounted
    ) -> None:
        self._app = app
        self._count = count
        self._tokens = dict(tokens)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._refuse_upgrade(scope, send)
            return
        began = time.monotonic()
        answered = 0

        async def noting(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
            await send(message)

        role = self._role(scope)
        try:
            await self._admit(role, scope, receive, noting)
        finally:
            self._count(role or "", answered)
            # The path holds ids and asset names; bodies and tokens are never logged.
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                role=role or "",
                status=answered,
                ms=round((time.monotonic() - began) * 1_000),
            )

    async def _refuse_upgrade(self, scope: Scope, send: Send) -> None:
        """Answer who wants a web socket. There is none; without a token nobody learns even that."""
        if self._role(scope) is None:
            status, problem = 401, _TOKEN_WRONG
        else:
            status, problem = 404, Problem("not_found", "there is no web socket here")
        self._count(self._role(scope) or "", status)
        await answer(send, status, problem, "websocket.http.response")

    async def _admit(self, role: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        if role is None:
            await answer(send, 401, _TOKEN_WRONG)
            return
        if self._open >= REQUESTS_MAX:
            message = f"{REQUESTS_MAX} requests are open; try again when some are answered"
            await answer(send, 503, Problem("busy", message))
            return
        self._open += 1
        try:
            body = await _body(receive)
            if body is None:
                message = (
                    f"a request has at most {BODY_BYTES_MAX} bytes and arrives within {BODY_TIMEOUT_S:g} s"
                )
                await answer(send, 413, Problem("body_too_large", message))
                return
            scope.setdefault("state", {})["role"] = role
            await self._app(scope, _Replay(body, receive), send)
        finally:
            self._open -= 1

    def _role(self, scope: Scope) -> str | None:
        """The role of the token that a request carries. Every token is compared, each in constant time."""
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization" and value.startswith(_SCHEME):
                given = value.removeprefix(_SCHEME)
        found: str | None = None
        for role, token in self._tokens.items():
            if hmac.compare_digest(given, token):
                found = role
        return found


class _Replay:
    """The body that was read already, and then what else the connection says: that it ended."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


async def _body(receive: Receive) -> bytes | None:
    """The whole body of a request; None where it is too long, too slow, or its sender is gone."""
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(BODY_TIMEOUT_S):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > DRAINED_BYTES_MAX:
                return None
            if size <= BODY_BYTES_MAX:
                parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts) if size <= BODY_BYTES_MAX else None
    return None


async def answer(send: Send, status: int, problem: Problem, how: str = "http.response") -> None:
    """Answer a request with a problem, without the application."""
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{how}.start", "status": status, "headers": headers})
    await send({"type": f"{how}.body", "body": body})
