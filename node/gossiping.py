"""A node's part in gossip: it tells what its organization has said, and pulls what others tell of.

Everything holds without it. It shortens what anti-entropy takes, reaches nodes with which there is no connection,
and tells consumers of a new version before they ask.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final

import structlog
import trio

from comity.gossip.gossip import Gossip, Heard, interval_s
from comity.node.notices import Pending, lacking
from comity.node.outgoing import News
from comity.node.service import Service
from comity.protocol.errors import DecodeError
from comity.protocol.identifiers import member_of

OTHERS_MAX: Final = 3
"""Nodes that are asked in the place of an author with whom there is no connection."""
PULL_S: Final = 10.0
"""Time for all that one notice makes this node pull."""
AGAIN_S: Final = 1.0
"""Before others are asked once more: who forwards a notice may be about to pull what it names."""
NOTICES_WAITING_MAX: Final = 4
"""Notices of one author that wait while an earlier one of it is looked at. Of more, the oldest go."""

log = structlog.get_logger("comity.node")


class Gossiping:
    """Tells and listens while `run` runs.

    Args:
        service: the node; what it has to tell comes by `tell`, which it calls.
    """

    def __init__(self, service: Service, gossip: Gossip) -> None:
        self._service = service
        self._gossip = gossip
        self._pending = Pending(service.core.coalition)
        self._more = trio.Event()
        self._waiting: dict[str, deque[bytes]] = {}
        service.on_news = self.tell

    def tell(self, news: News) -> None:
        """Tell of this at the next turn."""
        self._pending.add(news)
        self._more.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell and listen until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_always)
            heard = self._gossip.heard()
            task_status.started()
            async with heard:
                async for message in heard:
                    self._take(message, nursery)

    def _take(self, message: Heard, nursery: trio.Nursery) -> None:
        """Look at one notice of each author at a time: who invents what nobody has holds up itself."""
        waiting = self._waiting.get(message.author)
        if waiting is not None:
            waiting.append(message.payload)
            return
        self._waiting[message.author] = deque([message.payload], NOTICES_WAITING_MAX)
        nursery.start_soon(self._look_at_all, message.author)

    async def _look_at_all(self, author: str) -> None:
        waiting = self._waiting[author]
        try:
            while waiting:
                await self._service.unharmed(author, partial(self._look, author, waiting.popleft()))
        finally:
            del self._waiting[author]

    async def _tell_always(self) -> None:
        """At the pace that the size of the coalition allows; what comes between goes with the next."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._pending:
                self._gossip.publish(self._pending.take())
                await trio.sleep(interval_s(1 + len(self._service.connected_nodes())))

    async def _look(self, author: str, payload: bytes) -> None:
        """Pull what a notice shows to be lacking: from its author, or else from a few others."""
        core = self._service.core
        try:
            wanted = await self._service.call(partial(lacking, core, member_of(author), payload))
        except DecodeError as exc:
            log.debug("notice_unreadable", peer=author, detail=str(exc))
            return
        with trio.move_on_after(PULL_S):
            direct = author in self._service.connected_nodes()
            found = not wanted.records or await self._service.fetch(wanted.records, self._sources(author))
            if not found and not direct:
                await trio.sleep(AGAIN_S)
                await self._service.fetch(wanted.records, self._sources(author))
            for asset, partition in wanted.heads:
                await self._service.fetch_head_from(asset, partition, self._sources(author))

    def _sources(self, author: str) -> list[str]:
        connected = self._service.connected_nodes()
        if author in connected:
            return [author]
        return sorted(connected)[:OTHERS_MAX]
