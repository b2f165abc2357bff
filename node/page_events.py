"""Server-sent events for open pages: that something is new, and that a session is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from starlette.responses import Response

from comity.node.api_access import Receive, Scope, Send
from comity.node.watch import Watch

BEAT_S: Final = 15.0
"""Without news so often something is sent, so that a stream whose page is gone ends."""


class EventStream(Response):
    """Server-sent events: `changed` whenever something is new, `ended` when the session is over.

    Args:
        left: seconds until the session ends.
    """

    media_type = "text/event-stream"

    def __init__(self, watch: Watch, left: Callable[[], float]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._watch = watch
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with self._watch.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._tell(send)
                nursery.cancel_scope.cancel()

    async def _tell(self, send: Send) -> None:
        async def say(text: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text + b"\n\n", "more_body": more})

        await say(b"event: begun\ndata: 1")
        while (rest := self._left()) > 0:
            new = await self._watch.news(min(BEAT_S, rest))
            await say(b"event: changed\ndata: 1" if new else b": still here")
        await say(b"event: ended\ndata: 1", more=False)


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """End a scope when whoever listens has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
