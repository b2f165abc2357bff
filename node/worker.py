"""One thread in which a node's machines and its store live.

The machines are not made for two threads, policy needs a deep stack, and neither may hold up the connections.
So everything that judges or writes runs here, one call after the other, and the event loop awaits it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import outcome
import trio

from comity.attestation.policy_guard import STACK_BYTES, adopt_deep_stack

T = TypeVar("T")

WAITING_MAX: Final = 4_096
"""Calls that may wait for the thread; more wait to wait. A peer has one at a time, so these are local programs."""


@dataclass(slots=True)
class _Call:
    function: Callable[[], Any]
    token: trio.lowlevel.TrioToken
    task: trio.lowlevel.Task
    result: outcome.Outcome[Any] | None = None


def _untimed(seconds: float) -> None:
    del seconds


class Worker:
    """A thread with a deep stack that runs calls in the order in which they were made.

    Args:
        timed: is told how many seconds each call took, in the thread.
    """

    def __init__(self, name: str, timed: Callable[[float], None] = _untimed) -> None:
        self._timed = timed
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._waiting = 0
        self._door = trio.lowlevel.ParkingLot()
        before = threading.stack_size(STACK_BYTES)
        try:
            self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
            self._thread.start()
        finally:
            threading.stack_size(before)

    @property
    def waiting(self) -> int:
        """Calls that wait for the thread, and the one that it works on."""
        return self._waiting

    async def run(self, function: Callable[[], T]) -> T:
        """Run a call in the thread and wait for it. It is not interrupted by cancellation."""
        while self._waiting >= WAITING_MAX:
            await self._door.park()
        self._waiting += 1
        try:
            return await self._run(function)
        finally:
            self._waiting -= 1
            self._door.unpark()

    async def _run(self, function: Callable[[], T]) -> T:
        task = trio.lowlevel.current_task()
        call = _Call(function, trio.lowlevel.current_trio_token(), task)
        self._calls.put(call)

        def abort(_: Any) -> trio.lowlevel.Abort:
            # What was begun is finished: half a write is worse than a late cancellation.
            return trio.lowlevel.Abort.FAILED

        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def close(self) -> None:
        """Let the thread end after the calls that wait."""
        self._calls.put(None)
        self._thread.join()

    def _loop(self) -> None:
        adopt_deep_stack()
        while (call := self._calls.get()) is not None:
            began = time.perf_counter()
            result = outcome.capture(call.function)
            self._timed(time.perf_counter() - began)
            try:
                call.token.run_sync_soon(trio.lowlevel.reschedule, call.task, result)
            except trio.RunFinishedError:
                continue
