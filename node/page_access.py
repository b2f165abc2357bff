"""Who may ask the page's server for what: the bounds of its requests, and what every answer says to the browser.

An ASGI layer before the application. A page of another origin has the browser ask under its own origin, or under a
name of its own that it has resolved to this machine: Host, Origin and the fetch metadata say so, and what is not from
here is answered with a problem before the application sees it. Programs on this machine that are no browser get no
further than the login: everything but the page's own files needs a session.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final

import structlog
import trio

from comity.node.api_access import App, Message, Receive, Scope, Send, answer
from comity.node.api_metrics import is_loopback_host
from comity.node.forms import Problem
from comity.node.page_sessions import SESSION_S, Session, Sessions

BODY_BYTES_MAX: Final = 65_536
"""One request: an approval in base64 has about a thousand bytes."""
BODY_TIMEOUT_S: Final = 10.0
"""For the whole body, over the loopback."""
REQUESTS_MAX: Final = 96
"""Requests at one time: the streams of events, and what else the tabs ask for."""
COOKIE: Final = "comity_page"
KEY_HEADER: Final = b"x-comity-page-key"
LOGIN: Final = "/api/login"

_CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'",
    b"script-src 'self'",
    b"style-src 'self'",
    b"img-src 'self'",
    b"connect-src 'self'",
    b"base-uri 'none'",
    b"form-action 'none'",
    b"frame-ancestors 'none'",
    b"require-trusted-types-for 'script'",
)
SECURITY_HEADERS: Final = (
    (
        b"content-security-policy",
        b"; ".join(_CONTENT_SECURITY_POLICY),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cache-control", b"no-store"),
)
"""What each answer says: nothing of another host, nothing inline, in no frame, kept by nobody."""

log = structlog.get_logger("comity.node.page")


class PageDoor:
    """Lets a request through to the page's application, with its session; or answers it with a problem.

    Args:
        port: that the page listens at: it is in the cookie's name, for cookies are of a host and not of a port.
        count: is told the role and the status of every request.
    """

    def __init__(self, app: App, sessions: Sessions, port: int, count: Callable[[str, int], None]) -> None:
        self._app = app
        self._sessions = sessions
        self._cookie = f"{COOKIE}_{port}"
        self._count = count
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        status = 0
        role = ""

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *SECURITY_HEADERS]}
            await send(message)

        self._open += 1
        try:
            session = self._session(scope)
            role = session.role if session is not None else ""
            problem = self._problem(scope, session)
            if problem is not None:
                await answer(guarded, *problem)
            else:
                await self._admit(session, scope, receive, guarded)
        finally:
            self._open -= 1
            self._count("page", status)
            # Paths hold ids and names of assets; cookies, codes and bodies are never logged. What only looks is
            # asked for again whenever something changes.
            tell = log.debug if scope["method"] == "GET" and status < HTTPStatus.BAD_REQUEST else log.info
            tell("page_request", method=scope["method"], path=scope["path"], role=role, status=status)

    def set_cookie(self, session: Session) -> str:
        """The header by which a browser keeps the cookie of a session."""
        return f"{self._cookie}={session.cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={int(SESSION_S)}"

    def drop_cookie(self) -> str:
        return f"{self._cookie}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"

    def _problem(self, scope: Scope, session: Session | None) -> tuple[int, Problem] | None:
        """Why a request goes no further, with the status; or None."""
        path = scope["path"]
        if not is_loopback_host(_header(scope, b"host")):
            return 403, Problem("host_wrong", "ask for the page by a loopback address")
        if not _from_own_origin(scope):
            return 403, Problem("origin_wrong", "this was asked for by another page than the node's own")
        if self._open > REQUESTS_MAX:
            return 503, Problem("busy", f"{REQUESTS_MAX} requests are open; try again when some are answered")
        if path.startswith("/api/") and path != LOGIN and session is None:
            hint = "`comity page` prints a new link"
            return 401, Problem("session_ended", "there is no session, or it has ended", hint)
        return None

    async def _admit(self, session: Session | None, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            message = f"a request has at most {BODY_BYTES_MAX} bytes and arrives within {BODY_TIMEOUT_S:g} s"
            await answer(send, 413, Problem("body_too_large", message))
            return
        scope.setdefault("state", {}).update(session=session, door=self)
        await self._app(scope, _Said(body, receive), send)

    def _session(self, scope: Scope) -> Session | None:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(_header(scope, b"cookie"))
        except CookieError:
            # What no browser of ours has set names no session.
            return None
        held = cookies.get(self._cookie)
        key = _header(scope, KEY_HEADER)
        return self._sessions.find(held.value, key) if held is not None and key else None


class _Said:
    """The body that was read already, and then what else the connection says: that it ended."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def _header(scope: Scope, wanted: bytes) -> str:
    found = [value for name, value in scope["headers"] if name == wanted]
    # Two of one name say two things: such a request is nobody's.
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _from_own_origin(scope: Scope) -> bool:
    """Whether a request is the page's own, or somebody typed the address.

    Browsers name the origin of whatever may change something, and say of everything whether it is of the same origin.
    Another port of this machine is another origin and yet the same site.
    """
    origin = _header(scope, b"origin")
    if origin and origin != f"http://{_header(scope, b'host')}":
        return False
    if scope["method"] not in ("GET", "HEAD") and not origin:
        return False
    site = _header(scope, b"sec-fetch-site")
    if site in ("", "same-origin", "none"):
        return True
    # A link that somebody followed from elsewhere shows the page, which shows nothing without its session.
    return _header(scope, b"sec-fetch-mode") == "navigate" and not scope["path"].startswith("/api/")


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
            if size > BODY_BYTES_MAX:
                return None
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    return None
