"""A node's own alarm: everything that wants to be woken is, however many want it and in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from comity.node.outgoing import Wake
from comity.node.service import Service
from nodes import Inline, TrioClock


class Sleeper:
    """A core that only counts when it was woken."""

    def __init__(self) -> None:
        self.clock = TrioClock()
        self.woken: list[float] = []
        self.outbox: list[Any] = []

    def tick(self) -> None:
        self.woken.append(round(self.clock.monotonic(), 3))

    def drain(self) -> list[Any]:
        outgoing, self.outbox = self.outbox, []
        return outgoing


@pytest.mark.parametrize("after", [(5.0, 10.0), (10.0, 5.0), (5.0, 7.0, 6.0)])
async def test_a_later_alarm_is_kept(
    autojump_clock: trio.testing.MockClock, after: tuple[float, ...]
) -> None:
    core: Any = Sleeper()
    service = Service(core, Inline())
    core.outbox = [Wake(core.clock.seconds() + each) for each in after]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service._wake)
        await service.call(lambda: None)
        with trio.move_on_after(20):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert core.woken == sorted(after)
