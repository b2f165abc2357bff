"""What tells pages and people that something is new: one look a second while anybody watches, none while nobody does.

The machines say at once when an own intent moves on; of what partners say they tell nobody. A look therefore compares
what is newest of each kind that people are shown. What it misses, whoever watches finds when asking again by itself.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio

from comity.node.core import Core
from comity.node.page_sessions import STREAMS_MAX
from comity.node.problems import Refused
from comity.node.service import Service
from comity.protocol.identifiers import sha256

LOOK_EVERY_S: Final = 1.0
"""What a person takes for at once. A look takes some milliseconds of the worker's thread."""
NEWEST: Final = 8
"""Records of a kind that are looked at: more than arrive in a second that matters to a person."""
_KINDS: Final = (
    "intent",
    "vote",
    "permit",
    "refusal",
    "observation",
    "revocation",
    "credential",
    "actuation",
    "misbehaviour",
)


def stamp(core: Core) -> bytes:
    """A digest that differs when something is new that the page shows."""
    parts = [core.holdings.epoch.id]
    for kind in _KINDS:
        parts += [r.id for r in core.store.of_kind(kind, coalition=core.coalition, limit=NEWEST)]
    for pursuit in core.requester.pursuits():
        parts.append(f"{pursuit.intent.id.hex()} {pursuit.standing} {pursuit.asks}".encode())
        parts.append(repr(pursuit.needs).encode())
    return sha256(b"\n".join(parts))


class Watch:
    """Looks while there are streams, and wakes them when something is new."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams = 0
        self._wanted = trio.Event()
        self._changed = trio.Event()
        self._seen = b""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if not self._streams:
                self._wanted = trio.Event()
                await self._wanted.wait()
            # A defect in what is only shown ends no node.
            await self._service.unharmed("this node", self._look)
            await trio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        core = self._service.core
        connected = ",".join(sorted(self._service.connected_nodes())).encode()
        seen = sha256(await self._service.call(lambda: stamp(core)) + connected)
        if seen != self._seen:
            self._seen = seen
            self._changed.set()
            self._changed = trio.Event()

    def require_place(self) -> None:
        """Check that one more stream may begin.

        Raises:
            Refused: `busy`.
        """
        if self._streams >= STREAMS_MAX:
            raise Refused("busy", f"{STREAMS_MAX} pages are open; close one", 503)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Keep looking as long as this is open."""
        self._streams += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._streams -= 1

    async def news(self, within_s: float) -> bool:
        """Wait for something new, at most so long. Says whether there is."""
        event = self._changed
        with trio.move_on_after(within_s):
            await event.wait()
        return event.is_set()
