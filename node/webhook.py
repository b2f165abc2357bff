"""One URL that is told things, as JSON, one after the other: bounded, signed, and tried again for a while.

Whatever the receiver does, the node goes on: what is told waits in a queue of a fixed length, and is sent from a thread
of its own. Nothing of an answer is read but its status, and no redirection is followed.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from comity import __version__

QUEUE_MAX: Final = 256
"""What waits to be told. Of more the oldest is dropped: what is newest is truest."""
TIMEOUT_S: Final = 10.0
"""For one attempt, from the connection to the status."""
ATTEMPTS_MAX: Final = 8
"""Attempts for one thing: with the pauses between them some four minutes. What is behind it waits as long."""
THREADS_MAX: Final = 2
"""The one that tells, and one that was left behind by a receiver that answers a byte at a time."""
PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 120.0
SIGNATURE_HEADER: Final = "Comity-Signature"
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that may be other ones a little later; any status from 500 on, too."""

log = structlog.get_logger("comity.node.webhook")


def signature(secret: bytes, at: int, body: bytes) -> str:
    """What the header says: the time, and HMAC-SHA256 under the secret over the time, a point and the body."""
    code = hmac.new(secret, b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={code}"


class Webhook:
    """The queue before one URL.

    Args:
        url: of http or https, checked.
        secret: signs what is told; empty where nothing does.
        count: is told `sent`, `failed` or `dropped`, once for each thing.
    """

    def __init__(self, url: str, secret: bytes, count: Callable[[str], None]) -> None:
        self._url = urlsplit(url)
        self._secret = secret
        self._count = count
        self._queue: deque[bytes] = deque()
        self._filled = trio.Event()
        self._threads = trio.CapacityLimiter(THREADS_MAX)

    def put(self, value: Any) -> None:
        """Have something told. Never waits."""
        if len(self._queue) >= QUEUE_MAX:
            self._queue.popleft()
            self._count("dropped")
            log.warning("notification_dropped", waiting=QUEUE_MAX)
        self._queue.append(msgspec.json.encode(value))
        self._filled.set()

    async def deliver(self) -> None:
        """Tell until cancelled."""
        while True:
            while self._queue:
                await self._deliver(self._queue.popleft())
            self._filled = trio.Event()
            await self._filled.wait()

    async def _deliver(self, body: bytes) -> None:
        pause = PAUSE_S_MIN
        why = ""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            why = await self._attempt(body)
            if not why:
                self._count("sent")
                log.debug("notification_sent", attempt=attempt)
                return
            if why.startswith("refused"):
                break
            log.info("notification_waits", attempt=attempt, detail=why)
            if attempt < ATTEMPTS_MAX:
                await trio.sleep(pause)
                pause = min(2 * pause, PAUSE_S_MAX)
        self._count("failed")
        # The URL may hold a secret of the receiver's: only its host is said.
        log.warning("notification_failed", host=self._url.hostname or "", detail=why)

    async def _attempt(self, body: bytes) -> str:
        """Try once. Answers why it was not taken; empty where it was."""
        with trio.move_on_after(TIMEOUT_S):
            # A thread that hangs is left behind, until its socket's own time-outs end it.
            return await trio.to_thread.run_sync(
                self._post, body, abandon_on_cancel=True, limiter=self._threads
            )
        return "no answer in time"

    def _post(self, body: bytes) -> str:
        """The one place where errors of the road become words."""
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            connection.request("POST", path, body, self._headers(body))
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return f"{type(exc).__name__}: {exc}"[:200]
        finally:
            connection.close()
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return ""
        later = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _AGAIN
        return f"status {status}" if later else f"refused with status {status}"

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"comity/{__version__}"}
        if self._secret:
            headers[SIGNATURE_HEADER] = signature(self._secret, int(time.time()), body)
        return headers
