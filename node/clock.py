"""The clock: the only place where the time comes from.

Whatever judges gets the time as an argument; the node reads it here and passes it on.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a node needs to know of time."""

    @property
    def started(self) -> int:
        """When this process began to count, in whole seconds since 1970. It votes on no ask from before."""
        ...

    def now(self) -> int:
        """Whole seconds since 1970-01-01T00:00:00Z. It may jump when the machine's clock is set."""
        ...

    def seconds(self) -> float:
        """As `now`, with the fraction: for what is done again after a while, never for what is signed."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment, never backwards: for durations and deadlines."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        self._started = self.now()

    @property
    def started(self) -> int:
        return self._started

    def now(self) -> int:
        return time.time_ns() // 1_000_000_000

    def seconds(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved: for tests, simulations and dry runs."""

    __slots__ = ("_elapsed", "_now", "_started")

    def __init__(self, now: int, *, started: int | None = None) -> None:
        self._now = now
        self._started = now if started is None else started
        self._elapsed = 0.0

    @property
    def started(self) -> int:
        return self._started

    def now(self) -> int:
        return self._now + int(self._elapsed)

    def seconds(self) -> float:
        return self._now + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass, for both clocks.

        Raises:
            ValueError: `seconds` is negative. Only `set_now` turns a clock back, as an operator would.
        """
        if seconds < 0:
            raise ValueError(f"time passes forwards, not by {seconds} s")
        self._elapsed += seconds

    def set_now(self, now: int) -> None:
        """Set the time of day, forwards or back. Durations do not notice."""
        self._now = now - int(self._elapsed)
