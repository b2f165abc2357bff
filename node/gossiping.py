"""A node's part in gossip: it tells what its organization has said, and pulls what others tell of.

Everything holds without it. It shortens what anti-entropy takes, reaches nodes with which there is no connection,
and tells consumers of a new version before they ask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

import structlog
import trio

from comity.gossip.gossip import Gossip, Heard, interval_s
from comity.node.notices import Pending, lacking
from comity.node.outgoing import News
from comity.node.service import Service
from comity.protocol.encoding import encode
from comity.protocol.errors import DecodeError
from comity.protocol.identifiers import member_of, sha256

OTHERS_MAX: Final = 3
"""Nodes that are asked in the place of an author with whom there is no connection."""
PULL_S: Final = 10.0
"""Time for all that one notice makes this node pull."""
TURNS: Final = 2
"""How often others are asked: where three of a dozen lie, no second turn is theirs as well."""
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
            if wanted.records:
                await self._fetch(author, wanted.records)
            for asset, partition in wanted.heads:
                about = f"{asset} {partition}".encode()
                for name in self._sources(author, about):
                    await self._service.fetch_head_from(asset, partition, [name])
                    # Who answers with nothing, or with an older one, is no reason not to ask the next.
                    left = await self._service.call(partial(lacking, core, member_of(author), payload))
                    if (asset, partition) not in left.heads:
                        break

    async def _fetch(self, author: str, records: tuple[bytes, ...]) -> None:
        """Ask for records, of others than their author a second time."""
        about = b"".join(records)
        for turn in range(1 if author in self._service.connected_nodes() else TURNS):
            if turn:
                await trio.sleep(AGAIN_S)
            if await self._service.fetch(records, self._sources(author, about, turn)):
                return

    def _sources(self, author: str, about: bytes, turn: int = 0) -> list[str]:
        connected = self._service.connected_nodes()
        if author in connected:
            return [author]
        return others(self._service.core.identity.node, about, connected, turn)


def others(own: str, about: bytes, connected: Iterable[str], turn: int = 0) -> list[str]:
    """The nodes that are asked, in the place of an author that cannot be, for what it has told of.

    Each node asks others, and for each thing others again: were it always the first few names, those few could keep
    a thing from everybody. Equal arguments give equal nodes.

    Args:
        own: the node that asks.
        about: what it asks for.
        turn: how often it has asked in vain. The next ones are asked then, and where there are no more, the first.
    """
    ranked = sorted(connected, key=lambda name: sha256(encode([own, about, name])))
    begin = turn * OTHERS_MAX
    return (ranked[begin:] + ranked[:begin])[:OTHERS_MAX]
