"""Who looks at the page: login codes that are used once, and sessions that end. No clock, no network.

A session lets a browser look, and hand in what a person has signed elsewhere with an own key. It signs nothing and
grants no authority over what is decided. Two secrets make one up: the cookie, which scripts cannot read, and the key,
which the page keeps in its own origin. A browser sends a cookie to every port of a host, so that another program on
this machine may see the cookie; it never sees the key.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

PageRole: TypeAlias = Literal["operator", "reader"]

CODE_S: Final = 120.0
"""Between the command that prints a link and the browser that opens it."""
CODES_MAX: Final = 16
"""Codes that wait to be used: whoever asks for more makes the oldest void."""
SESSION_S: Final = 8 * 3_600.0
"""A working day. Then `comity page` prints another link."""
SESSIONS_MAX: Final = 32
"""Browsers at one time: the people on duty at one organization. More end the oldest session."""
STREAMS_MAX: Final = 64
"""Streams of events at one time, of all sessions: each tab has one."""
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that was let in.

    Attributes:
        role: that of the token for which the code was given: a `reader` hands in nothing.
        until: when it ends, by the clock of the sessions.
    """

    cookie: str
    key: str
    role: PageRole
    until: float


class Sessions:
    """All codes and sessions of one node's page. They end with the process.

    Args:
        clock: seconds that only grow.
        draw: a new secret.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        draw: Callable[[], str] = lambda: secrets.token_urlsafe(SECRET_BYTES),
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._codes: dict[str, tuple[PageRole, float]] = {}
        self._open: dict[str, Session] = {}

    def code(self, role: PageRole) -> str:
        """A login code, for whoever showed the token of this role."""
        self._forget()
        while len(self._codes) >= CODES_MAX:
            del self._codes[next(iter(self._codes))]
        code = self._draw()
        self._codes[code] = (role, self._clock() + CODE_S)
        return code

    def enter(self, code: str) -> Session | None:
        """The session that a code opens, once; None where it opens none."""
        self._forget()
        found = next((each for each in self._codes if _equal(each, code)), None)
        if found is None:
            return None
        role, _ = self._codes.pop(found)
        while len(self._open) >= SESSIONS_MAX:
            del self._open[next(iter(self._open))]
        session = Session(self._draw(), self._draw(), role, self._clock() + SESSION_S)
        self._open[session.cookie] = session
        return session

    def find(self, cookie: str, key: str) -> Session | None:
        """The session that both secrets name, while it lasts."""
        self._forget()
        found = [s for s in self._open.values() if _equal(s.cookie, cookie) and _equal(s.key, key)]
        return found[0] if found else None

    def left(self, session: Session) -> float:
        """Seconds until a session ends; 0 where it has ended or was left."""
        self._forget()
        return session.until - self._clock() if session.cookie in self._open else 0.0

    def leave(self, session: Session) -> None:
        """End a session."""
        self._open.pop(session.cookie, None)

    def _forget(self) -> None:
        now = self._clock()
        self._codes = {code: given for code, given in self._codes.items() if now < given[1]}
        self._open = {cookie: each for cookie, each in self._open.items() if now < each.until}


def _equal(left: str, right: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(left.encode(errors="surrogatepass"), right.encode(errors="surrogatepass"))
