"""Peers take turns before the machines: who asks much holds up nobody but itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from comity.node import service as service_module
from comity.node import worker as worker_module
from comity.node.service import Service
from comity.node.worker import Worker

T = TypeVar("T")


class OneAtATime:
    """A runner that takes a second for each call, one after the other."""

    def __init__(self) -> None:
        self._turn = trio.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        async with self._turn:
            with trio.move_on_after(1):
                await trio.sleep_forever()
            return function()


def echoed(core: object, payload: bytes, peer: str) -> bytes:
    del core
    return payload + peer.encode()


class Idle:
    """A core that leaves nothing to be carried."""

    def drain(self) -> list[Any]:
        return []


async def test_a_flood_of_one_peer_lets_the_others_through(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(service_module, "answer_peer", echoed)
    core: Any = Idle()
    service = Service(core, OneAtATime())
    answered: dict[str, list[float]] = {"liar": [], "honest": []}

    async def ask(peer: str) -> None:
        assert await service.handle_request(peer, b"?") == b"?" + peer.encode()
        answered[peer].append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(32):
            nursery.start_soon(ask, "liar")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "honest")
    assert answered["honest"][0] - began <= 3
    assert len(answered["liar"]) == 32


async def test_more_calls_than_may_wait_wait_at_the_door(monkeypatch: Any) -> None:
    monkeypatch.setattr(worker_module, "WAITING_MAX", 3)
    worker = Worker("test")
    try:
        most = 0
        done: list[int] = []

        def call(number: int) -> None:
            nonlocal most
            most = max(most, worker._waiting)
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(worker.run, lambda number=number: call(number))
        assert sorted(done) == list(range(20))
        assert most <= 3
    finally:
        worker.close()
