"""Nodes that gossip, and what they hear."""

from __future__ import annotations

from typing import Any

import trio

from comity.gossip.gossip import Heard
from roads import Site

TOPIC = "/comity/heads/1.0.0/test"
HEARS_S = 12.0
"""A mesh forms with the first heartbeats."""


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


def port(site: Site) -> Any:
    return site.transport.gossip  # type: ignore[attr-defined]


class Ear:
    """What a node has heard."""

    def __init__(self, site: Site, nursery: trio.Nursery) -> None:
        self.heard: list[Heard] = []
        self._more = trio.Event()
        nursery.start_soon(self._listen, port(site).heard())

    async def _listen(self, channel: trio.MemoryReceiveChannel[Heard]) -> None:
        async for message in channel:
            self.heard.append(message)
            self._more.set()
            self._more = trio.Event()

    async def hears(self, payload: bytes) -> Heard:
        with trio.fail_after(HEARS_S):
            while True:
                found = next((m for m in self.heard if m.payload == payload), None)
                if found is not None:
                    return found
                await self._more.wait()


async def until_heard(speaker: Site, ear: Ear, prefix: bytes) -> bytes:
    """Say something until it is heard: a mesh takes a moment to form, and what is said before is lost."""
    with trio.fail_after(HEARS_S):
        for number in range(1_000):
            payload = prefix + b" %d" % number
            port(speaker).publish(payload)
            with trio.move_on_after(0.25):
                await ear.hears(payload)
                return payload
    raise AssertionError("never heard")
